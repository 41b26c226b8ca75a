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
            peer(1, &["192.168.0.0/16", "fd50::/48", "10.17.8.0/28"]),
            peer(2, &["10.17.9.0/24", "10.17.8.128/25"]),
        ],
        ..Snapshot::default()
    });
    let but = |except: u128| (except > 0).then(|| Uuid::from_u128(except));
    let holder = |text: &str, except: u128| {
        let id = state.by_network(text.parse().unwrap(), but(except));
        id.map(|id| id.as_u128())
    };
    for (network, except, expected) in [
        ("192.168.7.0/24", 0, Some(1)),
        ("192.168.7.0/24", 1, None),
        ("192.0.0.0/8", 0, Some(1)),
        ("fd50:0:0:7::/64", 0, Some(1)),
        ("fd51::/48", 0, None),
        ("10.0.0.0/8", 2, Some(1)),
        ("10.0.0.0/8", 1, Some(2)),
        // Its own comes first, and does not hide the other's.
        ("10.17.8.0/24", 1, Some(2)),
        ("10.17.8.0/24", 2, Some(1)),
        ("10.17.8.64/26", 0, None),
        ("172.16.0.0/12", 0, None),
        ("::/0", 0, Some(1)),
        ("::/0", 1, None),
    ] {
        assert_eq!(holder(network, except), expected, "{network} {except}");
    }
    let address = |text: &str, except: u128| {
        let id = state.by_address(text.parse().unwrap(), but(except));
        id.map(|id| id.as_u128())
    };
    assert_eq!(address("10.17.9.77", 0), Some(2));
    assert_eq!(address("10.17.9.77", 2), None);
    assert_eq!(address("10.17.1.2", 0), Some(2));
    assert_eq!(address("10.17.1.3", 0), None);
    let within = |text: &str, except: u128| {
        let id = state.address_within(text.parse().unwrap(), but(except));
        id.map(|id| id.as_u128())
    };
    assert_eq!(within("10.17.1.0/30", 0), Some(1));
    assert_eq!(within("10.17.1.0/30", 1), Some(2));
    assert_eq!(within("10.17.1.0/31", 1), None);
}

#[test]
fn answers_are_forgotten_when_they_are_old_or_too_many() {
    let answer = |number: u8, second: i64| IdempotentAnswer {
        actor: "root".to_owned(),
        key: number.to_string(),
        fingerprint: [0; 32],
        status: 201,
        resource: "peers/1".to_owned(),
        at: Timestamp::from_second(second).unwrap(),
    };
    let state = State::of(Snapshot {
        // The order of keys is not that of time.
        idempotent_answers: vec![answer(1, 40), answer(2, 10), answer(3, 30), answer(4, 20)],
        ..Snapshot::default()
    });
    let forgotten = |until: i64, most: usize| {
        let until = Timestamp::from_second(until).unwrap();
        let keys = state.answers_to_forget(until, most).into_iter();
        let mut keys: Vec<String> = keys.map(|(_, key)| key).collect();
        keys.sort();
        keys.concat()
    };
    assert_eq!(forgotten(0, 4), "");
    assert_eq!(forgotten(10, 4), "2");
    assert_eq!(forgotten(0, 2), "24");
    assert_eq!(forgotten(30, 3), "234");
}
