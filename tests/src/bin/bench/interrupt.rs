//! Worlds are removed also when somebody ends the benchmark with a signal.
use std::process::exit;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use tests::topology::{Topology, remove_world};

use crate::preference;

/// What there is to be removed; `None` once that has begun.
static WORLDS: Mutex<Option<Vec<String>>> = Mutex::new(Some(Vec::new()));

/// Take care of signals from now on. To be called before any other thread is started, since those inherit which signals
/// are blocked; programs that are started do not (the standard library gives them an empty mask).
pub(crate) fn watch() -> Result<()> {
    let mut ending = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ending.add(signal);
    }
    ending.thread_block()?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || end(ending.wait()))?;
    Ok(())
}

/// An empty world that is removed on a signal, too.
pub(crate) fn new_topology() -> Result<Topology> {
    let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(worlds) = worlds.as_mut() else {
        bail!("the benchmark is being ended");
    };
    let topology = Topology::new()?;
    let name = topology.dir().file_name().and_then(|name| name.to_str());
    worlds.push(name.context("a world without a name")?.to_owned());
    Ok(topology)
}

#[expect(clippy::exit, reason = "the main thread waits for a program or sleeps")]
fn end(signal: nix::Result<Signal>) {
    let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
    for world in worlds.take().unwrap_or_default() {
        // One that is gone already has nothing to remove; the next start sweeps what can't be removed now.
        let _ = remove_world(&world);
    }
    preference::restore();
    exit(128 + signal.map_or(0, |signal| signal as i32));
}

/// Wait for the end if a signal has begun it: nobody else may end the process before the worlds are gone.
pub(crate) fn settle() {
    drop(WORLDS.lock());
}
