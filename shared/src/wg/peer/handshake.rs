//! Handshakes with a peer.
use std::time::Instant;

use super::Peer;
use crate::wg::constants::{
    ERASE_KEYS_AFTER, INITIATION_LEN, MAX_RESPONSES_PER_INITIATION, MIN_INITIATION_INTERVAL,
    REKEY_TIMEOUT,
};
use crate::wg::keypairs::Keypair;
use crate::wg::noise::Engine as _;
use crate::wg::timers::Timer;
use crate::wg::wire::sender_index;
use crate::wg::{DropReason, Ecn, Path, TransmitQueue};

/// What is known about handshakes with a peer.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Our indices in the last two initiations, newest first; both can still be answered.
    pub(super) pending: [Option<u32>; 2],
    /// Responses that may still be tried.
    pub(super) responses_left: u8,
    pub(super) sent_at: Option<Instant>,
    pub(super) attempts: u64,
    pub(super) accepted_at: Option<Instant>,
    pub(super) completed_at: Option<Instant>,
    /// A renewal was started because the session gets too old to receive with; once per session is enough.
    pub(super) renewed_on_receive: bool,
    /// The peer confirmed a session that it had initiated, so the engine knows how old its next initiation may be.
    /// Before that, an initiation recorded in the past could be played back.
    pub(super) replay_guarded: bool,
}

impl Peer {
    /// Start a handshake, unless one was started a moment ago; its repetitions begin to count anew in any case.
    pub(super) fn start_handshake(&mut self, out: &mut TransmitQueue, now: Instant) {
        self.handshake.attempts = 0;
        self.initiate(out, now);
    }

    pub(super) fn initiate(&mut self, out: &mut TransmitQueue, now: Instant) {
        let (Some(path), Some(tunnel)) = (self.endpoint, &mut self.tunnel) else {
            return;
        };
        let not_before = self.handshake.sent_at.map(|at| at + REKEY_TIMEOUT);
        if let Some(not_before) = not_before.filter(|&not_before| now < not_before) {
            if !self.timers.is_set(Timer::RetransmitHandshake) {
                self.timers.set(Timer::StartHandshake, not_before);
            }
            return;
        }
        if out.slot().len() < INITIATION_LEN {
            self.timers.set(Timer::StartHandshake, now);
            return;
        }
        let slot = out.slot();
        let Some(length) = tunnel.initiate(slot, now) else {
            return;
        };
        self.handshake.pending = [sender_index(slot), self.handshake.pending[0]];
        self.handshake.responses_left = MAX_RESPONSES_PER_INITIATION;
        self.handshake.sent_at = Some(now);
        self.commit(path, Ecn::NotEct, length, out, now);
        let jitter = self.timers.jitter();
        self.timers
            .set(Timer::RetransmitHandshake, now + REKEY_TIMEOUT + jitter);
    }

    /// Accept an initiation and send the response to where it came from.
    pub(in crate::wg) fn handle_initiation(
        &mut self,
        path: Path,
        initiation: &[u8],
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let accepted_at = self.handshake.accepted_at;
        if accepted_at.is_some_and(|at| now.saturating_duration_since(at) < MIN_INITIATION_INTERVAL)
        {
            return Err(DropReason::TooManyInitiations);
        }
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        let slot = out.slot();
        if slot.len() < INITIATION_LEN {
            return Err(DropReason::NoRoom);
        }
        let length = tunnel.respond(initiation, slot)?;
        let local_index = sender_index(slot).ok_or(DropReason::InvalidHandshake)?;
        self.keypairs
            .derived_as_responder(Keypair::new(local_index, false, now));
        self.handshake.accepted_at = Some(now);
        if self.handshake.replay_guarded || self.endpoint.is_none() {
            self.endpoint = Some(path);
        }
        self.session_derived(now);
        self.authentic_message_received(initiation.len(), now);
        self.commit(path, Ecn::NotEct, length, out, now);
        Ok(())
    }

    /// Accept the response to our initiation and send what waited for it.
    pub(in crate::wg) fn handle_response(
        &mut self,
        path: Path,
        receiver_index: u32,
        response: &[u8],
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let expected = self.handshake.pending.contains(&Some(receiver_index));
        if !expected || self.handshake.responses_left == 0 {
            return Err(DropReason::UnexpectedAnswer);
        }
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        let slot = out.slot();
        if slot.len() < INITIATION_LEN {
            return Err(DropReason::NoRoom);
        }
        self.handshake.responses_left -= 1;
        let length = tunnel.conclude(response, slot, now)?;
        self.handshake.pending = [None; 2];
        let mut keypair = Keypair::new(receiver_index, true, now);
        keypair.sent = 1;
        self.keypairs.derived_as_initiator(keypair);
        self.endpoint = Some(path);
        self.session_derived(now);
        self.authentic_message_received(response.len(), now);
        self.handshake_complete(now);
        if self.staged.is_empty() {
            self.commit(path, Ecn::NotEct, length, out, now);
        } else {
            self.flush_staged(out, now); // confirms the session as well
        }
        Ok(())
    }

    /// Keep a cookie for our next handshake message.
    pub(in crate::wg) fn handle_cookie_reply(
        &mut self,
        reply: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        tunnel.accept_cookie(reply, now)
    }

    pub(super) fn handshake_complete(&mut self, now: Instant) {
        self.timers.stop(Timer::RetransmitHandshake);
        self.handshake.attempts = 0;
        self.handshake.renewed_on_receive = false;
        self.handshake.completed_at = Some(now);
    }

    pub(super) fn session_derived(&mut self, now: Instant) {
        self.timers.set(Timer::EraseKeys, now + ERASE_KEYS_AFTER);
    }
}
