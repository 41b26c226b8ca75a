//! Facts about handshakes.
use std::time::Duration;

use super::world::{Datagram, World, address, inner, packet, preshared_key, stranger, with_mac1};
use crate::model::PrivateKey;
use crate::wg::{DeviceChange, DropReason};

#[test]
fn one_packet_takes_one_handshake_and_arrives() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [1, 2, 4]);
    assert_eq!(world.nodes[1].received.len(), 1);
    for node in 0..2 {
        let latest = world.peer_status(node).latest_handshake;
        assert_eq!(latest, Some(Duration::ZERO));
    }
}

#[test]
fn the_initiator_confirms_with_a_keepalive_when_nothing_waits() {
    let mut world = World::pair();
    world.initiate_handshakes(0);
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [1, 2, 4]);
    world.send(1, 0, 100).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn the_responder_sends_nothing_before_the_session_is_confirmed() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    let [initiation] = world.intercept().try_into().unwrap();
    world.inject(1, &initiation).unwrap();
    world.send(1, 0, 60).unwrap();
    assert!(world.overheard.iter().all(|datagram| datagram.kind() != 4));
    assert_eq!(world.peer_status(1).latest_handshake, None);
    world.deliver();
    assert_eq!(world.nodes[0].received.len(), 1);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn handshakes_that_cross_give_sessions_to_both() {
    let mut world = World::pair();
    let mut to_first = world.peer(0);
    to_first.endpoint = Some(address(0));
    world.change_peer(1, to_first);
    world.send(0, 1, 100).unwrap();
    world.send(1, 0, 200).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[0].received.len(), 1);
    assert_eq!(world.nodes[1].received.len(), 1);
    world.overheard.clear();
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        world.send(from, to, 300).unwrap();
    }
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [4, 4, 4]);
}

#[test]
fn a_lost_message_of_the_handshake_is_made_good_by_the_next_attempt() {
    for lost in 1..=2 {
        let mut world = World::pair();
        world.send(0, 1, 100).unwrap();
        if lost == 2 {
            let [initiation] = world.intercept().try_into().unwrap();
            world.inject(1, &initiation).unwrap();
        }
        assert_eq!(world.intercept().len(), 1);
        world.live(Duration::from_millis(5_333));
        assert_eq!(world.nodes[1].received.len(), 1, "message {lost} lost");
    }
}

#[test]
fn a_late_response_to_the_attempt_before_is_accepted() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    world.inject_all(1);
    let [response] = world.intercept().try_into().unwrap();
    world.pass(Duration::from_millis(5_333));
    assert_eq!(world.intercept().len(), 1);
    world.inject(0, &response).unwrap();
    world.deliver();
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_forged_response_does_not_clear_the_pending_handshake() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    world.inject_all(1);
    let [response] = world.intercept().try_into().unwrap();
    let mut forged = response.clone();
    forged.from = stranger();
    forged.bytes[12..60].fill(0x42);
    with_mac1(&mut forged.bytes, &world.nodes[0].public_key());
    for _ in 0..3 {
        let result = world.inject(0, &forged);
        assert_eq!(result, Err(DropReason::InvalidHandshake));
    }
    assert_eq!(world.peer_status(0).endpoint, Some(address(1)));
    world.inject(0, &response).unwrap();
    world.deliver();
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn forged_responses_cost_a_few_scalar_multiplications_per_initiation() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    world.inject_all(1);
    let [mut forged] = world.intercept().try_into().unwrap();
    forged.bytes[12..60].fill(0x42);
    with_mac1(&mut forged.bytes, &world.nodes[0].public_key());
    let tried = (0..100)
        .filter(|_| world.inject(0, &forged) == Err(DropReason::InvalidHandshake))
        .count();
    assert_eq!(tried, 16);
    assert_eq!(world.drops(0, DropReason::UnexpectedAnswer), 84);
}

#[test]
fn a_response_is_accepted_once() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    world.inject_all(1);
    let [response] = world.intercept().try_into().unwrap();
    world.inject(0, &response).unwrap();
    let again = world.inject(0, &response);
    assert_eq!(again, Err(DropReason::UnexpectedAnswer));
}

#[test]
fn an_initiation_played_back_is_refused() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    let initiation = world.overheard[0].clone();
    world.deliver();
    world.now += Duration::from_secs(1);
    let replay = Datagram {
        from: stranger(),
        ..initiation
    };
    let sent = world.overheard.len();
    assert_eq!(
        world.inject(1, &replay),
        Err(DropReason::ReplayedInitiation)
    );
    assert_eq!(world.overheard.len(), sent, "no answer");
    assert_eq!(world.peer_status(1).endpoint, Some(address(0)));
}

/// The engine forgets its last time stamp when it is rebuilt, as any implementation does in a restart.
#[test]
fn an_old_initiation_after_a_restart_does_not_move_the_endpoint() {
    let mut world = World::connected_pair();
    let initiation = world.overheard[0].clone();
    world.rebuild_engines(1);
    world.now += Duration::from_secs(1);
    let replay = Datagram {
        from: stranger(),
        ..initiation
    };
    assert_eq!(world.inject(1, &replay), Ok(()));
    assert_eq!(world.intercept()[0].to, stranger(), "the response");
    assert_eq!(world.peer_status(1).endpoint, Some(address(0)));
    world.send(1, 0, 100).unwrap();
    world.deliver();
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn initiations_of_one_peer_are_20_ms_apart() {
    let mut world = World::pair();
    let mut accepted = 0;
    for _ in 0..100 {
        // A rebuilt engine may initiate at once.
        world.rebuild_engines(0);
        world.send(0, 1, 100).unwrap();
        let initiation = world.intercept().pop().unwrap();
        match world.inject(1, &initiation) {
            Ok(()) => accepted += 1,
            Err(reason) => assert_eq!(reason, DropReason::TooManyInitiations),
        }
        world.intercept();
        world.now += Duration::from_millis(5);
    }
    assert_eq!(accepted, 25);
}

#[test]
fn different_preshared_keys_give_no_session() {
    let mut world = World::pair();
    let mut change = world.peer(1);
    change.preshared_key = Some(preshared_key(1));
    world.change_peer(0, change);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), [DropReason::InvalidHandshake]);
    world.live(Duration::from_secs(20));
    assert_eq!(world.nodes[1].received.len(), 0);
    assert_eq!(world.peer_status(0).latest_handshake, None);
}

#[test]
fn a_changed_preshared_key_holds_at_once() {
    let mut world = World::connected_pair();
    let mut change = world.peer(1);
    change.preshared_key = Some(preshared_key(1));
    world.change_peer(0, change);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), [DropReason::InvalidHandshake]);
    let mut change = world.peer(0);
    change.preshared_key = Some(preshared_key(1));
    world.change_peer(1, change);
    world.live(Duration::from_secs(6));
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_changed_private_key_ends_sessions_and_the_new_one_works() {
    let mut world = World::connected_pair();
    let key = PrivateKey::from_bytes([77; 32]);
    let change = DeviceChange {
        private_key: Some(Some(key.clone())),
        ..DeviceChange::default()
    };
    world.change(0, &change);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), [DropReason::UnknownPeer]);
    let mut peer = world.peer(0);
    peer.public_key = key.public_key();
    world.change_peer(1, peer);
    world.live(Duration::from_secs(6));
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn without_a_private_key_nothing_is_sent_or_answered() {
    let mut world = World::pair();
    let change = DeviceChange {
        private_key: Some(None),
        ..DeviceChange::default()
    };
    world.change(1, &change);
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), [DropReason::NoPrivateKey]);
    world.change(0, &change);
    assert_eq!(world.send(0, 1, 100), Err(DropReason::NoPrivateKey));
    assert_eq!(world.overheard_kinds(), [1]);
}

/// Initiations use up the engine's eight places for sessions too; data must wait rather than go out with a key that
/// the peer never confirmed.
#[test]
fn unconfirmed_sessions_never_carry_data_however_many_there_are() {
    let mut world = World::connected_pair();
    for _ in 0..20 {
        world.rebuild_engines(0);
        world.send(0, 1, 100).unwrap();
        let initiation = world.intercept().pop().unwrap();
        world.inject(1, &initiation).unwrap();
        world.now += Duration::from_millis(20);
        let response = world.intercept().pop().unwrap();
        assert_eq!(response.kind(), 2);
        world.overheard.clear();
        let unconfirmed = response.bytes[4..8].to_vec();
        world
            .send_packet(1, &packet(inner(1), inner(0), 80, 3))
            .unwrap();
        for data in world.intercept().iter().filter(|sent| sent.kind() == 4) {
            assert_ne!(data.bytes[4..8], unconfirmed);
        }
    }
}

#[test]
fn a_handshake_is_counted_once_by_each_end_when_it_is_complete() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    let [initiation] = world.intercept().try_into().unwrap();
    world.inject(1, &initiation).unwrap();
    assert_eq!([world.handshakes(0), world.handshakes(1)], [[0; 3]; 2]);
    world.deliver();
    world.send(0, 1, 100).unwrap();
    world.deliver();
    assert_eq!([world.handshakes(0), world.handshakes(1)], [[1, 0, 0]; 2]);
}

#[test]
fn refused_handshakes_are_counted_and_other_datagrams_are_not() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    let [initiation] = world.intercept().try_into().unwrap();
    world.inject(1, &initiation).unwrap();
    world.inject(1, &initiation).unwrap_err();
    let mut short = initiation;
    short.bytes.pop();
    world.inject(1, &short).unwrap_err();
    assert_eq!(world.handshakes(1), [0, 0, 1]);
}

#[test]
fn what_a_removed_peer_did_stays_counted() {
    let mut world = World::connected_pair();
    let before = world.handshakes(0);
    assert_eq!(before, [1, 0, 0]);
    let mut peer = world.peer(0);
    peer.remove = true;
    world.change_peer(0, peer);
    assert_eq!(world.handshakes(0), before);
}
