//! Frames from TUN that wait for their turn, so that a large transfer does not make everybody else wait.
//!
//! The kernel's queue of a TUN link counts packets and not bytes: 500 of them are 32 MB where they are large, 10 ms behind
//! which every other packet would stand, and the few that would be short enough for that lose small packets in bursts. So
//! that queue is emptied in every round, and what it held is told apart here, as `fq_codel` does (RFC 8290 §4.1): a
//! packet of a flow of which nothing waits goes at once while it is small or there is time left, and everything else
//! waits in order. When too much waits the oldest is dropped, which is how TCP learns that it is too fast: what stands
//! behind the gap tells the sender at once, where a gap at the end would be noticed only after all that waits was sent.
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use super::VNET_HDR_LEN;
use crate::wire::{be16, ipv4, ipv6, protocol};

/// Bytes that may wait: 2 ms at 4 Gbit/s.
pub const CAPACITY: usize = 1 << 20;

/// Frames that may wait; each has a buffer of its own.
const MAX_FRAMES: usize = 64;

/// Frames up to this size go at once even when others have used up the round: no packet of a large transfer is smaller
/// than the MTU of most links.
const SMALL: usize = 1280;

/// Flows are told apart by so many numbers. Two with the same one wait for each other, which is only less fair.
const BUCKETS: usize = 256;

/// A frame with the buffer that it was read into.
#[derive(Debug)]
pub struct Frame {
    /// The frame and the room behind it.
    pub buffer: Box<[u8]>,
    /// Bytes of the frame.
    pub length: usize,
}

/// What decides about a frame that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send it at once.
    Now,
    /// Let it wait: [`Backlog::make_room`], [`Backlog::push`].
    Later(FlowKey),
}

/// What tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// Of the addresses.
    pair: usize,
    /// Of addresses, protocol and ports; `None` for fragments, which may belong to any flow between their addresses.
    flow: Option<usize>,
}

#[derive(Debug)]
struct Waiting {
    frame: Frame,
    key: FlowKey,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Backlog {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// How many frames wait, by flow, by addresses, and of fragments by addresses.
    flows: [u16; BUCKETS],
    pairs: [u16; BUCKETS],
    fragments: [u16; BUCKETS],
    /// Keyed by chance: nobody can choose flows that make others wait.
    hashes: RandomState,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(MAX_FRAMES),
            bytes: 0,
            flows: [0; BUCKETS],
            pairs: [0; BUCKETS],
            fragments: [0; BUCKETS],
            hashes: RandomState::new(),
        }
    }
}

impl Backlog {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What to do with a frame (virtio-net header and packet); `time_left` says whether the round may take more.
    pub fn turn_of(&self, frame: &[u8], time_left: bool) -> Turn {
        if self.waiting.is_empty() && time_left {
            return Turn::Now; // which flow it is does not matter then
        }
        let key = self.key_of(frame.get(VNET_HDR_LEN..).unwrap_or_default());
        if !self.must_wait(key) && (time_left || frame.len() <= SMALL) {
            Turn::Now
        } else {
            Turn::Later(key)
        }
    }

    fn key_of(&self, packet: &[u8]) -> FlowKey {
        let Some(header) = Header::parse(packet) else {
            return FlowKey {
                pair: 0,
                flow: None,
            };
        };
        FlowKey {
            pair: self.bucket(&[header.addresses]),
            flow: (!header.is_fragment)
                .then(|| self.bucket(&[header.addresses, &[header.protocol], header.ports])),
        }
    }

    fn bucket(&self, parts: &[&[u8]]) -> usize {
        let mut hasher = self.hashes.build_hasher();
        for part in parts {
            hasher.write(part);
        }
        usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or_default()
    }

    /// Whether a packet of this flow would overtake another one of it.
    fn must_wait(&self, key: FlowKey) -> bool {
        let any = |table: &[u16; BUCKETS], at: usize| table.get(at).is_some_and(|&count| count > 0);
        match key.flow {
            Some(flow) => any(&self.flows, flow) || any(&self.fragments, key.pair),
            None => any(&self.pairs, key.pair),
        }
    }

    /// A frame that has to be dropped before one of `length` bytes may wait.
    pub fn make_room(&mut self, length: usize) -> Option<Frame> {
        let full = self.bytes + length > CAPACITY || self.waiting.len() >= MAX_FRAMES;
        if full { self.pop() } else { None }
    }

    /// Let a frame wait.
    pub fn push(&mut self, frame: Frame, key: FlowKey) {
        self.bytes += frame.length;
        self.count(key, |count| *count += 1);
        self.waiting.push_back(Waiting { frame, key });
    }

    /// The frame that has waited longest.
    pub fn pop(&mut self) -> Option<Frame> {
        let Waiting { frame, key } = self.waiting.pop_front()?;
        self.bytes -= frame.length;
        self.count(key, |count| *count -= 1);
        Some(frame)
    }

    fn count(&mut self, key: FlowKey, change: impl Fn(&mut u16)) {
        let of_flow = match key.flow {
            Some(flow) => self.flows.get_mut(flow),
            None => self.fragments.get_mut(key.pair),
        };
        let of_pair = self.pairs.get_mut(key.pair);
        of_flow.into_iter().chain(of_pair).for_each(change);
    }
}

/// What is read of a packet to tell its flow.
struct Header<'a> {
    addresses: &'a [u8],
    protocol: u8,
    /// Of TCP and UDP; others have none.
    ports: &'a [u8],
    is_fragment: bool,
}

impl<'a> Header<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_ipv4(packet),
            6 => Self::parse_ipv6(packet),
            _ => None,
        }
    }

    fn parse_ipv4(packet: &'a [u8]) -> Option<Self> {
        // The total length of a large packet may be anything, so no `ipv4::Packet`.
        let header = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let transport = usize::from(header[0] & 0x0f) * 4;
        Some(Self {
            addresses: header.get(12..20)?,
            protocol: header[9],
            ports: ports(header[9], packet.get(transport..)?),
            is_fragment: be16(header, 6) & 0x3fff != 0,
        })
    }

    fn parse_ipv6(packet: &'a [u8]) -> Option<Self> {
        let ip = ipv6::Packet::parse(packet)?;
        let transport = ip.transport()?;
        Some(Self {
            addresses: ip.addresses(),
            protocol: transport.protocol,
            ports: ports(transport.protocol, packet.get(transport.offset..)?),
            is_fragment: transport.is_fragment,
        })
    }
}

fn ports(protocol: u8, message: &[u8]) -> &[u8] {
    match protocol {
        protocol::TCP | protocol::UDP => message.get(..4).unwrap_or_default(),
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
