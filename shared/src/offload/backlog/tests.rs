use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::testing::{Form, Parts, packet};
use super::*;

/// A frame of a flow, with a number in its payload.
fn frame(parts: &Parts, number: u16, length: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length.max(2), 0);
    let bytes = packet(&Parts {
        payload,
        ..parts.clone()
    });
    [&[0; VNET_HDR_LEN][..], &bytes].concat()
}

fn of(form: Form, flow: u8) -> Parts {
    Parts {
        form,
        flow,
        ..Parts::default()
    }
}

/// A backlog in which these flows have different numbers: they are drawn by chance.
fn backlog_that_tells_apart(given: &[Parts]) -> Backlog {
    loop {
        let backlog = Backlog::default();
        let keys: Vec<FlowKey> = given
            .iter()
            .map(|flow| backlog.key_of(&frame(flow, 0, 60)[VNET_HDR_LEN..]))
            .collect();
        let flows: BTreeSet<_> = keys.iter().map(|key| key.flow).collect();
        let pairs: BTreeSet<_> = keys.iter().map(|key| key.pair).collect();
        let hosts: BTreeSet<_> = given
            .iter()
            .map(|flow| (flow.flow, flow.form.is_ipv4()))
            .collect();
        if flows.len() == keys.len() && pairs.len() == hosts.len() {
            return backlog;
        }
    }
}

fn fragment(mut frame: Vec<u8>) -> Vec<u8> {
    frame[VNET_HDR_LEN + 6] |= 0x20; // more fragments
    frame
}

/// Offer a frame, and let it wait if it has to. Also returns what was dropped for it.
fn offer_dropping(backlog: &mut Backlog, frame: &[u8], time_left: bool) -> (Turn, Vec<Frame>) {
    let turn = backlog.turn_of(frame, time_left);
    let mut dropped = Vec::new();
    if let Turn::Later(key) = turn {
        while let Some(frame) = backlog.make_room(frame.len()) {
            dropped.push(frame);
        }
        let frame = Frame {
            buffer: frame.into(),
            length: frame.len(),
        };
        backlog.push(frame, key);
    }
    (turn, dropped)
}

/// The same where nothing has to be dropped.
fn offer(backlog: &mut Backlog, frame: &[u8], time_left: bool) -> Turn {
    let (turn, dropped) = offer_dropping(backlog, frame, time_left);
    assert!(dropped.is_empty());
    turn
}

fn waits(turn: Turn) -> bool {
    matches!(turn, Turn::Later(_))
}

#[test]
fn small_packet_of_another_flow_goes_before_a_large_transfer() {
    let bulk = of(Form::Tcp4, 1);
    let others = [of(Form::Udp4, 1), of(Form::Tcp4, 2), of(Form::Tcp6, 1)];
    let mut backlog =
        backlog_that_tells_apart(&[&others[..], std::slice::from_ref(&bulk)].concat());
    assert_eq!(
        offer(&mut backlog, &frame(&bulk, 0, 30_000), true),
        Turn::Now
    );
    assert!(waits(offer(&mut backlog, &frame(&bulk, 1, 30_000), false)));
    for other in others {
        assert_eq!(offer(&mut backlog, &frame(&other, 0, 60), false), Turn::Now);
        assert!(
            waits(offer(&mut backlog, &frame(&other, 0, 1400), false)),
            "large"
        );
    }
}

#[test]
fn nothing_overtakes_its_own_flow() {
    let mut backlog = Backlog::default();
    let bulk = of(Form::Tcp6, 1);
    assert!(waits(offer(&mut backlog, &frame(&bulk, 0, 30_000), false)));
    assert!(waits(offer(&mut backlog, &frame(&bulk, 1, 10), true)));
    backlog.pop();
    assert!(waits(offer(&mut backlog, &frame(&bulk, 2, 10), true)));
    backlog.pop();
    backlog.pop();
    assert_eq!(offer(&mut backlog, &frame(&bulk, 3, 10), true), Turn::Now);
}

#[test]
fn fragment_waits_for_every_flow_of_its_hosts_and_they_for_it() {
    let [tcp, udp] = [of(Form::Tcp4, 1), of(Form::Udp4, 1)];
    let mut backlog = backlog_that_tells_apart(&[tcp.clone(), of(Form::Udp4, 2)]);
    assert!(waits(offer(&mut backlog, &frame(&tcp, 0, 30_000), false)));
    let part = fragment(frame(&udp, 0, 60));
    assert!(waits(offer(&mut backlog, &part, true)));
    assert!(waits(offer(&mut backlog, &frame(&udp, 1, 60), true)));
    let elsewhere = fragment(frame(&of(Form::Udp4, 2), 0, 60));
    assert_eq!(offer(&mut backlog, &elsewhere, true), Turn::Now);
}

#[test]
fn oldest_is_dropped_when_too_much_waits_but_other_flows_still_get_through() {
    let bulk = of(Form::Tcp4, 1);
    let mut backlog = backlog_that_tells_apart(&[bulk.clone(), of(Form::Tcp4, 2)]);
    let most = CAPACITY / (60_000 + 62);
    for number in 0..20 {
        let bytes = frame(&bulk, number, 60_000);
        let (turn, dropped) = offer_dropping(&mut backlog, &bytes, false);
        assert!(waits(turn));
        let expected = usize::from(number) >= most;
        assert_eq!(dropped.len(), usize::from(expected), "{number}");
        if let Some(dropped) = dropped.first() {
            let oldest = number - u16::try_from(most).unwrap();
            assert_eq!(&*dropped.buffer, frame(&bulk, oldest, 60_000));
        }
    }
    let other = frame(&of(Form::Tcp4, 2), 0, 60);
    assert_eq!(offer(&mut backlog, &other, false), Turn::Now);
    let mut backlog = Backlog::default();
    let many = frame(&of(Form::Udp4, 3), 0, 1400);
    for _ in 0..MAX_FRAMES {
        offer(&mut backlog, &many, false);
    }
    let (_, dropped) = offer_dropping(&mut backlog, &many, false);
    assert_eq!(dropped.len(), 1);
}

#[test]
fn what_is_no_packet_waits_its_turn_too() {
    let mut backlog = Backlog::default();
    for junk in [
        &[][..],
        &[0; 3],
        &[0; VNET_HDR_LEN],
        &[0x45; 30],
        &[0x60; 60],
    ] {
        offer(&mut backlog, junk, false);
        offer(&mut backlog, junk, true);
    }
    while backlog.pop().is_some() {}
    assert_eq!(backlog.bytes, 0);
}

proptest! {
    /// Rounds of reading, sending and running out of time, in any order: what leaves is what came, less what was
    /// dropped, and in order inside every flow.
    #[test]
    fn order_inside_every_flow_stays(
        steps in proptest::collection::vec((0..6u8, 0..3usize, any::<bool>(), 0..4u8), 0..300),
    ) {
        let mut backlog = Backlog::default();
        let (mut sent, mut taken) = (Vec::new(), Vec::new());
        let number_of = |frame: &[u8]| u16::from_be_bytes([
            frame[frame.len() - 2], frame[frame.len() - 1],
        ]);
        for (number, (flow, size, time_left, pops)) in steps.into_iter().enumerate() {
            let number = u16::try_from(number).unwrap();
            let form = [Form::Tcp4, Form::Udp6][usize::from(flow % 2)];
            let mut bytes = frame(&of(form, flow), number, [60, 1400, 60_000][size]);
            let end = bytes.len() - 2;
            bytes[end..].copy_from_slice(&number.to_be_bytes());
            let (turn, dropped) = offer_dropping(&mut backlog, &bytes, time_left);
            if turn == Turn::Now {
                sent.push((flow, number));
            }
            taken.push((flow, number));
            for frame in dropped {
                let number = number_of(&frame.buffer);
                taken.retain(|(_, taken)| *taken != number);
            }
            for _ in 0..pops {
                if let Some(frame) = backlog.pop() {
                    let number = number_of(&frame.buffer);
                    let (flow, _) = taken.iter().find(|(_, taken)| *taken == number).unwrap();
                    sent.push((*flow, number));
                }
            }
        }
        while let Some(frame) = backlog.pop() {
            let number = number_of(&frame.buffer);
            let (flow, _) = taken.iter().find(|(_, taken)| *taken == number).unwrap();
            sent.push((*flow, number));
        }
        prop_assert_eq!(backlog.bytes, 0);
        for flow in 0..6 {
            let of_flow = |list: &[(u8, u16)]| -> Vec<u16> {
                list.iter().filter(|(of, _)| *of == flow).map(|(_, number)| *number).collect()
            };
            prop_assert_eq!(of_flow(&sent), of_flow(&taken));
        }
    }
}
