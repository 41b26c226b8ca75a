//! Packets of one flow that leave in one write.
use super::candidate::{Candidate, Flow, Header, Shape};
use super::{Content, GROUP_LEN, MAX_GROUP, MAX_PACKET, Write};
use crate::offload::vnet_hdr::VNET_HDR_LEN;

/// A group that may still grow.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) flow: Flow,
    /// Room for the virtio-net header, the first packet as it came, and the payloads of the others.
    buffer: Box<[u8]>,
    /// Bytes from the first packet on.
    length: usize,
    /// Bytes of the first packet.
    first_len: usize,
    packets: usize,
    /// What packets after the first must be like.
    shape: Shape,
    next_sequence: u32,
    next_identification: u16,
    /// The last packet had PSH.
    push: bool,
    /// Whether the first packet's checksum was verified: put off until there is something to join.
    verified: bool,
}

/// What became of trying to join a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
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

impl Group {
    /// A group that begins with this packet, in a buffer of [`GROUP_LEN`] bytes.
    pub(super) fn new(candidate: &Candidate<'_>, verified: bool, mut buffer: Box<[u8]>) -> Self {
        debug_assert_eq!(buffer.len(), GROUP_LEN);
        let length = candidate.packet.len();
        if let Some(room) = buffer.get_mut(VNET_HDR_LEN..VNET_HDR_LEN + length) {
            room.copy_from_slice(candidate.packet);
        }
        Self {
            flow: candidate.flow,
            buffer,
            length,
            first_len: length,
            packets: 1,
            shape: candidate.shape,
            next_sequence: candidate.next_sequence(),
            next_identification: candidate.identification.wrapping_add(1),
            push: false,
            verified,
        }
    }

    fn first(&self) -> &[u8] {
        let range = VNET_HDR_LEN..VNET_HDR_LEN + self.first_len;
        self.buffer.get(range).unwrap_or_default()
    }

    /// Append a packet of this flow, if it continues the group.
    pub(super) fn join(&mut self, candidate: &Candidate<'_>) -> Joined {
        let shape = self.shape;
        let payload = candidate.payload();
        let continues = candidate.sequence == self.next_sequence
            && candidate.identification_follows(self.next_identification)
            && candidate.shape.headers_len == shape.headers_len
            && payload.len() <= shape.segment_size
            && self.length + payload.len() <= MAX_PACKET
            && self.packets < MAX_GROUP
            && Header::of(self.first(), shape).is_some_and(|header| header == candidate.header);
        if !continues {
            return Joined::No;
        }
        if !candidate.shape.checksum_is_valid(candidate.packet) {
            return Joined::Corrupt;
        }
        if !self.verified {
            if !shape.checksum_is_valid(self.first()) {
                return Joined::NoButVerified;
            }
            self.verified = true;
        }
        let end = VNET_HDR_LEN + self.length;
        let Some(room) = self.buffer.get_mut(end..end + payload.len()) else {
            return Joined::No; // the buffer has room for MAX_PACKET
        };
        room.copy_from_slice(payload);
        self.length += payload.len();
        self.packets += 1;
        self.push = candidate.push;
        self.next_sequence = candidate.next_sequence();
        self.next_identification = self.next_identification.wrapping_add(1);
        if candidate.push || payload.len() < shape.segment_size {
            return Joined::Closed;
        }
        Joined::Open
    }

    /// The group as one write. The headers of two or more are those of the first packet, with the lengths of all, and the
    /// sum of the pseudo-header where the kernel expects it (`CHECKSUM_PARTIAL`).
    pub(super) fn as_write(&mut self) -> Write<'_> {
        if self.packets == 1 {
            return Write::alone(self.first());
        }
        let shape = self.shape;
        let ipv6 = self.first().first().is_some_and(|byte| byte >> 4 == 6);
        if let Some((vnet_hdr, packet)) = self.buffer.split_first_chunk_mut() {
            *vnet_hdr = shape.vnet_hdr(ipv6);
            let headers = packet.get_mut(..shape.headers_len).unwrap_or_default();
            shape.rewrite(headers, self.length - shape.headers_len, self.push);
        }
        Write {
            content: Content::Joined {
                length: VNET_HDR_LEN + self.length,
                buffer: &mut self.buffer,
                shape,
                packets: self.packets,
            },
        }
    }

    pub(super) fn into_buffer(self) -> Box<[u8]> {
        self.buffer
    }
}
