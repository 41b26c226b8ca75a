//! A message in datagrams: a header of 8 bytes (number of the question, place, count; big-endian) and a part of the message.
//! The answer bears the number of its question, so that a late answer is not taken for that of the next one.

/// Bytes of the header.
const HEADER_LEN: usize = 4 + 2 + 2;
/// Most bytes of a message in one datagram: fits the smallest tunnel MTU of IPv4 (576) with all headers.
const PART_LEN: usize = 512;
/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The datagrams of a message; none when it is longer than [`MAX_MESSAGE`].
pub fn split(question: u32, message: &[u8]) -> Vec<Vec<u8>> {
    if message.len() > MAX_MESSAGE {
        return Vec::new();
    }
    let parts = message.chunks(PART_LEN);
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let places = 0..count;
    let datagrams = places.zip(parts).map(|(place, part)| {
        let mut datagram = Vec::with_capacity(HEADER_LEN + part.len());
        datagram.extend(question.to_be_bytes());
        datagram.extend(place.to_be_bytes());
        datagram.extend(count.to_be_bytes());
        datagram.extend(part);
        datagram
    });
    datagrams.collect()
}

/// One datagram, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Number of the question.
    pub question: u32,
    place: u16,
    count: u16,
    part: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `None` for what no message consists of.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, part) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [q0, q1, q2, q3, p0, p1, c0, c1] = *header;
        let frame = Self {
            question: u32::from_be_bytes([q0, q1, q2, q3]),
            place: u16::from_be_bytes([p0, p1]),
            count: u16::from_be_bytes([c0, c1]),
            part,
        };
        let fits = usize::from(frame.count) <= MAX_MESSAGE / PART_LEN && part.len() <= PART_LEN;
        (frame.place < frame.count && fits).then_some(frame)
    }

    /// The message, when it is all in this one datagram.
    pub fn whole(&self) -> Option<&'a [u8]> {
        (self.count == 1).then_some(self.part)
    }
}

/// The datagrams of one answer, in whatever order they come.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: Vec<Option<Vec<u8>>>,
}

impl Assembly {
    /// Take a datagram; returns the message when this was the last part of it that was missing.
    pub fn take(&mut self, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let count = usize::from(frame.count);
        if self.parts.len() != count {
            self.parts = vec![None; count];
        }
        let place = self.parts.get_mut(usize::from(frame.place))?;
        *place = Some(frame.part.to_vec());
        let parts: Option<Vec<&[u8]>> = self.parts.iter().map(Option::as_deref).collect();
        parts.map(|parts| parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_is_too_long_is_none() {
        assert_eq!(split(1, &vec![0; MAX_MESSAGE + 1]), Vec::<Vec<u8>>::new());
        assert_eq!(
            split(1, &vec![0; MAX_MESSAGE]).len(),
            MAX_MESSAGE / PART_LEN
        );
    }

    #[test]
    fn what_no_message_consists_of_is_refused() {
        for datagram in [
            &[0; 7][..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 9],     // the first of none
            &[0, 0, 0, 1, 0, 1, 0, 1, 9],     // the second of one
            &[0, 0, 0, 1, 0, 0, 255, 255, 9], // the first of too many
            &[0; HEADER_LEN + PART_LEN + 1],
        ] {
            assert_eq!(Frame::parse(datagram), None, "{datagram:?}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_what_its_datagrams_hold_in_any_order(
            message in proptest::collection::vec(any::<u8>(), 1..3000),
            (order, doubled) in (any::<u64>(), any::<bool>()),
        ) {
            let mut datagrams = split(7, &message);
            let turns = usize::try_from(order % 16).unwrap() % datagrams.len();
            datagrams.rotate_left(turns);
            if doubled {
                datagrams.insert(0, datagrams[0].clone());
            }
            let mut assembly = Assembly::default();
            let mut taken = None;
            for (number, datagram) in datagrams.iter().enumerate() {
                prop_assert!(taken.is_none() || doubled, "complete before part {number}");
                let frame = Frame::parse(datagram).unwrap();
                prop_assert_eq!(frame.question, 7);
                taken = assembly.take(&frame).or(taken);
            }
            prop_assert_eq!(taken, Some(message));
        }
    }
}
