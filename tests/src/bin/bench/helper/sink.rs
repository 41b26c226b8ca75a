//! Where datagrams and connections end.
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result};
use nix::libc::linger;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Linger, RcvBuf};

/// The least that the kernel gives: what is queued here is never read.
const SOCKET_BUFFER: usize = 4096;

/// Serve until somebody ends it.
///
/// Datagrams are counted by the kernel when they reach the socket, read or not, so that no reader is measured. A
/// connection is closed with a reset: neither side keeps its ports in TIME-WAIT, and connection tracking forgets it
/// soon.
pub(super) fn run(udp: u16, tcp: u16) -> Result<String> {
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, udp))
        .with_context(|| format!("can't listen on UDP port {udp}"))?;
    setsockopt(&datagrams, RcvBuf, &SOCKET_BUFFER)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, tcp))
        .with_context(|| format!("can't listen on TCP port {tcp}"))?;
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    loop {
        // A caller that is gone already is of no matter.
        if let Ok((connection, _)) = listener.accept() {
            let _ = setsockopt(&connection, Linger, &at_once);
        }
    }
}
