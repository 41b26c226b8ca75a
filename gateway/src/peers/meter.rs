//! What peers move, over restarts and new keys: the counters of the device begin anew, these don't. Pure.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shared::model::PublicKey;
use shared::wg::{DeviceStatus, PeerStatus};
use uuid::Uuid;

use crate::store::UsageRecord;

/// A session is refused when its handshake is older (whitepaper §6.1, Reject-After-Time).
const ONLINE_FOR: Duration = Duration::from_secs(180);

/// A peer as it was seen last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether a session is up.
    pub online: bool,
    /// Where it was last heard from.
    pub endpoint: Option<SocketAddr>,
}

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The peer.
    pub id: Uuid,
    /// Whether it is the key that is to replace the present one.
    pub is_next: bool,
}

/// The meter.
#[derive(Debug, Default)]
pub struct Meter {
    usage: BTreeMap<Uuid, UsageRecord>,
    /// Usage as the store has it.
    written: BTreeMap<Uuid, UsageRecord>,
    seen: BTreeMap<Uuid, Seen>,
    /// Counters of the device when they were read last.
    counters: BTreeMap<PublicKey, (u64, u64)>,
}

/// What a reading has brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Peers with which a session is up that was not.
    pub came_online: Vec<Uuid>,
    /// The other way round.
    pub went_offline: Vec<Uuid>,
    /// Peers whose next key is in use.
    pub rotated: Vec<Uuid>,
}

impl Meter {
    /// Go on from what the store has.
    pub fn new(usage: BTreeMap<Uuid, UsageRecord>) -> Self {
        Self {
            written: usage.clone(),
            usage,
            ..Self::default()
        }
    }

    /// What a peer has moved.
    pub fn usage(&self, id: Uuid) -> UsageRecord {
        self.usage.get(&id).copied().unwrap_or_default()
    }

    /// How a peer was seen last.
    pub fn seen(&self, id: Uuid) -> Seen {
        self.seen.get(&id).copied().unwrap_or_default()
    }

    /// What a peer has moved of its quota.
    pub fn quota_used(&self, id: Uuid) -> u64 {
        quota_used(&self.usage(id))
    }

    /// Counting for the quota has begun anew, and the store knows. Bytes that were counted since the store was told stay.
    pub fn begin(&mut self, id: Uuid, begun: UsageRecord) {
        let usage = self.usage.entry(id).or_default();
        usage.quota_base_bytes = begun.quota_base_bytes;
        usage.counted_since = begun.counted_since;
        self.written.insert(id, begun);
    }

    /// The store has this now.
    pub fn wrote(&mut self, id: Uuid, usage: UsageRecord) {
        self.written.insert(id, usage);
    }

    /// The peer is no more.
    pub fn forget(&mut self, id: Uuid) {
        self.usage.remove(&id);
        self.written.remove(&id);
        self.seen.remove(&id);
    }

    /// What the store does not have yet.
    pub fn unwritten(&self) -> Vec<(Uuid, UsageRecord)> {
        let differs = |(id, usage): &(&Uuid, &UsageRecord)| self.written.get(id) != Some(usage);
        let usage = self.usage.iter().filter(differs);
        usage.map(|(&id, &usage)| (id, usage)).collect()
    }

    /// Take a reading of the device.
    pub fn read(
        &mut self,
        device: &DeviceStatus,
        holder: impl Fn(&PublicKey) -> Option<Holder>,
        now: Timestamp,
    ) -> Reading {
        let mut reading = Reading::default();
        let mut seen: BTreeMap<Uuid, Seen> = BTreeMap::new();
        let mut counters = BTreeMap::new();
        for peer in &device.peers {
            let Some(Holder { id, is_next }) = holder(&peer.public_key) else {
                continue;
            };
            counters.insert(peer.public_key, self.count(id, peer, now));
            let online = peer.latest_handshake.is_some_and(|age| age < ONLINE_FOR);
            let entry = seen.entry(id).or_default();
            entry.online |= online;
            if peer.endpoint.is_some() && (online || entry.endpoint.is_none()) {
                entry.endpoint = peer.endpoint;
            }
            if is_next && !peer.allowed_ips.is_empty() {
                reading.rotated.push(id);
            }
        }
        for (&id, now) in &seen {
            match (self.seen(id).online, now.online) {
                (false, true) => reading.came_online.push(id),
                (true, false) => reading.went_offline.push(id),
                (true, true) | (false, false) => {}
            }
        }
        let gone = self
            .seen
            .iter()
            .filter(|(id, was)| was.online && !seen.contains_key(*id));
        reading.went_offline.extend(gone.map(|(&id, _)| id));
        self.counters = counters;
        self.seen = seen;
        reading
    }
}

impl Meter {
    /// Count what a peer has moved since the last reading; returns where its counters stand.
    fn count(&mut self, id: Uuid, peer: &PeerStatus, now: Timestamp) -> (u64, u64) {
        let now_at = (peer.rx_bytes, peer.tx_bytes);
        let was_at = self.counters.get(&peer.public_key).copied();
        // A peer that was removed and added again counts from nothing.
        let was_at = was_at.filter(|was| was.0 <= now_at.0 && was.1 <= now_at.1);
        let (rx, tx) = was_at.unwrap_or_default();
        let usage = self.usage.entry(id).or_default();
        usage.rx_bytes = usage.rx_bytes.saturating_add(now_at.0 - rx);
        usage.tx_bytes = usage.tx_bytes.saturating_add(now_at.1 - tx);
        if let Some(at) = handshake_at(peer.latest_handshake, now) {
            let known = usage.latest_handshake_at;
            // A few milliseconds of rounding make no new handshake.
            if known.is_none_or(|known| at.duration_since(known) > SignedDuration::from_secs(1)) {
                usage.latest_handshake_at = Some(at);
            }
        }
        now_at
    }

    /// Take the last reading of peers that have left the device.
    pub fn read_departed(
        &mut self,
        departed: &[PeerStatus],
        holder: impl Fn(&PublicKey) -> Option<Holder>,
        now: Timestamp,
    ) {
        for peer in departed {
            if let Some(Holder { id, .. }) = holder(&peer.public_key) {
                self.count(id, peer, now);
                // When it comes again it begins at nothing.
                self.counters.remove(&peer.public_key);
            }
        }
    }
}

/// What of a usage counts for the quota.
pub fn quota_used(usage: &UsageRecord) -> u64 {
    let total = usage.rx_bytes.saturating_add(usage.tx_bytes);
    total.saturating_sub(usage.quota_base_bytes)
}

fn handshake_at(age: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
    let age = SignedDuration::try_from(age?).ok()?;
    now.checked_sub(age).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn peer(key: u8, rx_bytes: u64, tx_bytes: u64, handshake: Option<u64>) -> PeerStatus {
        PeerStatus {
            public_key: PublicKey::from_bytes([key; 32]),
            preshared_key: None,
            endpoint: Some("192.0.2.7:1000".parse().unwrap()),
            persistent_keepalive_secs: None,
            allowed_ips: vec!["10.17.0.9/32".parse().unwrap()],
            latest_handshake: handshake.map(Duration::from_secs),
            rx_bytes,
            tx_bytes,
        }
    }

    fn read(meter: &mut Meter, peers: Vec<PeerStatus>, second: i64) -> Reading {
        let device = DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers,
        };
        let holder = |key: &PublicKey| match key.as_bytes()[0] {
            1 => Some(Holder {
                id: ID,
                is_next: false,
            }),
            2 => Some(Holder {
                id: ID,
                is_next: true,
            }),
            _ => None,
        };
        let now = Timestamp::from_second(second).unwrap();
        meter.read(&device, holder, now)
    }

    fn moved(meter: &Meter) -> (u64, u64) {
        (meter.usage(ID).rx_bytes, meter.usage(ID).tx_bytes)
    }

    #[test]
    fn counters_go_on_over_a_restart_and_over_a_peer_that_was_added_again() {
        let before = UsageRecord {
            rx_bytes: 1000,
            tx_bytes: 500,
            quota_base_bytes: 100,
            ..UsageRecord::default()
        };
        let mut meter = Meter::new(BTreeMap::from([(ID, before)]));
        read(
            &mut meter,
            vec![peer(1, 10, 20, None), peer(9, 7, 7, None)],
            1,
        );
        assert_eq!(moved(&meter), (1010, 520));
        read(&mut meter, vec![peer(1, 15, 20, None)], 2);
        assert_eq!(moved(&meter), (1015, 520));
        read(&mut meter, vec![], 3);
        read(&mut meter, vec![peer(1, 3, 4, None)], 4);
        assert_eq!(moved(&meter), (1018, 524));
        read(
            &mut meter,
            vec![peer(1, 1, 1, None), peer(2, 5, 5, None)],
            5,
        );
        assert_eq!(moved(&meter), (1024, 530), "the next key counts too");
        assert_eq!(meter.quota_used(ID), 1454);
    }

    #[test]
    fn a_peer_is_online_while_one_of_its_keys_has_a_session() {
        let mut meter = Meter::default();
        let came = read(&mut meter, vec![peer(1, 0, 0, Some(0))], 1000);
        assert_eq!(came.came_online, [ID]);
        let old = meter.usage(ID).latest_handshake_at;
        assert_eq!(old, Some(Timestamp::from_second(1000).unwrap()));
        let both = vec![peer(1, 0, 0, Some(180)), peer(2, 0, 0, Some(1))];
        let rotated = read(&mut meter, both, 1180);
        assert_eq!(rotated.rotated, [ID]);
        assert_eq!(
            (rotated.came_online.len(), rotated.went_offline.len()),
            (0, 0)
        );
        let gone = read(&mut meter, vec![], 1181);
        assert_eq!(gone.went_offline, [ID]);
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut meter = Meter::default();
        read(&mut meter, vec![peer(1, 5, 5, None)], 1);
        let unwritten = meter.unwritten();
        assert_eq!(unwritten.len(), 1);
        for (id, usage) in unwritten {
            meter.wrote(id, usage);
        }
        read(&mut meter, vec![peer(1, 5, 5, None)], 2);
        assert_eq!(meter.unwritten(), []);
    }

    #[test]
    fn the_last_words_of_a_peer_count_and_its_next_life_begins_at_nothing() {
        let mut meter = Meter::new(BTreeMap::new());
        read(&mut meter, vec![peer(1, 100, 10, None)], 0);
        let holder = |_: &PublicKey| {
            Some(Holder {
                id: ID,
                is_next: false,
            })
        };
        let now = Timestamp::from_second(1).unwrap();
        meter.read_departed(&[peer(1, 150, 20, None)], holder, now);
        let usage = meter.usage(ID);
        assert_eq!((usage.rx_bytes, usage.tx_bytes), (150, 20));
        read(&mut meter, vec![peer(1, 160, 30, None)], 2);
        let usage = meter.usage(ID);
        assert_eq!((usage.rx_bytes, usage.tx_bytes), (310, 50));
    }
}
