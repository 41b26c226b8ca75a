//! What a packet is to the coalescer: its flow, the shape of its headers, and what of them must be alike.
use super::{CoalesceKinds, SuperKind};
use crate::offload::vnet_hdr::{GsoKind, VNET_HDR_LEN, VnetHdr};
use crate::wire::checksum::{Sum, pseudo_header};
use crate::wire::{be16, ipv4, ipv6, protocol, tcp, udp};

/// What packets of one flow have in common. For fragments and protocols without ports `ports` is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    version: u8,
    addresses: [u8; 32],
    ports: Option<(u8, [u8; 4])>,
}

/// A packet that may be joined with its like.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) flow: Flow,
    pub(super) shape: Shape,
    pub(super) packet: &'a [u8],
    pub(super) header: Header<'a>,
    pub(super) identification: u16,
    /// TCP: of the first byte.
    pub(super) sequence: u32,
    pub(super) push: bool,
}

/// What must be alike in the headers of joined packets, beside the flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// IPv4: TOS, DF, TTL. IPv6: traffic class and flow label, hop limit.
    network: [u8; 6],
    acknowledgment: [u8; 4],
    offset_window_urgent: [u8; 5],
    options: &'a [u8],
}

/// What became of looking at a packet.
pub(super) enum Look<'a> {
    Joinable(Candidate<'a>),
    /// Must stay behind what came before of this flow.
    Alone(Flow),
    /// No IP packet.
    Unknown,
}

/// Where the parts of a packet that may be joined lie; of a group, that of its first packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) kind: SuperKind,
    pub(super) transport_offset: usize,
    pub(super) headers_len: usize,
    /// Bytes of payload: of a group, in each packet but the last.
    pub(super) segment_size: usize,
}

impl Flow {
    /// Whether a packet of `other` must not be overtaken by later ones of this flow. What has no ports, as a fragment,
    /// may belong to any flow between the same addresses.
    pub(super) fn is_touched_by(&self, other: &Self) -> bool {
        self.version == other.version
            && self.addresses == other.addresses
            && (other.ports.is_none() || other.ports == self.ports)
    }
}

impl<'a> Candidate<'a> {
    pub(super) fn parse(packet: &'a [u8], kinds: CoalesceKinds) -> Look<'a> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_ipv4(packet, kinds),
            Some(6) => Self::parse_ipv6(packet, kinds),
            _ => None,
        }
        .unwrap_or(Look::Unknown)
    }

    fn parse_ipv4(packet: &'a [u8], kinds: CoalesceKinds) -> Option<Look<'a>> {
        let ip = ipv4::Packet::parse(packet)?;
        let mut flow = Flow {
            version: 4,
            addresses: [0; 32],
            ports: None,
        };
        flow.addresses
            .first_chunk_mut::<8>()?
            .copy_from_slice(ip.addresses());
        let plain = ip.header_len() == ipv4::HEADER_LEN
            && ip.bytes().len() == packet.len()
            && ip.header_checksum_is_valid();
        if ip.is_fragment() || !plain {
            return Some(Look::Alone(flow));
        }
        Some(Self::parse_transport(
            packet,
            flow,
            ip.protocol(),
            ipv4::HEADER_LEN,
            kinds,
        ))
    }

    fn parse_ipv6(packet: &'a [u8], kinds: CoalesceKinds) -> Option<Look<'a>> {
        let ip = ipv6::Packet::parse(packet)?;
        let mut flow = Flow {
            version: 6,
            addresses: [0; 32],
            ports: None,
        };
        flow.addresses.copy_from_slice(ip.addresses());
        if ip.bytes().len() != packet.len() {
            return Some(Look::Alone(flow));
        }
        Some(Self::parse_transport(
            packet,
            flow,
            ip.next_header(),
            ipv6::HEADER_LEN,
            kinds,
        ))
    }

    fn parse_transport(
        packet: &'a [u8],
        mut flow: Flow,
        protocol: u8,
        transport_offset: usize,
        kinds: CoalesceKinds,
    ) -> Look<'a> {
        let message = packet.get(transport_offset..).unwrap_or_default();
        let (kind, transport_len, sequence, push, joinable) = match protocol {
            protocol::TCP => {
                let Some(segment) = tcp::Segment::parse(message) else {
                    return Look::Alone(flow);
                };
                flow.ports = Some((protocol, segment.ports()));
                let push = segment.flags() & tcp::flags::PSH != 0;
                let plain = segment.flags() & !tcp::flags::PSH == tcp::flags::ACK;
                (
                    SuperKind::Tcp,
                    segment.header_len(),
                    segment.sequence(),
                    push,
                    kinds.tcp && plain,
                )
            }
            protocol::UDP => {
                let Some(datagram) = udp::Datagram::parse(message) else {
                    return Look::Alone(flow);
                };
                flow.ports = Some((protocol, datagram.ports()));
                let joinable = kinds.udp && datagram.has_checksum();
                (SuperKind::Udp, udp::HEADER_LEN, 0, false, joinable)
            }
            _ => return Look::Alone(flow),
        };
        let headers_len = transport_offset + transport_len;
        let shape = Shape {
            kind,
            transport_offset,
            headers_len,
            segment_size: packet.len() - headers_len,
        };
        match Header::of(packet, shape) {
            Some(header) if joinable && shape.segment_size > 0 => Look::Joinable(Self {
                flow,
                shape,
                packet,
                header,
                identification: be16(packet, 4),
                sequence,
                push,
            }),
            _ => Look::Alone(flow),
        }
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        self.packet
            .get(self.shape.headers_len..)
            .unwrap_or_default()
    }

    /// Sequence number after this packet; UDP has none, there it stays 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a payload is below 2^16 bytes"
    )]
    pub(super) const fn next_sequence(&self) -> u32 {
        match self.shape.kind {
            SuperKind::Tcp => self.sequence.wrapping_add(self.shape.segment_size as u32),
            SuperKind::Udp => 0,
        }
    }

    /// Whether the kernel, which counts identifications up when it cuts, would make this one. Without meaning in packets
    /// with DF (RFC 6864 §4.1) and not there in IPv6.
    pub(super) const fn identification_follows(&self, expected: u16) -> bool {
        let [_, _, ipv4_flags, ..] = self.header.network;
        let dont_fragment = self.flow.version == 6 || ipv4_flags & 0x40 != 0;
        dont_fragment || self.identification == expected
    }
}

impl<'a> Header<'a> {
    pub(super) fn of(packet: &'a [u8], shape: Shape) -> Option<Self> {
        let network = match *packet.first_chunk::<9>()? {
            [first, tos, _, _, _, _, flags, _, ttl] if first >> 4 == 4 => {
                [first, tos, flags, ttl, 0, 0]
            }
            [a, b, c, d, _, _, _, hop_limit, _] => [a, b, c, d, hop_limit, 0],
        };
        let message = packet.get(shape.transport_offset..)?;
        Some(match shape.kind {
            SuperKind::Tcp => {
                let segment = tcp::Segment::parse(message)?;
                Self {
                    network,
                    acknowledgment: segment.acknowledgment(),
                    offset_window_urgent: segment.offset_window_urgent(),
                    options: segment.options(),
                }
            }
            SuperKind::Udp => Self {
                network,
                acknowledgment: [0; 4],
                offset_window_urgent: [0; 5],
                options: &[],
            },
        })
    }
}

impl Shape {
    const fn protocol(self) -> u8 {
        match self.kind {
            SuperKind::Tcp => protocol::TCP,
            SuperKind::Udp => protocol::UDP,
        }
    }

    /// Sum of the pseudo-header of a message of `length` bytes behind these headers.
    fn pseudo_header(self, headers: &[u8], length: usize) -> Sum {
        let addresses = match self.transport_offset {
            ipv6::HEADER_LEN => headers.get(8..40),
            _ => headers.get(12..20),
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        pseudo_header(addresses.unwrap_or_default(), self.protocol(), length)
    }

    pub(super) fn checksum_is_valid(self, packet: &[u8]) -> bool {
        let message = packet.get(self.transport_offset..).unwrap_or_default();
        let sum = self.pseudo_header(packet, message.len()).bytes(message);
        sum.folded() == 0xffff
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a group is not longer than MAX_PACKET"
    )]
    pub(super) const fn vnet_hdr(self, ipv6: bool) -> [u8; VNET_HDR_LEN] {
        let (gso, csum_offset) = match (self.kind, ipv6) {
            (SuperKind::Tcp, false) => (GsoKind::Tcp4, tcp::CHECKSUM_OFFSET),
            (SuperKind::Tcp, true) => (GsoKind::Tcp6, tcp::CHECKSUM_OFFSET),
            (SuperKind::Udp, _) => (GsoKind::UdpL4, udp::CHECKSUM_OFFSET),
        };
        VnetHdr {
            needs_csum: true,
            gso,
            hdr_len: self.headers_len as u16,
            gso_size: self.segment_size as u16,
            csum_start: self.transport_offset as u16,
            csum_offset,
        }
        .to_bytes()
    }

    /// Make the headers of the first packet those of the group.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a group is not longer than MAX_PACKET"
    )]
    pub(super) fn rewrite(self, headers: &mut [u8], payload: usize, push: bool) {
        let total = self.headers_len + payload;
        let message_len = total - self.transport_offset;
        let sum = self.pseudo_header(headers, message_len).folded();
        let Some((network, transport)) = headers.split_at_mut_checked(self.transport_offset) else {
            return; // the headers are as long as `headers_len`
        };
        if self.transport_offset == ipv6::HEADER_LEN {
            ipv6::rewrite_header(network, message_len as u16);
        } else {
            let identification = be16(network, 4);
            ipv4::rewrite_header(network, total as u16, identification);
        }
        match self.kind {
            SuperKind::Tcp => {
                let push = if push { tcp::flags::PSH } else { 0 };
                tcp::put_flags(transport, tcp::flags::ACK | push);
                tcp::put_checksum(transport, sum);
            }
            SuperKind::Udp => udp::rewrite_header(transport, message_len as u16, sum),
        }
    }
}
