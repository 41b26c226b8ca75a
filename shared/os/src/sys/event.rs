//! `eventfd(2)`: wakes a thread that waits with a [`Poller`](super::poll::Poller).
#![expect(unsafe_code, reason = "eventfd has no safe form")]
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// A flag that is raised by one thread and waited for by another.
#[derive(Debug)]
pub struct Event(File);

impl Event {
    /// A flag that is down.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes its arguments by value.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(File::from(fd)))
    }

    /// Raise the flag. The only error is a counter near 2^64 (`EAGAIN`), with which it is raised too.
    pub fn raise(&self) {
        let _raised = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Lower the flag; returns whether it was up.
    pub fn lower(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
