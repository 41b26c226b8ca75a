//! The whole way of packets through two devices as the worker goes it, in batches, held against the same packets sent one
//! by one: nothing is lost, changed, made valid or overtaken inside its flow, whatever the mix.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use crate::model::PrivateKey;
use crate::offload::segment::tests::cut;
use crate::offload::testing::{Form, Parts, packet, super_frame};
use crate::offload::{
    Backlog, CoalesceKinds, Coalescer, FRAME_TAILROOM, Frame, Turn, VNET_HDR_LEN, Write, segments,
};
use crate::wg::{
    AllowedIpChange, Device, DeviceChange, Ecn, PacketBuffer, Path, PeerChange, TransmitQueue,
};

/// What a packet or large packet is, beside its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Of TCP or UDP, cut into segments of this size.
    Large(u16),
    /// Its last byte is wrong.
    Corrupt,
    /// The first fragment of more.
    Fragment,
    /// Neither TCP nor UDP.
    OtherProtocol,
}

#[derive(Debug, Clone)]
struct Step {
    kind: Kind,
    form: Form,
    flow: u8,
    length: usize,
    push: bool,
    tos: u8,
    /// The round may still take large packets.
    time_left: bool,
    /// Frames taken from the backlog after this one.
    taken: usize,
    /// Everything is sent, received and written after this one.
    sent: bool,
    /// Keys are to be renewed with the next packet.
    rekey: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        4 => Just(Kind::Plain),
        6 => (40..1300_u16).prop_map(Kind::Large),
        1 => Just(Kind::Corrupt),
        1 => Just(Kind::Fragment),
        1 => Just(Kind::OtherProtocol),
    ];
    let step = (
        (kind, proptest::sample::select(Form::ALL.to_vec()), 1..4_u8),
        (prop_oneof![0..1300_usize, Just(1200)], 1..10_usize),
        (any::<bool>(), proptest::sample::select(vec![0_u8, 2, 0xb8])),
        (
            any::<bool>(),
            0..3_usize,
            any::<bool>(),
            proptest::bool::weighted(0.1),
        ),
    );
    let step = step.prop_map(
        |(what, (length, segments), (push, tos), (time_left, taken, sent, rekey))| {
            let (kind, form, flow) = what;
            Step {
                kind,
                form,
                flow,
                length: match kind {
                    // More than one segment, the last one of any length.
                    Kind::Large(size) => {
                        usize::from(size) * segments + 1 + length % usize::from(size)
                    }
                    Kind::Plain | Kind::Corrupt | Kind::Fragment | Kind::OtherProtocol => length,
                },
                push: push && segments < 4,
                tos,
                time_left,
                taken,
                sent,
                rekey,
            }
        },
    );
    proptest::collection::vec(step, 1..60)
}

/// What tells flows apart: version, protocol, number.
type Flow = (u8, u8, u8);

/// What each flow has counted to.
#[derive(Default)]
struct Senders(BTreeMap<Flow, (u32, u16)>);

impl Senders {
    /// The frame that the kernel hands over, and the packets that it stands for, one by one.
    fn send(&mut self, step: &Step) -> (Vec<u8>, Vec<Vec<u8>>) {
        let version = if step.form.is_ipv4() { 4 } else { 6 };
        let counted = self
            .0
            .entry((version, u8::from(step.form.is_tcp()), step.flow));
        let (sequence, identification) = counted.or_default();
        let parts = Parts {
            form: step.form,
            flow: step.flow,
            sequence: *sequence,
            identification: *identification,
            dont_fragment: step.flow % 2 == 0,
            tos: step.tos,
            tcp_flags: if step.push { 0x18 } else { 0x10 },
            payload: (0..step.length).map(|byte| byte.to_le_bytes()[0]).collect(),
            ..Parts::default()
        };
        let (frame, packets) = if let Kind::Large(size) = step.kind {
            (
                super_frame(&parts, size),
                one_by_one(&parts, usize::from(size)),
            )
        } else {
            let packet = spoilt(packet(&parts), step.kind);
            ([&[0; VNET_HDR_LEN][..], &packet].concat(), vec![packet])
        };
        *sequence = sequence.wrapping_add(u32::try_from(step.length).unwrap());
        *identification = identification.wrapping_add(u16::try_from(packets.len()).unwrap());
        (frame, packets)
    }
}

/// The segments of a large packet, each made from nothing.
fn one_by_one(parts: &Parts, size: usize) -> Vec<Vec<u8>> {
    let chunks: Vec<&[u8]> = parts.payload.chunks(size).collect();
    let made = chunks.iter().enumerate().map(|(index, chunk)| {
        let last = index + 1 == chunks.len();
        packet(&Parts {
            sequence: parts
                .sequence
                .wrapping_add(u32::try_from(index * size).unwrap()),
            identification: parts
                .identification
                .wrapping_add(u16::try_from(index).unwrap()),
            tcp_flags: if last { parts.tcp_flags } else { 0x10 },
            payload: chunk.to_vec(),
            ..parts.clone()
        })
    });
    made.collect()
}

fn spoilt(mut packet: Vec<u8>, kind: Kind) -> Vec<u8> {
    let ipv4 = packet[0] >> 4 == 4;
    match kind {
        Kind::Plain | Kind::Large(_) => {}
        Kind::Corrupt => {
            let last = packet.len() - 1;
            packet[last] ^= 0x55;
        }
        // In IPv6 the fragment header would stand where these packets have their transport: its type is enough here.
        Kind::Fragment if ipv4 => packet[6] |= 0x20,
        Kind::Fragment => packet[6] = 44,
        Kind::OtherProtocol if ipv4 => packet[9] = 47,
        Kind::OtherProtocol => packet[6] = 47,
    }
    packet
}

fn flow_of(packet: &[u8]) -> Flow {
    if packet[0] >> 4 == 4 {
        (4, packet[9], packet[15])
    } else {
        (6, packet[6], packet[23])
    }
}

fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Flow, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::new();
    for packet in packets {
        let flow: &mut Vec<_> = flows.entry(flow_of(packet)).or_default();
        flow.push(packet.clone());
    }
    flows
}

/// Two devices with a session, and all that a worker has.
struct Tunnel {
    now: Instant,
    near: Device,
    far: Device,
    backlog: Backlog,
    queue: TransmitQueue,
    inbound: PacketBuffer,
    coalescer: Coalescer,
    delivered: Vec<Vec<u8>>,
}

const NEAR: ([u8; 4], u16) = ([192, 0, 2, 1], 51820);
const FAR: ([u8; 4], u16) = ([192, 0, 2, 2], 51820);

fn path_to(remote: ([u8; 4], u16)) -> Path {
    Path {
        remote: SocketAddr::from(remote),
        local: None,
    }
}

fn device(number: u8, other: u8, endpoint: ([u8; 4], u16), now: Instant) -> Device {
    let key = |number| PrivateKey::from_bytes([number; 32]);
    let mut device = Device::new(1420, now);
    let mut peer = PeerChange::new(key(other).public_key());
    peer.endpoint = Some(endpoint.into());
    peer.allowed_ips = ["0.0.0.0/0", "::/0"]
        .map(|network| AllowedIpChange {
            network: network.parse::<IpNetwork>().unwrap(),
            remove: false,
        })
        .to_vec();
    let change = DeviceChange {
        private_key: Some(Some(key(number))),
        peers: vec![peer],
        ..DeviceChange::default()
    };
    device.apply_change(&change, &mut TransmitQueue::new(0), now);
    device
}

impl Tunnel {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
        let now = Instant::now();
        let mut tunnel = Self {
            now,
            near: device(1, 2, FAR, now),
            far: device(2, 1, NEAR, now),
            backlog: Backlog::default(),
            queue: TransmitQueue::new(1 << 20),
            inbound: PacketBuffer::default(),
            coalescer: Coalescer::default(),
            delivered: Vec::new(),
        };
        tunnel.shake_hands();
        tunnel
    }

    fn shake_hands(&mut self) {
        let mut out = TransmitQueue::new(1 << 20);
        self.near.initiate_handshakes(&mut out, self.now);
        for from_near in [true, false, true] {
            let message = out.bytes()[out.runs()[0].range.clone()].to_vec();
            out.clear();
            let (device, from) = if from_near {
                (&mut self.far, NEAR)
            } else {
                (&mut self.near, FAR)
            };
            let path = path_to(from);
            let inbound = &mut self.inbound;
            let taken =
                device.handle_datagram(path, Ecn::NotEct, &message, inbound, &mut out, self.now);
            taken.unwrap();
        }
    }

    /// One frame of the kernel, in its turn.
    fn take(&mut self, frame: &[u8], time_left: bool) {
        let mut buffer = frame.to_vec();
        buffer.resize(frame.len() + FRAME_TAILROOM, 0xaa);
        match self.backlog.turn_of(frame, time_left) {
            Turn::Now => self.encapsulate(&mut buffer, frame.len()),
            Turn::Later(key) => {
                assert!(
                    self.backlog.make_room(frame.len()).is_none(),
                    "too many for a test"
                );
                let frame = Frame {
                    buffer: buffer.into(),
                    length: frame.len(),
                };
                self.backlog.push(frame, key);
            }
        }
    }

    fn take_waiting(&mut self) {
        if let Some(mut frame) = self.backlog.pop() {
            self.encapsulate(&mut frame.buffer, frame.length);
        }
    }

    fn encapsulate(&mut self, buffer: &mut [u8], length: usize) {
        let mut segments = segments(buffer, length).unwrap();
        while let Some(packet) = segments.next_packet() {
            let sent = self
                .near
                .handle_tun_packet(packet, &mut self.queue, self.now);
            sent.unwrap();
        }
    }

    /// What waits for the network arrives at the far end; with `all` what it holds back is written too.
    fn carry(&mut self, all: bool) {
        const KINDS: CoalesceKinds = CoalesceKinds {
            tcp: true,
            udp: true,
        };
        let Self {
            far,
            queue,
            inbound,
            coalescer,
            delivered,
            now,
            ..
        } = self;
        let mut deliver = |write: Write<'_>| {
            let (header, packet) = write.frame();
            delivered.extend(cut(&[header, packet].concat()).unwrap());
        };
        let mut answers = TransmitQueue::new(1 << 20);
        let runs = queue.runs().len();
        let carried = if all { runs } else { runs.saturating_sub(1) };
        for run in &queue.runs()[..carried] {
            for datagram in queue.bytes()[run.range.clone()].chunks(run.stride) {
                let path = path_to(NEAR);
                far.handle_datagram(path, run.ecn, datagram, inbound, &mut answers, *now)
                    .unwrap();
                if let Some(packet) = inbound.take() {
                    coalescer.push(packet, KINDS, &mut deliver);
                }
            }
        }
        if all {
            queue.clear();
            coalescer.flush(&mut deliver);
        } else {
            queue.keep_last_run();
        }
        self.answer(&answers);
        if all && !self.queue.is_empty() {
            self.carry(true);
        }
    }

    /// What the far end says of its own accord: its part of handshakes.
    fn answer(&mut self, answers: &TransmitQueue) {
        let Self {
            near,
            queue,
            inbound,
            now,
            ..
        } = self;
        for run in answers.runs() {
            for message in answers.bytes()[run.range.clone()].chunks(run.stride) {
                let path = path_to(FAR);
                near.handle_datagram(path, run.ecn, message, inbound, queue, *now)
                    .unwrap();
                assert!(inbound.take().is_none());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn packets_in_batches_arrive_as_if_sent_one_by_one(steps in steps()) {
        const KEYS_ARE_OLD: Duration = Duration::from_secs(121);
        let mut tunnel = Tunnel::new();
        let mut senders = Senders::default();
        let mut expected = Vec::new();
        for step in &steps {
            let (frame, packets) = senders.send(step);
            expected.extend(packets);
            tunnel.take(&frame, step.time_left);
            (0..step.taken).for_each(|_| tunnel.take_waiting());
            while step.rekey && !tunnel.backlog.is_empty() {
                tunnel.take_waiting(); // a session that is not used is not renewed
            }
            tunnel.carry(step.sent || step.rekey);
            if step.rekey {
                tunnel.now += KEYS_ARE_OLD;
            }
        }
        while !tunnel.backlog.is_empty() {
            tunnel.take_waiting();
        }
        tunnel.carry(true);
        prop_assert_eq!(by_flow(&tunnel.delivered), by_flow(&expected));
    }
}
