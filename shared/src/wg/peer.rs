//! One peer: where it is, its sessions, its staged packets and its timers.
//!
//! The rules are those of the kernel's `send.c`, `receive.c` and `timers.c`, whose event names (`data sent`,
//! `authentic message received`, …) the methods at the end of this file keep.
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::constants::{
    DATA_OVERHEAD, ERASE_KEYS_AFTER, INITIATION_LEN, KEEPALIVE_TIMEOUT, MAX_HANDSHAKE_ATTEMPTS,
    MAX_RESPONSES_PER_INITIATION, MAX_RETRY_PAUSE, MAX_STAGED_PACKETS, MIN_INITIATION_INTERVAL,
    NO_ANSWER_TIMEOUT, REKEY_TIMEOUT,
};
use super::drop_reason::{DropCounters, DropReason};
use super::index::IndexPrefix;
use super::keypairs::{Keypair, Keypairs};
use super::noise::{Engine as _, Identity, Opened, Tunnel};
use super::timers::{Timer, TimerTable};
use super::wire::sender_index;
use super::{Ecn, Path, PeerStatus, TransmitQueue};
use crate::model::{PresharedKey, PublicKey};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) public_key: PublicKey,
    preshared_key: Option<PresharedKey>,
    /// Where to send to, and from which of our addresses.
    endpoint: Option<Path>,
    persistent_keepalive_secs: Option<u16>,
    /// Its networks by the order in which they were added; the device's table points here.
    pub(super) allowed_ips: BTreeMap<u64, IpNetwork>,
    /// Place among the peers of the device.
    pub(super) sequence: u64,
    /// When the device's schedule has it.
    pub(super) scheduled: Option<Instant>,
    /// Made when first needed: it takes a scalar multiplication and 10 KB.
    tunnel: Option<Box<Tunnel>>,
    keypairs: Keypairs,
    handshake: Handshake,
    staged: VecDeque<Staged>,
    timers: TimerTable,
    /// More data came while a passive keepalive was due: another one will be.
    needs_another_keepalive: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What is known about handshakes with a peer.
#[derive(Debug, Default)]
struct Handshake {
    /// Our indices in the last two initiations, newest first; both can still be answered.
    pending: [Option<u32>; 2],
    /// Responses that may still be tried.
    responses_left: u8,
    sent_at: Option<Instant>,
    attempts: u64,
    accepted_at: Option<Instant>,
    completed_at: Option<Instant>,
    /// A renewal was started because the session gets too old to receive with; once per session is enough.
    renewed_on_receive: bool,
    /// The peer confirmed a session that it had initiated, so the engine knows how old its next initiation may be.
    /// Before that, an initiation recorded in the past could be played back.
    replay_guarded: bool,
}

/// A padded packet that waits for a session.
#[derive(Debug)]
struct Staged {
    padded: Box<[u8]>,
    ecn: Ecn,
}

/// Why a packet could not be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    NoSession,
    NoRoom,
}

impl Peer {
    pub(super) fn new(public_key: PublicKey, sequence: u64) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: BTreeMap::new(),
            sequence,
            scheduled: None,
            tunnel: None,
            keypairs: Keypairs::default(),
            handshake: Handshake::default(),
            staged: VecDeque::new(),
            timers: TimerTable::new(),
            needs_another_keepalive: false,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        PeerStatus {
            public_key: self.public_key,
            preshared_key: self.preshared_key.clone(),
            endpoint: self.endpoint.map(|path| path.remote),
            persistent_keepalive_secs: self.persistent_keepalive_secs,
            allowed_ips: self.allowed_ips.values().copied().collect(),
            latest_handshake: self
                .handshake
                .completed_at
                .map(|at| now.saturating_duration_since(at)),
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
        }
    }

    pub(super) const fn has_endpoint(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    // --- Configuration ---

    /// Returns the prefix that is free now, if the change made the engine useless.
    pub(super) fn set_preshared_key(&mut self, key: &PresharedKey) -> Option<IndexPrefix> {
        let key = (!key.is_zero()).then(|| key.clone());
        if self.preshared_key == key {
            return None;
        }
        self.preshared_key = key;
        self.discard_engine()
    }

    pub(super) fn set_endpoint(&mut self, remote: SocketAddr, now: Instant) {
        if self.endpoint.is_some_and(|path| path.remote == remote) {
            return;
        }
        self.endpoint = Some(Path {
            remote,
            local: None,
        });
        self.restart_persistent_keepalive(now);
    }

    /// Persistent keepalives go out at once when there is a new place to send them or a new key to send them with.
    pub(super) fn restart_persistent_keepalive(&mut self, now: Instant) {
        if self.persistent_keepalive_secs.is_some() {
            self.timers.set(Timer::PersistentKeepalive, now);
        }
    }

    pub(super) fn set_persistent_keepalive(&mut self, secs: u16, now: Instant) {
        let secs = (secs > 0).then_some(secs);
        if self.persistent_keepalive_secs == secs {
            return;
        }
        let was_off = self.persistent_keepalive_secs.is_none();
        self.persistent_keepalive_secs = secs;
        match secs {
            None => self.timers.stop(Timer::PersistentKeepalive),
            Some(_) if was_off => self.timers.set(Timer::PersistentKeepalive, now),
            Some(secs) => self.timers.set(
                Timer::PersistentKeepalive,
                now + Duration::from_secs(secs.into()),
            ),
        }
    }

    /// Forget one of our addresses as the one to send from.
    pub(super) fn forget_local(&mut self, local: IpAddr) {
        if let Some(path) = &mut self.endpoint {
            path.local.take_if(|address| *address == local);
        }
    }

    /// Drop engine and sessions; they are made anew with the keys that hold then. Returns the prefix that is free now.
    pub(super) fn discard_engine(&mut self) -> Option<IndexPrefix> {
        self.keypairs.clear();
        self.handshake = Handshake {
            completed_at: self.handshake.completed_at,
            ..Handshake::default()
        };
        let keepalive = self.timers.deadline(Timer::PersistentKeepalive);
        self.timers.stop_all();
        if let Some(deadline) = keepalive {
            self.timers.set(Timer::PersistentKeepalive, deadline);
        }
        self.needs_another_keepalive = false;
        self.tunnel.take().map(|tunnel| tunnel.prefix())
    }

    pub(super) const fn has_engine(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn make_engine(&mut self, identity: &Identity, prefix: IndexPrefix) {
        self.tunnel = Some(Box::new(identity.tunnel(
            &self.public_key,
            self.preshared_key.as_ref(),
            prefix,
        )));
    }

    // --- Outbound ---

    /// Send a padded packet, or keep it until there is a session.
    pub(super) fn send(
        &mut self,
        padded: &[u8],
        ecn: Ecn,
        out: &mut TransmitQueue,
        drops: &mut DropCounters,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.endpoint.is_none() {
            return Err(DropReason::NoEndpoint);
        }
        if self.tunnel.is_none() {
            return Err(DropReason::NoPrivateKey);
        }
        if self.staged.is_empty() {
            match self.seal(padded, ecn, out, now) {
                Ok(()) => return Ok(()),
                Err(Unsent::NoRoom) => return Err(DropReason::NoRoom),
                Err(Unsent::NoSession) => {}
            }
        }
        if self.staged.len() >= MAX_STAGED_PACKETS {
            self.staged.pop_front();
            drops.add(DropReason::StagedOverflow, 1);
        }
        self.staged.push_back(Staged {
            padded: padded.into(),
            ecn,
        });
        self.flush_staged(out, now);
        Ok(())
    }

    /// Send what is staged; without a session, start a handshake.
    fn flush_staged(&mut self, out: &mut TransmitQueue, now: Instant) {
        while let Some(staged) = self.staged.pop_front() {
            match self.seal(&staged.padded, staged.ecn, out, now) {
                Ok(()) => {}
                Err(unsent) => {
                    self.staged.push_front(staged);
                    match unsent {
                        Unsent::NoRoom => self.timers.set(Timer::FlushStaged, now),
                        Unsent::NoSession => self.start_handshake(out, now),
                    }
                    return;
                }
            }
        }
    }

    fn seal(
        &mut self,
        padded: &[u8],
        ecn: Ecn,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), Unsent> {
        let (Some(path), Some(tunnel)) = (self.endpoint, &mut self.tunnel) else {
            return Err(Unsent::NoSession);
        };
        let keypair = self.keypairs.usable(now).ok_or(Unsent::NoSession)?;
        if out.slot().len() < INITIATION_LEN.max(padded.len() + DATA_OVERHEAD) {
            return Err(Unsent::NoRoom);
        }
        let Some(length) = tunnel.seal(padded, out.slot()) else {
            self.keypairs.clear(); // the engine counts the time in suspend too and ended the session before us
            return Err(Unsent::NoSession);
        };
        keypair.sent += 1;
        let stale = keypair.is_stale_for_sending(now);
        self.commit(path, ecn, length, out, now);
        if !padded.is_empty() {
            self.data_sent(now);
        }
        if stale {
            self.start_handshake(out, now);
        }
        Ok(())
    }

    fn send_keepalive(&mut self, out: &mut TransmitQueue, now: Instant) {
        if !self.staged.is_empty() {
            self.flush_staged(out, now);
        } else if self.seal(&[], Ecn::NotEct, out, now) == Err(Unsent::NoSession) {
            self.start_handshake(out, now);
        }
    }

    /// Start a handshake, unless one was started a moment ago; its repetitions begin to count anew in any case.
    fn start_handshake(&mut self, out: &mut TransmitQueue, now: Instant) {
        self.handshake.attempts = 0;
        self.initiate(out, now);
    }

    fn initiate(&mut self, out: &mut TransmitQueue, now: Instant) {
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

    fn commit(
        &mut self,
        path: Path,
        ecn: Ecn,
        length: usize,
        out: &mut TransmitQueue,
        now: Instant,
    ) {
        out.commit(path, ecn, length);
        self.tx_bytes += length as u64;
        self.authentic_message_sent();
        self.authentic_message_either_way(now);
    }

    // --- Inbound ---

    /// Accept an initiation and send the response to where it came from.
    pub(super) fn handle_initiation(
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
            .derived_as_responder(new_keypair(local_index, false, now));
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
    pub(super) fn handle_response(
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
        let mut keypair = new_keypair(receiver_index, true, now);
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
    pub(super) fn handle_cookie_reply(
        &mut self,
        reply: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        tunnel.accept_cookie(reply, now)
    }

    /// The session with this index, if it may still be used.
    pub(super) fn check_session(
        &self,
        receiver_index: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        let keypair = self
            .keypairs
            .find(receiver_index)
            .ok_or(DropReason::UnknownReceiver)?;
        if keypair.is_expired(now) {
            return Err(DropReason::SessionExpired);
        }
        Ok(())
    }

    /// Read a data message whose session was checked.
    pub(super) fn open(&mut self, message: &[u8], slot: &mut [u8]) -> Result<Opened, DropReason> {
        if slot.len() < message.len() {
            return Err(DropReason::NoRoom);
        }
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        tunnel.open(message, slot)
    }

    /// All that follows from an authentic data message before its packet is looked at.
    pub(super) fn data_message_received(
        &mut self,
        path: Path,
        receiver_index: u32,
        length: usize,
        opened: Opened,
        out: &mut TransmitQueue,
        now: Instant,
    ) {
        if self.endpoint != Some(path) {
            self.endpoint = Some(path);
        }
        self.authentic_message_received(length, now);
        if opened != Opened::Keepalive {
            self.data_received(now);
        }
        if self.keypairs.received_with(receiver_index) {
            self.handshake.replay_guarded = true;
            self.handshake_complete(now);
            self.flush_staged(out, now);
        }
        let stale = self
            .keypairs
            .current()
            .is_some_and(|keypair| keypair.is_stale_for_receiving(now));
        if stale && !self.handshake.renewed_on_receive {
            self.handshake.renewed_on_receive = true;
            self.start_handshake(out, now);
        }
    }

    // --- Timers ---

    /// Start a handshake as soon as [`handle_timeout`](Self::handle_timeout) is called.
    pub(super) fn request_handshake(&mut self, now: Instant) {
        self.timers.set(Timer::StartHandshake, now);
    }

    pub(super) fn handle_timeout(
        &mut self,
        identity: Option<&Identity>,
        out: &mut TransmitQueue,
        drops: &mut DropCounters,
        now: Instant,
    ) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::RetransmitHandshake => self.retransmit_handshake(out, drops, now),
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

    fn retransmit_handshake(
        &mut self,
        out: &mut TransmitQueue,
        drops: &mut DropCounters,
        now: Instant,
    ) {
        if self.handshake.attempts < MAX_HANDSHAKE_ATTEMPTS {
            self.handshake.attempts += 1;
            self.let_kernel_choose_source();
            self.initiate(out, now);
            return;
        }
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

    fn send_passive_keepalive(&mut self, out: &mut TransmitQueue, now: Instant) {
        self.send_keepalive(out, now);
        if std::mem::take(&mut self.needs_another_keepalive) {
            self.timers
                .set(Timer::PassiveKeepalive, now + KEEPALIVE_TIMEOUT);
        }
    }

    fn erase_keys(&mut self, identity: Option<&Identity>) {
        self.keypairs.clear();
        self.handshake.pending = [None; 2];
        if let (Some(tunnel), Some(identity)) = (&mut self.tunnel, identity) {
            tunnel.erase_keys(identity);
        }
    }

    /// Our address may have gone with the network it was in; an answer will tell the new one.
    fn let_kernel_choose_source(&mut self) {
        if let Some(path) = &mut self.endpoint {
            path.local = None;
        }
    }

    // --- Events, by their names in the kernel's timers.c ---

    fn data_sent(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::NoAnswer) {
            let jitter = self.timers.jitter();
            self.timers
                .set(Timer::NoAnswer, now + NO_ANSWER_TIMEOUT + jitter);
        }
    }

    fn data_received(&mut self, now: Instant) {
        if self.timers.is_set(Timer::PassiveKeepalive) {
            self.needs_another_keepalive = true;
        } else {
            self.timers
                .set(Timer::PassiveKeepalive, now + KEEPALIVE_TIMEOUT);
        }
    }

    fn authentic_message_sent(&mut self) {
        self.timers.stop(Timer::PassiveKeepalive);
    }

    fn authentic_message_received(&mut self, length: usize, now: Instant) {
        self.rx_bytes += length as u64;
        self.timers.stop(Timer::NoAnswer);
        self.authentic_message_either_way(now);
    }

    fn authentic_message_either_way(&mut self, now: Instant) {
        if let Some(secs) = self.persistent_keepalive_secs {
            self.timers.set(
                Timer::PersistentKeepalive,
                now + Duration::from_secs(secs.into()),
            );
        }
    }

    fn handshake_complete(&mut self, now: Instant) {
        self.timers.stop(Timer::RetransmitHandshake);
        self.handshake.attempts = 0;
        self.handshake.renewed_on_receive = false;
        self.handshake.completed_at = Some(now);
    }

    fn session_derived(&mut self, now: Instant) {
        self.timers.set(Timer::EraseKeys, now + ERASE_KEYS_AFTER);
    }
}

const fn new_keypair(local_index: u32, initiator: bool, now: Instant) -> Keypair {
    Keypair {
        local_index,
        created: now,
        initiator,
        sent: 0,
    }
}
