//! Facts about time (whitepaper §6).
use std::time::Duration;

use super::world::{World, address};
use crate::wg::DropReason;

const SECOND: Duration = Duration::from_secs(1);
const MAX_JITTER: Duration = Duration::from_millis(333);

fn persistent_keepalive(world: &mut World, node: usize, secs: u16) {
    let mut change = world.peer(1 - node);
    change.persistent_keepalive_secs = Some(secs);
    world.change_peer(node, change);
}

#[test]
fn an_idle_peer_costs_nothing() {
    let mut world = World::connected_pair();
    world.live(600 * SECOND);
    world.overheard.clear();
    for node in 0..2 {
        assert_eq!(world.nodes[node].device.poll_timeout(), None);
    }
    world.live(3600 * SECOND);
    assert_eq!(world.overheard, []);
    world.send(0, 1, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_one_sided_flow_is_answered_with_a_keepalive_after_10_s() {
    let mut world = World::connected_pair();
    world.live(20 * SECOND);
    world.overheard.clear();
    world.send(0, 1, 60).unwrap();
    world.deliver();
    world.overheard.clear();
    world.live(Duration::from_millis(9_999));
    assert_eq!(world.overheard, []);
    world.live(Duration::from_millis(1));
    assert_eq!(world.overheard.len(), 1);
    assert_eq!(
        (world.overheard[0].from, world.overheard[0].bytes.len()),
        (address(1), 32)
    );
    world.live(60 * SECOND);
    assert_eq!(world.overheard.len(), 1);
}

#[test]
fn a_lasting_one_sided_flow_gets_a_keepalive_every_10_s_and_no_handshake() {
    let mut world = World::connected_pair();
    world.live(20 * SECOND);
    world.overheard.clear();
    for _ in 0..60 {
        world.send(0, 1, 60).unwrap();
        world.live(SECOND);
    }
    let keepalives = world
        .overheard
        .iter()
        .filter(|sent| sent.from == address(1));
    assert_eq!(keepalives.count(), 6);
    assert!(world.overheard.iter().all(|sent| sent.kind() == 4));
}

#[test]
fn data_without_an_answer_starts_a_handshake_after_15_s() {
    let mut world = World::connected_pair();
    world.live(20 * SECOND);
    world.overheard.clear();
    world.send(0, 1, 60).unwrap();
    world.intercept();
    world.pass(Duration::from_millis(14_999));
    assert_eq!(world.overheard_kinds(), [4]);
    world.pass(MAX_JITTER + Duration::from_millis(1));
    assert_eq!(world.overheard_kinds(), [1]);
}

#[test]
fn the_initiator_renews_a_session_120_s_old_when_it_sends() {
    let mut world = World::connected_pair();
    world.live(118 * SECOND);
    for node in 0..2 {
        world.overheard.clear();
        world.send(node, 1 - node, 60).unwrap();
        world.deliver();
        assert_eq!(world.overheard_kinds(), [4]);
    }
    world.live(SECOND);
    world.overheard.clear();
    world.send(1, 0, 60).unwrap();
    world.deliver();
    assert_eq!(world.overheard_kinds(), [4], "not the responder");
    world.send(0, 1, 60).unwrap();
    world.deliver();
    assert_eq!(world.overheard_kinds(), [4, 1, 2, 4]);
    assert_eq!(world.peer_status(0).latest_handshake, Some(Duration::ZERO));
}

#[test]
fn the_initiator_renews_a_session_165_s_old_when_it_receives() {
    let mut world = World::connected_pair();
    world.live(163 * SECOND);
    for (wait, kinds) in [(SECOND, &[4, 1, 2, 4][..]), (SECOND, &[4])] {
        world.now += wait;
        world.overheard.clear();
        world.send(1, 0, 60).unwrap();
        world.deliver();
        assert_eq!(world.overheard_kinds(), kinds);
    }
}

#[test]
fn a_session_ends_after_180_s() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let [late] = world.intercept().try_into().unwrap();
    world.now += 179 * SECOND;
    world.nodes[1].received.clear();
    assert_eq!(world.inject(1, &late), Err(DropReason::SessionExpired));
    world.overheard.clear();
    world.send(1, 0, 60).unwrap();
    assert_eq!(world.overheard_kinds(), [1]);
}

#[test]
fn initiations_are_repeated_for_90_s_with_jitter_and_then_given_up() {
    let mut world = World::pair();
    let start = world.now;
    world.send(0, 1, 60).unwrap();
    let mut times = vec![start];
    world.overheard.clear();
    while let Some((deadline, reason)) = world.nodes[0].device.poll_timeout() {
        world.now = deadline;
        world.fire(0);
        if !world.overheard_kinds().is_empty() {
            assert_eq!(reason, "handshake retransmission");
            times.push(deadline);
        }
    }
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 18);
    assert!(
        pauses
            .iter()
            .all(|&pause| pause >= 5 * SECOND && pause <= 5 * SECOND + MAX_JITTER)
    );
    assert!(pauses.iter().any(|&pause| pause != pauses[0]));
    assert_eq!(world.drops(0, DropReason::HandshakeGivenUp), 1);
    assert_eq!(world.handshakes(0), [0, 1, 0]);
    world.send(0, 1, 60).unwrap();
    world.intercept().pop().unwrap();
}

#[test]
fn a_new_packet_makes_the_attempts_count_anew() {
    let mut world = World::pair();
    for _ in 0..10 {
        world.send(0, 1, 60).unwrap();
        world.pass(60 * SECOND);
    }
    assert_eq!(world.drops(0, DropReason::HandshakeGivenUp), 0);
    assert!(world.overheard.len() > 100);
}

#[test]
fn with_persistent_keepalive_a_peer_is_called_for_ever() {
    let mut world = World::connected_pair();
    persistent_keepalive(&mut world, 0, 25);
    world.pass(7200 * SECOND);
    let mut gaps = 0;
    for _ in 0..100 {
        world.overheard.clear();
        world.pass(21 * SECOND);
        gaps += usize::from(world.overheard.is_empty());
    }
    assert_eq!(gaps, 0);
    world.intercept();
    world.overheard.clear();
    world.live(21 * SECOND);
    assert_eq!(world.deliver(), []);
    assert!(world.peer_status(0).latest_handshake.unwrap() <= 21 * SECOND);
    world.send(1, 0, 60).unwrap();
    world.deliver();
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn persistent_keepalives_start_at_once_and_only_go_out_in_silence() {
    let mut world = World::connected_pair();
    world.live(20 * SECOND);
    world.overheard.clear();
    persistent_keepalive(&mut world, 0, 5);
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [4]);
    world.live(50 * SECOND);
    assert_eq!(world.overheard_kinds(), [4; 10]);
    for _ in 0..10 {
        world.send(0, 1, 60).unwrap();
        world.live(4 * SECOND);
    }
    let lengths: Vec<usize> = world
        .overheard
        .iter()
        .map(|sent| sent.bytes.len())
        .collect();
    let keepalives = world
        .overheard
        .iter()
        .filter(|sent| sent.from == address(0) && sent.bytes.len() == 32);
    assert_eq!(keepalives.count(), 0, "{lengths:?}");
    persistent_keepalive(&mut world, 0, 0);
    world.live(20 * SECOND);
    world.overheard.clear();
    world.live(100 * SECOND);
    assert_eq!(world.overheard, []);
}

#[test]
fn a_quiet_tunnel_with_persistent_keepalive_stays_up_for_hours() {
    let mut world = World::connected_pair();
    persistent_keepalive(&mut world, 0, 25);
    for _ in 0..6 * 60 {
        world.live(60 * SECOND);
        assert_eq!(
            world.nodes[1]
                .device
                .drops()
                .map(|(_, count)| count)
                .sum::<u64>(),
            0
        );
        assert!(world.peer_status(0).latest_handshake.unwrap() < 180 * SECOND);
    }
    world.overheard.clear();
    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [4]);
}

#[test]
fn a_clock_set_forward_costs_no_session_and_renews_only_engines_without_an_answer() {
    let mut world = World::connected_pair();
    let index = |world: &World| world.overheard.last().unwrap().bytes[5..8].to_vec();
    let before = world.overheard[0].bytes[5..8].to_vec();
    world.with_device(0, |device, _, _| device.handle_forward_clock_step());
    world.send(0, 1, 60).unwrap();
    assert_eq!(world.deliver(), []);
    world.now += 180 * SECOND;
    world.send(0, 1, 60).unwrap();
    assert_eq!(index(&world), before, "the first attempt");
    world.pass(5 * SECOND + MAX_JITTER);
    assert_ne!(index(&world), before, "the second");
    world.live(6 * SECOND);
    world.overheard.clear();
    world.send(0, 1, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [4]);
}

#[test]
fn a_restarted_device_calls_its_peers_and_traffic_goes_on() {
    let mut world = World::connected_pair();
    world.rebuild_engines(1); // loses all sessions
    world.initiate_handshakes(1);
    assert_eq!(world.deliver(), []);
    world.send(0, 1, 60).unwrap();
    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[0].received.len(), 1);
    assert_eq!(world.nodes[1].received.len(), 1);
}
