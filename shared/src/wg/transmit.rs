//! Datagrams on their way out, laid out so that equal ones to the same place leave in one system call.
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Largest UDP payload over IPv4: 65,535 less IP and UDP headers.
pub const MAX_DATAGRAM: usize = 65_535 - 20 - 8;

/// Most segments of one `UDP_SEGMENT` send: `UDP_MAX_SEGMENTS` of kernels before 6.9 (`include/linux/udp.h`).
pub const MAX_RUN_SEGMENTS: usize = 64;

/// Room that [`TransmitQueue::slot`] guarantees, enough for any message: a transport message of the largest packet.
pub const SLOT_LEN: usize = 65_535 + 32 + 16;

/// The two ECN bits of an IP header (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 1.
    Ect1,
    /// ECN-capable, codepoint 0.
    Ect0,
    /// Congestion experienced.
    Ce,
}

impl Ecn {
    /// From the low two bits of a TOS or traffic class byte.
    pub const fn from_tos(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The low two bits of a TOS or traffic class byte.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }
}

/// The two ends of a datagram's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address: the one that the peer contacted (sticky source). `None` lets the kernel choose.
    pub local: Option<IpAddr>,
}

/// Consecutive datagrams that one `sendmsg` with `UDP_SEGMENT` can carry: all of `stride` bytes, the last may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where to.
    pub path: Path,
    /// ECN bits of the outer header (RFC 6040 §4.1, normal mode).
    pub ecn: Ecn,
    /// Bytes in [`TransmitQueue::bytes`].
    pub range: Range<usize>,
    /// Length of each datagram but the last.
    pub stride: usize,
}

impl Run {
    /// Number of datagrams.
    pub const fn segments(&self) -> usize {
        (self.range.end - self.range.start).div_ceil(self.stride)
    }

    /// Whether it is one datagram and no more.
    pub const fn is_one_datagram(&self) -> bool {
        self.range.end - self.range.start == self.stride
    }
}

/// A reused buffer of datagrams in the order in which they were made.
#[derive(Debug)]
pub struct TransmitQueue {
    buffer: Box<[u8]>,
    filled: usize,
    runs: Vec<Run>,
}

impl TransmitQueue {
    /// A queue that holds `capacity` bytes beside the slot being written.
    pub fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity + SLOT_LEN].into_boxed_slice(),
            filled: 0,
            runs: Vec::with_capacity(64),
        }
    }

    /// Room for the next datagram, at least [`SLOT_LEN`] bytes unless [`is_full`](Self::is_full). What is written past
    /// the committed length is overwritten by the next datagram, so that equal datagrams stand side by side.
    pub fn slot(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Take the first `length` bytes of [`slot`](Self::slot) as the next datagram.
    pub fn commit(&mut self, path: Path, ecn: Ecn, length: usize) {
        debug_assert!(length > 0 && self.filled + length <= self.buffer.len());
        let start = self.filled;
        self.filled += length;
        if let Some(run) = self.runs.last_mut() {
            let whole = (run.range.end - run.range.start) % run.stride == 0; // a shorter datagram ends a run
            if whole
                && length <= run.stride
                && run.path == path
                && run.ecn == ecn
                && run.segments() < MAX_RUN_SEGMENTS
                && run.range.end - run.range.start + length <= MAX_DATAGRAM
            {
                run.range.end = self.filled;
                return;
            }
        }
        self.runs.push(Run {
            path,
            ecn,
            range: start..self.filled,
            stride: length,
        });
    }

    /// Whether the next datagram might not fit: send and [`clear`](Self::clear) first.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.filled < SLOT_LEN
    }

    /// Bytes that wait.
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What waits, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The bytes that [`Run::range`] refers to.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Forget all runs but the last one, to which the next datagram may belong; its bytes move to the front.
    pub fn keep_last_run(&mut self) {
        let Some(last) = self.runs.pop() else {
            return;
        };
        self.filled = last.range.len();
        self.buffer.copy_within(last.range, 0);
        self.runs.clear();
        self.runs.push(Run {
            range: 0..self.filled,
            ..last
        });
    }

    /// Forget everything; the memory stays.
    pub fn clear(&mut self) {
        self.filled = 0;
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path {
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            local: None,
        }
    }

    fn queue(datagrams: &[(u16, Ecn, usize)]) -> Vec<(usize, usize)> {
        let mut queue = TransmitQueue::new(1 << 20);
        for &(port, ecn, length) in datagrams {
            queue.slot()[..length].fill(7);
            queue.commit(path(port), ecn, length);
        }
        queue
            .runs()
            .iter()
            .map(|run| (run.stride, run.segments()))
            .collect()
    }

    #[test]
    fn equal_datagrams_to_one_place_are_one_run_and_a_shorter_one_ends_it() {
        let d = |length| (1, Ecn::NotEct, length);
        assert_eq!(queue(&[d(100), d(100), d(60), d(60)]), [(100, 3), (60, 1)]);
        assert_eq!(queue(&[d(60), d(100)]), [(60, 1), (100, 1)]);
    }

    #[test]
    fn another_place_or_ecn_starts_a_run() {
        assert_eq!(
            queue(&[(1, Ecn::NotEct, 80), (2, Ecn::NotEct, 80), (2, Ecn::Ce, 80)]),
            [(80, 1), (80, 1), (80, 1)]
        );
    }

    #[test]
    fn runs_end_at_64_segments_and_at_the_largest_datagram() {
        assert_eq!(
            queue(&vec![(1, Ecn::NotEct, 100); 65]),
            [(100, 64), (100, 1)]
        );
        assert_eq!(
            queue(&vec![(1, Ecn::NotEct, 1452); 46]),
            [(1452, 45), (1452, 1)]
        );
    }

    #[test]
    fn last_run_is_kept_and_goes_on() {
        let mut queue = TransmitQueue::new(1 << 20);
        for (length, byte) in [(60, 1), (100, 2), (100, 3)] {
            queue.slot()[..length].fill(byte);
            queue.commit(path(1), Ecn::NotEct, length);
        }
        queue.keep_last_run();
        queue.slot()[..100].fill(4);
        queue.commit(path(1), Ecn::NotEct, 100);
        assert_eq!(queue.len(), 300);
        assert_eq!(queue.runs().len(), 1);
        assert_eq!(queue.runs()[0].range, 0..300);
        assert_eq!(
            queue.bytes()[..300],
            [[2; 100], [3; 100], [4; 100]].concat()
        );
        queue.clear();
        queue.keep_last_run();
        assert!(queue.is_empty());
    }
}
