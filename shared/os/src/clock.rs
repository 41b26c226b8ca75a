//! The only place where time is read: everything else takes `now` as an argument.
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time, monotonic (`CLOCK_MONOTONIC`: it stands still while the machine sleeps).
pub fn now() -> Instant {
    Instant::now()
}

/// The clock of a thread that is woken by a packet: [`now`], asked of the kernel's vDSO without the standard and the C
/// library between. Nothing of that way is in the cache when a packet comes alone, and the packet would wait for it.
#[derive(Debug)]
pub struct PacketClock {
    start: Instant,
    /// `start` as the kernel counts.
    start_ns: u64,
}

impl Default for PacketClock {
    fn default() -> Self {
        let start = now(); // first: what the clock says must not lie ahead of `now`
        Self {
            start,
            start_ns: monotonic_ns(),
        }
    }
}

impl PacketClock {
    /// The time.
    #[inline]
    pub fn now(&self) -> Instant {
        self.start + Duration::from_nanos(monotonic_ns().saturating_sub(self.start_ns))
    }
}

#[inline]
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Duration, PacketClock, now};

    #[test]
    fn packet_clock_goes_with_the_other_and_never_ahead_of_it() {
        let clock = PacketClock::default();
        std::thread::sleep(Duration::from_millis(150)); // longer than what is allowed for below
        for _ in 0..1000 {
            let (before, between, after) = (now(), clock.now(), now());
            assert!(between <= after);
            assert!(between + Duration::from_millis(100) > before);
        }
    }
}
