//! Where a datagram is decrypted to.

/// Room for the largest packet, its padding and the AEAD tag.
const LEN: usize = 65_535 + 16 + 16;

/// Bytes in front of the packet that stay zero.
const ZEROS: usize = 16;

/// Room for one packet, reused: what was just decrypted is still in the first-level cache when it is looked at.
#[derive(Debug)]
pub struct PacketBuffer {
    /// [`ZEROS`], and the room.
    buffer: Box<[u8]>,
    /// Length of the packet at the start of the room, if there is one.
    filled: Option<usize>,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self {
            buffer: vec![0; ZEROS + LEN].into_boxed_slice(),
            filled: None,
        }
    }
}

impl PacketBuffer {
    /// The room, whatever it holds.
    pub fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(ZEROS..).unwrap_or_default()
    }

    /// Say that the first `length` bytes of [`room`](Self::room) are a packet.
    pub fn fill(&mut self, length: usize) {
        debug_assert!(length <= LEN);
        self.filled = Some(length);
    }

    /// The packet, which is then no longer there.
    pub fn take(&mut self) -> Option<&[u8]> {
        self.take_behind_zeros(0)
    }

    /// The packet with so many zeros in front of it, at most 16: a virtio-net header that asks for nothing. It is then no
    /// longer there.
    pub fn take_behind_zeros(&mut self, zeros: usize) -> Option<&[u8]> {
        let length = self.filled.take()?;
        self.buffer.get(ZEROS.checked_sub(zeros)?..ZEROS + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_is_taken_once_with_or_without_zeros() {
        let mut buffer = PacketBuffer::default();
        assert_eq!(buffer.take(), None);
        buffer.room().fill(7);
        buffer.fill(3);
        assert_eq!(buffer.take(), Some(&[7; 3][..]));
        assert_eq!(buffer.take(), None);
        buffer.fill(2);
        assert_eq!(buffer.take_behind_zeros(3), Some(&[0, 0, 0, 7, 7][..]));
        assert_eq!(buffer.take_behind_zeros(3), None);
        buffer.fill(LEN);
        let all = buffer.take_behind_zeros(ZEROS).unwrap();
        assert_eq!((all.len(), &all[..ZEROS]), (ZEROS + LEN, &[0; ZEROS][..]));
    }
}
