//! From packets of the network to writes to TUN, fewer and larger.
//!
//! 1. [`Coalescer::coalesce`] goes once over a batch of decapsulated packets;
//! 2. [`Candidate::parse`] finds out whether a packet may be joined with others at all;
//! 3. [`Coalescer::place`] joins it to the open group of its flow, or makes it the first of a new group;
//! 4. [`Coalescer::build_headers`] writes the headers of every group of two or more into a buffer of their own, so that
//!    the batch stays as it was and each packet can still be written alone;
//! 5. [`Writes`] hands out one [`Write`] per group: headers, then the payloads where they lie.
//!
//! The rules are those of the kernel's own GRO (`net/ipv4/tcp_offload.c`, `tcp_gro_receive`; `net/ipv4/udp_offload.c`).
//! Order inside a flow stays: a packet that can't be joined closes the group of its flow. A checksum is verified before
//! a packet is joined, since the kernel computes a new, valid one for what it cuts out of a large packet.
use std::ops::Range;

use super::vnet_hdr::{GsoKind, VNET_HDR_LEN, VnetHdr};
use crate::wg::PacketBatch;
use crate::wire::{checksum::Sum, ipv4, ipv6, protocol, tcp, udp};

/// Flows that may have an open group at a time; for a new one another is closed, not the one used last.
const MAX_OPEN_FLOWS: usize = 16;

/// Most packets of one group: bounds the parts of one `writev`, far below `UIO_MAXIOV` = 1024.
pub const MAX_GROUP: usize = 128;

/// Largest packet that can be written (total length of IPv4, `IP_MAX_MTU`).
const MAX_PACKET: usize = 65_535;

/// Which kinds of packets may be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoalesceKinds {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams: kernels since 6.2 take them.
    pub udp: bool,
}

/// What a write of joined packets is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperKind {
    /// TCP segments.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// Joins packets; its tables are reused from batch to batch.
#[derive(Debug)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// For each packet of the batch the next one of its group.
    next: Vec<Option<usize>>,
    open: Vec<OpenFlow>,
    headers: Vec<u8>,
}

/// Packets that leave in one write.
#[derive(Debug)]
struct Group {
    first: usize,
    last: usize,
    packets: usize,
    /// What packets after the first must be like; `None` when there will be none.
    shape: Option<Shape>,
    /// The last packet had PSH.
    push: bool,
    /// In `headers`, from the virtio-net header on; empty for a packet of its own.
    headers: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: SuperKind,
    transport_offset: usize,
    headers_len: usize,
    /// Payload of each packet but the last.
    segment_size: usize,
}

/// A flow whose latest group may still grow.
#[derive(Debug)]
struct OpenFlow {
    flow: Flow,
    group: usize,
    /// Total length so far.
    length: usize,
    next_sequence: u32,
    next_identification: u16,
    /// Whether the first packet's checksum was verified: put off until there is something to join.
    verified: bool,
}

/// What packets of one flow have in common. For fragments and protocols without ports `ports` is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    version: u8,
    addresses: [u8; 32],
    ports: Option<(u8, [u8; 4])>,
}

/// A packet that may be joined with its like.
#[derive(Debug)]
struct Candidate<'a> {
    flow: Flow,
    shape: Shape,
    packet: &'a [u8],
    header: Header<'a>,
    identification: u16,
    /// TCP: of the first byte.
    sequence: u32,
    push: bool,
}

/// What must be alike in the headers of joined packets, beside the flow.
#[derive(Debug, PartialEq, Eq)]
struct Header<'a> {
    /// IPv4: TOS, DF, TTL. IPv6: traffic class and flow label, hop limit.
    network: [u8; 6],
    acknowledgment: [u8; 4],
    offset_window_urgent: [u8; 5],
    options: &'a [u8],
}

/// What became of looking at a packet.
enum Look<'a> {
    Joinable(Candidate<'a>),
    /// Must stay behind what came before of this flow.
    Alone(Flow),
    /// No IP packet.
    Unknown,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self {
            groups: Vec::with_capacity(128),
            next: Vec::with_capacity(128),
            open: Vec::with_capacity(MAX_OPEN_FLOWS),
            headers: Vec::with_capacity(8 << 10),
        }
    }
}

impl Coalescer {
    /// The writes for these packets, in order inside every flow.
    pub fn coalesce<'a>(&'a mut self, batch: &'a PacketBatch, kinds: CoalesceKinds) -> Writes<'a> {
        self.groups.clear();
        self.next.clear();
        self.open.clear();
        self.headers.clear();
        for (index, range) in batch.packets().iter().enumerate() {
            self.next.push(None);
            let packet = batch.bytes().get(range.clone()).unwrap_or_default();
            match Candidate::parse(packet, kinds) {
                Look::Joinable(candidate) => self.place(index, &candidate, batch),
                Look::Alone(flow) => {
                    self.open.retain(|open| !open.flow.is_touched_by(&flow));
                    self.start(index, None, false);
                }
                Look::Unknown => {
                    self.open.clear();
                    self.start(index, None, false);
                }
            }
        }
        self.build_headers(batch);
        Writes {
            coalescer: self,
            batch,
            next: 0,
        }
    }

    /// Put a packet into the open group of its flow if it continues it, else into a new group.
    fn place(&mut self, index: usize, candidate: &Candidate<'_>, batch: &PacketBatch) {
        let found = self
            .open
            .iter()
            .position(|open| open.flow == candidate.flow);
        let mut verified = false;
        if let Some(at) = found {
            let mut open = self.open.swap_remove(at);
            match self.join(index, candidate, &mut open, batch) {
                Joined::Open => return self.open.push(open),
                Joined::Closed => return,
                Joined::Corrupt => return self.start(index, None, false),
                Joined::No => {}
                Joined::NoButVerified => verified = true,
            }
        }
        let group = self.groups.len();
        self.start(index, Some(candidate.shape), candidate.push);
        if candidate.push {
            return; // PSH asks for delivery now: nothing follows in this group
        }
        if self.open.len() == MAX_OPEN_FLOWS {
            self.open.remove(0);
        }
        self.open.push(OpenFlow {
            flow: candidate.flow,
            group,
            length: candidate.packet.len(),
            next_sequence: candidate.next_sequence(),
            next_identification: candidate.identification.wrapping_add(1),
            verified,
        });
    }

    /// A group that begins with this packet.
    fn start(&mut self, index: usize, shape: Option<Shape>, push: bool) {
        self.groups.push(Group {
            first: index,
            last: index,
            packets: 1,
            shape,
            push,
            headers: 0..0,
        });
    }

    fn join(
        &mut self,
        index: usize,
        candidate: &Candidate<'_>,
        open: &mut OpenFlow,
        batch: &PacketBatch,
    ) -> Joined {
        let Some(group) = self.groups.get_mut(open.group) else {
            return Joined::No;
        };
        let Some(shape) = group.shape else {
            return Joined::No;
        };
        let first = packet_at(batch, group.first);
        let payload = candidate.payload_len();
        let continues = candidate.sequence == open.next_sequence
            && candidate.identification_follows(open.next_identification)
            && candidate.shape.headers_len == shape.headers_len
            && payload <= shape.segment_size
            && open.length + payload <= MAX_PACKET
            && group.packets < MAX_GROUP
            && Header::of(first, shape).is_some_and(|header| header == candidate.header);
        if !continues {
            return Joined::No;
        }
        if !candidate.shape.checksum_is_valid(candidate.packet) {
            return Joined::Corrupt;
        }
        if !open.verified {
            if !shape.checksum_is_valid(first) {
                return Joined::NoButVerified;
            }
            open.verified = true;
        }
        if let Some(link) = self.next.get_mut(group.last) {
            *link = Some(index);
        }
        group.last = index;
        group.packets += 1;
        group.push = candidate.push;
        open.length += payload;
        open.next_sequence = candidate.next_sequence();
        open.next_identification = open.next_identification.wrapping_add(1);
        if candidate.push || payload < shape.segment_size {
            return Joined::Closed;
        }
        Joined::Open
    }

    /// Headers of the groups of two or more: those of the first packet, with the lengths of all, and the sum of the
    /// pseudo-header where the kernel expects it (`CHECKSUM_PARTIAL`).
    fn build_headers(&mut self, batch: &PacketBatch) {
        for group in &mut self.groups {
            let Some(shape) = group.shape.filter(|_| group.packets > 1) else {
                continue;
            };
            let first = packet_at(batch, group.first);
            let last = packet_at(batch, group.last);
            let payload = (group.packets - 1) * shape.segment_size + last.len() - shape.headers_len;
            let start = self.headers.len();
            self.headers
                .extend(shape.vnet_hdr(first.first().is_some_and(|byte| byte >> 4 == 6)));
            self.headers
                .extend_from_slice(first.get(..shape.headers_len).unwrap_or_default());
            let headers = self.headers.get_mut(start + VNET_HDR_LEN..);
            shape.rewrite(headers.unwrap_or_default(), payload, group.push);
            group.headers = start..self.headers.len();
        }
    }
}

/// What became of trying to join a packet.
enum Joined {
    /// Joined; more may follow.
    Open,
    /// Joined, and the last of its group.
    Closed,
    /// Does not continue the group.
    No,
    /// Would continue the group, but the first packet of that is corrupt; this one is not.
    NoButVerified,
    /// Its checksum is wrong.
    Corrupt,
}

impl Flow {
    /// Whether a packet of `other` must not be overtaken by later ones of this flow. What has no ports, as a fragment,
    /// may belong to any flow between the same addresses.
    fn is_touched_by(&self, other: &Self) -> bool {
        self.version == other.version
            && self.addresses == other.addresses
            && (other.ports.is_none() || other.ports == self.ports)
    }
}

impl<'a> Candidate<'a> {
    fn parse(packet: &'a [u8], kinds: CoalesceKinds) -> Look<'a> {
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
                identification: crate::wire::be16(packet, 4),
                sequence,
                push,
            }),
            _ => Look::Alone(flow),
        }
    }

    const fn payload_len(&self) -> usize {
        self.shape.segment_size
    }

    /// Sequence number after this packet; UDP has none, there it stays 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a payload is below 2^16 bytes"
    )]
    const fn next_sequence(&self) -> u32 {
        match self.shape.kind {
            SuperKind::Tcp => self.sequence.wrapping_add(self.shape.segment_size as u32),
            SuperKind::Udp => 0,
        }
    }

    /// Whether the kernel, which counts identifications up when it cuts, would make this one. Without meaning in packets
    /// with DF (RFC 6864 §4.1) and not there in IPv6.
    const fn identification_follows(&self, expected: u16) -> bool {
        let [_, _, ipv4_flags, ..] = self.header.network;
        let dont_fragment = self.flow.version == 6 || ipv4_flags & 0x40 != 0;
        dont_fragment || self.identification == expected
    }
}

impl<'a> Header<'a> {
    fn of(packet: &'a [u8], shape: Shape) -> Option<Self> {
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
        crate::wire::checksum::pseudo_header(addresses.unwrap_or_default(), self.protocol(), length)
    }

    fn checksum_is_valid(self, packet: &[u8]) -> bool {
        let message = packet.get(self.transport_offset..).unwrap_or_default();
        let sum = self.pseudo_header(packet, message.len()).bytes(message);
        sum.folded() == 0xffff
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a group is not longer than MAX_PACKET"
    )]
    const fn vnet_hdr(self, ipv6: bool) -> [u8; VNET_HDR_LEN] {
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
    fn rewrite(self, headers: &mut [u8], payload: usize, push: bool) {
        let total = self.headers_len + payload;
        let message_len = total - self.transport_offset;
        let sum = self.pseudo_header(headers, message_len).folded();
        let Some((network, transport)) = headers.split_at_mut_checked(self.transport_offset) else {
            return; // the headers are as long as `headers_len`
        };
        if self.transport_offset == ipv6::HEADER_LEN {
            ipv6::rewrite_header(network, message_len as u16);
        } else {
            let identification = crate::wire::be16(network, 4);
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

fn packet_at(batch: &PacketBatch, index: usize) -> &[u8] {
    let range = batch.packets().get(index).cloned().unwrap_or_default();
    batch.bytes().get(range).unwrap_or_default()
}

/// The writes of a batch.
#[derive(Debug)]
pub struct Writes<'a> {
    coalescer: &'a Coalescer,
    batch: &'a PacketBatch,
    next: usize,
}

impl<'a> Iterator for Writes<'a> {
    type Item = Write<'a>;

    fn next(&mut self) -> Option<Write<'a>> {
        let group = self.coalescer.groups.get(self.next)?;
        self.next += 1;
        Some(Write {
            coalescer: self.coalescer,
            batch: self.batch,
            group,
        })
    }
}

/// One write to TUN.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    coalescer: &'a Coalescer,
    batch: &'a PacketBatch,
    group: &'a Group,
}

impl<'a> Write<'a> {
    /// What the joined packets are; `None` for a packet of its own.
    pub fn kind(&self) -> Option<SuperKind> {
        let joined = self.group.packets > 1;
        self.group.shape.filter(|_| joined).map(|shape| shape.kind)
    }

    /// Number of packets.
    pub const fn packet_count(&self) -> usize {
        self.group.packets
    }

    /// What to write first: the virtio-net header, and of joined packets their common headers.
    pub fn head(&self) -> &'a [u8] {
        const PLAIN: [u8; VNET_HDR_LEN] = VnetHdr::PLAIN.to_bytes();
        if self.group.packets == 1 {
            return &PLAIN;
        }
        let head = self.coalescer.headers.get(self.group.headers.clone());
        head.unwrap_or_default()
    }

    /// What to write after [`head`](Self::head): the packet, or the payloads of the joined packets.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let skip = match self.group.shape {
            Some(shape) if self.group.packets > 1 => shape.headers_len,
            _ => 0,
        };
        self.packets()
            .map(move |packet| packet.get(skip..).unwrap_or_default())
    }

    /// The packets as they arrived, for a kernel that does not take joined ones.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self {
            coalescer, batch, ..
        } = *self;
        let mut next = Some(self.group.first);
        std::iter::from_fn(move || {
            let index = next?;
            next = coalescer.next.get(index).copied().flatten();
            Some(packet_at(batch, index))
        })
    }
}

#[cfg(test)]
mod tests;
