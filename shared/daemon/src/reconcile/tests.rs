//! Facts about what the device is told.
use shared::plan::ruleset::Ruleset;

use super::*;
use crate::model::PeerKind;

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn peer(number: u8, networks: &[&str], succeeds: Option<u8>) -> Arc<PeerModel> {
    Arc::new(PeerModel {
        name: format!("peer-{number}"),
        kind: PeerKind::Peer,
        public_key: key(number),
        preshared_key: PresharedKeyFrom::Nowhere,
        endpoint: None,
        allowed_ips: networks.iter().map(|n| n.parse().unwrap()).collect(),
        persistent_keepalive_secs: 0,
        succeeds: succeeds.map(key),
    })
}

fn model(peers: &[&Arc<PeerModel>]) -> Model {
    Model {
        interface: "edge0".parse().unwrap(),
        desired: Desired {
            protocol: 0,
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            sysctls: Vec::new(),
            ruleset: Ruleset {
                table: "t".to_owned(),
                sets: Vec::new(),
                maps: Vec::new(),
                chains: Vec::new(),
            },
        },
        peers: peers.iter().map(|peer| Arc::clone(peer)).collect(),
        publishes: Vec::new(),
    }
}

/// Peers that are removed or lose something, and peers that are told anew.
fn told(from: &[&Arc<PeerModel>], to: &[&Arc<PeerModel>]) -> (Vec<PublicKey>, Vec<PublicKey>) {
    let changes = peer_changes(&model(from), &model(to), &PresharedKeys::new());
    let keys = |change: &DeviceChange| change.peers.iter().map(|p| p.public_key).collect();
    (keys(&changes.removals), keys(&changes.additions))
}

#[test]
fn only_peers_that_differ_are_told() {
    let (one, two) = (
        peer(1, &["10.0.0.1/32"], None),
        peer(2, &["10.0.0.2/32"], None),
    );
    let same_as_two = peer(2, &["10.0.0.2/32"], None);
    assert_eq!(told(&[&one, &two], &[&one, &same_as_two]), (vec![], vec![]));
    assert_eq!(told(&[&one, &two], &[&one]), (vec![key(2)], vec![]));
    let moved = peer(2, &["10.0.0.3/32"], None);
    assert_eq!(
        told(&[&one, &two], &[&one, &moved]),
        (vec![key(2)], vec![key(2)])
    );
}

#[test]
fn a_peer_and_its_successor_are_told_together() {
    // As the members are made: both anew when one of them is.
    let one = || peer(1, &["10.0.0.1/32"], None);
    let next = || peer(2, &[], Some(1));
    let pair = [&one(), &next()];
    assert_eq!(told(&pair, &[&one(), &next()]), (vec![], vec![]));
    // The next key may own the networks already: another successor would find nothing to take over.
    let other = peer(3, &[], Some(1));
    assert_eq!(
        told(&pair, &[&one(), &other]),
        (vec![key(2)], vec![key(1), key(3)])
    );
    // Told alone, the present key would take its networks back, and the next one would be refused.
    let more = peer(1, &["10.0.0.1/32", "10.9.0.0/24"], None);
    assert_eq!(
        told(&pair, &[&more, &next()]),
        (vec![], vec![key(1), key(2)])
    );
    assert_eq!(told(&pair, &[&one()]), (vec![key(2)], vec![key(1)]));
}

#[test]
fn who_comes_back_is_called_where_it_was() {
    let one = peer(1, &["10.0.0.1/32"], None);
    let mut change = all_peers(&model(&[&one]), None, &PresharedKeys::new());
    let at: SocketAddr = "192.0.2.7:4242".parse().unwrap();
    call_again(&mut change, &BTreeMap::from([(key(1), at), (key(9), at)]));
    let [peer] = &change.peers[..] else {
        panic!("{change:?}");
    };
    assert_eq!((peer.endpoint, peer.initiate_handshake), (Some(at), true));
}
