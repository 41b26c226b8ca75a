//! A socket of its own for a line that carries datagrams one by one.
//!
//! It is connected, so that the kernel knows the way and does not look for it for each datagram, in either direction. Beside it
//! the sockets of the families go on to receive from everybody else, and to send what does not go alone.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{SendFlags, bind, connect, send};
use shared::wg::Path;

use super::bind::{enlarge_buffers, probe, set_mark};
use super::{Family, Options, Socket};
use crate::sys::socket::{set_option, udp};

/// Datagrams in a row that went alone to one place before it gets a socket of its own.
pub(super) const ALONE_BEFORE: u32 = 32;

/// A connected socket at the port of the others.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(super) fd: OwnedFd,
    /// Where its datagrams come from and go to.
    pub(super) path: Path,
}

impl Direct {
    /// One at the port of `beside`.
    #[cold]
    #[inline(never)]
    pub(super) fn connect(beside: &Socket, path: Path, options: Options) -> io::Result<Self> {
        let family = Family::of(path.remote);
        let fd = udp(family.number())?;
        family.prepare_connected(fd.as_fd())?;
        set_mark(fd.as_fd(), options.fwmark).map_err(io::Error::other)?;
        enlarge_buffers(fd.as_fd());
        let local = path.local.map_or_else(
            || family.any(options.port),
            |local| SocketAddr::new(local, options.port),
        );
        // Two sockets may have a port if both say so when the second one asks for it. Only ours does: what another program
        // asks for before and after is refused, as it has to be.
        let reuse = |fd, on| set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, on);
        reuse(fd.as_fd(), 1)?;
        reuse(beside.fd.as_fd(), 1)?;
        let bound = bind(&fd, &local);
        reuse(fd.as_fd(), 0)?;
        reuse(beside.fd.as_fd(), 0)?;
        bound?;
        connect(&fd, &path.remote)?;
        let _offloads = probe(fd.as_fd(), options.limits);
        Ok(Self { fd, path })
    }

    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        send(&self.fd, datagram, SendFlags::empty()).is_ok()
    }
}

/// Whether a socket can be at both ends: they are of one family, or ours is not known.
pub(super) const fn fits(path: &Path) -> bool {
    matches!(
        (path.remote, path.local),
        (SocketAddr::V4(_), None | Some(IpAddr::V4(_)))
            | (SocketAddr::V6(_), None | Some(IpAddr::V6(_)))
    )
}
