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
mod candidate;

use std::ops::Range;

use candidate::{Candidate, Flow, Header, Look, Shape};

use super::vnet_hdr::{VNET_HDR_LEN, VnetHdr};
use crate::wg::PacketBatch;

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
