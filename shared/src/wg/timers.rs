//! When a peer has something to do of its own accord.
//!
//! The timers are those of the kernel's `timers.c`, kept here and not in the engine, whose own ones only move when it is
//! polled (see `noise.rs`). Setting one is two stores; only the earliest of a peer is in the device's [`Schedule`], and one
//! that moved later stays there until it comes up and is put back. So a packet costs no search, and a peer that waits
//! for nothing costs nothing.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::constants::REKEY_TIMEOUT_JITTER_MAX_MS;
use super::index::random_u32;
use super::peer_table::PeerSlot;

/// What a peer can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// Our initiation was not answered: send another one.
    RetransmitHandshake,
    /// Data came and nothing was sent back: tell that we are here.
    PassiveKeepalive,
    /// We sent data and heard nothing: start a handshake.
    NoAnswer,
    /// Nothing went either way for the configured interval.
    PersistentKeepalive,
    /// No new keys for a long time: erase the old ones.
    EraseKeys,
    /// More packets were staged than fitted into the queue.
    FlushStaged,
    /// A handshake was asked for.
    StartHandshake,
}

impl Timer {
    const ALL: [Self; 7] = [
        Self::RetransmitHandshake,
        Self::PassiveKeepalive,
        Self::NoAnswer,
        Self::PersistentKeepalive,
        Self::EraseKeys,
        Self::FlushStaged,
        Self::StartHandshake,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::RetransmitHandshake => "handshake retransmission",
            Self::PassiveKeepalive => "keepalive",
            Self::NoAnswer => "handshake after no answer",
            Self::PersistentKeepalive => "persistent keepalive",
            Self::EraseKeys => "erasure of old keys",
            Self::FlushStaged => "staged packets",
            Self::StartHandshake => "handshake",
        }
    }
}

/// The deadlines of one peer.
#[derive(Debug)]
pub(super) struct TimerTable {
    deadlines: [Option<Instant>; Timer::ALL.len()],
    /// The earliest one that was set since [`take_earliest_set`](Self::take_earliest_set).
    earliest_set: Option<Instant>,
    random: u64,
}

impl TimerTable {
    pub(super) fn new() -> Self {
        Self {
            deadlines: [None; Timer::ALL.len()],
            earliest_set: None,
            random: u64::from(random_u32()),
        }
    }

    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        if let Some(slot) = self.deadlines.get_mut(timer as usize) {
            *slot = Some(deadline);
        }
        if self.earliest_set.is_none_or(|earliest| deadline < earliest) {
            self.earliest_set = Some(deadline);
        }
    }

    /// The earliest deadline that was set since the last call, whether or not it still stands: all that can make the
    /// earliest of all come earlier.
    pub(super) const fn take_earliest_set(&mut self) -> Option<Instant> {
        self.earliest_set.take()
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        if let Some(slot) = self.deadlines.get_mut(timer as usize) {
            *slot = None;
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.deadlines = [None; Timer::ALL.len()];
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.deadline(timer).is_some()
    }

    pub(super) fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.deadlines.get(timer as usize).copied().flatten()
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        let mut next: Option<(Instant, Timer)> = None;
        for (deadline, timer) in self.deadlines.iter().zip(Timer::ALL) {
            if let Some(deadline) = *deadline {
                if next.is_none_or(|(earliest, _)| deadline < earliest) {
                    next = Some((deadline, timer));
                }
            }
        }
        next
    }

    /// A timer that is due; it is stopped.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let (deadline, timer) = self.next()?;
        if deadline > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }

    /// 0-333 ms (whitepaper §6.1), from a generator that is good enough to keep peers from acting in step: it runs per
    /// packet when data and answers alternate (`SplitMix64`).
    pub(super) fn jitter(&mut self) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % (REKEY_TIMEOUT_JITTER_MAX_MS + 1))
    }
}

/// The earliest deadline of every peer that has one.
#[derive(Debug, Default)]
pub(super) struct Schedule(BTreeMap<(Instant, PeerSlot), Timer>);

impl Schedule {
    /// Make sure that the peer comes up no later than at its next deadline. `scheduled` is where it stands now.
    pub(super) fn update(
        &mut self,
        peer: PeerSlot,
        next: Option<(Instant, Timer)>,
        scheduled: &mut Option<Instant>,
    ) {
        let Some((deadline, timer)) = next else {
            return;
        };
        if scheduled.is_some_and(|at| at <= deadline) {
            return;
        }
        self.remove(peer, scheduled);
        self.0.insert((deadline, peer), timer);
        *scheduled = Some(deadline);
    }

    pub(super) fn remove(&mut self, peer: PeerSlot, scheduled: &mut Option<Instant>) {
        if let Some(at) = scheduled.take() {
            self.0.remove(&(at, peer));
        }
    }

    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        let (&(deadline, _), timer) = self.0.first_key_value()?;
        Some((deadline, timer.reason()))
    }

    /// A peer whose deadline has come; it is no longer scheduled.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<PeerSlot> {
        let entry = self.0.first_entry()?;
        let &(deadline, peer) = entry.key();
        if deadline > now {
            return None;
        }
        entry.remove();
        Some(peer)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for instants")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_deadline_that_moves_later_stays_scheduled_and_one_that_moves_earlier_is_scheduled_anew() {
        let now = Instant::now();
        let peer = PeerSlot::new(3);
        let mut schedule = Schedule::default();
        let mut scheduled = None;
        let timer = Timer::NoAnswer;
        for (secs, expected) in [(9, 9), (20, 9), (5, 5), (5, 5)] {
            let next = Some((now + secs * SECOND, timer));
            schedule.update(peer, next, &mut scheduled);
            assert_eq!(
                schedule.next(),
                Some((now + expected * SECOND, timer.reason()))
            );
            assert_eq!(schedule.0.len(), 1);
        }
        schedule.update(peer, None, &mut scheduled);
        assert_eq!(schedule.take_due(now + 4 * SECOND), None);
        assert_eq!(schedule.take_due(now + 5 * SECOND), Some(peer));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn timers_come_due_in_order_and_once() {
        let now = Instant::now();
        let mut table = TimerTable::new();
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
            table.set(timer, now + (7 - u32::try_from(place).unwrap()) * SECOND);
        }
        table.stop(Timer::StartHandshake);
        assert_eq!(table.take_due(now + SECOND), None);
        let due: Vec<_> = std::iter::from_fn(|| table.take_due(now + 9 * SECOND)).collect();
        let expected: Vec<_> = Timer::ALL.into_iter().rev().skip(1).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn jitter_is_spread_over_0_to_333_ms() {
        let mut table = TimerTable::new();
        let jitter: Vec<_> = (0..10_000).map(|_| table.jitter().as_millis()).collect();
        assert_eq!(jitter.iter().min(), Some(&0));
        assert_eq!(jitter.iter().max(), Some(&333));
        assert!((150..183).contains(&(jitter.iter().sum::<u128>() / 10_000)));
    }
}
