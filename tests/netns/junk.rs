//! Datagrams of strangers on the tunnel's port: no answer, no ICMP, all counted, and the tunnel does not notice.
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::edge::{Edge, LISTEN_PORT, Setup};
use tests::expect::{eventually, holds};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::addresses::{CLIENT, STRANGER, VPS, at, public};

use crate::support::{SOON, with_edge};

const DATAGRAMS: usize = 10_000;
/// Largest UDP payload over IPv4.
const LARGEST: usize = 65_507;
/// Datagrams between two pauses, so that the socket's buffer is not what drops them.
const BURST: usize = 20;
/// Sizes that a WireGuard message has, and those beside them (whitepaper §5.4).
const TELLING_SIZES: [usize; 12] = [0, 1, 3, 4, 31, 32, 33, 63, 64, 92, 147, 148];

/// Send junk that gets ever more plausible: random bytes, right types, right sizes.
fn send_junk(node: &Node) -> Result<UdpSocket> {
    let socket = node.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(at(VPS, LISTEN_PORT))?;
        Ok(socket)
    })?;
    let mut junk = vec![0; LARGEST];
    getrandom::fill(&mut junk).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let mut telling_sizes = TELLING_SIZES.into_iter().cycle();
    for number in 0..DATAGRAMS {
        let size = match number % 20 {
            0 => LARGEST - number % 7,
            1..=9 => telling_sizes.next().unwrap_or_default(),
            _ => number % 1473,
        };
        if let Some(header) = junk.get_mut(..4) {
            let kind = u8::try_from(number % 6)?;
            header.copy_from_slice(&[kind, 0, 0, 0]);
        }
        socket
            .send(junk.get(..size).unwrap_or_default())
            .with_context(|| format!("{size} bytes"))?;
        junk.rotate_left(1);
        if number % BURST == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(socket)
}

fn dropped(edge: &Edge) -> Result<u64> {
    Ok(edge.gateway.status()?.dropped_packets.values().sum())
}

#[test]
fn ten_thousand_junk_datagrams_of_all_sizes_get_no_answer_and_are_counted() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.internet.nft(&format!(
            r#"
            table inet watch {{
                counter answers {{ }}
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    ip saddr {VPS} ip daddr {STRANGER} counter name answers
                }}
            }}
            "#
        ))?;
        let mut conversation = Conversation::open(&world.client, public(80))?;
        let before = dropped(edge)?;
        let socket = send_junk(&world.stranger)?;
        conversation.echo("in the middle of it")?;
        eventually(SOON, "nearly all of it is counted", || {
            let counted = dropped(edge)? - before;
            holds(counted >= DATAGRAMS as u64 * 99 / 100, || {
                format!("{counted} of {DATAGRAMS} counted")
            })
        })?;
        socket.set_nonblocking(true)?;
        let answer = socket.recv(&mut [0; 2048]).map_err(|error| error.kind());
        assert_eq!(answer, Err(std::io::ErrorKind::WouldBlock));
        let answers = world
            .internet
            .run(&["nft", "list", "counter", "inet", "watch", "answers"])?;
        assert!(answers.contains("packets 0 bytes 0"), "{answers}");
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        edge.gateway.daemon.alive()
    });
}
