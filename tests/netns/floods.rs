//! Floods of strangers: visitors get their connections all the same, and the kernel's table of connections stays empty of them.
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use shared::wire::checksum::{Sum, pseudo_header};
use shared::wire::{ipv4, tcp};
use tests::edge::{LISTEN_PORT, Setup};
use tests::node::Node;
use tests::servers::Conversation;
use tests::world::addresses::{CLIENT, STRANGER, VPS, at, public};

use crate::support::with_edge;

/// Connections of visitors during a flood, one after the other.
const VISITORS: usize = 300;
/// How many of them may fail: one in a hundred.
const MAY_FAIL: usize = VISITORS / 100;
/// Packets a second. What the kernel drops costs less than what the tunnel looks at.
const SYNS: u32 = 20_000;
const DATAGRAMS: u32 = 5_000;
/// Sent at once: the pauses between are longer than the clock is coarse.
const BATCH: u32 = 100;
/// Number of the protocol (RFC 9293).
const TCP: u8 = 6;
/// What else is tracked meanwhile: visitors, and the tunnel's own.
const OTHERS: u64 = 2_000;

/// Sends until it is told to stop; counts.
#[derive(Default)]
struct Flood {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    fn run(&self, a_second: u32, mut send: impl FnMut(u32) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                send(number)?;
                number = number.wrapping_add(1);
            }
            let sent = self.sent.fetch_add(u64::from(BATCH), Ordering::Relaxed) + u64::from(BATCH);
            let due = Duration::from_secs(1) * u32::try_from(sent)? / a_second;
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        Ok(())
    }
}

/// A SYN to the published port from an address and port that differ with each number.
fn syn(from: Ipv4Addr, number: u32) -> Vec<u8> {
    const SEGMENT: usize = tcp::HEADER_LEN;
    let length = u16::try_from(ipv4::HEADER_LEN + SEGMENT).unwrap_or_default();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, TCP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(VPS.octets());
    let port = 1024 + u16::try_from(number % 60_000).unwrap_or_default();
    let mut segment = Vec::with_capacity(SEGMENT);
    segment.extend(port.to_be_bytes());
    segment.extend(443_u16.to_be_bytes());
    segment.extend(number.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let addresses = [from.octets(), VPS.octets()].concat();
    let sum: Sum = pseudo_header(&addresses, TCP, u32::try_from(SEGMENT).unwrap_or_default());
    let checksum = sum.bytes(&segment).checksum();
    tcp::put_checksum(&mut segment, checksum);
    packet.extend(segment);
    packet
}

/// An address of the stranger's network, and so nobody's of those who may call; others its router would not let out.
fn stranger(number: u32) -> Ipv4Addr {
    let [a, b, c, _] = STRANGER.octets();
    Ipv4Addr::new(a, b, c, u8::try_from(10 + number % 240).unwrap_or(10))
}

fn raw_socket(node: &Node) -> Result<OwnedFd> {
    node.enter(|| {
        // Of this kind the header is our own (`raw(7)`).
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
        raw.context("no raw socket")
    })
}

fn tracked(node: &Node) -> Result<u64> {
    let count = node.run(&["cat", "/proc/sys/net/netfilter/nf_conntrack_count"])?;
    Ok(count.trim().parse()?)
}

#[test]
fn visitors_do_not_notice_a_flood_of_syns_and_datagrams_from_strangers() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let raw = raw_socket(&world.stranger)?;
        let junk = world.stranger.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(at(VPS, LISTEN_PORT))?;
            Ok(socket)
        })?;
        let (syns, datagrams) = (Flood::default(), Flood::default());
        let to = SocketAddrV4::new(VPS, 0);
        let (failed, most, took) = thread::scope(|scope| -> Result<_> {
            let sending_syns = scope.spawn(|| {
                syns.run(SYNS, |number| {
                    sendto(
                        &raw,
                        &syn(stranger(number), number),
                        SendFlags::empty(),
                        &to,
                    )?;
                    Ok(())
                })
            });
            let sending_datagrams = scope.spawn(|| {
                datagrams.run(DATAGRAMS, |number| {
                    let mut initiation = [0_u8; 148];
                    initiation[0] = 1;
                    initiation[4..8].copy_from_slice(&number.to_be_bytes());
                    // The queue of the link may be full, which is what a flood is about.
                    let _full = junk.send(&initiation);
                    Ok(())
                })
            });
            let began = Instant::now();
            let visits = (0..VISITORS).map(|_| -> Result<(bool, u64)> {
                let opened = Conversation::open(&world.client, public(443));
                let as_visitor = opened.is_ok_and(|it| it.seen_as().ip() == CLIENT);
                thread::sleep(Duration::from_millis(10));
                Ok((as_visitor, tracked(&world.vps)?))
            });
            let visits: Result<Vec<(bool, u64)>> = visits.collect();
            let took = began.elapsed();
            for flood in [&syns, &datagrams] {
                flood.stop.store(true, Ordering::Relaxed);
            }
            for sending in [sending_syns, sending_datagrams] {
                sending.join().expect("a flood panicked")?;
            }
            let visits = visits?;
            let failed = visits.iter().filter(|(ok, _)| !ok).count();
            let most = visits.iter().map(|(_, tracked)| *tracked).max();
            Ok((failed, most.unwrap_or_default(), took))
        })?;
        let sent = [&syns, &datagrams].map(|flood| flood.sent.load(Ordering::Relaxed));
        let told = format!(
            "{sent:?} sent in {took:?}: {failed} of {VISITORS} failed, at most {most} tracked"
        );
        ensure!(failed <= MAY_FAIL, "{told}");
        ensure!(sent[0] > 10 * OTHERS && most < OTHERS, "{told}");
        let refused = edge.gateway.status()?.refused_packets;
        let guarded = refused.get("guard_ipv4").copied().unwrap_or_default();
        ensure!(guarded > sent[0] / 2, "{guarded} counted; {told}");
        edge.gateway.daemon.alive()
    });
}
