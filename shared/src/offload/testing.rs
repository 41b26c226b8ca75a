//! Packets for the tests of both directions.
use super::vnet_hdr::{GsoKind, VnetHdr};
use crate::wire::checksum::{Sum, pseudo_header};
use crate::wire::{ipv4, ipv6, tcp};

/// Network and transport of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

/// What a test packet is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) form: Form,
    /// Last byte of the source address, and low byte of the source port.
    pub(crate) flow: u8,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) tcp_flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            form: Form::Tcp4,
            flow: 1,
            identification: 0x1234,
            dont_fragment: true,
            tos: 0,
            ttl: 64,
            sequence: 1,
            acknowledgment: 7,
            tcp_flags: tcp::flags::ACK,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: b"payload".to_vec(),
        }
    }
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    pub(crate) fn is_ipv4(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Udp4)
    }

    pub(crate) fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }

    pub(crate) fn transport_offset(self) -> usize {
        if self.is_ipv4() {
            ipv4::HEADER_LEN
        } else {
            ipv6::HEADER_LEN
        }
    }

    pub(crate) fn checksum_offset(self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }

    /// With the options of [`Parts::default`].
    pub(crate) fn headers_len(self) -> usize {
        self.transport_offset() + if self.is_tcp() { 32 } else { 8 }
    }

    fn protocol(self) -> u8 {
        if self.is_tcp() { 6 } else { 17 }
    }

    pub(crate) fn pseudo_header(self, packet: &[u8]) -> Sum {
        let addresses = if self.is_ipv4() { 12..20 } else { 8..40 };
        let length = u32::try_from(packet.len() - self.transport_offset()).unwrap();
        pseudo_header(&packet[addresses], self.protocol(), length)
    }
}

/// A whole packet with valid checksums, made field by field with none of the code under test but the sum.
pub(crate) fn packet(parts: &Parts) -> Vec<u8> {
    let mut message = vec![0x30, parts.flow, 0x01, 0xbb];
    if parts.form.is_tcp() {
        message.extend(parts.sequence.to_be_bytes());
        message.extend(parts.acknowledgment.to_be_bytes());
        let words = u8::try_from(5 + parts.options.len() / 4).unwrap();
        message.extend([words << 4, parts.tcp_flags, 0x7f, 0xff, 0, 0, 0, 0]);
        message.extend(&parts.options);
    } else {
        let length = u16::try_from(8 + parts.payload.len()).unwrap();
        message.extend(length.to_be_bytes());
        message.extend([0, 0]);
    }
    message.extend(&parts.payload);
    let mut packet = if parts.form.is_ipv4() {
        ipv4_header(parts, message.len())
    } else {
        ipv6_header(parts, message.len())
    };
    packet.extend(&message);
    let sum = parts.form.pseudo_header(&packet).bytes(&message).checksum();
    // RFC 768: for UDP zero would mean "none". TCP senders use either zero; this one the plain one.
    let sum = if sum == 0 && !parts.form.is_tcp() {
        0xffff
    } else {
        sum
    };
    let field = parts.form.transport_offset() + parts.form.checksum_offset();
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn ipv4_header(parts: &Parts, message_len: usize) -> Vec<u8> {
    let total = u16::try_from(20 + message_len).unwrap();
    let mut header = vec![0x45, parts.tos];
    header.extend(total.to_be_bytes());
    header.extend(parts.identification.to_be_bytes());
    let flags = if parts.dont_fragment { 0x40 } else { 0 };
    header.extend([flags, 0, parts.ttl, parts.form.protocol(), 0, 0]);
    header.extend([10, 0, 0, parts.flow, 10, 0, 1, 1]);
    let sum = Sum::default().bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6_header(parts: &Parts, message_len: usize) -> Vec<u8> {
    let mut header = vec![0x60 | parts.tos >> 4, parts.tos << 4, 0, 0];
    header.extend(u16::try_from(message_len).unwrap().to_be_bytes());
    header.extend([parts.form.protocol(), parts.ttl]);
    header.extend([0xfd; 15]);
    header.extend([parts.flow]);
    header.extend([0xfe; 16]);
    header
}

/// The frame in which the kernel hands over this payload in segments of `size` bytes.
pub(crate) fn super_frame(parts: &Parts, size: u16) -> Vec<u8> {
    let mut packet = packet(parts);
    let offset = parts.form.transport_offset();
    let field = offset + parts.form.checksum_offset();
    let sum = parts.form.pseudo_header(&packet).folded();
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let header = VnetHdr {
        needs_csum: true,
        gso: match parts.form {
            Form::Tcp4 => GsoKind::Tcp4,
            Form::Tcp6 => GsoKind::Tcp6,
            Form::Udp4 | Form::Udp6 => GsoKind::UdpL4,
        },
        hdr_len: u16::try_from(packet.len() - parts.payload.len()).unwrap(),
        gso_size: size,
        csum_start: u16::try_from(offset).unwrap(),
        csum_offset: u16::try_from(parts.form.checksum_offset()).unwrap(),
    };
    [&header.to_bytes()[..], &packet].concat()
}

/// Whether the checksums of IP header and transport are right.
pub(crate) fn checksums_are_valid(packet: &[u8]) -> bool {
    let (addresses, offset, protocol, header_is_valid) = if packet[0] >> 4 == 4 {
        let header_sum = Sum::default().bytes(&packet[..20]).folded();
        (12..20, 20, packet[9], header_sum == 0xffff)
    } else {
        (8..40, 40, packet[6], true)
    };
    let message = &packet[offset..];
    let length = u32::try_from(message.len()).unwrap();
    let sum = pseudo_header(&packet[addresses], protocol, length).bytes(message);
    header_is_valid && sum.folded() == 0xffff
}
