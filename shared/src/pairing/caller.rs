//! The LAN host's side of the conversation: a WireGuard device for one peer, and one question at a time. No I/O: datagrams
//! are handed in and taken out, time is an argument.
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::frame::{self, Assembly, Frame};
use super::message::{Reply, Request};
use super::{PORT, Token, packet};
use crate::model::PublicKey;
use crate::wg::{
    AllowedIpChange, Device, DeviceChange, Ecn, OutboundPacket, PacketBuffer, Path, PeerChange,
    TransmitQueue,
};

/// A question is asked again after this time without an answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Room for a few datagrams beside the one that is being written.
const QUEUE_LEN: usize = 16 << 10;
/// Every IPv6 path carries packets of this size (RFC 8200 §5); ours are shorter.
const MTU: usize = 1280;
/// Bytes behind a packet that encryption needs.
const ROOM_BEHIND: usize = 16;

/// An invited peer that calls.
#[derive(Debug)]
pub struct Caller {
    device: Device,
    out: TransmitQueue,
    inbound: PacketBuffer,
    path: Path,
    gateway_key: PublicKey,
    ours: SocketAddr,
    service: SocketAddr,
    question: Option<Question>,
    asked: u32,
}

#[derive(Debug)]
struct Question {
    number: u32,
    packets: Vec<Vec<u8>>,
    again_at: Instant,
    answer: Assembly,
}

impl Caller {
    /// The peer that `token` invites, which calls the gateway at `remote`.
    pub fn new(token: &Token, remote: SocketAddr, now: Instant) -> Self {
        let mut caller = Self {
            device: Device::new(MTU, now),
            out: TransmitQueue::new(QUEUE_LEN),
            inbound: PacketBuffer::default(),
            path: Path {
                remote,
                local: None,
            },
            gateway_key: token.gateway_key,
            ours: SocketAddr::new(token.address, PORT),
            service: SocketAddr::new(token.gateway_address, PORT),
            question: None,
            asked: 0,
        };
        let mut gateway = PeerChange::new(token.gateway_key);
        gateway.preshared_key = Some(token.preshared_key());
        gateway.endpoint = Some(remote);
        gateway.allowed_ips = vec![AllowedIpChange {
            network: IpNetwork::from(token.gateway_address),
            remove: false,
        }];
        let change = DeviceChange {
            private_key: Some(Some(token.private_key.clone())),
            peers: vec![gateway],
            ..DeviceChange::default()
        };
        caller.device.apply_change(&change, &mut caller.out, now);
        caller
    }

    /// Ask; the question before is forgotten. The handshake goes before the first one by itself.
    pub fn ask(&mut self, request: &Request, now: Instant) {
        self.asked += 1;
        // A request is a few short texts: it is always JSON, and fits.
        let message = serde_json::to_vec(request).unwrap_or_default();
        let datagrams = frame::split(self.asked, &message);
        let packets = datagrams.iter();
        let packets = packets.filter_map(|d| packet::build(self.ours, self.service, d));
        self.question = Some(Question {
            number: self.asked,
            packets: packets.collect(),
            again_at: now,
            answer: Assembly::default(),
        });
        self.handle_timeout(now);
    }

    /// Whether the gateway has answered the handshake: then it knows this invitation.
    pub fn is_connected(&self, now: Instant) -> bool {
        let status = self.device.peer_status(&self.gateway_key, now);
        status.is_some_and(|status| status.latest_handshake.is_some())
    }

    /// Take a datagram from the gateway; returns the answer when it is whole.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Option<Reply> {
        let taken = self.device.handle_datagram(
            self.path,
            Ecn::NotEct,
            datagram,
            &mut self.inbound,
            &mut self.out,
            now,
        );
        // What is not for us is counted by the device, and means nothing here.
        taken.ok()?;
        let packet = self.inbound.take()?;
        let payload = packet::payload_of(packet, self.service, self.ours)?;
        let frame = Frame::parse(payload)?;
        let question = self.question.as_mut()?;
        if frame.question != question.number {
            return None;
        }
        let message = question.answer.take(&frame)?;
        self.question = None;
        Some(serde_json::from_slice(&message).unwrap_or_else(|_| {
            Reply::Refused {
                detail: "the gateway's answer makes no sense to this version of lan-server; \
                         use the same version on both ends"
                    .to_owned(),
            }
        }))
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let device = self.device.poll_timeout().map(|(at, _)| at);
        let question = self.question.as_ref().map(|question| question.again_at);
        device.into_iter().chain(question).min()
    }

    /// Do what is due: handshakes again, the question again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.device.handle_timeout(&mut self.out, now);
        let Some(question) = &mut self.question else {
            return;
        };
        if question.again_at > now {
            return;
        }
        question.again_at = now + ASK_AGAIN;
        for packet in &question.packets {
            let mut buffer = packet.clone();
            let length = buffer.len();
            buffer.resize(length + ROOM_BEHIND, 0);
            let packet = OutboundPacket {
                buffer: &mut buffer,
                length,
            };
            // Refused only when too many wait for the handshake: those are enough.
            let _enough_wait = self.device.handle_tun_packet(packet, &mut self.out, now);
        }
    }

    /// The datagrams that are to be sent to the gateway.
    pub fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let bytes = self.out.bytes();
        let runs = self.out.runs().iter().flat_map(|run| {
            let run_bytes = bytes.get(run.range.clone()).unwrap_or_default();
            run_bytes.chunks(run.stride).map(<[u8]>::to_vec)
        });
        let datagrams = runs.collect();
        self.out.clear();
        datagrams
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has to get its first instant somewhere"
)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::PrivateKey;

    /// A gateway's device with the invited peer, and what it answers to a question.
    struct Gateway {
        device: Device,
        out: TransmitQueue,
        inbound: PacketBuffer,
        answer: Vec<u8>,
        heard: Vec<Request>,
    }

    const REMOTE: &str = "203.0.113.10:51820";

    fn token(v6: bool) -> Token {
        let [address, gateway_address] = if v6 {
            ["fd17::9", "fd17::1"]
        } else {
            ["10.17.0.9", "10.17.0.1"]
        };
        Token {
            private_key: PrivateKey::from_bytes([7; 32]),
            gateway_key: PrivateKey::from_bytes([8; 32]).public_key(),
            address: address.parse().unwrap(),
            gateway_address: gateway_address.parse().unwrap(),
            expires_at: Timestamp::UNIX_EPOCH,
            endpoint: REMOTE.parse().unwrap(),
        }
    }

    impl Gateway {
        fn new(token: &Token, answer: &Reply, now: Instant) -> Self {
            let mut invited = PeerChange::new(token.private_key.public_key());
            invited.preshared_key = Some(token.preshared_key());
            invited.allowed_ips = vec![AllowedIpChange {
                network: IpNetwork::from(token.address),
                remove: false,
            }];
            let change = DeviceChange {
                private_key: Some(Some(PrivateKey::from_bytes([8; 32]))),
                peers: vec![invited],
                ..DeviceChange::default()
            };
            let mut gateway = Self {
                device: Device::new(1420, now),
                out: TransmitQueue::new(QUEUE_LEN),
                inbound: PacketBuffer::default(),
                answer: serde_json::to_vec(answer).unwrap(),
                heard: Vec::new(),
            };
            gateway.device.apply_change(&change, &mut gateway.out, now);
            gateway
        }

        /// What the kernel and the service behind it make of a datagram.
        fn handle(&mut self, datagram: &[u8], token: &Token, now: Instant) {
            let path = Path {
                remote: "192.0.2.1:40000".parse().unwrap(),
                local: None,
            };
            let (inbound, out) = (&mut self.inbound, &mut self.out);
            let taken = self
                .device
                .handle_datagram(path, Ecn::NotEct, datagram, inbound, out, now);
            assert_eq!(taken, Ok(()));
            let Some(packet) = self.inbound.take() else {
                return;
            };
            let caller = SocketAddr::new(token.address, PORT);
            let service = SocketAddr::new(token.gateway_address, PORT);
            let Some(payload) = packet::payload_of(packet, caller, service) else {
                return; // a keepalive
            };
            let frame = Frame::parse(payload).unwrap();
            let request = serde_json::from_slice(frame.whole().unwrap()).unwrap();
            self.heard.push(request);
            for datagram in frame::split(frame.question, &self.answer) {
                let mut buffer = packet::build(service, caller, &datagram).unwrap();
                let length = buffer.len();
                buffer.resize(length + ROOM_BEHIND, 0);
                let packet = OutboundPacket {
                    buffer: &mut buffer,
                    length,
                };
                let sent = self.device.handle_tun_packet(packet, &mut self.out, now);
                assert_eq!(sent, Ok(()));
            }
        }

        fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
            let runs = self.out.runs().iter();
            let runs = runs.flat_map(|run| self.out.bytes()[run.range.clone()].chunks(run.stride));
            let datagrams = runs.map(<[u8]>::to_vec).collect();
            self.out.clear();
            datagrams
        }
    }

    fn question() -> Request {
        Request::Offer { public_key: None }
    }

    fn refused(detail: &str) -> Reply {
        Reply::Refused {
            detail: detail.to_owned(),
        }
    }

    /// Let both talk until the caller has its answer; every datagram that `lost` names by its number is lost.
    fn converse(token: &Token, reply: &Reply, lost: &[usize]) -> (Option<Reply>, Gateway) {
        let mut now = Instant::now();
        let mut gateway = Gateway::new(token, reply, now);
        let mut caller = Caller::new(token, REMOTE.parse().unwrap(), now);
        caller.ask(&question(), now);
        let end = now + Duration::from_secs(30);
        let mut sent = 0;
        while now < end {
            loop {
                let to_gateway = caller.take_datagrams();
                for datagram in &to_gateway {
                    if !lost.contains(&sent) {
                        gateway.handle(datagram, token, now);
                    }
                    sent += 1;
                }
                let to_caller = gateway.take_datagrams();
                for datagram in &to_caller {
                    let arrives = !lost.contains(&sent);
                    sent += 1;
                    if arrives {
                        if let Some(reply) = caller.handle_datagram(datagram, now) {
                            assert!(caller.is_connected(now));
                            return (Some(reply), gateway);
                        }
                    }
                }
                if to_gateway.is_empty() && to_caller.is_empty() {
                    break;
                }
            }
            let next = caller.poll_timeout().expect("something is always due");
            now = next.max(now + Duration::from_millis(1));
            caller.handle_timeout(now);
        }
        (None, gateway)
    }

    #[test]
    fn a_question_is_answered_over_either_family() {
        for v6 in [false, true] {
            let reply = refused("no");
            let (answer, gateway) = converse(&token(v6), &reply, &[]);
            assert_eq!(answer, Some(reply));
            assert_eq!(gateway.heard, [question()]);
        }
    }

    #[test]
    fn a_long_answer_arrives_whole() {
        let reply = refused(&"long ".repeat(2000));
        assert_eq!(converse(&token(false), &reply, &[]).0, Some(reply));
    }

    #[test]
    fn what_is_lost_is_asked_again() {
        // In turn: initiation, response, question, answer.
        for lost in 0..4 {
            let reply = refused("no");
            let (answer, gateway) = converse(&token(false), &reply, &[lost]);
            assert_eq!(answer, Some(reply), "datagram {lost} lost");
            assert!(!gateway.heard.is_empty());
        }
    }

    #[test]
    fn a_stranger_is_not_answered() {
        let invited = token(false);
        let mut stranger = invited.clone();
        stranger.private_key = PrivateKey::from_bytes([9; 32]);
        let now = Instant::now();
        let mut gateway = Gateway::new(&invited, &refused("no"), now);
        let mut caller = Caller::new(&stranger, REMOTE.parse().unwrap(), now);
        caller.ask(&question(), now);
        for datagram in caller.take_datagrams() {
            let path = Path {
                remote: REMOTE.parse().unwrap(),
                local: None,
            };
            let (inbound, out) = (&mut gateway.inbound, &mut gateway.out);
            let taken =
                gateway
                    .device
                    .handle_datagram(path, Ecn::NotEct, &datagram, inbound, out, now);
            assert!(taken.is_err());
        }
        assert!(gateway.take_datagrams().is_empty());
        assert!(!caller.is_connected(now));
    }
}
