//! A network namespace of one's own for a closure: for tests that talk to the real kernel.
use std::{io, process::Command, thread};

use crate::sys::process as syscall;

/// The variable that lets kernel tests pass without doing anything where they can't run.
pub const UNPRIVILEGED: &str = "WG_EDGE_UNPRIVILEGED";

/// Runs `test` on a new thread in a new network namespace with `lo` up. The namespace goes with the thread and whatever it
/// left open. Programs that `test` starts inherit the namespace; `/proc/sys/net` follows the thread.
///
/// # Panics
/// When the namespace can't be made, with one line that says what is missing; but with `WG_EDGE_UNPRIVILEGED=1` in the
/// environment it then prints that the test did not run and returns `None`. When `test` panics, so does this.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
#[expect(
    clippy::panic,
    reason = "for tests: a kernel test that can't run has failed"
)]
pub fn run<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let in_namespace = || enter().map(|()| test());
        match scope.spawn(in_namespace).join() {
            Ok(Ok(result)) => Some(result),
            Ok(Err(error)) if std::env::var_os(UNPRIVILEGED).is_some_and(|value| value == "1") => {
                eprintln!("unprivileged run: no network namespace, nothing was tested ({error})");
                None
            }
            Ok(Err(error)) => panic!(
                "this test needs root to make a network namespace ({error}); {UNPRIVILEGED}=1 skips it"
            ),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn enter() -> io::Result<()> {
    syscall::unshare_network()?;
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("`ip link set lo up` failed"))
    }
}
