//! A UDP datagram as the IP packet that goes through the tunnel (RFC 791, RFC 8200, RFC 768).
use std::net::{IpAddr, SocketAddr};

use crate::wire::checksum::{Sum, pseudo_header};
use crate::wire::{ipv4, ipv6, udp};

const UDP: u8 = 17;
/// As Linux has it (`net.ipv4.ip_default_ttl`).
const HOP_LIMIT: u8 = 64;

/// The packet. Both addresses are of one family.
pub(super) fn build(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(udp::HEADER_LEN + payload.len()).ok()?;
    let mut datagram = Vec::with_capacity(usize::from(length));
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let (mut packet, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let total = length.checked_add(u16::try_from(ipv4::HEADER_LEN).ok()?)?;
            let mut header = vec![0x45, 0];
            header.extend(total.to_be_bytes());
            header.extend([0, 0, 0x40, 0, HOP_LIMIT, UDP, 0, 0]); // don't fragment
            header.extend(&addresses);
            let sum = Sum::default().bytes(&header).checksum();
            header.splice(10..12, sum.to_be_bytes());
            (header, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([UDP, HOP_LIMIT]);
            header.extend(&addresses);
            (header, addresses)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let sum = pseudo_header(&addresses, UDP, u32::from(length)).bytes(&datagram);
    // A sum of zero means "none" (RFC 768).
    let sum = match sum.checksum() {
        0 => 0xffff,
        sum => sum,
    };
    udp::put_checksum(&mut datagram, sum);
    packet.extend(datagram);
    Some(packet)
}

/// What a packet of `from` to `to` carries; `None` for every other packet. The tunnel has authenticated it: its checksum can
/// tell nothing more.
pub(super) fn payload_of(packet: &[u8], from: SocketAddr, to: SocketAddr) -> Option<&[u8]> {
    let (addresses, transport) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet = ipv4::Packet::parse(packet)?;
            if packet.protocol() != UDP || packet.is_fragment() {
                return None;
            }
            let expected = [from.octets(), to.octets()].concat();
            let transport = packet.bytes().get(packet.header_len()..)?;
            (packet.addresses() == expected, transport)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let packet = ipv6::Packet::parse(packet)?;
            let transport = packet.transport().filter(|t| t.protocol == UDP)?;
            let expected = [from.octets(), to.octets()].concat();
            let transport = packet.bytes().get(transport.offset..)?;
            (packet.addresses() == expected, transport)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let datagram = udp::Datagram::parse(transport)?;
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    (addresses && datagram.ports() == ports[..]).then(|| transport.get(udp::HEADER_LEN..))?
}
