//! What must not suffer while a transfer takes all there is.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared::wg::{DropReason, HandshakeResult};

use super::super::{Counters, Limits};
use super::world::{Node, World, dropped, wait_for};

const BULK_PORT: u16 = 7000;
const NUMBERS_PORT: u16 = 7001;

/// How long the transfer goes on: each end starts a handshake every 5 s (`REKEY_TIMEOUT`) and no sooner.
const DURATION: Duration = Duration::from_secs(11);

/// How often one is asked for meanwhile, of the ends in turns.
const REQUESTS: u32 = 44;

/// Renewals that must come of it.
const RENEWALS: u64 = 4;

/// A byte of the transfer, by its place. A prime, so that no two segments of a packet size look alike.
fn byte_at(place: u64) -> u8 {
    u8::try_from(place % 251).unwrap()
}

/// Send a pattern over TCP as fast as it goes until told to stop; the receiver compares every byte. Returns how many.
fn bulk(
    from: &Node,
    to: &Node,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
) -> impl FnOnce() -> u64 {
    let listener = to.host.run(move || TcpListener::bind(address).unwrap());
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let (mut place, mut buffer) = (0_u64, vec![0; 1 << 18]);
        loop {
            let length = stream.read(&mut buffer).unwrap();
            if length == 0 {
                return place;
            }
            for &byte in &buffer[..length] {
                assert_eq!(byte, byte_at(place), "byte {place} of the transfer");
                place += 1;
            }
        }
    });
    let stream = from
        .host
        .run(move || TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap());
    let sender = thread::spawn(move || {
        let pattern: Vec<u8> = (0..251 * 1024).map(byte_at).collect();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            (&stream).write_all(&pattern).unwrap();
            sent += pattern.len() as u64;
        }
        sent
    });
    move || {
        let sent = sender.join().unwrap();
        assert_eq!(
            receiver.join().unwrap(),
            sent,
            "bytes received of those sent"
        );
        sent
    }
}

/// What follows the last number. It is sent after the others and may be as little lost as they.
const END: u64 = u64::MAX;

/// Send numbered datagrams, one each millisecond, until told to stop; the receiver wants each of them in its turn. Returns
/// how many.
fn numbers(
    from: &Node,
    to: &Node,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
) -> impl FnOnce() -> u64 {
    let receiver = to.host.run(move || UdpSocket::bind(address).unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let sender = from.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let sending = thread::spawn(move || {
        let send = |number: u64| sender.send_to(&number.to_be_bytes(), address).unwrap();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            send(number);
            number += 1;
            thread::sleep(Duration::from_millis(1));
        }
        send(END);
        number
    });
    let receiving = thread::spawn(move || {
        let mut expected = 0_u64;
        loop {
            let mut buffer = [0; 8];
            let length = receiver.recv(&mut buffer).expect("the next number");
            assert_eq!(length, 8);
            match u64::from_be_bytes(buffer) {
                END => return expected,
                number => assert_eq!(number, expected, "the next number"),
            }
            expected += 1;
        }
    });
    move || {
        let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
        assert_eq!(received, sent, "numbers received of those sent");
        sent
    }
}

fn completed(counters: &Counters) -> u64 {
    let ended = counters.handshakes.iter();
    ended
        .filter(|(result, _)| *result == HandshakeResult::Completed)
        .map(|(_, count)| count)
        .sum()
}

/// Packets that were taken from the kernel for the peer.
fn entered(counters: &Counters) -> u64 {
    let for_nobody = counters.drops.iter();
    let for_nobody: u64 = for_nobody
        .filter(|(reason, _)| *reason == DropReason::NoPeerForDestination)
        .map(|(_, count)| count)
        .sum();
    counters.tun.packets_read - for_nobody
}

/// Wait until both ends have come to rest, which is when nothing is under way.
fn settle(world: &World) -> (Counters, Counters) {
    let read = || {
        (
            wait_for(world.near.control.counters()).unwrap(),
            wait_for(world.far.control.counters()).unwrap(),
        )
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut before = read();
    loop {
        thread::sleep(Duration::from_millis(100));
        let after = read();
        if (before.0.tun, before.1.tun) == (after.0.tun, after.1.tun) {
            return after;
        }
        assert!(
            Instant::now() < deadline,
            "the tunnel does not come to rest"
        );
        before = after;
    }
}

#[test]
fn sessions_are_renewed_while_a_transfer_fills_the_tunnel_and_nothing_is_lost_or_overtaken() {
    let Some(world) = World::new(Limits::default(), Limits::default()) else {
        return;
    };
    world.near.host.sh("ping -c 3 -i 0.05 -W 5 10.9.0.2");
    let stop = Arc::new(AtomicBool::new(false));
    let far = |port| SocketAddr::from(([10, 9, 0, 2], port));
    let transfer = bulk(&world.near, &world.far, far(BULK_PORT), Arc::clone(&stop));
    let numbered = numbers(
        &world.near,
        &world.far,
        far(NUMBERS_PORT),
        Arc::clone(&stop),
    );
    for request in 0..REQUESTS {
        thread::sleep(DURATION / REQUESTS);
        let end = if request % 2 == 0 {
            &world.near
        } else {
            &world.far
        };
        wait_for(end.control.initiate_handshakes()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (bytes, count) = (transfer(), numbered());
    let (near, far) = settle(&world);
    assert!(count > 100, "{count} numbers sent");
    assert!(bytes > 100 << 20, "{bytes} bytes were no load");
    assert!(completed(&near) > RENEWALS, "{:?}", near.handshakes);
    // Whatever entered at one end has left at the other, whichever session it went by; what a transfer has too much of is
    // dropped before it enters.
    assert_eq!(dropped(&near), []);
    assert_eq!(dropped(&far), []);
    assert_eq!(entered(&near), far.tun.packets_written, "{near:?} {far:?}");
    assert_eq!(entered(&far), near.tun.packets_written, "{near:?} {far:?}");
}
