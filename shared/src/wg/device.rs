//! All peers of one interface.
//!
//! What is done with packets and datagrams stands in `outbound.rs` and `inbound.rs`, what is done with configuration in
//! `configure.rs`; each file follows its input step by step.
use std::net::IpAddr;
use std::time::Instant;

use super::allowed_ips::AllowedIps;
use super::constants::MAX_PEERS_PER_TIMEOUT;
use super::drop_reason::DropCounters;
use super::handshakes::HandshakeCounters;
use super::index::IndexTable;
use super::limits::{HandshakeGate, Mac1Check};
use super::noise::Identity;
use super::peer_table::{PeerSlot, PeerTable};
use super::timers::Schedule;
use super::{DeviceStatus, DropReason, HandshakeResult, PeerStatus, TransmitQueue};
use crate::model::{PrivateKey, PublicKey};

/// A WireGuard device without its I/O.
#[derive(Debug)]
pub struct Device {
    pub(super) mtu: usize,
    pub(super) identity: Option<LocalIdentity>,
    pub(super) peers: PeerTable,
    pub(super) allowed_ips: AllowedIps,
    pub(super) indices: IndexTable,
    pub(super) gate: HandshakeGate,
    pub(super) schedule: Schedule,
    pub(super) drops: DropCounters,
    pub(super) handshakes: HandshakeCounters,
    /// For the order of peers and of networks.
    pub(super) next_sequence: u64,
}

/// Our key and what strangers have to know of it.
#[derive(Debug)]
pub(super) struct LocalIdentity {
    pub(super) noise: Identity,
    pub(super) mac1: Mac1Check,
}

impl LocalIdentity {
    pub(super) fn new(key: &PrivateKey) -> Self {
        let noise = Identity::new(key.clone());
        Self {
            mac1: Mac1Check::new(noise.public_key()),
            noise,
        }
    }
}

/// A packet read from TUN.
#[derive(Debug)]
pub struct OutboundPacket<'a> {
    /// The packet and at least 16 bytes behind it, which may be used while the call lasts and are restored after it.
    pub buffer: &'a mut [u8],
    /// Length of the packet.
    pub length: usize,
}

impl Device {
    /// A device without key and peers whose inner packets have at most `mtu` bytes.
    pub fn new(mtu: usize, now: Instant) -> Self {
        Self {
            mtu,
            identity: None,
            peers: PeerTable::default(),
            allowed_ips: AllowedIps::new(),
            indices: IndexTable::new(),
            gate: HandshakeGate::new(now),
            schedule: Schedule::default(),
            drops: DropCounters::default(),
            handshakes: HandshakeCounters::default(),
            next_sequence: 0,
        }
    }

    /// Change the size up to which packets are padded.
    pub const fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// What `wg show` shows, but for listen port and fwmark.
    pub fn status(&self, now: Instant) -> DeviceStatus {
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_unstable_by_key(|peer| peer.sequence);
        let peers: Vec<PeerStatus> = peers.into_iter().map(|peer| peer.status(now)).collect();
        DeviceStatus {
            private_key: self
                .identity
                .as_ref()
                .map(|identity| identity.noise.private_key().clone()),
            listen_port: 0,
            fwmark: 0,
            peers,
        }
    }

    /// One peer of it as it is.
    pub fn peer_status(&self, key: &PublicKey, now: Instant) -> Option<PeerStatus> {
        let slot = self.peers.find(key)?;
        self.peers.get(slot).map(|peer| peer.status(now))
    }

    /// How many datagrams and packets ended for each reason.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        self.drops.iter()
    }

    /// How many handshakes ended in each way.
    pub fn handshakes(&self) -> impl Iterator<Item = (HandshakeResult, u64)> {
        self.handshakes.iter()
    }

    /// Start a handshake with every peer whose endpoint is known: after a start, when the peers still hold sessions
    /// that we lost. What does not fit into `out` follows with [`handle_timeout`](Self::handle_timeout).
    pub fn initiate_handshakes(&mut self, out: &mut TransmitQueue, now: Instant) {
        for (slot, peer) in self.peers.iter_mut() {
            if peer.has_endpoint() {
                peer.request_handshake(now);
                self.schedule
                    .update(slot, peer.next_deadline(), &mut peer.scheduled);
            }
        }
        self.handle_timeout(out, now);
    }

    /// The wall clock was set forward. Initiations carry the time and peers accept only newer ones; the engine of a
    /// peer reads the clock once, when it is made. It is made anew if a handshake gets no answer, sessions stay.
    ///
    /// After a step back there is nothing to do: engines go on from the time that they read.
    pub fn handle_forward_clock_step(&mut self) {
        for (_, peer) in self.peers.iter_mut() {
            peer.suspect_engine_clock();
        }
    }

    /// Stop sending from an address of ours that the kernel refused; it chooses until a peer writes to another one.
    pub fn handle_unusable_local(&mut self, local: IpAddr) {
        for (_, peer) in self.peers.iter_mut() {
            peer.forget_local(local);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next, and why. May change after every call of
    /// `apply_change`, `handle_tun_packet`, `handle_datagram` and `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.schedule.next()
    }

    /// Do what is due: retransmissions, keepalives, rekeys, erasure of old keys. Ends before all is done when `out` is
    /// full or much is due, for handshakes are slow; [`poll_timeout`](Self::poll_timeout) then lies in the past.
    pub fn handle_timeout(&mut self, out: &mut TransmitQueue, now: Instant) {
        for _ in 0..MAX_PEERS_PER_TIMEOUT {
            if out.is_full() {
                return;
            }
            let Some(slot) = self.schedule.take_due(now) else {
                return;
            };
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.scheduled = None;
                if let Some(prefix) = peer.discard_engine_with_old_clock(now) {
                    self.indices.release(prefix);
                }
            }
            self.ensure_engine(slot);
            if let Some(peer) = self.peers.get_mut(slot) {
                let identity = self.identity.as_ref().map(|identity| &identity.noise);
                let counters = (&mut self.drops, &mut self.handshakes);
                peer.handle_timeout(identity, out, counters, now);
            }
            self.reschedule(slot);
        }
    }

    /// Give a peer an engine if it has none and we have a key.
    #[inline]
    pub(super) fn ensure_engine(&mut self, slot: PeerSlot) {
        if self.peers.get(slot).is_some_and(|peer| !peer.has_engine()) {
            self.make_engine(slot);
        }
    }

    #[cold] // beside the packets: it has a frame of pages on the stack
    #[inline(never)]
    fn make_engine(&mut self, slot: PeerSlot) {
        if let (Some(peer), Some(identity)) = (self.peers.get_mut(slot), &self.identity) {
            peer.make_engine(&identity.noise, self.indices.allocate(slot));
        }
    }

    /// Note when a peer has something to do, after anything was done with it.
    pub(super) fn reschedule(&mut self, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        // On a packet mostly nothing was set, or only what comes later than what is scheduled.
        let earliest_set = peer.take_earliest_set();
        if let Some(scheduled) = peer.scheduled {
            if earliest_set.is_none_or(|earliest| earliest >= scheduled) {
                return;
            }
        }
        let next = peer.next_deadline();
        self.schedule.update(slot, next, &mut peer.scheduled);
    }
}
