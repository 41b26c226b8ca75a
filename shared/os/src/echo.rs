//! ICMP echo: one socket for one destination, nonblocking.
//!
//! A "ping socket" (`SOCK_DGRAM`) where `net.ipv4.ping_group_range` lets this process's group have one, else a raw one, which takes
//! `CAP_NET_RAW`. Its packets must not be fragmented and are as large as one wishes: they tell how much a path carries.
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use crate::random;

/// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443 §4.1).
const HEADER: usize = 8;
/// What answers of ours are known by: others on this host may ask the same destination.
const TOKEN: usize = 8;
/// The largest packet that is asked for.
pub const LARGEST: usize = 9216;

/// What is sent and received on such a socket.
#[derive(Debug)]
pub struct Echo {
    is_ipv4: bool,
    /// Answers begin with an IP header.
    with_header: bool,
    token: [u8; TOKEN],
}

/// A socket for echoes of `destination`, and its messages. To the runtime it is a datagram socket like others.
///
/// # Errors
/// Neither kind of socket is allowed ([`io::ErrorKind::PermissionDenied`]), or there is no route.
pub fn open(destination: IpAddr) -> io::Result<(UdpSocket, Echo)> {
    let (family, protocol) = match destination {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let make = |kind| socket_with(family, kind, flags, Some(protocol));
    let (fd, is_raw) = match make(SocketType::DGRAM) {
        Ok(fd) => (fd, false),
        Err(_) => (make(SocketType::RAW)?, true),
    };
    match destination {
        IpAddr::V4(_) => set_ip_mtu_discover(&fd, Ipv4PathMtuDiscovery::PROBE)?,
        IpAddr::V6(_) => set_ipv6_mtu_discover(&fd, Ipv6PathMtuDiscovery::PROBE)?,
    }
    connect(&fd, &SocketAddr::new(destination, 0))?;
    let echo = Echo {
        is_ipv4: destination.is_ipv4(),
        with_header: is_raw && destination.is_ipv4(),
        token: random::bytes().map_err(io::Error::other)?,
    };
    Ok((UdpSocket::from(fd), echo))
}

impl Echo {
    /// What asks for an echo with a packet of this many bytes, IP header included. A length that is less than an echo takes is taken
    /// for that.
    pub fn request(&self, sequence: u16, packet_len: u16) -> Vec<u8> {
        let ip_header = if self.is_ipv4 { 20 } else { 40 };
        let length = usize::from(packet_len).saturating_sub(ip_header);
        let kind = if self.is_ipv4 { 8 } else { 128 };
        let mut message = vec![kind, 0, 0, 0, 0, 0];
        message.extend(sequence.to_be_bytes());
        message.extend(self.token);
        message.resize(length.clamp(HEADER + TOKEN, LARGEST), 0);
        if self.is_ipv4 {
            // Of ICMPv6 the kernel does it, since the checksum covers addresses (RFC 3542 §3.1).
            let [high, low] = checksum(&message).to_be_bytes();
            if let Some(field) = message.get_mut(2..4) {
                field.copy_from_slice(&[high, low]);
            }
        }
        message
    }

    /// The sequence number of an answer; `None` for what is no answer to us.
    pub fn answer(&self, packet: &[u8]) -> Option<u16> {
        let header = if self.with_header {
            usize::from(packet.first()? & 0x0f) * 4
        } else {
            0
        };
        let message = packet.get(header..)?;
        let wanted = if self.is_ipv4 { 0 } else { 129 };
        let token = message.get(HEADER..HEADER + TOKEN)?;
        let sequence = message.get(6..8)?.try_into().ok()?;
        (*message.first()? == wanted && token == self.token).then(|| u16::from_be_bytes(sequence))
    }
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in message.chunks(2) {
        let high = pair.first().copied().unwrap_or_default();
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::netns;

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        // RFC 1071 §3.
        assert_eq!(
            !checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        let mut message = vec![8, 0, 0, 0, 1, 2, 3];
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn this_host_answers_packets_of_the_size_that_was_asked_for() {
        netns::run(|| {
            for destination in ["127.0.0.1", "::1"] {
                let (socket, echo) = open(destination.parse().unwrap()).unwrap();
                socket.set_nonblocking(false).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(2)))
                    .unwrap();
                let mut buffer = [0; LARGEST];
                for (sequence, packet_len) in [(1, 64), (2, 1420)] {
                    let request = echo.request(sequence, packet_len);
                    let header = if echo.is_ipv4 { 20 } else { 40 };
                    assert_eq!(request.len(), usize::from(packet_len) - header);
                    socket.send(&request).unwrap();
                    // A raw socket sees the requests to this host, too.
                    let answer = std::iter::repeat_with(|| {
                        let length = socket.recv(&mut buffer).unwrap();
                        echo.answer(&buffer[..length])
                    });
                    assert_eq!(answer.flatten().next(), Some(sequence), "{destination}");
                }
                let mut foreign = echo.request(3, 64);
                foreign[0] = if echo.is_ipv4 { 0 } else { 129 };
                let header = if echo.with_header {
                    vec![0x45; 20]
                } else {
                    Vec::new()
                };
                let packet = |message: &[u8]| [&header, message].concat();
                assert_eq!(echo.answer(&packet(&foreign)), Some(3));
                foreign[9] ^= 1;
                assert_eq!(echo.answer(&packet(&foreign)), None);
            }
        });
    }
}
