//! One peer: where it is, its sessions, its staged packets and its timers.
//!
//! The rules are those of the kernel's `send.c`, `receive.c` and `timers.c`, whose event names (data sent, authentic
//! message received, …) the methods at the end of this file keep. What a peer does with packets is in `data.rs`, with
//! handshakes in `handshake.rs`, of its own accord in `timeout.rs`.
mod data;
mod handshake;
mod timeout;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use self::data::Staged;
use self::handshake::Handshake;
use super::constants::{KEEPALIVE_TIMEOUT, NO_ANSWER_TIMEOUT};
use super::index::IndexPrefix;
use super::keypairs::Keypairs;
use super::noise::{Identity, Tunnel};
use super::timers::{Timer, TimerTable};
use super::{Path, PeerStatus};
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
    /// Whose allowed IPs it takes over with its first data message.
    pub(super) succeeds: Option<PublicKey>,
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
    /// The wall clock was set forward after the engine was made.
    has_old_clock: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Peer {
    pub(super) fn new(public_key: PublicKey, sequence: u64) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: BTreeMap::new(),
            succeeds: None,
            sequence,
            scheduled: None,
            tunnel: None,
            keypairs: Keypairs::default(),
            handshake: Handshake::default(),
            staged: VecDeque::new(),
            timers: TimerTable::new(),
            needs_another_keepalive: false,
            has_old_clock: false,
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

    pub(super) const fn take_earliest_set(&mut self) -> Option<Instant> {
        self.timers.take_earliest_set()
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.timers.next()
    }

    /// Returns the prefix that is free now, if the change made the engine useless.
    pub(super) fn set_preshared_key(
        &mut self,
        key: &PresharedKey,
        now: Instant,
    ) -> Option<IndexPrefix> {
        let key = (!key.is_zero()).then(|| key.clone());
        if self.preshared_key == key {
            return None;
        }
        self.preshared_key = key;
        let prefix = self.discard_engine();
        self.restart_staged(now);
        prefix
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
        self.has_old_clock = false;
        self.tunnel.take().map(|tunnel| tunnel.prefix())
    }

    pub(super) const fn suspect_engine_clock(&mut self) {
        self.has_old_clock = self.tunnel.is_some();
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

    /// After the engine was discarded: call the peer at once if anything waits for it.
    pub(super) fn restart(&mut self, now: Instant) {
        self.restart_persistent_keepalive(now);
        self.restart_staged(now);
    }

    fn restart_staged(&mut self, now: Instant) {
        if !self.staged.is_empty() {
            self.request_handshake(now);
        }
    }

    fn data_sent(&mut self, now: Instant) {
        if !self.timers.is_set(Timer::NoAnswer) {
            let timeout = NO_ANSWER_TIMEOUT + self.timers.jitter();
            self.timers.set(Timer::NoAnswer, now + timeout);
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
}
