//! Facts about changes of configuration.
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::world::{World, address, allowed, inner, packet, preshared_key, stranger};
use crate::model::PublicKey;
use crate::wg::{AllowedIpChange, DeviceChange, DropReason, PeerChange};

fn key(number: u32) -> PublicKey {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PublicKey::from_bytes(bytes)
}

fn networks(world: &World, node: usize, peer: usize) -> Vec<String> {
    let status = world.nodes[node].device.status(world.now);
    let networks = status.peers[peer].allowed_ips.iter();
    networks.map(ToString::to_string).collect()
}

fn peer_keys(world: &World) -> Vec<PublicKey> {
    let status = world.nodes[0].device.status(world.now);
    status.peers.iter().map(|peer| peer.public_key).collect()
}

fn with_networks(peer: u32, networks: &[&str]) -> PeerChange {
    let mut change = PeerChange::new(key(peer));
    change.allowed_ips = networks.iter().map(|network| allowed(network)).collect();
    change
}

#[test]
fn setting_what_is_set_keeps_the_session() {
    let mut world = World::connected_pair();
    let mut peer = world.peer(1);
    peer.preshared_key = Some(preshared_key(0));
    peer.endpoint = Some(address(1));
    peer.persistent_keepalive_secs = Some(0);
    peer.replace_allowed_ips = true;
    let change = DeviceChange {
        private_key: Some(Some(world.nodes[0].key.clone())),
        listen_port: Some(51820),
        fwmark: Some(0),
        replace_peers: true,
        peers: vec![peer],
    };
    world.overheard.clear();
    world.change(0, &change);
    world.send(0, 1, 60).unwrap();
    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [4, 4]);
}

#[test]
fn status_shows_what_was_set_in_the_order_in_which_it_was_set() {
    let mut world = World::new(1);
    for number in [5, 3, 9, 1] {
        let mut change = with_networks(number, &["10.9.0.0/16", "10.1.2.99/24", "fd00::/8"]);
        change.endpoint = Some(stranger());
        change.preshared_key = Some(preshared_key(4));
        change.persistent_keepalive_secs = Some(25);
        world.change_peer(0, change);
    }
    world.change_peer(
        0,
        PeerChange {
            remove: true,
            ..PeerChange::new(key(3))
        },
    );
    world.change_peer(0, PeerChange::new(key(7)));
    assert_eq!(peer_keys(&world), [5, 9, 1, 7].map(key));
    let status = world.nodes[0].device.status(world.now);
    assert_eq!(status.private_key.as_ref(), Some(&world.nodes[0].key));
    let [first, _, last, new] = status.peers.try_into().unwrap();
    assert_eq!(first.allowed_ips, []);
    let expected = ["10.9.0.0/16", "10.1.2.0/24", "fd00::/8"];
    assert_eq!(
        last.allowed_ips,
        expected.map(|network| network.parse().unwrap())
    );
    assert_eq!(last.endpoint, Some(stranger()));
    assert_eq!(last.preshared_key, Some(preshared_key(4)));
    assert_eq!(last.persistent_keepalive_secs, Some(25));
    assert_eq!((new.endpoint, new.preshared_key), (None, None));
    assert_eq!(new.persistent_keepalive_secs, None);
}

#[test]
fn a_network_belongs_to_the_peer_that_got_it_last() {
    let mut world = World::new(1);
    world.change_peer(0, with_networks(1, &["10.1.0.0/16", "10.2.0.0/16"]));
    world.change_peer(0, with_networks(2, &["10.2.0.0/16"]));
    assert_eq!(networks(&world, 0, 0), ["10.1.0.0/16"]);
    assert_eq!(networks(&world, 0, 1), ["10.2.0.0/16"]);
    let mut not_its_own = PeerChange::new(key(1));
    not_its_own.allowed_ips = vec![AllowedIpChange {
        network: "10.2.0.0/16".parse().unwrap(),
        remove: true,
    }];
    world.change_peer(0, not_its_own.clone());
    assert_eq!(networks(&world, 0, 1), ["10.2.0.0/16"]);
    not_its_own.public_key = key(2);
    world.change_peer(0, not_its_own);
    assert_eq!(networks(&world, 0, 1), [""; 0]);
}

#[test]
fn replacing_networks_takes_away_the_others() {
    let mut world = World::new(1);
    world.change_peer(0, with_networks(1, &["10.1.0.0/16", "10.2.0.0/16"]));
    let mut change = with_networks(1, &["10.3.0.0/16", "10.2.0.0/16"]);
    change.replace_allowed_ips = true;
    world.change_peer(0, change);
    assert_eq!(networks(&world, 0, 0), ["10.3.0.0/16", "10.2.0.0/16"]);
    world.change_peer(
        0,
        PeerChange {
            replace_allowed_ips: true,
            ..PeerChange::new(key(1))
        },
    );
    assert_eq!(networks(&world, 0, 0), [""; 0]);
}

#[test]
fn replacing_peers_removes_those_that_are_not_named() {
    let mut world = World::new(1);
    for number in 1..=4 {
        world.change_peer(0, with_networks(number, &[&format!("10.{number}.0.0/16")]));
    }
    let change = DeviceChange {
        replace_peers: true,
        peers: vec![PeerChange::new(key(5)), PeerChange::new(key(2))],
        ..DeviceChange::default()
    };
    world.change(0, &change);
    assert_eq!(peer_keys(&world), [2, 5].map(key));
    assert_eq!(networks(&world, 0, 0), ["10.2.0.0/16"]);
}

#[test]
fn update_only_and_remove_add_nobody() {
    let mut world = World::new(1);
    world.change_peer(
        0,
        PeerChange {
            update_only: true,
            ..PeerChange::new(key(1))
        },
    );
    world.change_peer(
        0,
        PeerChange {
            remove: true,
            ..PeerChange::new(key(1))
        },
    );
    assert_eq!(peer_keys(&world), []);
}

#[test]
fn a_device_is_not_its_own_peer() {
    let mut world = World::pair();
    let own = world.nodes[0].public_key();
    world.change_peer(0, PeerChange::new(own));
    assert_eq!(peer_keys(&world), [world.nodes[1].public_key()]);
    let change = DeviceChange {
        private_key: Some(Some(world.nodes[1].key.clone())),
        ..DeviceChange::default()
    };
    world.change(0, &change);
    assert_eq!(peer_keys(&world), []);
}

#[test]
fn keepalives_begin_as_soon_as_there_is_key_endpoint_and_interval() {
    let mut world = World::new(2);
    let key = world.nodes[0].key.clone();
    let set_key = |key| DeviceChange {
        private_key: Some(key),
        ..DeviceChange::default()
    };
    world.change(0, &set_key(None));
    let mut change = world.peer(1);
    change.persistent_keepalive_secs = Some(25);
    world.change_peer(0, change);
    let mut change = world.peer(1);
    change.endpoint = Some(address(1));
    world.change_peer(0, change);
    assert_eq!(world.overheard, []);
    world.change(0, &set_key(Some(key)));
    assert_eq!(world.overheard_kinds(), [1]);
}

#[test]
fn a_peer_that_lost_its_session_is_called_when_it_comes_back() {
    let mut world = World::connected_pair();
    let mut gone = world.peer(1);
    gone.remove = true;
    let removal = DeviceChange {
        peers: vec![gone],
        ..DeviceChange::default()
    };
    world.change(0, &removal);
    world.overheard.clear();
    let mut back = world.peer(1);
    back.endpoint = Some(address(1));
    back.initiate_handshake = true;
    let back = DeviceChange {
        peers: vec![back],
        ..DeviceChange::default()
    };
    world.change(0, &back);
    assert_eq!(world.deliver(), []);
    // Initiation, response, and the keepalive that confirms it.
    assert_eq!(world.overheard_kinds(), [1, 2, 4]);
}

#[test]
fn a_changed_endpoint_holds_at_once() {
    let mut world = World::connected_pair();
    let mut change = world.peer(1);
    change.endpoint = Some(stranger());
    world.change_peer(0, change);
    world.send(0, 1, 60).unwrap();
    assert_eq!(world.intercept()[0].to, stranger());
}

#[test]
fn many_networks_and_many_peers_can_be_set_moved_and_removed() {
    let mut world = World::new(1);
    let network = |number: u32| AllowedIpChange {
        network: IpNetwork::new(Ipv4Addr::from(number << 8).into(), 24).unwrap(),
        remove: false,
    };
    let mut all = PeerChange::new(key(0));
    all.allowed_ips = (0..65_536).map(network).collect();
    world.change_peer(0, all.clone());
    all.public_key = key(1);
    world.change_peer(0, all);
    assert_eq!(networks(&world, 0, 0).len(), 0);
    assert_eq!(networks(&world, 0, 1).len(), 65_536);
    let peers = (0..2000).map(|number| {
        let mut change = PeerChange::new(key(number));
        change.allowed_ips = vec![network(number)];
        change
    });
    let change = DeviceChange {
        peers: peers.collect(),
        ..DeviceChange::default()
    };
    world.change(0, &change);
    assert_eq!(networks(&world, 0, 1).len(), 65_536 - 1999);
    assert_eq!(networks(&world, 0, 1999), ["0.7.207.0/24"]);
    let nobody = DeviceChange {
        replace_peers: true,
        ..DeviceChange::default()
    };
    world.change(0, &nobody);
    assert_eq!(peer_keys(&world), []);
    assert_eq!(world.send(0, 0, 60), Err(DropReason::NoPeerForDestination));
}

#[test]
fn many_handshakes_at_once_are_spread_over_several_calls() {
    let mut world = World::new(1);
    let peers = (0..100).map(|number| {
        let mut change = PeerChange::new(key(number));
        change.endpoint = Some(stranger());
        change
    });
    let change = DeviceChange {
        peers: peers.collect(),
        ..DeviceChange::default()
    };
    world.change(0, &change);
    world.initiate_handshakes(0);
    assert_eq!(world.overheard.len(), 32);
    assert_eq!(
        world.nodes[0].device.poll_timeout(),
        Some((world.now, "handshake"))
    );
    world.pass(Duration::ZERO);
    assert_eq!(world.overheard.len(), 100);
}

#[test]
fn secrets_are_not_printed() {
    let mut world = World::connected_pair();
    let mut change = world.peer(1);
    change.preshared_key = Some(preshared_key(0x5b));
    world.change_peer(0, change);
    world
        .send_packet(0, &packet(inner(0), inner(1), 60, 0x5c))
        .unwrap();
    let printed = format!("{:?}", world.nodes[0].device);
    assert!(!printed.contains("91, 91, 91"), "the preshared key");
    assert!(!printed.contains("92, 92, 92"), "a staged packet");
    assert!(!printed.contains("1, 1, 1, 1"), "the private key");
}

#[test]
fn a_successor_takes_over_with_its_first_data_message_and_loses_none() {
    // Node 1 and node 2 are one client before and after it changed its key.
    let mut world = World::new(3);
    let mut to_gateway = world.peer(0);
    to_gateway.endpoint = Some(address(0));
    world.change_peer(1, to_gateway.clone());
    world.change_peer(2, to_gateway);
    let old = world.peer(1);
    let address = old.allowed_ips.clone();
    world.change_peer(0, old);
    let mut new = PeerChange::new(world.nodes[2].public_key());
    new.succeeds = Some(Some(world.nodes[1].public_key()));
    world.change_peer(0, new);

    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), [], "the old key works");
    assert_eq!(networks(&world, 0, 0).len(), address.len());
    assert_eq!(networks(&world, 0, 1).len(), 0);

    world
        .send_packet(2, &packet(inner(1), inner(0), 60, 7))
        .unwrap();
    assert_eq!(
        world.deliver(),
        [],
        "so does the new one, from its first packet on"
    );
    assert_eq!(networks(&world, 0, 0).len(), 0);
    assert_eq!(networks(&world, 0, 1).len(), address.len());
    assert_eq!(world.nodes[0].received.len(), 2);

    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), [DropReason::SourceNotAllowed]);
}
