use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use shared::wg::{Ecn, Path, TransmitQueue};

use super::*;
use crate::netns;
use crate::sys::poll::Poller;
use crate::sys::socket::set_option;

fn sockets(limits: Limits) -> Sockets {
    Sockets::bind(Options {
        limits,
        ..Options::default()
    })
    .unwrap()
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

fn to(address: &str, port: u16) -> Path {
    Path {
        remote: SocketAddr::new(address.parse().unwrap(), port),
        local: None,
    }
}

fn from(path: Path, local: &str) -> Path {
    Path {
        local: Some(local.parse().unwrap()),
        ..path
    }
}

/// A queue of datagrams, each filled with its number.
fn queue(datagrams: &[(Path, Ecn, usize)]) -> TransmitQueue {
    let mut queue = TransmitQueue::new(1 << 20);
    for (number, &(path, ecn, length)) in datagrams.iter().enumerate() {
        queue.slot()[..length].fill(u8::try_from(number).unwrap());
        queue.commit(path, ecn, length);
    }
    queue
}

/// What arrives: path, ECN and datagrams of each buffer.
type Arrived = Vec<(Path, Ecn, Vec<Vec<u8>>)>;

/// Everything that arrives until nothing does for a while.
fn receive(sockets: &mut Sockets, family: Family) -> Arrived {
    let mut buffers = ReceiveBuffers::default();
    let mut arrived = Vec::new();
    let mut turns = [Most::One, Most::Batch].into_iter().cycle();
    loop {
        let fd = sockets.fd(family);
        let [ready] = Poller::new([fd])
            .unwrap()
            .wait(Some(Duration::from_millis(100)))
            .unwrap();
        if !ready {
            return arrived;
        }
        let most = turns.next().unwrap();
        if sockets.receive(family, most, &mut buffers).unwrap() {
            for received in buffers.received() {
                let datagrams = received.datagrams().map(<[u8]>::to_vec).collect();
                arrived.push((received.path, received.ecn, datagrams));
            }
        }
    }
}

fn datagrams(arrived: &Arrived) -> Vec<(u8, usize)> {
    arrived
        .iter()
        .flat_map(|(_, _, datagrams)| datagrams)
        .map(|datagram| (datagram[0], datagram.len()))
        .collect()
}

fn limits(send: SendRung, gro: bool) -> Limits {
    Limits {
        send,
        gro,
        direct: true,
    }
}

#[test]
fn run_arrives_merged_with_ecn_and_the_address_it_was_sent_to() {
    netns::run(|| {
        for (family, address) in [(Family::Ipv4, "127.0.0.5"), (Family::Ipv6, "::1")] {
            let (mut near, mut far) = (sockets(Limits::default()), sockets(Limits::default()));
            let path = to(address, far.port());
            let mut run = vec![(path, Ecn::Ce, 1400); 40];
            run.push((path, Ecn::Ce, 100));
            assert_eq!(near.send(&queue(&run)), None);
            let arrived = receive(&mut far, family);
            assert_eq!(arrived.len(), 1, "{family:?}: all in one buffer");
            let (path, ecn, _) = arrived[0];
            assert_eq!(path.remote.port(), near.port());
            assert_eq!(path.local, Some(address.parse().unwrap()));
            assert_eq!(ecn, Ecn::Ce);
            let mut expected: Vec<_> = (0..40).map(|number| (number, 1400)).collect();
            expected.push((40, 100));
            assert_eq!(datagrams(&arrived), expected);
            assert_eq!(
                (near.counters().tx_datagrams, near.counters().tx_calls),
                (41, 1)
            );
            assert_eq!(near.counters().tx_segmented, 1);
            assert_eq!(far.counters().rx_datagrams, 41);
            assert_eq!(far.counters().rx_merged, 1);
            assert_eq!(far.counters().rx_bytes, near.counters().tx_bytes);
        }
    });
}

#[test]
fn every_rung_delivers_the_same_datagrams_in_order() {
    netns::run(|| {
        for send in [SendRung::Segmented, SendRung::Batch, SendRung::Single] {
            for gro in [true, false] {
                let (mut near, mut far) = (sockets(limits(send, gro)), sockets(limits(send, gro)));
                let offloads = near.offloads(Family::Ipv4).unwrap();
                assert_eq!(offloads, SocketOffloads { send, gro });
                let (v4, v6) = (to("127.0.0.1", far.port()), to("::1", far.port()));
                let mut all = vec![(v4, Ecn::NotEct, 700); 50];
                all.extend([(v6, Ecn::Ect0, 60); 40]);
                all.extend([(v4, Ecn::NotEct, 90), (v4, Ecn::Ect1, 90)]);
                near.send(&queue(&all));
                let arrived4 = receive(&mut far, Family::Ipv4);
                let arrived6 = receive(&mut far, Family::Ipv6);
                let mut expected4: Vec<_> = (0..50).map(|number| (number, 700)).collect();
                expected4.extend([(90, 90), (91, 90)]);
                let expected6: Vec<_> = (50..90).map(|number| (number, 60)).collect();
                assert_eq!(datagrams(&arrived4), expected4, "{send:?} {gro}");
                assert_eq!(datagrams(&arrived6), expected6, "{send:?} {gro}");
                assert!(arrived6.iter().all(|&(_, ecn, _)| ecn == Ecn::Ect0));
                assert_eq!(arrived4.last().unwrap().1, Ecn::Ect1);
                assert_eq!(
                    far.counters().rx_merged > 0,
                    gro && send == SendRung::Segmented
                );
            }
        }
    });
}

#[test]
fn answer_leaves_from_the_address_that_was_contacted() {
    netns::run(|| {
        ip("address add 2001:db8::5/128 dev lo");
        for (family, address, own) in [
            (Family::Ipv4, "127.0.0.1", "127.0.0.9"),
            (Family::Ipv6, "::1", "2001:db8::5"),
        ] {
            let (mut near, mut far) = (sockets(Limits::default()), sockets(Limits::default()));
            let path = from(to(address, far.port()), own);
            assert_eq!(near.send(&queue(&[(path, Ecn::NotEct, 10)])), None);
            let arrived = receive(&mut far, family);
            assert_eq!(arrived[0].0.remote.ip(), own.parse::<IpAddr>().unwrap());
        }
    });
}

#[test]
fn source_address_that_is_not_ours_is_dropped_and_reported() {
    netns::run(|| {
        for (family, address, stale) in [
            (Family::Ipv4, "127.0.0.1", "192.0.2.77"),
            (Family::Ipv6, "::1", "2001:db8::77"),
        ] {
            let (mut near, mut far) = (sockets(Limits::default()), sockets(Limits::default()));
            let path = from(to(address, far.port()), stale);
            let unusable = near.send(&queue(&vec![(path, Ecn::NotEct, 1000); 30]));
            assert_eq!(unusable, Some(stale.parse().unwrap()), "{family:?}");
            assert_eq!(datagrams(&receive(&mut far, family)).len(), 30);
            assert_eq!(near.counters().tx_source_cleared, 1);
            assert_eq!(near.counters().tx_errors, 0);
            let offloads = near.offloads(family).unwrap();
            assert_eq!(
                offloads.send,
                SendRung::Segmented,
                "not a fault of segmentation"
            );
        }
    });
}

#[test]
fn datagrams_that_cannot_be_sent_do_not_stop_the_others() {
    netns::run(|| {
        for send in [SendRung::Segmented, SendRung::Batch, SendRung::Single] {
            let (mut near, mut far) = (sockets(limits(send, true)), sockets(Limits::default()));
            let good = to("127.0.0.1", far.port());
            let unreachable = to("203.0.113.1", 9);
            let mut all = vec![(good, Ecn::NotEct, 100); 10];
            all.extend([(unreachable, Ecn::NotEct, 100); 10]);
            all.extend([(good, Ecn::NotEct, 100); 10]);
            near.send(&queue(&all));
            assert_eq!(
                datagrams(&receive(&mut far, Family::Ipv4)).len(),
                20,
                "{send:?}"
            );
            assert_eq!(near.counters().tx_errors, 10, "{send:?}");
            assert_eq!(near.counters().tx_datagrams, 20, "{send:?}");
        }
    });
}

#[test]
fn datagrams_beyond_the_mtu_are_counted_and_segmentation_stays() {
    netns::run(|| {
        ip("link set lo mtu 1500");
        let (mut near, mut far) = (sockets(Limits::default()), sockets(Limits::default()));
        let path = to("127.0.0.1", far.port());
        let mut all = vec![(path, Ecn::NotEct, 1480); 10];
        all.extend([(path, Ecn::NotEct, 1400); 10]);
        near.send(&queue(&all));
        let arrived = datagrams(&receive(&mut far, Family::Ipv4));
        assert!(arrived.iter().all(|&(_, length)| length == 1400));
        assert!(near.counters().tx_too_big >= 10, "{:?}", near.counters());
        near.send(&queue(&[(path, Ecn::NotEct, 1400); 10]));
        assert_eq!(datagrams(&receive(&mut far, Family::Ipv4)).len(), 10);
        assert_eq!(
            near.offloads(Family::Ipv4).unwrap().send,
            SendRung::Segmented
        );
    });
}

#[test]
fn refused_segmentation_falls_back_without_loss() {
    netns::run(|| {
        let (mut near, mut far) = (sockets(Limits::default()), sockets(Limits::default()));
        // Without checksums there is no segmentation: `udp_send_skb` answers EINVAL, which other causes do elsewhere.
        let socket = near.fd(Family::Ipv4).unwrap();
        set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let path = to("127.0.0.1", far.port());
        let run = queue(&[(path, Ecn::NotEct, 1000); 20]);
        near.send(&run);
        let expected: Vec<_> = (0..20).map(|number| (number, 1000)).collect();
        assert_eq!(datagrams(&receive(&mut far, Family::Ipv4)), expected);
        assert_eq!(near.counters().tx_segmented_refused, 1);
        assert_eq!(near.offloads(Family::Ipv4).unwrap().send, SendRung::Batch);
        let ipv6 = near.offloads(Family::Ipv6).unwrap();
        assert_eq!(ipv6.send, SendRung::Segmented, "the other socket goes on");
        near.send(&run);
        assert_eq!(datagrams(&receive(&mut far, Family::Ipv4)), expected);
        assert_eq!(near.counters().tx_segmented_refused, 1, "remembered");
        assert_eq!(near.counters().tx_errors, 0);
    });
}

#[test]
fn empty_and_largest_datagrams_do_not_stop_reception() {
    netns::run(|| {
        let mut far = sockets(Limits::default());
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), far.port());
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for length in [0, 65_507, 1, 0, 148] {
            sender.send_to(&vec![1; length], address).unwrap();
        }
        let lengths: Vec<_> = datagrams(&receive(&mut far, Family::Ipv4))
            .iter()
            .map(|&(_, length)| length)
            .collect();
        assert_eq!(lengths, [65_507, 1, 148]);
        assert_eq!(far.counters().rx_errors, 0);
    });
}

#[test]
fn nobody_listening_is_no_error() {
    netns::run(|| {
        let mut near = sockets(Limits::default());
        for _ in 0..3 {
            near.send(&queue(&[(to("127.0.0.1", 9), Ecn::NotEct, 10)]));
            assert!(receive(&mut near, Family::Ipv4).is_empty());
        }
        assert_eq!(near.counters().tx_errors, 0);
    });
}

#[test]
fn kernel_chooses_one_port_for_both_families() {
    netns::run(|| {
        let sockets = sockets(Limits::default());
        assert_ne!(sockets.port(), 0);
        for address in ["0.0.0.0", "::"] {
            UdpSocket::bind((address, sockets.port())).unwrap_err();
        }
    });
}

#[test]
fn port_in_use_by_either_family_is_named() {
    netns::run(|| {
        for address in ["0.0.0.0:7000", "[::]:7000"] {
            let _taken = UdpSocket::bind(address).unwrap();
            let options = Options {
                port: 7000,
                ..Options::default()
            };
            let error = Sockets::bind(options).unwrap_err();
            assert!(
                matches!(error, BindError::InUse { port: 7000, .. }),
                "{error:?}"
            );
            assert!(error.to_string().contains("7000"));
        }
    });
}

#[test]
fn mark_decides_the_route_from_binding_on_and_when_changed() {
    netns::run(|| {
        ip("rule add fwmark 0x51 unreachable");
        let far = sockets(Limits::default());
        let options = Options {
            fwmark: 0x51,
            ..Options::default()
        };
        let mut near = Sockets::bind(options).unwrap();
        // The rule of local addresses stands before others, so aim at one that is not local.
        ip("address add 10.9.0.1/24 dev lo");
        ip("rule del pref 0");
        ip("rule add pref 40000 lookup local");
        let one = queue(&[(to("10.9.0.1", far.port()), Ecn::NotEct, 10)]);
        near.send(&one);
        assert_eq!(near.counters().tx_errors, 1);
        near.set_fwmark(0).unwrap();
        near.send(&one);
        assert_eq!(near.counters().tx_errors, 1);
        assert_eq!(near.counters().tx_datagrams, 1);
    });
}

#[test]
fn sockets_wait_for_packets_without_reading() {
    netns::run(|| {
        let far = sockets(Limits::default());
        let event = crate::sys::event::Event::new().unwrap();
        let fds = [
            far.fd(Family::Ipv4),
            far.fd(Family::Ipv6),
            Some(event.as_fd()),
        ];
        let poller = Poller::new(fds).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), [false; 3]);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[1], ("127.0.0.1", far.port())).unwrap();
        let ready = poller.wait(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(ready, [true, false, false]);
    });
}

/// Two lines between which so many datagrams went that each end has a socket for it, and the path of each.
fn direct_pair(near: &str, far: &str) -> [(Sockets, Path); 2] {
    let ends = [sockets(Limits::default()), sockets(Limits::default())];
    let paths = [
        from(to(far, ends[1].port()), near),
        from(to(near, ends[0].port()), far),
    ];
    let [near, far] = ends;
    let mut ends = [(near, paths[0]), (far, paths[1])];
    for (sockets, path) in &mut ends {
        for _ in 0..=direct::ALONE_BEFORE {
            assert!(sockets.direct_fd().is_none());
            sockets.send(&queue(&[(*path, Ecn::NotEct, 10)]));
        }
        assert!(sockets.take_direct_changed());
        assert!(sockets.direct_fd().is_some());
    }
    ends
}

/// Everything that calls give until there is nothing.
fn receive_by(mut call: impl FnMut(Most, &mut ReceiveBuffers) -> bool) -> Arrived {
    let mut buffers = ReceiveBuffers::default();
    let mut arrived = Vec::new();
    for most in [Most::One, Most::Batch].into_iter().cycle() {
        if !call(most, &mut buffers) {
            break;
        }
        for received in buffers.received() {
            let datagrams = received.datagrams().map(<[u8]>::to_vec).collect();
            arrived.push((received.path, received.ecn, datagrams));
        }
    }
    arrived
}

/// Everything that arrives at the socket that a line has for itself.
fn receive_direct(sockets: &mut Sockets) -> Arrived {
    receive_by(|most, buffers| sockets.receive_direct(most, buffers))
}

/// Everything in sockets that lines had for themselves.
fn receive_left(sockets: &mut Sockets) -> Arrived {
    receive_by(|_, buffers| sockets.receive_left(buffers))
}

/// Send datagrams of these lengths one by one.
fn send_one_by_one(sockets: &mut Sockets, path: Path, lengths: std::ops::Range<usize>) {
    for length in lengths {
        sockets.send(&queue(&[(path, Ecn::NotEct, length)]));
    }
}

/// Lengths of the datagrams, all of which came on this path.
fn lengths_on(path: Path, arrived: &Arrived) -> Vec<usize> {
    let paths = arrived.iter().map(|(path, ..)| path);
    assert_eq!(paths.filter(|&other| *other != path).count(), 0);
    let datagrams = datagrams(arrived).into_iter();
    datagrams.map(|(_, length)| length).collect()
}

#[test]
fn line_of_single_datagrams_has_a_socket_of_its_own_and_others_are_heard_beside_it() {
    netns::run(|| {
        for (family, near, far, other) in [
            (Family::Ipv4, "127.0.0.1", "127.0.0.5", "127.0.0.6"),
            (Family::Ipv6, "::1", "::1", "::1"),
        ] {
            let [(mut near_end, to_far), (mut far_end, to_near)] = direct_pair(near, far);
            receive(&mut far_end, family); // what came before there was a socket for it
            receive_direct(&mut near_end);

            // There and back, with what the headers say.
            for ecn in [Ecn::NotEct, Ecn::Ce] {
                near_end.send(&queue(&[(to_far, ecn, 100)]));
                assert_eq!(
                    receive_direct(&mut far_end),
                    [(to_near, ecn, vec![vec![0; 100]])]
                );
            }
            let run = vec![(to_near, Ecn::NotEct, 1400); 20];
            far_end.send(&queue(&run));
            let arrived = receive_direct(&mut near_end);
            assert_eq!(arrived.len(), 1, "{family:?}: merged as elsewhere");
            assert_eq!(datagrams(&arrived).len(), 20);
            assert_eq!(receive(&mut near_end, family), []);

            // Somebody else, and the same one from another port.
            let mut stranger = sockets(Limits::default());
            stranger.send(&queue(&[(to(near, near_end.port()), Ecn::NotEct, 7)]));
            let arrived = receive(&mut near_end, family);
            assert_eq!(datagrams(&arrived), [(0, 7)]);
            assert_eq!(arrived[0].0.remote.port(), stranger.port());
            // To another place: by the other socket.
            near_end.send(&queue(&[(to(other, stranger.port()), Ecn::NotEct, 8)]));
            assert_eq!(datagrams(&receive(&mut stranger, family)), [(0, 8)]);
            assert!(near_end.direct_fd().is_some());
        }
    });
}

#[test]
fn what_comes_before_and_after_a_line_gets_its_own_socket_is_received_in_order() {
    netns::run(|| {
        for (near, far) in [("127.0.0.1", "127.0.0.5"), ("::1", "::1")] {
            let (mut near_end, mut far_end) =
                (sockets(Limits::default()), sockets(Limits::default()));
            let to_far = from(to(far, far_end.port()), near);
            let to_near = from(to(near, near_end.port()), far);
            send_one_by_one(&mut near_end, to_far, 1..21);
            send_one_by_one(&mut far_end, to_near, 1..41);
            assert!(far_end.direct_fd().is_some());
            send_one_by_one(&mut near_end, to_far, 21..41);
            let arrived = receive_direct(&mut far_end);
            assert_eq!(lengths_on(to_near, &arrived), (1..41).collect::<Vec<_>>());
        }
    });
}

#[test]
fn what_comes_before_and_after_a_line_loses_its_own_socket_is_received_in_order() {
    netns::run(|| {
        for (family, near, far) in [
            (Family::Ipv4, "127.0.0.1", "127.0.0.5"),
            (Family::Ipv6, "::1", "::1"),
        ] {
            let [(mut near_end, to_far), (mut far_end, to_near)] = direct_pair(near, far);
            receive(&mut far_end, family);
            receive_direct(&mut far_end);
            send_one_by_one(&mut near_end, to_far, 1..21);
            far_end.set_fwmark(7).unwrap();
            send_one_by_one(&mut near_end, to_far, 21..41);
            let former = receive_left(&mut far_end);
            assert_eq!(lengths_on(to_near, &former), (1..21).collect::<Vec<_>>());
            let later = receive(&mut far_end, family);
            assert_eq!(lengths_on(to_near, &later), (21..41).collect::<Vec<_>>());
            assert_eq!(receive_left(&mut far_end), []);
            assert!(far_end.left.is_empty());
        }
    });
}

#[test]
fn what_others_sent_to_the_socket_of_a_line_is_theirs() {
    netns::run(|| {
        let [(mut near, _), _far] = direct_pair("127.0.0.1", "127.0.0.5");
        receive_direct(&mut near); // what came as it was made
        let mut other = sockets(Limits::default());
        let to_near = from(to("127.0.0.1", near.port()), "127.0.0.6");
        let to_other = from(to("127.0.0.6", other.port()), "127.0.0.1");
        // As everybody's datagrams are taken by a socket that is bound and not connected yet.
        let socket = &near.direct.as_ref().unwrap().fd;
        rustix::net::connect(socket, &to_other.remote).unwrap();
        send_one_by_one(&mut other, to_near, 9..10);
        let arrived = receive_direct(&mut near);
        assert_eq!(arrived, [(to_other, Ecn::NotEct, vec![vec![0; 9]])]);
    });
}

#[test]
fn line_that_took_over_has_the_socket() {
    netns::run(|| {
        let [(mut near, _), _far] = direct_pair("127.0.0.1", "127.0.0.5");
        let mut other = sockets(Limits::default());
        let to_other = from(to("127.0.0.6", other.port()), "127.0.0.1");
        for _ in 0..=direct::ALONE_BEFORE {
            assert!(!near.take_direct_changed());
            near.send(&queue(&[(to_other, Ecn::NotEct, 10)]));
        }
        assert!(near.take_direct_changed());
        let to_near = from(to("127.0.0.1", near.port()), "127.0.0.6");
        other.send(&queue(&[(to_near, Ecn::NotEct, 9)]));
        let arrived = receive_direct(&mut near);
        assert_eq!(arrived, [(to_other, Ecn::NotEct, vec![vec![0; 9]])]);
    });
}

#[test]
fn socket_of_a_line_goes_with_its_first_error_and_nothing_is_lost() {
    netns::run(|| {
        let [(mut near, to_far), (far, _)] = direct_pair("127.0.0.1", "127.0.0.5");
        let port = far.port();
        drop(far);
        let one = queue(&[(to_far, Ecn::NotEct, 10)]);
        near.send(&one); // is answered by ICMP
        near.send(&one); // which the socket tells here
        assert!(near.direct_fd().is_none());
        assert!(near.take_direct_changed());
        assert!(!near.take_direct_changed());
        let mut far = Sockets::bind(Options {
            port,
            ..Options::default()
        })
        .unwrap();
        near.send(&one);
        assert_eq!(receive(&mut far, Family::Ipv4).len(), 1);
        assert_eq!(near.counters().tx_errors, 0);
        for _ in 0..direct::ALONE_BEFORE {
            near.send(&one);
        }
        assert!(near.direct_fd().is_some(), "it gets another one");
    });
}

#[test]
fn port_of_a_line_with_a_socket_of_its_own_is_in_use() {
    netns::run(|| {
        let [(near, _), _far] = direct_pair("127.0.0.1", "127.0.0.5");
        for address in ["0.0.0.0", "127.0.0.1"] {
            let other = crate::sys::socket::udp(libc::AF_INET).unwrap();
            set_option(other.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
            let address = SocketAddr::new(address.parse().unwrap(), near.port());
            let taken = rustix::net::bind(&other, &address).unwrap_err();
            assert_eq!(taken, rustix::io::Errno::ADDRINUSE);
        }
    });
}

#[test]
fn mark_that_changes_ends_the_socket_of_a_line() {
    netns::run(|| {
        let [(mut near, _), _far] = direct_pair("127.0.0.1", "127.0.0.5");
        near.set_fwmark(7).unwrap();
        assert!(near.direct_fd().is_none());
    });
}
