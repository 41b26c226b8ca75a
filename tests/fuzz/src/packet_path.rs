//! Bytes from the kernel and from the network on the packet's way.
use std::net::SocketAddr;
use std::time::Instant;

use shared::model::PrivateKey;
use shared::offload::{
    Backlog, CoalesceKinds, Coalescer, FRAME_TAILROOM, Frame, SEGMENT_TAILROOM, Turn, Write,
    segments,
};
use shared::wg::{
    AllowedIpChange, Device, DeviceChange, Ecn, PacketBuffer, Path, PeerChange, TransmitQueue,
};

/// Most bytes of a frame or packet: what a TUN link can hand over.
const MAX_LEN: usize = 65_535;

/// Pieces of an input: each is two bytes of length (little endian) and as many bytes, the last as many as there are.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at_checked(length)?;
        data = rest;
        Some(piece)
    })
}

/// A device whose only peer has all addresses.
fn device(now: Instant) -> Device {
    let key = |number| PrivateKey::from_bytes([number; 32]);
    let mut device = Device::new(1420, now);
    let mut peer = PeerChange::new(key(2).public_key());
    peer.endpoint = Some(SocketAddr::from(([192, 0, 2, 2], 51820)));
    peer.allowed_ips = ["0.0.0.0/0", "::/0"]
        .into_iter()
        .filter_map(|network| network.parse().ok())
        .map(|network| AllowedIpChange {
            network,
            remove: false,
        })
        .collect();
    let change = DeviceChange {
        private_key: Some(Some(key(1))),
        peers: vec![peer],
        ..DeviceChange::default()
    };
    device.apply_change(&change, &mut TransmitQueue::new(0), now);
    device
}

fn beginning_of_time() -> Instant {
    Instant::now()
}

/// Any frames from TUN are cut into packets that lie inside the frame, in their turn, or are refused.
pub fn tun_frames(data: &[u8]) {
    let now = beginning_of_time();
    let mut device = device(now);
    let mut out = TransmitQueue::new(1 << 20);
    let mut backlog = Backlog::default();
    let mut send = |mut buffer: Vec<u8>| {
        let length = buffer.len();
        buffer.resize(length + FRAME_TAILROOM, 0xaa);
        let Ok(mut packets) = segments(&mut buffer, length) else {
            return;
        };
        while let Some(packet) = packets.next_packet() {
            assert!(packet.length <= length, "a packet is longer than its frame");
            assert!(packet.buffer.len() >= packet.length + SEGMENT_TAILROOM);
            if out.is_full() {
                out.clear();
            }
            let _dropped = device.handle_tun_packet(packet, &mut out, now);
        }
    };
    for (index, frame) in pieces(data).enumerate() {
        match backlog.turn_of(frame, index % 2 == 0) {
            Turn::Now => send(frame.to_vec()),
            Turn::Later(key) => {
                while backlog.make_room(frame.len()).is_some() {}
                let buffer = frame.into();
                let length = frame.len();
                backlog.push(Frame { buffer, length }, key);
            }
        }
    }
    while let Some(frame) = backlog.pop() {
        send(frame.buffer.into());
    }
}

/// Any packets for TUN are written, joined or not, so that cutting the writes gives the same packets: none is lost, changed
/// or made valid.
pub fn tun_packets(data: &[u8]) {
    let kinds = CoalesceKinds {
        tcp: true,
        udp: true,
    };
    let mut written: Vec<Vec<u8>> = Vec::new();
    let mut coalescer = Coalescer::default();
    let mut note = |mut write: Write<'_>| {
        let (header, packet) = write.frame();
        assert!(packet.len() <= MAX_LEN, "larger than any packet");
        assert!(!header.is_empty());
        let whole = packet.to_vec();
        let count = write.packet_count();
        let Some(mut packets) = write.cut() else {
            assert_eq!(count, 1, "joined packets can't be cut");
            return written.push(whole);
        };
        let mut cut = 0;
        while let Some(packet) = packets.next_packet() {
            let bytes = packet.buffer.get(..packet.length);
            written.push(bytes.unwrap_or_default().to_vec());
            cut += 1;
        }
        assert_eq!(cut, count);
    };
    let mut packets: Vec<&[u8]> = pieces(data).filter(|packet| !packet.is_empty()).collect();
    for packet in &packets {
        coalescer.push(packet, kinds, &mut note);
    }
    coalescer.flush(&mut note);
    packets.sort_unstable();
    written.sort_unstable();
    assert_eq!(packets, written);
}

/// Any datagrams from the network are handled: a stranger can't make it panic, nor get a packet in.
pub fn datagrams(data: &[u8]) {
    let now = beginning_of_time();
    let mut device = device(now);
    let mut out = TransmitQueue::new(1 << 20);
    let mut inbound = PacketBuffer::default();
    let path = Path {
        remote: SocketAddr::from(([192, 0, 2, 2], 51820)),
        local: None,
    };
    for datagram in pieces(data) {
        let ecn = Ecn::from_tos(datagram.first().copied().unwrap_or_default());
        if out.is_full() {
            out.clear();
        }
        let _dropped = device.handle_datagram(path, ecn, datagram, &mut inbound, &mut out, now);
        assert!(inbound.take().is_none(), "a packet without a session");
    }
}
