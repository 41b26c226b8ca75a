//! What a peer does when a deadline has come.
use std::time::{Duration, Instant};

use super::Peer;
use crate::wg::constants::{
    ERASE_KEYS_AFTER, KEEPALIVE_TIMEOUT, MAX_HANDSHAKE_ATTEMPTS, MAX_RETRY_PAUSE,
};
use crate::wg::drop_reason::DropCounters;
use crate::wg::handshakes::HandshakeCounters;
use crate::wg::index::IndexPrefix;
use crate::wg::noise::{Engine as _, Identity};
use crate::wg::timers::Timer;
use crate::wg::{DropReason, HandshakeResult, TransmitQueue};

impl Peer {
    /// Start a handshake as soon as [`handle_timeout`](Self::handle_timeout) is called.
    pub(in crate::wg) fn request_handshake(&mut self, now: Instant) {
        self.timers.set(Timer::StartHandshake, now);
    }

    pub(in crate::wg) fn handle_timeout(
        &mut self,
        identity: Option<&Identity>,
        out: &mut TransmitQueue,
        (drops, handshakes): (&mut DropCounters, &mut HandshakeCounters),
        now: Instant,
    ) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::RetransmitHandshake => {
                    self.retransmit_handshake(out, drops, handshakes, now);
                }
                Timer::PassiveKeepalive => self.send_passive_keepalive(out, now),
                Timer::NoAnswer => {
                    self.let_kernel_choose_source();
                    self.start_handshake(out, now);
                }
                Timer::PersistentKeepalive => self.send_keepalive(out, now),
                Timer::EraseKeys => self.erase_keys(identity),
                Timer::FlushStaged => self.flush_staged(out, now),
                Timer::StartHandshake => self.start_handshake(out, now),
            }
            if out.is_full() {
                return; // what is due still is the next time
            }
        }
    }

    pub(super) fn retransmit_handshake(
        &mut self,
        out: &mut TransmitQueue,
        drops: &mut DropCounters,
        handshakes: &mut HandshakeCounters,
        now: Instant,
    ) {
        if self.handshake.attempts < MAX_HANDSHAKE_ATTEMPTS {
            self.handshake.attempts += 1;
            self.let_kernel_choose_source();
            self.initiate(out, now);
            return;
        }
        handshakes.add(HandshakeResult::GivenUp);
        drops.add(DropReason::HandshakeGivenUp, self.staged.len() as u64);
        self.staged.clear();
        self.timers.stop(Timer::PassiveKeepalive);
        if !self.timers.is_set(Timer::EraseKeys) {
            self.timers.set(Timer::EraseKeys, now + ERASE_KEYS_AFTER);
        }
        if let Some(secs) = self.persistent_keepalive_secs {
            let pause =
                Duration::from_secs(secs.into()).min(MAX_RETRY_PAUSE) + self.timers.jitter();
            self.timers.set(Timer::PersistentKeepalive, now + pause);
        }
    }

    pub(super) fn send_passive_keepalive(&mut self, out: &mut TransmitQueue, now: Instant) {
        self.send_keepalive(out, now);
        if std::mem::take(&mut self.needs_another_keepalive) {
            self.timers
                .set(Timer::PassiveKeepalive, now + KEEPALIVE_TIMEOUT);
        }
    }

    pub(super) fn erase_keys(&mut self, identity: Option<&Identity>) {
        self.keypairs.clear();
        self.handshake.pending = [None; 2];
        if let (Some(tunnel), Some(identity)) = (&mut self.tunnel, identity) {
            tunnel.erase_keys(identity);
        }
    }

    /// Our address may have gone with the network it was in; an answer will tell the new one.
    pub(super) fn let_kernel_choose_source(&mut self) {
        if let Some(path) = &mut self.endpoint {
            path.local = None;
        }
    }

    /// Like [`discard_engine`](Self::discard_engine), if a handshake goes unanswered and the engine's clock may be why.
    pub(in crate::wg) fn discard_engine_with_old_clock(
        &mut self,
        now: Instant,
    ) -> Option<IndexPrefix> {
        let retransmission = self.timers.deadline(Timer::RetransmitHandshake);
        let unanswered = retransmission.is_some_and(|deadline| deadline <= now);
        if !self.has_old_clock || !unanswered || self.keypairs.usable(now).is_some() {
            return None;
        }
        let prefix = self.discard_engine();
        self.request_handshake(now);
        prefix
    }
}
