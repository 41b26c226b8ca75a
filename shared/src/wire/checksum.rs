//! The Internet checksum (RFC 1071).

/// A one's complement sum that grows piece by piece.
///
/// The sum is kept in the machine's byte order over 32-bit words (RFC 1071 §2(B) and §2(C) allow both): swapping once at
/// the end is cheaper than swapping every word, and 64 bits hold 2^32 words before a carry could get lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Add bytes. Only the last piece of a message may have an odd length (it is padded with a zero, RFC 1071 §4.1).
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let long = bytes.len() - bytes.len() % LONG_BLOCK;
        let (long, rest) = bytes.split_at(if long < LONG { 0 } else { long });
        let mut sum = self.0;
        if !long.is_empty() {
            sum += sum_of_long_blocks(long);
        }
        let mut blocks = rest.chunks_exact(8);
        for block in &mut blocks {
            let (high, low) = block.split_at(4);
            sum += native_word(high) + native_word(low);
        }
        Self(sum + blocks.remainder().chunks(4).map(native_word).sum::<u64>())
    }

    /// Add a 16-bit field.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        Self(self.0 + u64::from(u16::from_ne_bytes(value.to_be_bytes())))
    }

    /// Add a 32-bit field.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        Self(self.0 + u64::from(u32::from_ne_bytes(value.to_be_bytes())))
    }

    /// The sum folded to 16 bits, not complemented: what a checksum field holds before the payload is summed, and
    /// 0xffff over a message with a valid checksum.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "folded to 16 bits right before"
    )]
    pub const fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum.
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// Below that headers are summed, and choosing a way would take longer than to go it.
const LONG: usize = 256;

/// Bytes of a block that [`sum_of_long_blocks`] takes at a time.
const LONG_BLOCK: usize = 32;

/// Sum of the words of a multiple of [`LONG_BLOCK`] bytes: eight independent lanes, which the compiler turns into vector
/// additions, twice as wide where the processor can do that.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn sum_of_long_blocks(bytes: &[u8]) -> u64 {
    let mut lanes = [0; 8];
    for block in bytes.chunks_exact(LONG_BLOCK) {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += native_word(word);
        }
    }
    lanes.iter().sum()
}

/// Up to four bytes as a word in memory order, padded with zeros.
fn native_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 4];
    for (to, &from) in word.iter_mut().zip(bytes) {
        *to = from;
    }
    u64::from(u32::from_ne_bytes(word))
}

/// Sum over the pseudo-header of TCP and UDP (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1): both addresses side by side as they
/// stand in the IP header, protocol, and length of transport header and payload in bytes.
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: u32) -> Sum {
    Sum::default()
        .bytes(addresses)
        .u16(u16::from(protocol))
        .u32(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sum_of_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
    }

    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn sum_is_that_of_16_bit_words_in_network_order(
            head in proptest::collection::vec(any::<[u8; 2]>(), 0..40),
            tail in proptest::collection::vec(any::<u8>(), 0..2000),
            field in any::<u16>(),
        ) {
            let head = head.concat();
            let mut whole = head.clone();
            whole.extend(field.to_be_bytes());
            whole.extend(&tail);
            let sum = Sum::default().bytes(&head).u16(field).bytes(&tail).folded();
            // 0 and 0xffff are both zero in one's complement.
            prop_assert_eq!(sum % 0xffff, by_the_book(&whole) % 0xffff);
        }
    }

    #[test]
    fn largest_packet_of_ones_does_not_overflow() {
        assert_eq!(Sum::default().bytes(&vec![0xff; 65_535]).folded(), 0xff00);
    }
}
