//! From packets of the network to writes to TUN, fewer and larger.
//!
//! 1. [`Coalescer::push`] takes one decapsulated packet;
//! 2. [`Candidate::parse`] finds out whether it may be joined with others at all;
//! 3. [`Group::join`] appends its payload to the open group of its flow, or it becomes the first of a new group;
//! 4. a group that can't grow any more is written: [`Group::as_write`] turns the headers of its first packet, which
//!    stand before the payloads already, into those of one large packet.
//!
//! A payload is copied once, from the buffer that it was decrypted into and that is still in the first-level cache. In
//! return the kernel copies one piece instead of fifty, and a group may go on over any number of received buffers, so
//! that what was one large packet on the far side becomes one again.
//!
//! The rules are those of the kernel's own GRO (`net/ipv4/tcp_offload.c`, `tcp_gro_receive`; `net/ipv4/udp_offload.c`).
//! Order inside a flow stays: a packet that can't be joined closes the group of its flow. A checksum is verified before
//! a packet is joined, since the kernel computes a new, valid one for what it cuts out of a large packet.
mod candidate;
mod group;

use candidate::{Candidate, Look, Shape};
use group::{Group, Joined};

use super::segment::{FRAME_TAILROOM, Segments, segments};
use super::vnet_hdr::{VNET_HDR_LEN, VnetHdr};

/// Flows that may have an open group at a time; for a new one the oldest group is closed.
const MAX_OPEN_FLOWS: usize = 16;

/// Most packets of one group: `UDP_MAX_SEGMENTS` of the kernel's `include/linux/udp.h`.
const MAX_GROUP: usize = 128;

/// Largest packet that can be written (total length of IPv4, `IP_MAX_MTU`).
const MAX_PACKET: usize = 65_535;

/// Room for a group: what is written, and what cutting it again needs.
const GROUP_LEN: usize = VNET_HDR_LEN + MAX_PACKET + FRAME_TAILROOM;

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

/// Joins packets. Its buffers are reused; memory is touched only by as many flows as there are at a time.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Oldest first.
    open: Vec<Group>,
    /// Buffers of closed groups.
    spare: Vec<Box<[u8]>>,
}

impl Coalescer {
    /// Take a packet. What has to be written now is handed to `write`; the rest waits for [`flush`](Self::flush).
    pub fn push(&mut self, packet: &[u8], kinds: CoalesceKinds, mut write: impl FnMut(Write<'_>)) {
        match Candidate::parse(packet, kinds) {
            Look::Joinable(candidate) => self.place(&candidate, &mut write),
            Look::Alone(flow) => {
                while let Some(at) = self.position(|group| group.flow.is_touched_by(&flow)) {
                    self.close(at, &mut write);
                }
                write(Write::alone(packet));
            }
            Look::Unknown => {
                self.flush(&mut write);
                write(Write::alone(packet));
            }
        }
    }

    /// Write everything that waits.
    pub fn flush(&mut self, mut write: impl FnMut(Write<'_>)) {
        while !self.open.is_empty() {
            self.close(0, &mut write);
        }
    }

    /// Put a packet into the open group of its flow if it continues it, else into a new group.
    fn place(&mut self, candidate: &Candidate<'_>, write: &mut impl FnMut(Write<'_>)) {
        let mut verified = false;
        if let Some(at) = self.position(|group| group.flow == candidate.flow) {
            let joined = match self.open.get_mut(at) {
                Some(group) => group.join(candidate),
                None => Joined::No,
            };
            if joined == Joined::Open {
                return;
            }
            self.close(at, write);
            match joined {
                Joined::Open | Joined::Closed => return,
                Joined::Corrupt => return write(Write::alone(candidate.packet)),
                Joined::NoButVerified => verified = true,
                Joined::No => {}
            }
        }
        if candidate.push {
            return write(Write::alone(candidate.packet)); // PSH asks for delivery now: nothing may follow
        }
        if self.open.len() == MAX_OPEN_FLOWS {
            self.close(0, write);
        }
        let buffer = self.spare.pop();
        let buffer = buffer.unwrap_or_else(|| vec![0; GROUP_LEN].into_boxed_slice());
        self.open.push(Group::new(candidate, verified, buffer));
    }

    /// Where the latest group of this kind is: traffic comes in bursts, so the flow is mostly the one before.
    fn position(&self, is_it: impl Fn(&Group) -> bool) -> Option<usize> {
        self.open.iter().rposition(is_it)
    }

    fn close(&mut self, at: usize, write: &mut impl FnMut(Write<'_>)) {
        let mut group = self.open.remove(at);
        write(group.as_write());
        self.spare.push(group.into_buffer());
    }
}

/// One write to TUN.
#[derive(Debug)]
pub struct Write<'a> {
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    /// A packet of its own.
    Alone(&'a [u8]),
    /// Joined packets: the frame at the start of the buffer, then tailroom.
    Joined {
        buffer: &'a mut [u8],
        length: usize,
        shape: Shape,
        packets: usize,
    },
}

impl<'a> Write<'a> {
    /// Write a packet as it is.
    pub const fn alone(packet: &'a [u8]) -> Self {
        Self {
            content: Content::Alone(packet),
        }
    }

    /// What the joined packets are; `None` for a packet of its own.
    pub const fn kind(&self) -> Option<SuperKind> {
        match self.content {
            Content::Alone(_) => None,
            Content::Joined { shape, .. } => Some(shape.kind),
        }
    }

    /// Number of packets.
    pub const fn packet_count(&self) -> usize {
        match self.content {
            Content::Alone(_) => 1,
            Content::Joined { packets, .. } => packets,
        }
    }

    /// Bytes of the packets, each with its own headers.
    pub fn packet_bytes(&self) -> usize {
        match &self.content {
            Content::Alone(packet) => packet.len(),
            Content::Joined {
                length,
                shape,
                packets,
                ..
            } => length - VNET_HDR_LEN + (packets - 1) * shape.headers_len,
        }
    }

    /// What to write: the virtio-net header and the packet.
    pub fn frame(&self) -> (&[u8], &[u8]) {
        const PLAIN: [u8; VNET_HDR_LEN] = VnetHdr::PLAIN.to_bytes();
        match &self.content {
            Content::Alone(packet) => (&PLAIN, packet),
            Content::Joined { buffer, length, .. } => {
                let frame = buffer.get(..*length).unwrap_or_default();
                frame.split_at_checked(VNET_HDR_LEN).unwrap_or_default()
            }
        }
    }

    /// The packets one by one, for a kernel that does not take joined ones; `None` for a packet of its own.
    pub fn cut(&mut self) -> Option<Segments<'_>> {
        match &mut self.content {
            Content::Alone(_) => None,
            Content::Joined { buffer, length, .. } => segments(buffer, *length).ok(),
        }
    }
}

#[cfg(test)]
mod tests;
