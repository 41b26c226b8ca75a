//! Facts about packets.
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Datagram, MTU, World, address, allowed, inner, packet, stranger};
use crate::model::PublicKey;
use crate::wg::{DropReason, Ecn, OutboundPacket, PeerChange};

#[test]
fn packets_of_every_length_arrive_unchanged_both_ways() {
    let mut world = World::connected_pair();
    for (from, to) in [(0, 1), (1, 0)] {
        for length in 20..=MTU {
            let mark = u8::try_from(length % 251).unwrap();
            let sent = packet(inner(from), inner(to), length, mark);
            world.send_packet(from, &sent).unwrap();
            assert_eq!(world.deliver(), []);
            assert_eq!(world.nodes[to].received.pop(), Some(sent));
        }
    }
}

#[test]
fn ipv6_packets_arrive_unchanged() {
    let mut world = World::connected_pair();
    let addresses = [1, 2].map(|host| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host));
    for node in 0..2 {
        let mut change = world.peer(1 - node);
        change.allowed_ips = vec![allowed(&format!("{}/128", addresses[1 - node]))];
        world.change_peer(node, change);
    }
    let mut sent = vec![9; 40 + 77];
    sent[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 77, 17, 64]);
    sent[8..24].copy_from_slice(&addresses[0].octets());
    sent[24..40].copy_from_slice(&addresses[1].octets());
    world.send_packet(0, &sent).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[1].received, [sent]);
}

#[test]
fn plaintexts_are_padded_to_multiples_of_16_but_not_beyond_the_mtu() {
    let mut world = World::connected_pair();
    world.overheard.clear();
    for length in 20..=MTU {
        world.send(0, 1, length).unwrap();
        let plaintext = world.overheard.pop().unwrap().bytes.len() - 32;
        assert_eq!(plaintext, length.next_multiple_of(16).min(MTU));
    }
    world.with_device(0, |device, _, _| device.set_mtu(1500));
    world.send(0, 1, 1419).unwrap();
    assert_eq!(world.overheard.pop().unwrap().bytes.len(), 1424 + 32);
}

#[test]
fn equal_packets_leave_as_one_run() {
    let mut world = World::connected_pair();
    world.with_device(0, |device, out, now| {
        for length in [64; 40].into_iter().chain([50]) {
            let mut buffer = packet(inner(0), inner(1), length, 7);
            buffer.extend([0; 16]);
            let outbound = OutboundPacket {
                buffer: &mut buffer,
                length,
            };
            device.handle_tun_packet(outbound, out, now).unwrap();
        }
        assert_eq!(out.runs().len(), 1);
        assert_eq!(out.runs()[0].segments(), 41);
    });
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[1].received.len(), 41);
}

#[test]
fn staged_packets_arrive_in_order_and_the_oldest_give_way() {
    let mut world = World::pair();
    for mark in 0..140 {
        let staged = packet(inner(0), inner(1), 60, mark);
        world.send_packet(0, &staged).unwrap();
    }
    assert_eq!(world.overheard_kinds(), [1]);
    assert_eq!(world.deliver(), []);
    let marks: Vec<u8> = world.nodes[1]
        .received
        .iter()
        .map(|packet| packet[59])
        .collect();
    assert_eq!(marks, (12..140).collect::<Vec<u8>>());
    assert_eq!(world.drops(0, DropReason::StagedOverflow), 12);
}

#[test]
fn packets_to_nobody_and_malformed_packets_are_dropped() {
    let mut world = World::pair();
    let elsewhere = packet(inner(0), [10, 9, 9, 9].into(), 60, 7);
    assert_eq!(
        world.send_packet(0, &elsewhere),
        Err(DropReason::NoPeerForDestination)
    );
    assert_eq!(world.send(1, 0, 60), Err(DropReason::NoEndpoint));
    for malformed in [&[][..], &[0x45; 19], &[0x60; 39], &[0; 60]] {
        assert_eq!(
            world.send_packet(0, malformed),
            Err(DropReason::MalformedPacket)
        );
    }
    assert_eq!(world.overheard, []);
}

#[test]
fn source_outside_allowed_ips_is_dropped() {
    let mut world = World::connected_pair();
    let spoofed = packet([10, 9, 9, 9].into(), inner(1), 60, 7);
    world.send_packet(0, &spoofed).unwrap();
    assert_eq!(world.deliver(), [DropReason::SourceNotAllowed]);
    assert_eq!(world.nodes[1].received.len(), 0);
}

/// The sender's own list contains the address, but another peer has a longer prefix for it.
#[test]
fn a_peer_can_not_act_as_one_with_a_more_specific_network() {
    let mut world = World::new(3);
    for (node, network) in [(1, "10.0.0.0/24"), (2, "10.0.0.3/32")] {
        let mut change = world.peer(node);
        change.allowed_ips = vec![allowed(network)];
        world.change_peer(0, change);
        let mut change = world.peer(0);
        change.endpoint = Some(address(0));
        change.allowed_ips = vec![allowed("0.0.0.0/0")];
        world.change_peer(node, change);
    }
    let genuine = packet(inner(2), inner(0), 60, 2);
    world.send_packet(1, &genuine).unwrap();
    assert_eq!(world.deliver(), [DropReason::SourceNotAllowed]);
    world.send_packet(2, &genuine).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.nodes[0].received, [genuine]);
    world
        .send_packet(0, &packet(inner(0), inner(2), 60, 4))
        .unwrap();
    world.deliver();
    assert_eq!(world.nodes[1].received.len(), 0);
    assert_eq!(world.nodes[2].received.len(), 1);
}

#[test]
fn a_datagram_played_back_is_dropped_and_moves_nothing() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let [sent] = world.intercept().try_into().unwrap();
    world.inject(1, &sent).unwrap();
    let replay = Datagram {
        from: stranger(),
        ..sent
    };
    assert_eq!(world.inject(1, &replay), Err(DropReason::Replayed));
    assert_eq!(world.nodes[1].received.len(), 1);
    assert_eq!(world.peer_status(1).endpoint, Some(address(0)));
}

#[test]
fn counters_beyond_the_last_one_are_dropped_unread() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let [sent] = world.intercept().try_into().unwrap();
    for (counter, reason) in [
        (u64::MAX, DropReason::CounterExhausted),
        (u64::MAX - (1 << 13), DropReason::CounterExhausted),
        (u64::MAX - (1 << 13) - 1, DropReason::NotAuthentic),
    ] {
        let mut changed = sent.clone();
        changed.bytes[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(world.inject(1, &changed), Err(reason), "{counter}");
    }
    world.inject(1, &sent).unwrap();
}

#[test]
fn unknown_receivers_are_dropped() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let [sent] = world.intercept().try_into().unwrap();
    for at in 4..8 {
        let mut changed = sent.clone();
        changed.bytes[at] ^= 1;
        let result = world.inject(1, &changed);
        assert_eq!(result, Err(DropReason::UnknownReceiver));
    }
}

#[test]
fn both_sides_roam_with_authentic_data() {
    let mut world = World::connected_pair();
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 7));
    world.nodes[0].address = elsewhere;
    world.send(0, 1, 60).unwrap();
    world.deliver();
    assert_eq!(world.peer_status(1).endpoint, Some(elsewhere));
    let new_home = SocketAddr::new(IpAddr::from(Ipv6Addr::LOCALHOST), 9);
    world.nodes[1].address = new_home;
    world.send(1, 0, 60).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.peer_status(0).endpoint, Some(new_home));
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn answers_leave_from_the_address_that_was_contacted() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let [mut sent] = world.intercept().try_into().unwrap();
    sent.to = SocketAddr::from(([192, 0, 2, 200], 51820));
    world.inject(1, &sent).unwrap();
    let local_of_answer = |world: &mut World| {
        let mut local = None;
        world.with_device(1, |device, out, now| {
            let mut buffer = packet(inner(1), inner(0), 60, 1);
            buffer.extend([0; 16]);
            let outbound = OutboundPacket {
                buffer: &mut buffer,
                length: 60,
            };
            device.handle_tun_packet(outbound, out, now).unwrap();
            local = out.runs()[0].path.local;
        });
        local
    };
    assert_eq!(local_of_answer(&mut world), Some(sent.to.ip()));
    world.with_device(1, |device, _, _| device.handle_unusable_local(sent.to.ip()));
    assert_eq!(local_of_answer(&mut world), None);
}

#[test]
fn ecn_bits_go_out_and_come_in_as_in_rfc_6040() {
    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];
    let mut world = World::connected_pair();
    for bits in ALL {
        for way in ALL {
            let mut sent = packet(inner(0), inner(1), 60, 7);
            sent[1] = 0xb8 | bits.bits();
            world.send_packet(0, &sent).unwrap();
            let [mut datagram] = world.intercept().try_into().unwrap();
            assert_eq!(datagram.ecn, bits);
            datagram.ecn = way;
            let result = world.inject(1, &datagram);
            let expected = crate::wg::inner::decapsulated_ecn(bits, way);
            if let Some(expected) = expected {
                let received = world.nodes[1].received.pop().unwrap();
                assert_eq!(received[1], 0xb8 | expected.bits());
            } else {
                assert_eq!(result, Err(DropReason::CongestionMarkLost));
            }
        }
    }
}

#[test]
fn counters_are_bytes_on_the_wire_handshakes_and_padding_included() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    world.deliver();
    world.send(1, 0, 1419).unwrap();
    world
        .inject(
            0,
            &Datagram {
                bytes: vec![4; 99],
                ..world.overheard[0].clone()
            },
        )
        .unwrap_err();
    world.deliver();
    let [first, second] = [0, 1].map(|node| world.peer_status(node));
    assert_eq!(first.tx_bytes, 148 + 112 + 32);
    assert_eq!(first.rx_bytes, 92 + 1420 + 32);
    assert_eq!(
        (second.rx_bytes, second.tx_bytes),
        (first.tx_bytes, first.rx_bytes)
    );
}

#[test]
fn a_peer_removed_while_packets_are_under_way_is_gone() {
    let mut world = World::connected_pair();
    world.send(0, 1, 60).unwrap();
    let mut change = PeerChange::new(world.nodes[0].public_key());
    change.remove = true;
    world.change_peer(1, change);
    assert_eq!(world.deliver(), [DropReason::UnknownReceiver]);
    assert_eq!(world.send(1, 0, 60), Err(DropReason::NoPeerForDestination));
    assert_eq!(world.nodes[1].device.poll_timeout(), None);
    // Somebody else takes the place; nothing of the old one sticks to it.
    let mut other = PeerChange::new(PublicKey::from_bytes([9; 32]));
    other.allowed_ips = vec![allowed("10.0.0.1/32")];
    world.change_peer(1, other);
    assert_eq!(world.send(1, 0, 60), Err(DropReason::NoEndpoint));
    let status = world.peer_status(1);
    assert_eq!((status.rx_bytes, status.latest_handshake), (0, None));
}

proptest! {
    // Each case does real handshakes in a debug build.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The engine's window is 1,024 datagrams wide; within it every order is as good as any other.
    #[test]
    fn every_datagram_arrives_once_in_any_order(
        order in Just((0..200_usize).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(0..200_usize, 20),
    ) {
        let mut world = World::connected_pair();
        for mark in 0..200 {
            world.send_packet(0, &packet(inner(0), inner(1), 60, mark)).unwrap();
        }
        let sent = world.intercept();
        for &place in &order {
            prop_assert_eq!(world.inject(1, &sent[place]), Ok(()));
        }
        for place in again {
            prop_assert_eq!(world.inject(1, &sent[place]), Err(DropReason::Replayed));
        }
        let marks: Vec<usize> = world.nodes[1].received.iter().map(|packet| packet[59].into()).collect();
        prop_assert_eq!(marks, order);
    }

    /// Nothing the network does to a conversation makes a wrong packet arrive, or the same one twice, or keeps it from
    /// going on afterwards.
    #[test]
    fn loss_reordering_and_repetition_only_delay(
        fates in prop::collection::vec((0_u8..10, any::<prop::sample::Index>()), 60),
    ) {
        let mut world = World::pair();
        let mut sent = [Vec::new(), Vec::new()];
        let mut held: Vec<Datagram> = Vec::new();
        for (step, (fate, which)) in fates.into_iter().enumerate() {
            let from = step % 2;
            let length = 40 + step * 7;
            if world.send(from, 1 - from, length).is_ok() {
                sent[1 - from].push(packet(inner(from), inner(1 - from), length, 7));
            }
            held.extend(world.intercept());
            world.pass(Duration::from_millis(300));
            held.extend(world.intercept());
            if held.is_empty() {
                continue;
            }
            let place = which.index(held.len());
            let datagram = match fate {
                0 | 1 => { held.swap_remove(place); continue } // lost
                2 | 3 => held[place].clone(), // delivered now and again
                _ => held.remove(0),
            };
            let receiver = usize::from(datagram.to == address(1));
            world.inject(receiver, &datagram).ok();
        }
        world.intercept();
        for (node, sent) in sent.into_iter().enumerate() {
            let mut unseen = sent;
            for packet in std::mem::take(&mut world.nodes[node].received) {
                let place = unseen.iter().position(|expected| *expected == packet);
                prop_assert!(place.is_some(), "twice or never sent: {:?}", packet);
                unseen.swap_remove(place.unwrap());
            }
        }
        world.live(Duration::from_secs(30));
        for node in 0..2 {
            world.nodes[node].received.clear();
        }
        world.send(0, 1, 1000).unwrap();
        world.live(Duration::from_secs(30));
        world.send(1, 0, 1001).unwrap();
        world.live(Duration::from_secs(30));
        for (node, length) in [(1, 1000), (0, 1001)] {
            let arrived = world.nodes[node].received.iter().any(|packet| packet.len() == length);
            prop_assert!(arrived, "{} bytes", length);
        }
    }
}
