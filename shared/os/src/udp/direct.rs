//! A socket of its own for a line that carries datagrams one by one.
//!
//! It is connected, so that the kernel knows the way and does not look for it for each datagram, in either direction. Beside it
//! the sockets of the families go on to receive from everybody else, and to send what does not go alone.
//!
//! Nothing is lost and nothing overtaken when a line gets such a socket or loses it:
//!
//! - what came before is in the socket of the family and is received first (`receive_older`);
//! - between [`bind`] and [`connect`] it hears everybody, so who sent a datagram is read from each;
//! - before it is closed it is connected to itself, which nobody else can send from. What it holds is then received
//!   ([`Sockets::receive_left`](super::Sockets::receive_left)), before what comes after to the socket of the family.
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{SendFlags, bind, connect, send, sockopt};
use shared::wg::Path;

use super::bind::{enlarge_buffers, probe, set_mark};
use super::{Family, Options, SOCKET_BUFFER};
use crate::sys::socket::{set_option, udp};

/// Datagrams in a row that went alone to one place before it gets a socket of its own.
pub(super) const ALONE_BEFORE: u32 = 32;

/// Datagrams that a socket of everybody can hold: the kernel doubles the size asked for, and counts 512 bytes and more for each.
/// There may always be more in it while strangers flood it; older than the line's own socket those are not.
const OLDER_DATAGRAMS: u32 = 2 * SOCKET_BUFFER.unsigned_abs() / 512;

/// A connected socket at the port of the others.
#[derive(Debug)]
pub(crate) struct Direct {
    pub(super) fd: OwnedFd,
    /// Where its datagrams come from and go to.
    pub(super) path: Path,
    /// What it is bound to.
    local: SocketAddr,
    /// What may be older than anything in this socket and has to be received before: as many datagrams, at most, from the socket
    /// of the family.
    pub(super) older: u32,
}

impl Direct {
    /// One at the port of `beside`, which are all that have it.
    #[cold]
    #[inline(never)]
    pub(super) fn connect(
        beside: &[BorrowedFd<'_>],
        path: Path,
        options: Options,
    ) -> io::Result<Self> {
        let family = Family::of(path.remote);
        let local = local_end(path, options.port).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let fd = udp(family.number())?;
        family.prepare_connected(fd.as_fd())?;
        set_mark(fd.as_fd(), options.fwmark).map_err(io::Error::other)?;
        enlarge_buffers(fd.as_fd());
        // Sockets may have one port if all say so when another one asks for it. Only ours does: what another program asks for
        // before and after is refused, as it has to be.
        let reuse = |on| {
            let mut fds = beside.iter().copied().chain([fd.as_fd()]);
            fds.try_for_each(|fd| set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, on))
        };
        reuse(1)?;
        let bound = bind(&fd, &local);
        reuse(0)?;
        bound?;
        connect(&fd, &path.remote)?;
        let _offloads = probe(fd.as_fd(), options.limits);
        Ok(Self {
            fd,
            path,
            local,
            older: OLDER_DATAGRAMS,
        })
    }

    /// Receive nothing more beside what is there. Returns whether that is so.
    #[cold]
    pub(super) fn silence(&self) -> bool {
        let silent = connect(&self.fd, &self.local).is_ok();
        // An error that waits would be told in place of a datagram.
        let _told = sockopt::socket_error(&self.fd);
        silent
    }

    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        send(&self.fd, datagram, SendFlags::empty()).is_ok()
    }
}

/// What a socket for the line is bound to; `None` when it is not known which address of ours the line goes to. At any address it
/// would not learn that.
fn local_end(path: Path, port: u16) -> Option<SocketAddr> {
    let local = SocketAddr::new(path.local?, port);
    (local.is_ipv4() == path.remote.is_ipv4()).then_some(local)
}
