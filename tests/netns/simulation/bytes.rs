//! Packets as bytes, with a token at their end by which they are known again.
use std::net::IpAddr;

use shared::simulate::{Packet, Payload};
use shared::wire::checksum::{Sum, pseudo_header};
use shared::wire::{ipv4, ipv6, protocol, tcp, udp};

const HOP_LIMIT: u8 = 64;
/// Sequence number of whoever opens a connection, and of whoever answers.
const SEQUENCE: u32 = 1000;
/// RFC 9293 §3.1.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The packet, with valid checksums.
pub(super) fn build(packet: &Packet, is_answer: bool, token: u32) -> Vec<u8> {
    let (number, mut transport) = match packet.payload {
        Payload::Tcp {
            source_port,
            destination_port,
            ..
        } => {
            let mut header = [source_port, destination_port]
                .map(u16::to_be_bytes)
                .concat();
            let acknowledged = if is_answer { SEQUENCE + 1 } else { 0 };
            header.extend(SEQUENCE.to_be_bytes());
            header.extend(acknowledged.to_be_bytes());
            let flags = if is_answer { SYN | ACK } else { SYN };
            header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            (protocol::TCP, header)
        }
        Payload::Udp {
            source_port,
            destination_port,
        } => {
            let length = u16::try_from(udp::HEADER_LEN + 4).expect("a few bytes");
            let header = [source_port, destination_port, length, 0];
            (protocol::UDP, header.map(u16::to_be_bytes).concat())
        }
        Payload::Icmp(_) => unreachable!("none is sent here"),
    };
    transport.extend(token.to_be_bytes());
    let length = u16::try_from(transport.len()).expect("a few bytes");
    let (mut bytes, addresses) = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let total = length + u16::try_from(ipv4::HEADER_LEN).expect("20");
            let mut header = vec![0x45, 0];
            header.extend(total.to_be_bytes());
            header.extend([0, 0, 0x40, 0, HOP_LIMIT, number, 0, 0]);
            header.extend(&addresses);
            let sum = Sum::default().bytes(&header).checksum();
            header.splice(10..12, sum.to_be_bytes());
            (header, addresses)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([number, HOP_LIMIT]);
            header.extend(&addresses);
            (header, addresses)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both are of one family")
        }
    };
    let sum = pseudo_header(&addresses, number, u32::from(length)).bytes(&transport);
    let sum = match sum.checksum() {
        0 => 0xffff,
        sum => sum,
    };
    if number == protocol::TCP {
        tcp::put_checksum(&mut transport, sum);
    } else {
        udp::put_checksum(&mut transport, sum);
    }
    bytes.extend(transport);
    bytes
}

/// The token at the end of some bytes.
pub(super) fn token(bytes: &[u8]) -> Option<u32> {
    bytes.last_chunk().copied().map(u32::from_be_bytes)
}

/// The packet; `None` when it is none of TCP or UDP.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet> {
    let address = |at: usize, length: usize| -> Option<IpAddr> {
        let octets = bytes.get(at..at + length)?;
        match length {
            4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        }
    };
    let (source, destination, number, at) = match bytes.first()? >> 4 {
        4 => (
            address(12, 4)?,
            address(16, 4)?,
            *bytes.get(9)?,
            ipv4::HEADER_LEN,
        ),
        _ => (
            address(8, 16)?,
            address(24, 16)?,
            *bytes.get(6)?,
            ipv6::HEADER_LEN,
        ),
    };
    let port = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (source_port, destination_port) = (port(at)?, port(at + 2)?);
    let payload = match number {
        protocol::TCP => Payload::Tcp {
            source_port,
            destination_port,
            syn: bytes.get(at + 13)? & SYN != 0,
        },
        protocol::UDP => Payload::Udp {
            source_port,
            destination_port,
        },
        _ => return None,
    };
    Some(Packet {
        source,
        destination,
        payload,
    })
}
