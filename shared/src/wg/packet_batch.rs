//! Decapsulated packets on their way to TUN, side by side in one reused buffer.
use std::ops::Range;

/// Room that [`PacketBatch::slot`] guarantees: the largest packet, its padding and the AEAD tag.
pub const SLOT_LEN: usize = 65_535 + 16 + 16;

/// A reused buffer of packets in the order in which they arrived.
#[derive(Debug)]
pub struct PacketBatch {
    buffer: Box<[u8]>,
    filled: usize,
    packets: Vec<Range<usize>>,
}

impl PacketBatch {
    /// A batch that holds `capacity` bytes beside the slot being written.
    pub fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity + SLOT_LEN].into_boxed_slice(),
            filled: 0,
            packets: Vec::with_capacity(128),
        }
    }

    /// Room for the next packet, at least [`SLOT_LEN`] bytes unless [`is_full`](Self::is_full).
    pub fn slot(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Take the first `length` bytes of [`slot`](Self::slot) as the next packet.
    pub fn commit(&mut self, length: usize) {
        debug_assert!(self.filled + length <= self.buffer.len());
        let start = self.filled;
        self.filled += length;
        self.packets.push(start..self.filled);
    }

    /// Whether the next packet might not fit: write and [`clear`](Self::clear) first.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.filled < SLOT_LEN
    }

    /// The packets, in order, as ranges of [`bytes`](Self::bytes).
    pub fn packets(&self) -> &[Range<usize>] {
        &self.packets
    }

    /// The bytes of all packets.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The bytes and the packets together, for who rewrites headers in place.
    pub fn parts_mut(&mut self) -> (&mut [u8], &[Range<usize>]) {
        (&mut self.buffer, &self.packets)
    }

    /// Forget everything; the memory stays.
    pub fn clear(&mut self) {
        self.filled = 0;
        self.packets.clear();
    }
}
