//! A plain UDP socket that knows whom it talks to: the kernel says by which way that is, and whether nobody listens there.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;

use crate::sys::socket::set_option;

/// A nonblocking socket whose datagrams go to `destination`, with this mark (0 is none), as those of the tunnel do. Its local address
/// is the one that the kernel's routes and rules choose. Nothing is sent yet.
///
/// # Errors
/// There is no way to `destination`, or no permission to mark.
pub fn connected(destination: SocketAddr, fwmark: u32) -> io::Result<UdpSocket> {
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    if fwmark != 0 {
        let mark = libc::c_int::from_ne_bytes(fwmark.to_ne_bytes());
        set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark)?;
    }
    socket.connect(destination)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;

    #[test]
    fn where_there_is_no_route_there_is_no_socket() {
        netns::run(|| {
            let loopback = connected("127.0.0.1:9".parse().unwrap(), 7).unwrap();
            assert_eq!(loopback.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
            let error = connected("203.0.113.10:51820".parse().unwrap(), 0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        });
    }
}
