//! Bytes of which only some bits are known, and the logic of three values that follows from them.
use std::cmp::Ordering;

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Yes,
    No,
    /// It depends on what is not known.
    Maybe,
}

impl Truth {
    pub(crate) const fn of(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }

    pub(crate) const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }

    /// Negated when `inverted` says so.
    pub(crate) const fn not_if(self, inverted: bool) -> Self {
        if inverted { self.not() } else { self }
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }
}

/// Bytes in the order of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits(Vec<Byte>);

/// A byte; bits that are not known are 0 in `value`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Byte {
    value: u8,
    known: u8,
}

impl Byte {
    const fn is_known(self) -> bool {
        self.known == u8::MAX
    }
}

impl Bits {
    pub(crate) fn unknown(len: usize) -> Self {
        Self(vec![Byte::default(); len])
    }

    pub(crate) fn known(bytes: &[u8]) -> Self {
        Self::partly(bytes, &vec![u8::MAX; bytes.len()])
    }

    /// Where `known` has a 1, the bit of `bytes`.
    pub(crate) fn partly(bytes: &[u8], known: &[u8]) -> Self {
        let bytes = bytes.iter().zip(known);
        let byte = |(&value, &known): (&u8, &u8)| Byte {
            value: value & known,
            known,
        };
        Self(bytes.map(byte).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `len` bytes from `start`; what lies outside is not known.
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        let byte = |at| self.0.get(at).copied().unwrap_or_default();
        Self((start..start.saturating_add(len)).map(byte).collect())
    }

    /// Puts `other` over the bytes from `start`; what would lie outside is dropped.
    pub(crate) fn put(&mut self, start: usize, other: &Self) {
        let places = self.0.iter_mut().skip(start);
        for (place, byte) in places.zip(&other.0) {
            *place = *byte;
        }
    }

    /// `(self & mask) ^ xor`.
    pub(crate) fn masked(&self, mask: &[u8], xor: &[u8]) -> Self {
        let operands = mask.iter().zip(xor.iter().chain(std::iter::repeat(&0)));
        let bytes = self.0.iter().zip(operands);
        let byte = |(byte, (mask, xor)): (&Byte, (&u8, &u8))| Byte {
            value: ((byte.value & mask) ^ xor) & (byte.known | !mask),
            known: byte.known | !mask,
        };
        Self(bytes.map(byte).collect())
    }

    /// Numbers of `size` bytes, each turned around.
    pub(crate) fn turned(&self, size: usize) -> Self {
        let mut bytes = self.0.clone();
        for number in bytes.chunks_mut(size.max(1)) {
            number.reverse();
        }
        Self(bytes)
    }

    pub(crate) fn equals(&self, bytes: &[u8]) -> Truth {
        if self.len() != bytes.len() {
            return Truth::Maybe;
        }
        let pairs = || self.0.iter().zip(bytes);
        if pairs().any(|(byte, other)| (byte.value ^ other) & byte.known != 0) {
            Truth::No
        } else {
            self.bytes().map_or(Truth::Maybe, |_| Truth::Yes)
        }
    }

    /// As `memcmp` does; `None` when it depends on what is not known.
    pub(crate) fn compare(&self, bytes: &[u8]) -> Option<Ordering> {
        for (byte, other) in self.0.iter().zip(bytes) {
            let (lowest, highest) = (byte.value, byte.value | !byte.known);
            if lowest > *other {
                return Some(Ordering::Greater);
            }
            if highest < *other {
                return Some(Ordering::Less);
            }
            if !byte.is_known() {
                return None;
            }
        }
        (self.len() >= bytes.len()).then_some(Ordering::Equal)
    }

    /// All of them; `None` when a bit is not known.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = self.0.iter();
        bytes
            .map(|byte| byte.is_known().then_some(byte.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every value that partly known bytes can have agrees with what was said of them.
    fn holds_for(truth: Truth, of_value: bool) -> bool {
        match truth {
            Truth::Yes => of_value,
            Truth::No => !of_value,
            Truth::Maybe => true,
        }
    }

    proptest! {
        #[test]
        fn what_is_said_of_some_bits_is_true_of_every_value(
            value in any::<[u8; 3]>(), known in any::<[u8; 3]>(), mask in any::<[u8; 3]>(), xor in any::<[u8; 3]>(),
            other in any::<[u8; 3]>(),
        ) {
            let bits = Bits::partly(&value, &known);
            prop_assert!(holds_for(bits.equals(&other), value == other));
            if let Some(ordering) = bits.compare(&other) {
                prop_assert_eq!(ordering, value.cmp(&other));
            }
            let masked: Vec<u8> = (0..3).map(|at| (value[at] & mask[at]) ^ xor[at]).collect();
            prop_assert!(holds_for(bits.masked(&mask, &xor).equals(&other), masked == other));
        }
    }

    #[test]
    fn a_mask_makes_known_what_it_cuts_off() {
        let state = Bits::unknown(4).masked(&[0; 4], &[0, 0, 0, 7]);
        assert_eq!(state.bytes(), Some(vec![0, 0, 0, 7]));
        let bit = Bits::partly(&[0x20], &[0x20]).masked(&[0x20], &[0]);
        assert_eq!(bit.equals(&[0]), Truth::No);
        assert_eq!(bit.equals(&[0x20]), Truth::Yes);
    }

    #[test]
    fn parts_and_turned_numbers() {
        let mut bits = Bits::unknown(4);
        bits.put(1, &Bits::known(&[1, 2, 3, 4]));
        assert_eq!(bits.part(1, 3).bytes(), Some(vec![1, 2, 3]));
        assert_eq!(bits.part(3, 2).bytes(), None);
        assert_eq!(
            Bits::known(&[1, 2, 3, 4]).turned(2).bytes(),
            Some(vec![2, 1, 4, 3])
        );
    }
}
