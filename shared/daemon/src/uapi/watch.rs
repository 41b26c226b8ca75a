//! Waiting for a file to change.
#![expect(
    unsafe_code,
    reason = "tokio wants a promise about the descriptor it polls"
)]
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Events of one file (`inotify(7)`).
#[derive(Debug)]
pub(super) struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watch the file at `path`. Removing the file of a bound socket shows as `ATTRIB`: its link count changes, while the
    /// socket keeps the inode alive, so that `DELETE_SELF` does not come.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&inotify, path, flags)?;
        // SAFETY: an `OwnedFd` is open, gives the same descriptor each time, and closes when the `AsyncFd` is dropped.
        let events = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?;
        Ok(Self { events })
    }

    /// Wait until something happened to the file since the last call. Cancel-safe.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let read = |inotify: &OwnedFd| {
            let mut events = [0; 1024]; // which they are is not asked
            Ok(rustix::io::read(inotify, &mut events)?)
        };
        self.events.async_io(Interest::READABLE, read).await?;
        Ok(())
    }
}
