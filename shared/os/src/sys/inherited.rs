//! File descriptors that the service manager opened this process with (`sd_listen_fds(3)`).
#![expect(
    unsafe_code,
    reason = "a number from the environment becomes a descriptor that is owned"
)]
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// They have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// All of them with their names, the first time; none after that, or when there is no service manager. They are closed on
/// exec.
///
/// # Errors
/// The environment contradicts itself, or names descriptors that are not open.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    // The variables stay: other threads may read the environment meanwhile, and this process starts no other one.
    let inherited = sd_notify::listen_fds_with_names(false)?;
    Ok(inherited
        .map(|(fd, name)| {
            // SAFETY: the descriptor is open, or `listen_fds_with_names` had failed to set its flags; it was opened for this
            // process and before it, so that nothing here has it, and no second call gives it away again.
            (name, unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect())
}
