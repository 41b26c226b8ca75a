//! The sessions of a peer as the whitepaper counts them (§6.2-6.3): one to send with, the one before it for messages
//! still on their way, and one that waits for the peer's first message.
//!
//! The engine holds the keys; this holds what decides about their use. It follows `noise.c` of the kernel
//! (`add_new_keypair`, `wg_noise_received_with_keypair`).
use std::time::Instant;

use super::constants::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE_AFTER,
};
use super::noise;

/// One session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keypair {
    /// Receiver index of messages to us.
    pub(super) local_index: u32,
    /// When it may no longer be used. Instants and not the age: they are compared on every packet.
    rejected_at: Instant,
    /// When sending with it should start a handshake; only the initiator does so.
    renewed_on_send_at: Option<Instant>,
    /// When receiving with it should.
    renewed_on_receive_at: Option<Instant>,
    /// Messages sent.
    pub(super) sent: u64,
}

impl Keypair {
    /// A session that begins now; `initiator`: we sent the initiation.
    pub(super) fn new(local_index: u32, initiator: bool, now: Instant) -> Self {
        Self {
            local_index,
            rejected_at: now + REJECT_AFTER_TIME,
            renewed_on_send_at: initiator.then(|| now + REKEY_AFTER_TIME),
            renewed_on_receive_at: initiator.then(|| now + REKEY_ON_RECEIVE_AFTER),
            sent: 0,
        }
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.rejected_at
    }

    /// Whether sending with it should start a handshake (`keep_key_fresh` of the kernel's `send.c`).
    pub(super) fn is_stale_for_sending(&self, now: Instant) -> bool {
        self.sent > REKEY_AFTER_MESSAGES || self.renewed_on_send_at.is_some_and(|at| now >= at)
    }

    /// Whether receiving with it should start a handshake (`keep_key_fresh` of the kernel's `receive.c`).
    pub(super) fn is_stale_for_receiving(&self, now: Instant) -> bool {
        self.renewed_on_receive_at.is_some_and(|at| now >= at)
    }
}

#[derive(Debug, Default)]
pub(super) struct Keypairs {
    current: Option<Keypair>,
    previous: Option<Keypair>,
    /// Ours by a response that we sent; not used before the peer proved that it has the key too.
    next: Option<Keypair>,
}

impl Keypairs {
    /// A response to our initiation was accepted.
    pub(super) fn derived_as_initiator(&mut self, keypair: Keypair) {
        self.forget_overwritten(&keypair);
        self.previous = self.next.take().or(self.current);
        self.current = Some(keypair);
    }

    /// We answered an initiation.
    pub(super) fn derived_as_responder(&mut self, keypair: Keypair) {
        self.forget_overwritten(&keypair);
        self.next = Some(keypair);
        self.previous = None;
    }

    /// The session with this receiver index.
    pub(super) fn find(&self, local_index: u32) -> Option<&Keypair> {
        [&self.current, &self.previous, &self.next]
            .into_iter()
            .flatten()
            .find(|keypair| keypair.local_index == local_index)
    }

    /// An authentic message arrived with this receiver index. Returns whether it confirmed a new session.
    pub(super) fn received_with(&mut self, local_index: u32) -> bool {
        let confirmed = self
            .next
            .take_if(|keypair| keypair.local_index == local_index);
        if confirmed.is_none() {
            return false;
        }
        self.previous = std::mem::replace(&mut self.current, confirmed);
        true
    }

    pub(super) const fn current(&self) -> Option<&Keypair> {
        self.current.as_ref()
    }

    /// The session to send with.
    pub(super) fn usable(&mut self, now: Instant) -> Option<&mut Keypair> {
        self.current
            .as_mut()
            .filter(|keypair| !keypair.is_expired(now) && keypair.sent < REJECT_AFTER_MESSAGES)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The engine keeps few sessions, and a new one may take the place of one we still know.
    fn forget_overwritten(&mut self, new: &Keypair) {
        for keypair in [&mut self.current, &mut self.previous, &mut self.next] {
            keypair.take_if(|old| noise::share_a_place(old.local_index, new.local_index));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for instants")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keypair(local_index: u32, initiator: bool) -> Keypair {
        Keypair::new(local_index, initiator, Instant::now())
    }

    fn known(keypairs: &Keypairs) -> Vec<u32> {
        (0..100)
            .filter(|&index| keypairs.find(index).is_some())
            .collect()
    }

    #[test]
    fn a_responder_sends_with_the_old_session_until_the_new_one_is_confirmed() {
        let mut keypairs = Keypairs::default();
        keypairs.derived_as_responder(keypair(1, false));
        assert!(keypairs.current().is_none());
        assert!(keypairs.received_with(1));
        assert!(!keypairs.received_with(1));
        keypairs.derived_as_responder(keypair(2, false));
        assert_eq!(keypairs.current().unwrap().local_index, 1);
        assert!(!keypairs.received_with(1));
        assert!(keypairs.received_with(2));
        assert_eq!(keypairs.current().unwrap().local_index, 2);
        assert_eq!(known(&keypairs), [1, 2]);
        keypairs.derived_as_responder(keypair(3, false));
        assert_eq!(known(&keypairs), [2, 3]);
    }

    #[test]
    fn an_initiator_sends_with_the_new_session_and_receives_with_both() {
        let mut keypairs = Keypairs::default();
        for index in 1..=3 {
            keypairs.derived_as_initiator(keypair(index, true));
            assert_eq!(keypairs.current().unwrap().local_index, index);
        }
        assert_eq!(known(&keypairs), [2, 3]);
    }

    #[test]
    fn a_session_whose_place_was_taken_is_forgotten() {
        let mut keypairs = Keypairs::default();
        keypairs.derived_as_initiator(keypair(1, true));
        keypairs.derived_as_responder(keypair(9, false));
        assert!(keypairs.current().is_none());
        assert_eq!(known(&keypairs), [9]);
    }

    #[test]
    fn message_counts_end_sessions() {
        let mut keypairs = Keypairs::default();
        keypairs.derived_as_initiator(keypair(1, false));
        let now = Instant::now();
        let stale_at = |keypairs: &mut Keypairs, sent| {
            let keypair = keypairs.usable(now).unwrap();
            keypair.sent = sent;
            keypair.is_stale_for_sending(now)
        };
        assert!(!stale_at(&mut keypairs, 1 << 60));
        assert!(stale_at(&mut keypairs, (1 << 60) + 1));
        assert!(stale_at(&mut keypairs, REJECT_AFTER_MESSAGES));
        assert!(keypairs.usable(now).is_none());
    }

    #[test]
    fn only_the_initiator_renews_by_age() {
        for initiator in [true, false] {
            let created = Instant::now();
            let keypair = Keypair::new(1, initiator, created);
            let at = |secs| created + Duration::from_secs(secs);
            assert!(!keypair.is_stale_for_sending(at(119)));
            assert_eq!(keypair.is_stale_for_sending(at(120)), initiator);
            assert!(!keypair.is_stale_for_receiving(at(164)));
            assert_eq!(keypair.is_stale_for_receiving(at(165)), initiator);
            assert!(!keypair.is_expired(at(179)));
            assert!(keypair.is_expired(at(180)));
        }
    }
}
