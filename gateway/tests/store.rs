//! What a store promises, kept by both of them; and what only the one on disk can be asked.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]
#[path = "store/child.rs"]
mod child;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/disk.rs"]
mod disk;
#[path = "store/full.rs"]
mod full;
#[path = "store/promises.rs"]
mod promises;

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway::audit::{self, Draft};
use gateway::store::{Change, PeerRecord, RotationRecord};
use jiff::Timestamp;
use shared::api::audit::AuditEntry;
use shared::model::{PresharedKey, PublicKey};
use uuid::Uuid;

/// A peer like no other.
pub fn peer(number: u32) -> PeerRecord {
    let key = |salt: u8| {
        let mut key = [salt; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    };
    let [_, a, b, c] = number.to_be_bytes();
    let odd = number % 2 == 1;
    PeerRecord {
        id: Uuid::from_u128(u128::from(number)),
        revision: u64::from(number) + 1,
        name: format!("peer-{number}"),
        public_key: PublicKey::from_bytes(key(1)),
        preshared_key: odd.then(|| PresharedKey::from_bytes(key(2))),
        addresses: vec![
            IpAddr::from([10, a, b, c]),
            IpAddr::from([0xfd17, 0, 0, 0, 0, 0, 0, u16::from(c)]),
        ],
        networks: vec!["192.168.50.0/24".parse().unwrap()],
        role: odd.then(|| "kube-admin".to_owned()),
        enabled: odd,
        expires_at: odd.then(|| Timestamp::from_second(1_900_000_000).unwrap()),
        quota_bytes: odd.then_some(u64::from(number) << 30),
        labels: BTreeMap::from([("place".to_owned(), "with \"quotes\" and ñ".to_owned())]),
        created_at: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
        updated_at: Timestamp::from_millisecond(1_700_000_001_456).unwrap(),
        rotation: odd.then(|| RotationRecord {
            public_key: PublicKey::from_bytes(key(3)),
            preshared_key: None,
            until: Timestamp::from_second(1_800_000_000).unwrap(),
        }),
    }
}

/// The entry of the audit log that follows.
pub fn entry(previous: Option<&AuditEntry>) -> AuditEntry {
    let draft = Draft {
        at: Timestamp::from_millisecond(1_700_000_000_000).unwrap(),
        actor: "daemon".to_owned(),
        action: "peer.create".to_owned(),
        resource: "peers/1".to_owned(),
        request: None,
        difference: audit::difference(None, Some(&peer(1))),
    };
    audit::seal(previous, draft)
}

/// Put this peer.
pub fn put(number: u32) -> Change {
    Change::PutPeer(peer(number))
}
