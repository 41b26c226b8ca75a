//! Bytes through the whole tunnel.
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use shared::offload::CoalesceKinds;
use shared::wg::DeviceChange;
use shared::wg::transmit::MAX_DATAGRAM;
use shared_os::tun::Offload;
use shared_os::udp::SendRung;

use super::super::{Limits, Offloads};
use super::world::{Node, World, dropped, wait_for};

const TRANSFER: usize = 2 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// Send bytes over TCP through the tunnel, both ways, and compare them.
fn exchange_over_tcp(from: &Node, to: &Node, address: SocketAddr) {
    let listener = to.host.run(move || TcpListener::bind(address).unwrap());
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        (&stream)
            .take(TRANSFER as u64)
            .read_to_end(&mut bytes)
            .unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let stream = from
        .host
        .run(move || TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap());
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let sent = pattern(TRANSFER);
    (&stream).write_all(&sent).unwrap();
    let mut received = Vec::new();
    (&stream)
        .take(TRANSFER as u64)
        .read_to_end(&mut received)
        .unwrap();
    echo.join().unwrap();
    assert!(received == sent, "bytes were changed on the way");
}

/// A socket to send with, and one that receives at this address.
fn udp_sockets(from: &Node, to: &Node, address: SocketAddr) -> (UdpSocket, UdpSocket) {
    let receiver = to.host.run(move || UdpSocket::bind(address).unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let sender = from.host.run(move || UdpSocket::bind(any).unwrap());
    (sender, receiver)
}

/// Send datagrams of one size, which the kernel may join, and compare those that arrive.
fn send_over_udp(from: &Node, to: &Node, address: SocketAddr) {
    let (sender, receiver) = udp_sockets(from, to, address);
    for number in 0..50u8 {
        let length = if number == 49 { 300 } else { 1000 };
        sender.send_to(&vec![number; length], address).unwrap();
    }
    let mut buffer = [0; 2000];
    for number in 0..50u8 {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(length, if number == 49 { 300 } else { 1000 });
        assert!(
            buffer[..length].iter().all(|&byte| byte == number),
            "datagram {number}"
        );
    }
}

/// Send datagrams of the greatest size there is over IPv4: each comes in fragments.
fn send_largest_over_udp(from: &Node, to: &Node, address: SocketAddr) {
    let (sender, receiver) = udp_sockets(from, to, address);
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    for shift in 0..3 {
        let sent = &pattern(MAX_DATAGRAM + shift)[shift..];
        sender.send_to(sent, address).unwrap();
        let length = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..length] == *sent, "bytes were changed on the way");
    }
}

fn near_and_far_talk(limits: Limits) -> Option<(Offloads, super::super::Counters)> {
    Some(talk(&World::new(limits, limits)?))
}

fn talk(world: &World) -> (Offloads, super::super::Counters) {
    world.near.host.sh("ping -c 3 -i 0.05 -W 5 10.9.0.2");
    world.near.host.sh("ping -c 3 -i 0.05 -W 5 fd09::2");
    for (near, far) in [
        (IpAddr::from([10, 9, 0, 1]), IpAddr::from([10, 9, 0, 2])),
        (v6("fd09::1"), v6("fd09::2")),
    ] {
        exchange_over_tcp(&world.near, &world.far, SocketAddr::new(far, 7000));
        send_over_udp(&world.near, &world.far, SocketAddr::new(far, 7000));
        send_over_udp(&world.far, &world.near, SocketAddr::new(near, 7000));
        send_largest_over_udp(&world.near, &world.far, SocketAddr::new(far, 7000));
        send_largest_over_udp(&world.far, &world.near, SocketAddr::new(near, 7000));
    }
    let counters = wait_for(world.near.control.counters()).unwrap();
    let status = wait_for(world.near.control.status()).unwrap();
    assert_eq!(status.listen_port, super::world::LISTEN_PORT);
    assert!(status.peers[0].latest_handshake.is_some());
    (wait_for(world.near.control.offloads()).unwrap(), counters)
}

fn v6(text: &str) -> IpAddr {
    text.parse::<Ipv6Addr>().unwrap().into()
}

const NOT_JOINED: CoalesceKinds = CoalesceKinds {
    tcp: false,
    udp: false,
};

#[test]
fn tunnel_carries_tcp_and_udp_unchanged_with_everything_on() {
    let Some((offloads, counters)) = near_and_far_talk(Limits::default()) else {
        return;
    };
    assert_eq!(offloads.tun, Offload::Uso);
    assert_eq!(offloads.udp4.unwrap().send, SendRung::Segmented);
    assert!(
        counters.tun.packets_read > counters.tun.frames_read * 2,
        "{counters:?}"
    );
    assert!(counters.tun.joined_writes > 0, "{counters:?}");
    assert!(counters.udp.rx_merged > 0, "{counters:?}");
    assert!(counters.udp.tx_segmented > 0, "{counters:?}");
    assert_eq!(counters.tun.joined_writes_refused, 0, "{counters:?}");
    assert_eq!(counters.tun.write_errors, 0, "{counters:?}");
    assert_eq!(counters.tun.frames_malformed, 0, "{counters:?}");
}

#[test]
fn tunnel_of_jumbo_packets_carries_tcp_and_udp_unchanged() {
    for mtu in [9000, 65_000] {
        let limits = Limits::default();
        let Some(world) = World::with_mtu(mtu, limits, limits) else {
            return;
        };
        let (_, counters) = talk(&world);
        assert_eq!(counters.udp.tx_errors, 0, "{counters:?}");
        assert_eq!(counters.udp.tx_too_big, 0, "{counters:?}");
        assert_eq!(dropped(&counters), []);
    }
}

#[test]
fn tunnel_carries_tcp_and_udp_unchanged_on_every_rung_of_tun() {
    for tun in [Offload::Tso, Offload::Checksum, Offload::None] {
        let limits = Limits {
            tun,
            ..Limits::default()
        };
        let Some((offloads, _)) = near_and_far_talk(limits) else {
            return;
        };
        assert_eq!(offloads.tun, tun);
    }
}

#[test]
fn tunnel_carries_tcp_and_udp_unchanged_without_joining() {
    let limits = Limits {
        coalesce: NOT_JOINED,
        ..Limits::default()
    };
    let Some((_, counters)) = near_and_far_talk(limits) else {
        return;
    };
    assert_eq!(counters.tun.joined_writes, 0);
}

#[test]
fn tunnel_carries_tcp_and_udp_unchanged_on_every_rung_of_udp() {
    for (send, gro) in [
        (SendRung::Segmented, false),
        (SendRung::Batch, true),
        (SendRung::Single, false),
    ] {
        let mut limits = Limits::default();
        limits.udp.send = send;
        limits.udp.gro = gro;
        let Some((offloads, counters)) = near_and_far_talk(limits) else {
            return;
        };
        let udp4 = offloads.udp4.unwrap();
        assert_eq!((udp4.send, udp4.gro), (send, gro));
        assert_eq!(counters.udp.tx_segmented > 0, send == SendRung::Segmented);
        assert_eq!(
            counters.udp.rx_merged, 0,
            "a veth merges nothing by itself, and GRO is off where the peer segments"
        );
    }
}

/// Echo requests one by one: every one is answered.
fn ping_one_by_one(from: &Node, to: &str) {
    let output = from.host.sh(&format!("ping -c 80 -i 0.005 -W 5 {to}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("80 received"), "{said}");
}

#[test]
fn line_of_single_packets_has_a_socket_for_itself_unless_it_may_not() {
    for direct in [true, false] {
        let mut limits = Limits::default();
        limits.udp.direct = direct;
        let Some(world) = World::new(limits, limits) else {
            return;
        };
        ping_one_by_one(&world.near, "10.9.0.2");
        for node in [&world.near, &world.far] {
            // Those of this namespace: "51820" is CA6C, and the column before the state is whom a socket is connected to.
            let connected = node.host.sh("grep -c ':CA6C .*:CA6C 01 ' /proc/thread-self/net/udp /proc/thread-self/net/udp6 | cat");
            let connected = String::from_utf8_lossy(&connected.stdout).into_owned();
            assert_eq!(connected.contains(":1\n"), direct, "{connected}");
        }
    }
}

#[test]
fn line_of_single_packets_goes_on_when_an_end_moves_to_another_port_or_address() {
    let limits = Limits::default();
    let Some(world) = World::new(limits, limits) else {
        return;
    };
    let (near, far) = (&world.near, &world.far);
    ping_one_by_one(near, "10.9.0.2");
    let moved = DeviceChange {
        listen_port: Some(51_999),
        ..DeviceChange::default()
    };
    wait_for(far.control.apply(moved)).unwrap();
    ping_one_by_one(far, "10.9.0.1");
    ping_one_by_one(near, "fd09::2");
    far.host.sh(
        "ip address add 192.0.2.22/24 dev veth; ip address delete 192.0.2.2/24 dev veth; \
         ip address replace 192.0.2.22/24 dev veth",
    );
    ping_one_by_one(far, "10.9.0.1");
    ping_one_by_one(near, "10.9.0.2");
    let status = wait_for(near.control.status()).unwrap();
    let endpoint = status.peers[0].endpoint.unwrap();
    assert_eq!(endpoint, SocketAddr::from(([192, 0, 2, 22], 51_999)));
    for node in [near, far] {
        let counters = wait_for(node.control.counters()).unwrap();
        assert_eq!(counters.udp.tx_errors, 0, "{counters:?}");
        assert_eq!(dropped(&counters), []);
    }
}
