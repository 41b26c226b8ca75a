//! Facts about the state.
use super::*;

fn peer(number: u8, networks: &[&str]) -> PeerRecord {
    PeerRecord {
        id: Uuid::from_u128(u128::from(number)),
        revision: 1,
        name: format!("peer-{number}"),
        public_key: PublicKey::from_bytes([number; 32]),
        preshared_key: None,
        addresses: vec![IpAddr::from([10, 17, 1, number])],
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        role: None,
        enabled: true,
        expires_at: None,
        quota_bytes: None,
        labels: BTreeMap::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        rotation: None,
    }
}

#[test]
fn what_is_undone_was_never_done() {
    let mut state = State::of(Snapshot {
        peers: vec![peer(1, &["192.168.1.0/24"]), peer(2, &[])],
        ..Snapshot::default()
    });
    let before = format!("{state:?}");
    let id = Uuid::from_u128(1);
    let mut renamed = peer(1, &["192.168.2.0/24"]);
    renamed.name = "other".to_owned();
    renamed.public_key = PublicKey::from_bytes([77; 32]);
    let changes = [
        Change::PutPeer(renamed),
        Change::PutUsage(id, UsageRecord::default()),
        Change::DeletePeer(id),
        Change::ReleaseAddress(IpAddr::from([10, 17, 1, 1]), Timestamp::UNIX_EPOCH),
        Change::PutPeer(peer(3, &["192.168.1.0/25"])),
        Change::DeletePeer(Uuid::from_u128(2)),
        Change::ForgetReleased(IpAddr::from([10, 17, 1, 1])),
        Change::DeletePeer(Uuid::from_u128(99)),
    ];
    let undos: Vec<Undo> = changes.iter().map(|change| state.apply(change)).collect();
    assert_eq!(state.by_name("peer-3"), Some(Uuid::from_u128(3)));
    assert_eq!(state.by_name("other"), None);
    for undo in undos.into_iter().rev() {
        state.undo(undo);
    }
    assert_eq!(format!("{state:?}"), before);
}

#[test]
fn networks_of_peers_are_found_by_any_overlap() {
    let state = State::of(Snapshot {
        peers: vec![
            peer(1, &["192.168.0.0/16", "fd50::/48"]),
            peer(2, &["10.17.9.0/24"]),
        ],
        ..Snapshot::default()
    });
    let holder = |text: &str| {
        let id = state.by_network(text.parse().unwrap());
        id.map(|id| id.as_u128())
    };
    assert_eq!(holder("192.168.7.0/24"), Some(1));
    assert_eq!(holder("192.0.0.0/8"), Some(1));
    assert_eq!(holder("fd50:0:0:7::/64"), Some(1));
    assert_eq!(holder("10.0.0.0/8"), Some(2));
    assert_eq!(holder("10.17.9.0/24"), Some(2));
    assert_eq!(holder("10.17.8.0/24"), None);
    assert_eq!(holder("172.16.0.0/12"), None);
    assert_eq!(holder("::/0"), Some(1));
    let address = |text: &str| {
        state
            .by_address(text.parse().unwrap())
            .map(|id| id.as_u128())
    };
    assert_eq!(address("10.17.9.77"), Some(2));
    assert_eq!(address("10.17.1.2"), Some(2));
    assert_eq!(address("10.17.1.3"), None);
    let within = state.address_within("10.17.1.0/30".parse().unwrap());
    assert_eq!(within.map(|(_, id)| id.as_u128()), Some(1));
}
