//! The pieces of the packet's way, each alone: what a change of one of them costs or saves before it is seen in traffic.
//!
//! `cargo bench -p shared`; with `-- --save-baseline NAME` and `-- --baseline NAME` two states of the code are compared.
#![expect(
    clippy::disallowed_methods,
    reason = "a starting point for instants: time stands still afterwards"
)]
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnetwork::IpNetwork;
use shared::model::PrivateKey;
use shared::offload::{
    CoalesceKinds, Coalescer, FRAME_TAILROOM, GsoKind, SEGMENT_TAILROOM, VnetHdr, Write, segments,
};
use shared::wg::{
    AllowedIpChange, Device, DeviceChange, Ecn, OutboundPacket, PacketBuffer, Path, PeerChange,
    TransmitQueue,
};
use shared::wire::checksum::Sum;
use shared::wire::ipv4;

/// Bytes of a full packet in the tunnel.
const MTU: usize = 1420;
/// IPv4, and TCP with time stamps.
const HEADERS: usize = 20 + 32;
/// Payload of a full packet.
const SEGMENT: usize = MTU - HEADERS;
/// As many full packets as the kernel hands over at once.
const SEGMENTS: usize = 45;
/// Room of the queues and batches.
const CAPACITY: usize = 1 << 20;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 2);

criterion_group!(
    benches,
    seal,
    open,
    segment,
    coalesce,
    allowed_ips,
    checksum
);
criterion_main!(benches);

/// A packet from TUN to a datagram in the queue.
fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for length in [64, MTU] {
        let mut tunnel = Tunnel::established();
        let mut buffer = outbound(CLIENT, SERVER, length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter(|| {
                tunnel.client.send(&mut buffer, length, tunnel.now);
                if tunnel.client.out.is_full() {
                    tunnel.client.out.clear();
                }
            });
        });
    }
    group.finish();
}

/// Datagrams from the network to packets, as many as arrive at once.
fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for length in [64, MTU] {
        let Tunnel {
            mut client,
            mut server,
            now,
        } = Tunnel::established();
        let from = client.address;
        let mut buffer = outbound(CLIENT, SERVER, length);
        group.throughput(Throughput::Bytes((SEGMENTS * length) as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            let datagrams = || {
                // Each can be opened once: the replay window sees to that.
                (0..SEGMENTS).for_each(|_| client.send(&mut buffer, length, now));
                client.take()
            };
            bencher.iter_batched(
                datagrams,
                |datagrams| {
                    for datagram in &datagrams {
                        server.receive(datagram, from, now);
                    }
                    datagrams // dropped when the clock has stopped
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A large packet of the kernel to packets for the network, in place.
fn segment(criterion: &mut Criterion) {
    let frame = tso_frame();
    let length = frame.len() - FRAME_TAILROOM;
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function(BenchmarkId::from_parameter(SEGMENTS), |bencher| {
        bencher.iter_batched(
            || frame.clone(),
            |mut frame| {
                let mut segments = segments(&mut frame, length).expect("a valid frame");
                while let Some(packet) = segments.next_packet() {
                    black_box(packet.length);
                }
                frame
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// Packets of one flow to one write, checksums verified.
fn coalesce(criterion: &mut Criterion) {
    let mut frame = tso_frame();
    let length = frame.len() - FRAME_TAILROOM;
    let mut segments = segments(&mut frame, length).expect("a valid frame");
    let mut packets = Vec::new();
    while let Some(OutboundPacket { buffer, length }) = segments.next_packet() {
        packets.push(buffer.get(..length).expect("a whole packet").to_vec());
    }
    let kinds = CoalesceKinds {
        tcp: true,
        udp: true,
    };
    let mut coalescer = Coalescer::default();
    let mut join = || {
        let mut writes = 0;
        let mut write = |write: Write<'_>| {
            black_box(write.frame());
            writes += 1;
        };
        for packet in black_box(&packets) {
            coalescer.push(packet, kinds, &mut write);
        }
        coalescer.flush(&mut write);
        writes
    };
    assert_eq!(join(), 1, "all are joined");
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Bytes((SEGMENTS * MTU) as u64));
    group.bench_function(BenchmarkId::from_parameter(SEGMENTS), |bencher| {
        bencher.iter(&mut join);
    });
    group.finish();
}

/// Who has an address, among so many networks. Asked by a packet whose destination nobody has: its way ends with the
/// lookup, after its header was read and before anything is sealed. Destinations differ more than the cache holds, and
/// share all but the last byte with a network, so that every lookup goes down to a leaf.
fn allowed_ips(criterion: &mut Criterion) {
    const PACKET: usize = 64;
    let mut group = criterion.benchmark_group("allowed_ips");
    for networks in [1_u32, 100, 2000] {
        let mut tunnel = Tunnel::established();
        let first = Ipv4Addr::new(10, 18, 0, 0).to_bits();
        let mut peer = PeerChange::new(tunnel.server.key.public_key());
        peer.allowed_ips = (0..networks)
            .map(|number| allowed(Ipv4Addr::from_bits(first + 256 * number)))
            .collect();
        tunnel.client.change(peer, tunnel.now);
        let mut buffer = outbound(CLIENT, SERVER, PACKET);
        let mut random = 1_u32;
        group.bench_function(BenchmarkId::from_parameter(networks), |bencher| {
            bencher.iter(|| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // The high bits of a linear congruence are the random ones. Never a network itself: those end in 0.
                let (near, distance) = ((random >> 8) % networks, 1 + (random >> 24) % 255);
                let nobody = first + 256 * near + distance;
                let destination = buffer.get_mut(16..20).expect("a header");
                destination.copy_from_slice(&nobody.to_be_bytes());
                tunnel.client.drop_packet(&mut buffer, PACKET, tunnel.now);
            });
        });
    }
    group.finish();
}

/// The internet checksum over a whole packet.
fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for length in [64, MTU] {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |bencher| {
            bencher.iter(|| Sum::default().bytes(black_box(&bytes)).checksum());
        });
    }
    group.finish();
}

/// Two devices with a session, at a moment that lasts.
struct Tunnel {
    client: End,
    server: End,
    now: Instant,
}

/// A device with its address on the wire and what it made.
struct End {
    device: Device,
    key: PrivateKey,
    address: SocketAddr,
    out: TransmitQueue,
    inbound: PacketBuffer,
}

impl Tunnel {
    fn established() -> Self {
        let now = Instant::now();
        let mut client = End::new(1, now);
        let mut server = End::new(2, now);
        for (end, other, inner) in [(&mut client, 2, SERVER), (&mut server, 1, CLIENT)] {
            let mut peer = PeerChange::new(private_key(other).public_key());
            peer.allowed_ips = vec![allowed(inner)];
            peer.endpoint = Some(address(other));
            end.change(peer, now);
        }
        client.send(&mut outbound(CLIENT, SERVER, MTU), MTU, now);
        // Initiation, response, and the packet that waited, which confirms the session.
        for _ in 0..2 {
            for datagram in client.take() {
                server.receive(&datagram, client.address, now);
            }
            for datagram in server.take() {
                client.receive(&datagram, server.address, now);
            }
        }
        assert!(server.inbound.take().is_some(), "the session carries");
        Self {
            client,
            server,
            now,
        }
    }
}

impl End {
    fn new(number: u8, now: Instant) -> Self {
        let key = private_key(number);
        let mut device = Device::new(MTU, now);
        let mut out = TransmitQueue::new(CAPACITY);
        let change = DeviceChange {
            private_key: Some(Some(key.clone())),
            ..DeviceChange::default()
        };
        device.apply_change(&change, &mut out, now);
        Self {
            device,
            key,
            address: address(number),
            out,
            inbound: PacketBuffer::default(),
        }
    }

    fn change(&mut self, peer: PeerChange, now: Instant) {
        let change = DeviceChange {
            peers: vec![peer],
            ..DeviceChange::default()
        };
        self.device.apply_change(&change, &mut self.out, now);
    }

    fn send(&mut self, buffer: &mut [u8], length: usize, now: Instant) {
        let packet = OutboundPacket { buffer, length };
        let sent = self.device.handle_tun_packet(packet, &mut self.out, now);
        sent.expect("a peer has the destination");
    }

    /// The same with a packet that nobody has the destination of.
    fn drop_packet(&mut self, buffer: &mut [u8], length: usize, now: Instant) {
        let packet = OutboundPacket { buffer, length };
        let sent = self.device.handle_tun_packet(packet, &mut self.out, now);
        sent.expect_err("no peer has the destination");
    }

    fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        let path = Path {
            remote: from,
            local: None,
        };
        let Self {
            device,
            inbound,
            out,
            ..
        } = self;
        let taken = device.handle_datagram(path, Ecn::NotEct, datagram, inbound, out, now);
        taken.expect("an authentic datagram");
    }

    /// The datagrams that wait to be sent.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let runs = self.out.runs().iter();
        let datagrams = runs.flat_map(|run| {
            let bytes = self.out.bytes().get(run.range.clone()).unwrap_or_default();
            bytes.chunks(run.stride).map(<[u8]>::to_vec)
        });
        let datagrams = datagrams.collect();
        self.out.clear();
        datagrams
    }
}

fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

fn allowed(host: Ipv4Addr) -> AllowedIpChange {
    AllowedIpChange {
        network: IpNetwork::from(std::net::IpAddr::from(host)),
        remove: false,
    }
}

/// An IPv4 header with the protocol TCP.
fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    ipv4::rewrite_header(&mut header, small(length), 1);
    header
}

/// A packet as it comes from TUN, with the room behind it that the device may use.
fn outbound(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut packet = ipv4_header(from, to, length);
    packet.resize(length + SEGMENT_TAILROOM, 7);
    packet
}

/// What the kernel hands over of a bulk transfer: a virtio-net header, a large packet, and the room behind it.
fn tso_frame() -> Vec<u8> {
    let header = VnetHdr {
        needs_csum: true,
        gso: GsoKind::Tcp4,
        hdr_len: small(HEADERS),
        gso_size: small(SEGMENT),
        csum_start: 20,
        csum_offset: 16,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend(ipv4_header(CLIENT, SERVER, HEADERS + SEGMENTS * SEGMENT));
    // Ports, sequence and acknowledgment, data offset and ACK, window, checksum and urgent pointer, time stamps.
    frame.extend([0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame.extend([0x80, 0x10, 0x7f, 0xff, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame.extend((0..=u8::MAX).cycle().take(SEGMENTS * SEGMENT));
    frame.resize(frame.len() + FRAME_TAILROOM, 0);
    frame
}

fn small(number: usize) -> u16 {
    u16::try_from(number).expect("it fits into a packet")
}
