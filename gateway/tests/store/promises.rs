//! Promises that both stores keep.
use std::net::IpAddr;

use gateway::store::memory::MemoryStore;
use gateway::store::sqlite::SqliteStore;
use gateway::store::{
    Change, IdempotentAnswer, InviteRecord, LanServerRecord, Store, StoreError, TokenRecord,
    UsageRecord,
};
use jiff::Timestamp;
use shared::api::scope::Scope;
use shared::model::{PresharedKey, PublicKey};
use uuid::Uuid;

use crate::{entry, peer, put};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn token(id: &str) -> TokenRecord {
    TokenRecord {
        id: id.to_owned(),
        revision: 1,
        name: "ci".to_owned(),
        secret_hash: [7; 32],
        scopes: vec![Scope::Read, Scope::PeersWrite],
        created_at: at(1),
        created_by: "unix:uid=0,gid=0,pid=1".to_owned(),
        expires_at: Some(at(2)),
    }
}

fn invite(number: u8, used_by: Option<u8>) -> InviteRecord {
    InviteRecord {
        id: Uuid::from_u128(u128::from(number)),
        lan_server: "home".to_owned(),
        public_key: PublicKey::from_bytes([number; 32]),
        preshared_key: PresharedKey::from_bytes([number + 1; 32]),
        address: IpAddr::from([10, 17, 0, number]),
        created_at: at(6),
        created_by: "unix:uid=0,gid=0,pid=1".to_owned(),
        expires_at: at(7),
        used_by: used_by.map(|key| PublicKey::from_bytes([key; 32])),
    }
}

fn lan_server(name: &str, key: u8) -> LanServerRecord {
    LanServerRecord {
        name: name.to_owned(),
        public_key: PublicKey::from_bytes([key; 32]),
        preshared_key: PresharedKey::from_bytes([key + 1; 32]),
        joined_at: at(8),
    }
}

fn answer(key: &str) -> IdempotentAnswer {
    IdempotentAnswer {
        actor: "token:ci".to_owned(),
        key: key.to_owned(),
        fingerprint: [9; 32],
        status: 201,
        resource: "peers/1".to_owned(),
        at: at(3),
    }
}

async fn everything_comes_back(store: &impl Store) {
    let usage = UsageRecord {
        rx_bytes: 1 << 40,
        tx_bytes: 7,
        quota_base_bytes: 3,
        counted_since: Some(at(4)),
        latest_handshake_at: None,
    };
    let address: IpAddr = "fd17::9".parse().unwrap();
    let first = entry(None);
    let second = entry(Some(&first));
    let changes = vec![
        put(1),
        put(2),
        Change::PutUsage(Uuid::from_u128(1), usage),
        Change::PutToken(token("a")),
        Change::PutToken(token("b")),
        Change::PutInvite(invite(1, None)),
        Change::PutInvite(invite(2, None)),
        Change::PutInvite(invite(2, Some(9))),
        Change::PutLanServer(lan_server("home", 3)),
        Change::PutLanServer(lan_server("office", 4)),
        Change::PutLanServer(lan_server("home", 5)),
        Change::ReleaseAddress(address, at(5)),
        Change::PutIdempotentAnswer(answer("k")),
        Change::PutIdempotentAnswer(answer("l")),
        Change::Audit(first.clone()),
        Change::Audit(second.clone()),
    ];
    store.commit(changes).await.unwrap();
    let held = store.load().await.unwrap();
    assert_eq!(held.peers, [peer(1), peer(2)]);
    assert_eq!(held.usage[&Uuid::from_u128(1)], usage);
    assert_eq!(held.tokens, [token("a"), token("b")]);
    assert_eq!(held.invites, [invite(1, None), invite(2, Some(9))]);
    assert_eq!(
        held.lan_servers,
        [lan_server("home", 5), lan_server("office", 4)]
    );
    assert_eq!(held.released_addresses[&address], at(5));
    assert_eq!(held.idempotent_answers, [answer("k"), answer("l")]);
    assert_eq!(held.audit_head, Some(second.clone()));
    assert_eq!(
        store.audit_after(0, 9).await.unwrap(),
        [first, second.clone()]
    );
    assert_eq!(store.audit_after(1, 9).await.unwrap(), [second]);
    assert_eq!(store.audit_after(0, 1).await.unwrap().len(), 1);

    let changes = vec![
        Change::DeletePeer(Uuid::from_u128(1)),
        Change::DeleteToken("a".to_owned()),
        Change::DeleteInvite(Uuid::from_u128(1)),
        Change::DeleteLanServer("home".to_owned()),
        Change::ForgetReleased(address),
        Change::DeleteIdempotentAnswer {
            actor: "token:ci".to_owned(),
            key: "k".to_owned(),
        },
    ];
    store.commit(changes).await.unwrap();
    let held = store.load().await.unwrap();
    assert_eq!(held.peers, [peer(2)]);
    assert!(held.usage.is_empty(), "usage goes with its peer");
    assert_eq!(held.tokens, [token("b")]);
    assert_eq!(held.invites, [invite(2, Some(9))]);
    assert_eq!(held.lan_servers, [lan_server("office", 4)]);
    assert!(held.released_addresses.is_empty());
    assert_eq!(held.idempotent_answers, [answer("l")]);
}

#[tokio::test]
async fn everything_that_was_put_comes_back_until_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    everything_comes_back(&SqliteStore::open(dir.path()).unwrap()).await;
    everything_comes_back(&MemoryStore::default()).await;
}

#[tokio::test]
async fn names_can_change_places_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(vec![put(1), put(2)]).await.unwrap();
    let (mut one, mut two) = (peer(1), peer(2));
    one.name = "elsewhere".to_owned();
    two.name = "peer-1".to_owned();
    store
        .commit(vec![
            Change::PutPeer(one.clone()),
            Change::PutPeer(two.clone()),
        ])
        .await
        .unwrap();
    assert_eq!(store.load().await.unwrap().peers, [one, two]);
}

#[tokio::test]
async fn a_batch_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(vec![put(1)]).await.unwrap();
    let mut double = peer(3);
    double.name = "peer-1".to_owned();
    let failed = store.commit(vec![put(2), Change::PutPeer(double)]).await;
    assert!(
        matches!(failed, Err(StoreError::Failed { .. })),
        "{failed:?}"
    );
    assert_eq!(
        store.load().await.unwrap().peers,
        [peer(1)],
        "nobody was replaced"
    );

    let memory = MemoryStore::default();
    memory.fail_next([StoreError::Conflict]);
    assert!(memory.commit(vec![put(1)]).await.is_err());
    assert_eq!(memory.load().await.unwrap().peers, []);
    assert_eq!(memory.commits(), 0);
}

#[tokio::test]
async fn the_database_is_private_and_damage_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("peers.db");
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(vec![put(1)]).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
    drop(store);
    std::fs::write(
        &file,
        b"this is not a database, but it is long enough to be looked at",
    )
    .unwrap();
    let damaged = SqliteStore::open(dir.path()).unwrap_err();
    assert!(matches!(damaged, StoreError::Damaged { .. }), "{damaged}");
    assert!(damaged.to_string().contains("peers.db"), "{damaged}");
}
