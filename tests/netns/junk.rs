//! Datagrams of strangers on the tunnel's port: no answer, no ICMP, all counted, and the tunnel does not notice.
use std::net::UdpSocket;

use anyhow::{Context as _, Result, anyhow};
use tests::edge::{Edge, LISTEN_PORT, Setup};
use tests::expect::{eventually, holds};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::addresses::{CLIENT, STRANGER, VPS, at, public};

use crate::support::{SOON, with_edge};

const DATAGRAMS: usize = 10_000;
/// Largest UDP payload over IPv4.
const LARGEST: usize = 65_507;
/// Datagrams between two looks at the counters: few enough for the socket's buffer.
const BATCH: usize = 200;
/// Sizes that a WireGuard message has, and those beside them (whitepaper §5.4).
const TELLING_SIZES: [usize; 12] = [0, 1, 3, 4, 31, 32, 33, 63, 64, 92, 147, 148];

/// Junk that gets ever more plausible: random bytes, right types, right sizes.
struct Junk {
    socket: UdpSocket,
    bytes: Vec<u8>,
}

impl Junk {
    fn new(node: &Node) -> Result<Self> {
        let socket = node.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(at(VPS, LISTEN_PORT))?;
            Ok(socket)
        })?;
        let mut bytes = vec![0; LARGEST];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random bytes: {error}"))?;
        Ok(Self { socket, bytes })
    }

    /// Datagram `number` of the sequence.
    fn send(&mut self, number: usize) -> Result<()> {
        let telling = TELLING_SIZES.get(number / 20 % TELLING_SIZES.len());
        let size = match number % 20 {
            0 => LARGEST - number % 7,
            1..=9 => telling.copied().unwrap_or_default(),
            _ => number % 1473,
        };
        self.bytes.rotate_left(1);
        if let Some(header) = self.bytes.get_mut(..4) {
            header.copy_from_slice(&[u8::try_from(number % 6)?, 0, 0, 0]);
        }
        let datagram = self.bytes.get(..size).unwrap_or_default();
        self.socket
            .send(datagram)
            .with_context(|| format!("{size} bytes"))?;
        Ok(())
    }
}

fn dropped(edge: &Edge) -> Result<u64> {
    Ok(edge.gateway.status()?.dropped_packets.values().sum())
}

#[test]
fn ten_thousand_junk_datagrams_of_all_sizes_get_no_answer_and_are_counted() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.internet.nft(&format!(
            r"
            table inet watch {{
                counter answers {{ }}
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    ip saddr {VPS} ip daddr {STRANGER} counter name answers
                }}
            }}
            "
        ))?;
        let mut conversation = Conversation::open(&world.client, public(80))?;
        let before = dropped(edge)?;
        let mut junk = Junk::new(&world.stranger)?;
        for first in (0..DATAGRAMS).step_by(BATCH) {
            (first..first + BATCH).try_for_each(|number| junk.send(number))?;
            // The network may lose a few of the large ones, which come in 45 fragments.
            let least = (first + BATCH) as u64 * 95 / 100;
            eventually(SOON, "nearly all of it is counted", || {
                let counted = dropped(edge)? - before;
                holds(counted >= least, || {
                    format!("{counted} of {} counted", first + BATCH)
                })
            })?;
        }
        conversation.echo("in the middle of it")?;
        junk.socket.set_nonblocking(true)?;
        let answer = junk
            .socket
            .recv(&mut [0; 2048])
            .map_err(|error| error.kind());
        assert_eq!(answer, Err(std::io::ErrorKind::WouldBlock));
        let answers = world
            .internet
            .run(&["nft", "list", "counter", "inet", "watch", "answers"])?;
        assert!(answers.contains("packets 0 bytes 0"), "{answers}");
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        edge.gateway.daemon.alive()
    });
}
