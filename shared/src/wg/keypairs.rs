//! The sessions of a peer as the whitepaper counts them (§6.2-6.3): one to send with, the one before it for messages
//! still on their way, and one that waits for the peer's first message.
//!
//! The engine holds the keys; this holds what decides about their use. It follows `noise.c` of the kernel
//! (`add_new_keypair`, `wg_noise_received_with_keypair`).
use std::time::{Duration, Instant};

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
    pub(super) created: Instant,
    /// We sent the initiation.
    pub(super) initiator: bool,
    /// Messages sent.
    pub(super) sent: u64,
}

impl Keypair {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.age(now) >= REJECT_AFTER_TIME
    }

    /// Whether sending with it should start a handshake (`keep_key_fresh` of the kernel's `send.c`).
    pub(super) fn is_stale_for_sending(&self, now: Instant) -> bool {
        self.sent > REKEY_AFTER_MESSAGES || (self.initiator && self.age(now) >= REKEY_AFTER_TIME)
    }

    /// Whether receiving with it should start a handshake (`keep_key_fresh` of the kernel's `receive.c`).
    pub(super) fn is_stale_for_receiving(&self, now: Instant) -> bool {
        self.initiator && self.age(now) >= REKEY_ON_RECEIVE_AFTER
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
