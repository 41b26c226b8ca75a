//! What systemd is for a daemon: a socket that hears it, and a place for what is to outlive it.
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tests::edge::Start;
use tests::expect::{eventually, holds};

/// A service manager, and what it has heard.
pub(crate) struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    heard: Vec<String>,
    /// The descriptors that it was given with these lines.
    kept: Vec<OwnedFd>,
}

impl Manager {
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            path: path.to_owned(),
            socket,
            heard: Vec::new(),
            kept: Vec::new(),
        })
    }

    /// How a daemon is started by this one, with more shell words before its own: `$$` is its process id.
    pub(crate) fn start(&self, more: &str) -> Start {
        // The process id is part of what systemd says; the shell knows its own, and becomes the daemon.
        let script = format!(
            "export NOTIFY_SOCKET={}; {more}\nexec \"$@\"",
            self.path.display()
        );
        let by = ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec();
        Start {
            by,
            ..Start::default()
        }
    }

    /// The same with a descriptor that was kept, as systemd hands it over.
    pub(crate) fn start_with_kept(&self, name: &str, kept: &OwnedFd) -> Result<Start> {
        // For the shell, which puts it where it belongs.
        fcntl_setfd(kept, FdFlags::empty())?;
        let number = kept.as_raw_fd();
        Ok(self.start(&format!(
            "exec 3<&{number}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}"
        )))
    }

    /// All lines so far.
    pub(crate) fn heard(&mut self) -> Result<&[String]> {
        let mut message = [0; 4096];
        loop {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut room);
            let mut parts = [IoSliceMut::new(&mut message)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let length = match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Ok(received) => received.bytes,
                Err(Errno::AGAIN) => return Ok(&self.heard),
                Err(error) => return Err(error.into()),
            };
            for with in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = with {
                    self.kept.extend(descriptors);
                }
            }
            let text = message.get(..length).unwrap_or_default();
            let text = String::from_utf8_lossy(text).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    pub(crate) fn count(&mut self, line: &str) -> Result<usize> {
        Ok(self.heard()?.iter().filter(|heard| *heard == line).count())
    }

    /// What it was given to keep since this was last asked.
    pub(crate) fn take_kept(&mut self) -> Result<Vec<OwnedFd>> {
        self.heard()?;
        Ok(std::mem::take(&mut self.kept))
    }

    pub(crate) fn signs_of_life(&mut self) -> Result<usize> {
        self.count("WATCHDOG=1")
    }

    /// Wait for so many more signs of life; how long that took.
    pub(crate) fn wait_for_signs(&mut self, more: usize, patience: Duration) -> Result<Duration> {
        let (start, before) = (Instant::now(), self.signs_of_life()?);
        eventually(patience, "signs of life", || {
            let now = self.signs_of_life()?;
            holds(now >= before + more, || format!("{before}, then {now}"))
        })?;
        Ok(start.elapsed())
    }
}
