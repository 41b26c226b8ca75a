//! Facts about strangers: silence, and what they may cost.
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Datagram, World, address, stranger, with_mac1};
use crate::model::PublicKey;
use crate::wg::{DropReason, Ecn};

fn from_stranger(bytes: Vec<u8>) -> Datagram {
    Datagram {
        from: stranger(),
        to: address(1),
        ecn: Ecn::NotEct,
        bytes,
    }
}

/// An initiation by somebody who knows our public key and nothing else.
fn forged_initiation(number: u32, receiver: &PublicKey) -> Datagram {
    let mut bytes = vec![0x5a; 148];
    bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes[132..].fill(0);
    with_mac1(&mut bytes, receiver);
    let from = SocketAddr::from((Ipv4Addr::from(0x0b00_0000 + number * 7919), 1000));
    Datagram {
        from,
        to: address(1),
        ecn: Ecn::NotEct,
        bytes,
    }
}

#[test]
fn junk_of_every_length_is_silent_and_counted() {
    let mut world = World::connected_pair();
    world.overheard.clear();
    let lengths = (0..=2048)
        .chain((2049..65_507).step_by(997))
        .chain([65_507]);
    let mut count = 0;
    for length in lengths {
        for first in 0..=5 {
            let mut bytes = vec![0x5a; length];
            for (byte, value) in bytes.iter_mut().zip([first, 0, 0, 0]) {
                *byte = value;
            }
            world.inject(1, &from_stranger(bytes)).unwrap_err();
            count += 1;
        }
    }
    assert_eq!(world.overheard, []);
    let counted: u64 = world.nodes[1].device.drops().map(|(_, count)| count).sum();
    assert_eq!(counted, count);
    assert_eq!(world.drops(1, DropReason::InvalidMac1), 1);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), []);
}

proptest! {
    // Each case does real handshakes in a debug build.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn changed_messages_are_silent_and_change_nothing(
        which in 0_usize..3,
        changes in prop::collection::vec((0_usize..148, 1_u8..), 1..4),
        cut in prop::option::of(0_usize..148),
    ) {
        let mut world = World::connected_pair();
        let mut datagram = world.overheard[which].clone();
        datagram.from = stranger();
        for (at, change) in changes {
            let length = datagram.bytes.len();
            datagram.bytes[at % length] ^= change;
        }
        datagram.bytes.truncate(cut.unwrap_or(148));
        prop_assume!(world.overheard.iter().all(|sent| sent.bytes != datagram.bytes));
        world.overheard.clear();
        world.now += Duration::from_secs(1);
        for node in 0..2 {
            prop_assert!(world.inject(node, &datagram).is_err());
            prop_assert_eq!(world.peer_status(node).endpoint, Some(address(1 - node)));
        }
        prop_assert!(world.overheard.is_empty());
        world.send(0, 1, 100).unwrap();
        world.send(1, 0, 100).unwrap();
        prop_assert_eq!(world.deliver(), []);
    }
}

#[test]
fn forged_initiations_get_no_answer_while_there_are_few() {
    let mut world = World::pair();
    let receiver = world.nodes[1].public_key();
    for number in 0..50 {
        let result = world.inject(1, &forged_initiation(number, &receiver));
        assert_eq!(result, Err(DropReason::UnknownPeer));
    }
    assert_eq!(world.overheard, []);
}

/// Bring a node under load.
fn flood(world: &mut World, node: usize) {
    let receiver = world.nodes[node].public_key();
    for number in 0..400 {
        world
            .inject(node, &forged_initiation(number, &receiver))
            .unwrap_err();
    }
    world.intercept();
}

#[test]
fn under_load_strangers_get_a_cookie_and_no_more() {
    let mut world = World::pair();
    flood(&mut world, 1);
    assert!(world.drops(1, DropReason::CookieDemanded) > 200);
    assert!(
        world
            .overheard
            .iter()
            .all(|sent| sent.kind() == 3 && sent.bytes.len() == 64)
    );
    assert!(world.drops(1, DropReason::UnknownPeer) <= 128);
}

#[test]
fn under_load_a_peer_gets_in_with_its_cookie_but_not_from_another_address_or_port() {
    let mut world = World::pair();
    flood(&mut world, 1);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), [DropReason::CookieDemanded]);
    world.pass(Duration::from_millis(5_333));
    let [with_cookie] = world.intercept().try_into().unwrap();
    assert_ne!(with_cookie.bytes[132..], [0; 16], "the second MAC");
    flood(&mut world, 1);
    for from in [stranger(), SocketAddr::new(address(0).ip(), 1)] {
        let elsewhere = Datagram {
            from,
            ..with_cookie.clone()
        };
        let result = world.inject(1, &elsewhere);
        assert_eq!(result, Err(DropReason::CookieDemanded), "from {from}");
    }
    world.intercept();
    world.inject(1, &with_cookie).unwrap();
    world.deliver();
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_forged_cookie_reply_changes_nothing() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    let [initiation] = world.intercept().try_into().unwrap();
    let mut bytes = vec![0x42; 64];
    bytes[..4].copy_from_slice(&[3, 0, 0, 0]);
    bytes[4..8].copy_from_slice(&initiation.bytes[4..8]);
    let result = world.inject(0, &from_stranger(bytes));
    assert_eq!(result, Err(DropReason::NotAuthentic));
    assert_eq!(world.peer_status(0).endpoint, Some(address(1)));
    world.inject(1, &initiation).unwrap();
    world.deliver();
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_genuine_cookie_reply_does_not_move_the_endpoint() {
    let mut world = World::pair();
    flood(&mut world, 1);
    world.send(0, 1, 100).unwrap();
    world.overheard.clear();
    let [initiation] = world.intercept().try_into().unwrap();
    world.inject(1, &initiation).unwrap_err();
    let [mut reply] = world.intercept().try_into().unwrap();
    reply.from = stranger();
    world.inject(0, &reply).unwrap();
    assert_eq!(world.peer_status(0).endpoint, Some(address(1)));
}

#[test]
fn a_flood_from_one_address_does_not_put_others_under_load() {
    let mut world = World::pair();
    let receiver = world.nodes[1].public_key();
    for number in 0..5000 {
        let mut datagram = forged_initiation(number, &receiver);
        datagram.from = stranger();
        world.inject(1, &datagram).unwrap_err();
    }
    assert!(world.drops(1, DropReason::RateLimited) > 4900);
    assert_eq!(world.drops(1, DropReason::CookieDemanded), 0);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[1].received.len(), 1);
}
