//! The network of the tests: nodes with addresses, a wire that remembers everything, a clock that is set.
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::model::{PresharedKey, PrivateKey, PublicKey};
use crate::wg::{
    AllowedIpChange, Device, DeviceChange, DropReason, Ecn, HandshakeResult, OutboundPacket,
    PacketBuffer, Path, PeerChange, PeerStatus, TransmitQueue,
};

pub(super) const MTU: usize = 1420;

/// A datagram on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Ecn,
    pub(super) bytes: Vec<u8>,
}

impl Datagram {
    pub(super) fn kind(&self) -> u8 {
        self.bytes[0]
    }
}

/// A device with its address on the wire and what it handed to TUN.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) device: Device,
    pub(super) key: PrivateKey,
    pub(super) address: SocketAddr,
    pub(super) received: Vec<Vec<u8>>,
    inbound: PacketBuffer,
    out: TransmitQueue,
}

impl Node {
    pub(super) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Everything that was ever sent, in order: the eavesdropper.
    pub(super) overheard: Vec<Datagram>,
    on_the_wire: VecDeque<Datagram>,
}

/// The address of a node on the wire.
pub(super) fn address(node: usize) -> SocketAddr {
    let host = u8::try_from(node).unwrap() + 1;
    SocketAddr::from(([192, 0, 2, host], 51820))
}

/// The address of a node in the tunnel.
pub(super) fn inner(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node).unwrap() + 1)
}

/// An IPv4 packet of this length between two addresses; `mark` tells it from others.
pub(super) fn packet(from: Ipv4Addr, to: Ipv4Addr, length: usize, mark: u8) -> Vec<u8> {
    let mut packet = vec![mark; length];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

impl World {
    /// Devices with keys and no peers.
    pub(super) fn new(nodes: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
        let now = Instant::now();
        let nodes = (0..nodes).map(|node| {
            let key = PrivateKey::from_bytes([u8::try_from(node).unwrap() + 1; 32]);
            let mut device = Device::new(MTU, now);
            let change = DeviceChange {
                private_key: Some(Some(key.clone())),
                ..DeviceChange::default()
            };
            let mut out = TransmitQueue::new(1 << 20);
            device.apply_change(&change, &mut out, now);
            Node {
                device,
                key,
                address: address(node),
                received: Vec::new(),
                inbound: PacketBuffer::default(),
                out,
            }
        });
        Self {
            now,
            nodes: nodes.collect(),
            overheard: Vec::new(),
            on_the_wire: VecDeque::new(),
        }
    }

    /// Two nodes that know each other; only the first knows where the other one is.
    pub(super) fn pair() -> Self {
        let mut world = Self::new(2);
        let mut to_second = world.peer(1);
        to_second.endpoint = Some(address(1));
        world.change_peer(0, to_second);
        let to_first = world.peer(0);
        world.change_peer(1, to_first);
        world
    }

    /// A pair with a session that both sides confirmed a second ago.
    pub(super) fn connected_pair() -> Self {
        let mut world = Self::pair();
        world.send(0, 1, 100).unwrap();
        world.deliver();
        assert_eq!(world.nodes[1].received.len(), 1);
        world.nodes[1].received.clear();
        world.now += Duration::from_secs(1);
        world
    }

    /// The change that makes a node a peer with its address in the tunnel.
    pub(super) fn peer(&self, node: usize) -> PeerChange {
        let mut change = PeerChange::new(self.nodes[node].public_key());
        change.allowed_ips = vec![allowed(&format!("{}/32", inner(node)))];
        change
    }

    pub(super) fn change_peer(&mut self, node: usize, change: PeerChange) {
        self.change(
            node,
            &DeviceChange {
                peers: vec![change],
                ..DeviceChange::default()
            },
        );
    }

    pub(super) fn change(&mut self, node: usize, change: &DeviceChange) {
        let Node { device, out, .. } = &mut self.nodes[node];
        device.apply_change(change, out, self.now);
        self.collect(node);
    }

    /// Send a packet from one node's inner address to the other's.
    pub(super) fn send(&mut self, from: usize, to: usize, length: usize) -> Result<(), DropReason> {
        self.send_packet(from, &packet(inner(from), inner(to), length, 7))
    }

    pub(super) fn send_packet(&mut self, node: usize, packet: &[u8]) -> Result<(), DropReason> {
        let mut buffer = packet.to_vec();
        buffer.extend([0xa5; 16]);
        let Node { device, out, .. } = &mut self.nodes[node];
        let outbound = OutboundPacket {
            buffer: &mut buffer,
            length: packet.len(),
        };
        let result = device.handle_tun_packet(outbound, out, self.now);
        assert_eq!(buffer[packet.len()..], [0xa5; 16], "the tail is restored");
        assert_eq!(buffer[..packet.len()], *packet);
        self.collect(node);
        result
    }

    /// Let a node receive a datagram, whoever it is addressed to.
    pub(super) fn inject(&mut self, node: usize, datagram: &Datagram) -> Result<(), DropReason> {
        let path = Path {
            remote: datagram.from,
            local: Some(datagram.to.ip()),
        };
        let Node {
            device,
            out,
            inbound,
            received,
            ..
        } = &mut self.nodes[node];
        let result =
            device.handle_datagram(path, datagram.ecn, &datagram.bytes, inbound, out, self.now);
        received.extend(inbound.take().map(<[u8]>::to_vec));
        self.collect(node);
        result
    }

    /// Deliver until the wire is silent. Returns why datagrams were dropped.
    pub(super) fn deliver(&mut self) -> Vec<DropReason> {
        let mut drops = Vec::new();
        while let Some(datagram) = self.on_the_wire.pop_front() {
            let receiver = self
                .nodes
                .iter()
                .position(|node| node.address == datagram.to);
            if let Some(receiver) = receiver {
                drops.extend(self.inject(receiver, &datagram).err());
            }
        }
        drops
    }

    /// Let a node receive what is on the wire now, which must be accepted.
    pub(super) fn inject_all(&mut self, node: usize) {
        for datagram in self.intercept() {
            self.inject(node, &datagram).unwrap();
        }
    }

    /// Take what is on the wire away.
    pub(super) fn intercept(&mut self) -> Vec<Datagram> {
        self.on_the_wire.drain(..).collect()
    }

    /// Let time pass without delivering anything; every timer fires when it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_with(time, |_| {});
    }

    /// Let time pass; deliver whatever is sent.
    pub(super) fn live(&mut self, time: Duration) {
        self.deliver();
        self.pass_with(time, |world| {
            world.deliver();
        });
    }

    fn pass_with(&mut self, time: Duration, mut after_each: impl FnMut(&mut Self)) {
        let end = self.now + time;
        loop {
            let next = (0..self.nodes.len())
                .filter_map(|node| Some((self.nodes[node].device.poll_timeout()?.0, node)))
                .min()
                .filter(|&(deadline, _)| deadline <= end);
            let Some((deadline, node)) = next else { break };
            self.now = self.now.max(deadline);
            self.fire(node);
            after_each(self);
        }
        self.now = end;
    }

    /// Call `handle_timeout` once.
    pub(super) fn fire(&mut self, node: usize) {
        let Node { device, out, .. } = &mut self.nodes[node];
        device.handle_timeout(out, self.now);
        self.collect(node);
    }

    pub(super) fn initiate_handshakes(&mut self, node: usize) {
        self.with_device(node, Device::initiate_handshakes);
    }

    /// Make a node forget its sessions, so that it may initiate at once.
    pub(super) fn rebuild_engines(&mut self, node: usize) {
        self.with_device(node, |device, _, now| device.rebuild_engines(now));
    }

    pub(super) fn with_device(
        &mut self,
        node: usize,
        action: impl FnOnce(&mut Device, &mut TransmitQueue, Instant),
    ) {
        let Node { device, out, .. } = &mut self.nodes[node];
        action(device, out, self.now);
        self.collect(node);
    }

    /// Put what a node wants to send on the wire.
    fn collect(&mut self, node: usize) {
        let Node { out, address, .. } = &mut self.nodes[node];
        for run in out.runs() {
            for bytes in out.bytes()[run.range.clone()].chunks(run.stride) {
                let datagram = Datagram {
                    from: *address,
                    to: run.path.remote,
                    ecn: run.ecn,
                    bytes: bytes.to_vec(),
                };
                self.overheard.push(datagram.clone());
                self.on_the_wire.push_back(datagram);
            }
        }
        out.clear();
    }

    /// The only peer of a node.
    pub(super) fn peer_status(&self, node: usize) -> PeerStatus {
        let status = self.nodes[node].device.status(self.now);
        assert_eq!(status.peers.len(), 1);
        status.peers.into_iter().next().unwrap()
    }

    pub(super) fn drops(&self, node: usize, reason: DropReason) -> u64 {
        let mut drops = self.nodes[node].device.drops();
        drops.find(|&(found, _)| found == reason).unwrap().1
    }

    /// Completed, given up, refused.
    pub(super) fn handshakes(&self, node: usize) -> [u64; 3] {
        let counted: Vec<_> = self.nodes[node].device.handshakes().collect();
        let counts = counted.iter().map(|&(_, count)| count).collect::<Vec<_>>();
        assert!(
            counted
                .iter()
                .map(|&(result, _)| result)
                .eq(HandshakeResult::ALL)
        );
        counts.try_into().unwrap()
    }

    /// Message types in the order in which they were sent since the last call.
    pub(super) fn overheard_kinds(&mut self) -> Vec<u8> {
        self.overheard
            .drain(..)
            .map(|datagram| datagram.kind())
            .collect()
    }
}

pub(super) fn allowed(network: &str) -> AllowedIpChange {
    AllowedIpChange {
        network: network.parse().unwrap(),
        remove: false,
    }
}

pub(super) fn preshared_key(byte: u8) -> PresharedKey {
    PresharedKey::from_bytes([byte; 32])
}

pub(super) fn stranger() -> SocketAddr {
    SocketAddr::new(IpAddr::from([203, 0, 113, 9]), 4321)
}

/// Make the first MAC of a handshake message right, as anybody can who knows the receiver's public key.
pub(super) fn with_mac1(message: &mut [u8], receiver: &PublicKey) {
    use blake2::digest::consts::U16;
    use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
    use blake2::{Blake2s256, Blake2sMac, Digest as _};

    let key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(receiver.as_bytes())
        .finalize();
    let (signed, macs) = message.split_at_mut(message.len() - 32);
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key).unwrap();
    mac.update(signed);
    macs[..16].copy_from_slice(&mac.finalize_fixed());
}
