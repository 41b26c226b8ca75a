//! Every `unsafe` of this crate, one kind of system call per file, behind functions that are safe to call.
pub(crate) mod code;
pub mod event;
pub mod inherited;
pub(crate) mod message;
pub mod poll;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod tun;

use std::io;

/// The result of a system call that returns -1 and sets `errno` on failure.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
