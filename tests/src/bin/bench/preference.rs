//! What others do on the machine must not decide how a measurement ends: the scheduler prefers our sessions.
//!
//! `sched(7)`: with autogroups the niceness of a session counts, and that of its processes only among themselves.
use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};

/// Before everything else on the machine.
const FIRST: &str = "-20";

/// Niceness that our own session had: the shell that we were started from goes on with it.
static BEFORE: Mutex<Option<String>> = Mutex::new(None);

/// Prefer the session of a daemon.
pub(crate) fn prefer(pid: i32) -> Result<()> {
    if fs::write(format!("/proc/{pid}/autogroup"), FIRST).is_ok() {
        return Ok(());
    }
    // A kernel without autogroups weighs processes.
    let status = Command::new("renice")
        .args(["-n", FIRST, "-p", &pid.to_string()])
        .status()
        .context("can't start renice")?;
    ensure!(status.success(), "`renice` of {pid} failed");
    Ok(())
}

/// Prefer the session of this process, until [`restore`].
pub(crate) fn prefer_own() -> Result<()> {
    let now = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    let niceness = now.split_whitespace().last().map(str::to_owned);
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = niceness;
    prefer(i32::try_from(std::process::id())?)
}

/// Let the session of this process be what it was.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(niceness) = before {
        let _ = fs::write("/proc/self/autogroup", niceness); // where there is none, none was changed
    }
}
