//! Where a datagram is decrypted to.

/// Room for the largest packet, its padding and the AEAD tag.
const LEN: usize = 65_535 + 16 + 16;

/// Room for one packet, reused: what was just decrypted is still in the first-level cache when it is looked at.
#[derive(Debug)]
pub struct PacketBuffer {
    buffer: Box<[u8]>,
    /// Length of the packet at its start, if there is one.
    filled: Option<usize>,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self {
            buffer: vec![0; LEN].into_boxed_slice(),
            filled: None,
        }
    }
}

impl PacketBuffer {
    /// The room, whatever it holds.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Say that the first `length` bytes of [`room`](Self::room) are a packet.
    pub fn fill(&mut self, length: usize) {
        debug_assert!(length <= self.buffer.len());
        self.filled = Some(length);
    }

    /// The packet, which is then no longer there.
    pub fn take(&mut self) -> Option<&[u8]> {
        let length = self.filled.take()?;
        self.buffer.get(..length)
    }
}
