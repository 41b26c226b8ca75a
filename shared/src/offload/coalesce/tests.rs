use proptest::prelude::*;

use super::super::segment::tests::cut;
use super::super::testing::{Form, Parts, checksums_are_valid, packet};
use super::*;

const BOTH: CoalesceKinds = CoalesceKinds {
    tcp: true,
    udp: true,
};

/// The frames that are written for these packets.
fn coalesce(packets: &[Vec<u8>], kinds: CoalesceKinds) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut note = |mut write: Write<'_>| {
        let (header, packet) = write.frame();
        let frame = [header, packet].concat();
        let packets = cut(&frame).unwrap();
        assert_eq!(packets.len(), write.packet_count());
        assert!(packets.len() <= MAX_GROUP);
        assert_eq!(packets.concat().len(), write.packet_bytes());
        assert_eq!(write.kind().is_some(), packets.len() > 1);
        let mut one_by_one = Vec::new();
        if let Some(mut segments) = write.cut() {
            while let Some(packet) = segments.next_packet() {
                one_by_one.push(packet.buffer[..packet.length].to_vec());
            }
            assert_eq!(one_by_one, packets);
        }
        frames.push(frame);
    };
    let mut coalescer = Coalescer::default();
    for packet in packets {
        coalescer.push(packet, kinds, &mut note);
        assert!(coalescer.open.len() <= MAX_OPEN_FLOWS);
    }
    coalescer.flush(&mut note);
    assert!(coalescer.open.is_empty());
    frames
}

/// How many packets each write holds.
fn group_sizes(packets: &[Vec<u8>]) -> Vec<usize> {
    coalesce(packets, BOTH)
        .iter()
        .map(|frame| cut(frame).unwrap().len())
        .collect()
}

/// `count` packets of one flow, of 100 bytes of payload each, that follow one another.
fn train(parts: &Parts, count: u16) -> Vec<Vec<u8>> {
    (0..count)
        .map(|index| {
            packet(&Parts {
                identification: parts.identification.wrapping_add(index),
                sequence: parts.sequence.wrapping_add(u32::from(index) * 100),
                payload: vec![u8::try_from(index % 256).unwrap(); 100],
                ..parts.clone()
            })
        })
        .collect()
}

fn of(form: Form) -> Parts {
    Parts {
        form,
        ..Parts::default()
    }
}

#[test]
fn packets_of_one_flow_leave_in_one_write_and_come_apart_as_they_were() {
    for form in Form::ALL {
        for dont_fragment in [true, false] {
            let parts = Parts {
                dont_fragment,
                sequence: u32::MAX - 150,
                identification: 0xfffe,
                ..of(form)
            };
            let packets = train(&parts, 5);
            let frames = coalesce(&packets, BOTH);
            assert_eq!(frames.len(), 1, "{form:?}");
            assert_eq!(cut(&frames[0]).unwrap(), packets, "{form:?}");
        }
    }
}

#[test]
fn shorter_packet_and_push_are_the_last_of_their_write() {
    let mut packets = train(&of(Form::Tcp4), 4);
    packets[1] = packet(&Parts {
        sequence: 101,
        tcp_flags: 0x18,
        payload: vec![1; 100],
        ..Parts::default()
    });
    assert_eq!(group_sizes(&packets), [2, 2], "push");
    let mut packets = train(&of(Form::Udp6), 4);
    packets[1] = packet(&Parts {
        payload: vec![1; 60],
        ..of(Form::Udp6)
    });
    assert_eq!(group_sizes(&packets), [2, 2], "shorter");
    packets[1] = packet(&Parts {
        payload: vec![1; 160],
        ..of(Form::Udp6)
    });
    assert_eq!(
        group_sizes(&packets),
        [1, 2, 1],
        "longer, then two that are shorter"
    );
}

#[test]
fn packets_that_differ_in_more_than_their_place_are_not_joined() {
    let differ = |form: Form, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts {
            sequence: 101,
            identification: 0x1235,
            payload: vec![0; 100],
            ..of(form)
        };
        let first = train(&of(form), 1).remove(0);
        let joined = group_sizes(&[first.clone(), packet(&parts)]);
        assert_eq!(joined, [2], "the test itself");
        change(&mut parts);
        group_sizes(&[first, packet(&parts)]) == [1, 1]
    };
    for form in Form::ALL {
        assert!(differ(form, &|parts| parts.tos = 1), "{form:?} ECN");
        assert!(differ(form, &|parts| parts.ttl = 63), "{form:?} TTL");
        assert!(differ(form, &|parts| parts.flow = 2), "{form:?} flow");
        assert!(
            differ(form, &|parts| parts.payload = Vec::new()),
            "{form:?} empty"
        );
    }
    for form in [Form::Tcp4, Form::Tcp6] {
        assert!(differ(form, &|parts| parts.sequence = 102), "{form:?} gap");
        assert!(differ(form, &|parts| parts.sequence = 1), "{form:?} repeat");
        assert!(
            differ(form, &|parts| parts.acknowledgment = 8),
            "{form:?} acknowledgment"
        );
        assert!(
            differ(form, &|parts| parts.options[7] = 9),
            "{form:?} time stamp"
        );
        assert!(
            differ(form, &|parts| parts.options.truncate(4)),
            "{form:?} header length"
        );
        for flags in [0x11, 0x12, 0x14, 0x30, 0x50, 0x90, 0x00] {
            assert!(
                differ(form, &|parts| parts.tcp_flags = flags),
                "{form:?} {flags:#x}"
            );
        }
    }
    assert!(
        differ(Form::Udp4, &|parts| parts.dont_fragment = false),
        "DF"
    );
}

#[test]
fn identification_must_follow_only_where_fragments_are_allowed() {
    for (dont_fragment, groups) in [(false, vec![1, 1]), (true, vec![2])] {
        let parts = Parts {
            dont_fragment,
            payload: vec![0; 100],
            ..Parts::default()
        };
        let next = Parts {
            sequence: 101,
            ..parts.clone()
        };
        assert_eq!(group_sizes(&[packet(&parts), packet(&next)]), groups);
    }
}

#[test]
fn corrupt_packet_is_written_alone_as_it_came() {
    for form in Form::ALL {
        for corrupt in 0..3 {
            let mut packets = train(&of(form), 3);
            let last = packets[corrupt].len() - 1;
            packets[corrupt][last] ^= 1;
            let frames = coalesce(&packets, BOTH);
            let alone = [&[0; VNET_HDR_LEN][..], &packets[corrupt]].concat();
            assert!(frames.contains(&alone), "{form:?} {corrupt}");
            let written: Vec<_> = frames
                .iter()
                .flat_map(|frame| cut(frame).unwrap())
                .collect();
            assert_eq!(written, packets, "{form:?} {corrupt}");
        }
    }
}

#[test]
fn packet_with_corrupt_ipv4_header_is_written_alone() {
    let mut packets = train(&of(Form::Tcp4), 2);
    packets[1][11] ^= 1;
    assert_eq!(group_sizes(&packets), [1, 1]);
}

#[test]
fn udp_without_checksum_is_written_alone() {
    let mut packets = train(&of(Form::Udp4), 3);
    for packet in &mut packets {
        packet[26..28].copy_from_slice(&[0, 0]);
    }
    assert_eq!(group_sizes(&packets), [1, 1, 1]);
}

#[test]
fn fragments_and_options_are_written_alone_and_keep_their_place() {
    let mut packets = train(&of(Form::Udp4), 4);
    packets[1][6] = 0x20; // more fragments
    assert_eq!(group_sizes(&packets), [1, 1, 2]);
    let mut with_options = packets.remove(0);
    with_options[0] = 0x46;
    assert_eq!(group_sizes(&[with_options.clone(), with_options]), [1, 1]);
}

#[test]
fn flows_that_interleave_are_joined_each_for_itself() {
    let flows: Vec<_> = (0..16u8)
        .map(|flow| {
            train(
                &Parts {
                    flow,
                    ..of(Form::Tcp4)
                },
                4,
            )
        })
        .collect();
    let interleaved: Vec<_> = (0..4)
        .flat_map(|index| flows.iter().map(move |flow| flow[index].clone()))
        .collect();
    assert_eq!(group_sizes(&interleaved), [4; 16]);
}

#[test]
fn kinds_that_are_off_are_written_alone() {
    let packets = [train(&of(Form::Tcp4), 2), train(&of(Form::Udp6), 2)].concat();
    let tcp_only = CoalesceKinds {
        tcp: true,
        udp: false,
    };
    let neither = CoalesceKinds {
        tcp: false,
        udp: false,
    };
    assert_eq!(coalesce(&packets, BOTH).len(), 2);
    assert_eq!(coalesce(&packets, tcp_only).len(), 3);
    assert_eq!(coalesce(&packets, neither).len(), 4);
}

#[test]
fn write_never_exceeds_the_largest_packet() {
    let parts = |index: u32| {
        packet(&Parts {
            sequence: 1 + index * 1368,
            payload: vec![0; 1368],
            ..Parts::default()
        })
    };
    let packets: Vec<_> = (0..100).map(parts).collect();
    assert_eq!(group_sizes(&packets), [47, 47, 6]);
}

/// One step of a random conversation.
#[derive(Debug, Clone)]
struct Step {
    flow: u8,
    form: Form,
    length: usize,
    push: bool,
    gap: bool,
    corrupt: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..20u8,
        proptest::sample::select(Form::ALL.to_vec()),
        prop_oneof![4 => Just(100usize), 1 => 0..200usize],
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    );
    let step = step.prop_map(|(flow, form, length, push, gap, corrupt)| Step {
        flow: flow / 5, // few flows, so that they continue
        form,
        length,
        push,
        gap,
        corrupt,
    });
    proptest::collection::vec(step, 0..120)
}

/// The packets of a conversation: each flow counts its own sequence numbers and identifications.
fn play(steps: &[Step]) -> Vec<(bool, Vec<u8>)> {
    let mut next = std::collections::BTreeMap::new();
    let mut packets = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let (sequence, identification) = next
            .entry((step.flow, step.form.is_tcp(), step.form.is_ipv4()))
            .or_insert((0u32, 0u16));
        if step.gap {
            *sequence += 1;
        }
        let mut bytes = packet(&Parts {
            form: step.form,
            flow: step.flow,
            sequence: *sequence,
            identification: *identification,
            dont_fragment: step.flow % 2 == 0,
            tcp_flags: if step.push { 0x18 } else { 0x10 },
            payload: vec![u8::try_from(index).unwrap(); step.length],
            ..Parts::default()
        });
        *sequence += u32::try_from(step.length).unwrap();
        *identification = identification.wrapping_add(1);
        if step.corrupt {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x40;
        }
        packets.push((step.corrupt, bytes));
    }
    packets
}

/// What tells the flows of [`play`] apart: version, protocol and flow number.
fn flow_of(packet: &[u8]) -> (u8, u8, u8) {
    if packet[0] >> 4 == 4 {
        (4, packet[9], packet[15])
    } else {
        (6, packet[6], packet[23])
    }
}

proptest! {
    #[test]
    fn cutting_what_was_joined_gives_the_same_packets_in_the_same_order_per_flow(steps in steps()) {
        let packets = play(&steps);
        let sent: Vec<_> = packets.iter().map(|(_, packet)| packet.clone()).collect();
        let frames = coalesce(&sent, BOTH);
        let mut written = Vec::new();
        for frame in &frames {
            let cut = cut(frame).unwrap();
            if cut.len() > 1 {
                for packet in &cut {
                    prop_assert!(checksums_are_valid(packet));
                    prop_assert!(!packets.iter().any(|(corrupt, sent)| *corrupt && sent == packet));
                }
            }
            written.extend(cut);
        }
        let by_flow = |packets: &[Vec<u8>]| {
            let mut flows = std::collections::BTreeMap::new();
            for packet in packets {
                flows.entry(flow_of(packet)).or_insert_with(Vec::new).push(packet.clone());
            }
            flows
        };
        prop_assert_eq!(by_flow(&written), by_flow(&sent));
    }

    #[test]
    fn no_bytes_make_it_panic_or_get_lost(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..120), 0..20),
        version in proptest::sample::select(vec![0x45u8, 0x46, 0x60, 0x00]),
    ) {
        let mut packets = packets;
        for packet in &mut packets {
            packet[0] = version;
            let length = packet.len();
            if length > 10 {
                packet[2] = 0;
                packet[3] = u8::try_from(length).unwrap();
                packet[4] = 0;
                packet[5] = u8::try_from(length.saturating_sub(40)).unwrap();
                packet[6] = 6;
                packet[9] = 17;
            }
        }
        let frames = coalesce(&packets, BOTH);
        let written: usize = frames.iter().map(|frame| cut(frame).map_or(0, |cut| cut.len())).sum();
        prop_assert_eq!(written, packets.len());
    }
}
