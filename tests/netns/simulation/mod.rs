//! The simulation of rules says what the kernel does: random policies, made into rules by the programs' own code and given to
//! the kernel by the `nft` crate, and random packets through them.
//!
//! ```text
//!            ┌───── a network namespace ─────┐
//!  test ─────┤ eth0 (TUN)       edge0 (TUN)  ├───── test      the gateway
//!  test ─────┤ edge0 (TUN)      lan0 (TUN)   ├───── test      the LAN server
//!            └───────────────────────────────┘
//! ```
//! Both links are TUN, so that the test itself is what is beyond them: it writes a packet as if it came over one, and reads
//! what the kernel sends over either. What is delivered to the host is seen by raw sockets. A packet is through the kernel
//! when the write returns, so nothing is waited for.
//!
//! `WG_EDGE_SEED=NUMBER` repeats a run; a failure tells the number, and the least policy and packet that still fail.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where it panics"
)]

mod bytes;
mod kernel;
mod policies;

use std::fmt;

use gateway::members::Members;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use shared::config::{Gateway, LanServer};
use shared::model::InterfaceName;
use shared::plan::Desired;
use shared::simulate::{Connection, End, Entry, Host, Packet};
use shared_daemon::model::Environment;
use tests::privilege::namespaces_allowed;

use kernel::{Kernel, Seen};
use policies::{Sent, gateways, lan_servers};

/// Policies for each end; each gets up to [`policies::PACKETS`] packets.
const POLICIES: u32 = 40;

/// What has been tried, to see that all of it was.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    packets: u32,
    dropped: u32,
    delivered: u32,
    sent: u32,
    new_destination: u32,
    new_source: u32,
    answers: u32,
}

impl Tally {
    /// Every way to end, and answers.
    fn is_complete(&self) -> bool {
        let Self {
            packets: _,
            dropped,
            delivered,
            sent,
            new_destination: _,
            new_source,
            answers,
        } = *self;
        [dropped, delivered, sent, new_source, answers]
            .iter()
            .all(|&count| count > 0)
    }
}

/// A host that is simulated, and the same in the kernel.
struct Twin {
    simulated: Host,
    kernel: Kernel,
}

impl Twin {
    /// `links`: the name of each and its addresses beside those that are `desired`; the default route leads over the `outer`
    /// one.
    fn new(desired: Desired, outer: &str, others: &[(&str, &str)]) -> anyhow::Result<Self> {
        let outer: InterfaceName = outer.parse()?;
        let kernel = Kernel::new(&desired, &outer, others)?;
        let mut simulated = Host::of(desired);
        for (link, address) in others {
            simulated = simulated.with_address(&link.parse()?, address.parse()?);
        }
        for everything in ["0.0.0.0/0", "::/0"] {
            simulated = simulated.with_route(everything.parse()?, &outer);
        }
        Ok(Self { simulated, kernel })
    }

    /// A packet, and where one comes out over a link, its answer.
    fn compare(&mut self, sent: &Sent, tally: &mut Tally) -> Result<(), TestCaseError> {
        tally.packets += 1;
        let link: InterfaceName = sent.link.parse()?;
        let (seen, connection) = self.compare_one(&link, sent.packet, None)?;
        match seen {
            Seen::Nothing => tally.dropped += 1,
            Seen::Delivered => tally.delivered += 1,
            Seen::Sent { link, packet } => {
                tally.sent += 1;
                tally.new_destination += u32::from(packet.destination != sent.packet.destination);
                tally.new_source += u32::from(packet.source != sent.packet.source);
                if let Some(connection) = connection {
                    tally.answers += 1;
                    self.compare_one(&link, packet.reversed(), Some(&connection))?;
                }
            }
        }
        Ok(())
    }

    fn compare_one(
        &mut self,
        link: &InterfaceName,
        packet: Packet,
        known: Option<&Connection>,
    ) -> Result<(Seen, Option<Connection>), TestCaseError> {
        let passage = self.simulated.pass(Entry::Link(link), packet, known);
        let said = match &passage.end {
            End::DroppedByRule | End::Dropped(_) => Seen::Nothing,
            End::Delivered(_) => Seen::Delivered,
            End::Sent { link, packet } => Seen::Sent {
                link: link.clone(),
                packet: *packet,
            },
        };
        let seen = self.kernel.pass(link, &packet, known.is_some());
        let seen = seen.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        if seen == said {
            return Ok((seen, passage.connection));
        }
        Err(TestCaseError::fail(format!(
            "over {link} comes {packet:?} (answer: {}): the kernel: {seen:?}, the simulation: {said:?} by {:#?}",
            known.is_some(),
            passage.steps
        )))
    }
}

/// The least case that fails, or nothing.
fn run<S: proptest::strategy::Strategy>(
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: fmt::Debug,
{
    let seed = std::env::var("WG_EDGE_SEED").ok();
    let seed = seed.map(|seed| seed.parse::<u64>().expect("WG_EDGE_SEED is a number"));
    let seed = seed.unwrap_or_else(|| getrandom::u64().expect("the kernel has random numbers"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: POLICIES,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(strategy, test) {
        panic!("WG_EDGE_SEED={seed}: {error}");
    }
}

#[expect(clippy::print_stdout, reason = "a test that was left out says so")]
fn allowed() -> bool {
    let allowed = namespaces_allowed().expect("root, or the word that it is not needed");
    if !allowed {
        println!("unprivileged run: left out, it needs network namespaces");
    }
    allowed
}

fn environment(wan: &str, cloudflare: Vec<ipnetwork::IpNetwork>) -> Environment {
    Environment {
        wan: wan.parse().expect("a name"),
        wan_accepts_router_advertisements: false,
        cloudflare,
    }
}

/// On a thread with a namespace of its own, which goes with it.
fn compare_all(
    desired: Desired,
    outer: &str,
    others: &[(&str, &str)],
    packets: &[Sent],
    tally: &std::cell::Cell<Tally>,
) -> Result<(), TestCaseError> {
    let counted = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<Tally, TestCaseError> {
            let mut counted = Tally::default();
            let twin = kernel::unshare().and_then(|()| Twin::new(desired, outer, others));
            let mut twin = twin.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            for sent in packets {
                twin.compare(sent, &mut counted)?;
            }
            Ok(counted)
        });
        thread.join().expect("no panic")
    })?;
    let before = tally.get();
    tally.set(Tally {
        packets: before.packets + counted.packets,
        dropped: before.dropped + counted.dropped,
        delivered: before.delivered + counted.delivered,
        sent: before.sent + counted.sent,
        new_destination: before.new_destination + counted.new_destination,
        new_source: before.new_source + counted.new_source,
        answers: before.answers + counted.answers,
    });
    Ok(())
}

#[test]
fn random_packets_fare_on_a_gateway_as_the_simulation_says() {
    if !allowed() {
        return;
    }
    let tally = std::cell::Cell::default();
    run(&gateways(), |case| {
        let parsed = Gateway::parse(&case.text, "gateway.toml");
        let config = parsed
            .map_err(|e| TestCaseError::fail(e.to_string()))?
            .config;
        let environment = environment("eth0", config.ranges().networks);
        let members = Members {
            peers: case.members.clone().into(),
            ..Members::default()
        };
        let model = gateway::desired::model(&config, &environment, &members);
        let wan = [("eth0", "203.0.113.10/24"), ("eth0", "2001:db8:113::10/64")];
        compare_all(model.desired, "eth0", &wan, &case.packets, &tally)
    });
    let tally = tally.get();
    assert!(
        tally.is_complete() && tally.new_destination > 0,
        "{tally:?}"
    );
}

#[test]
fn random_packets_fare_on_a_lan_server_as_the_simulation_says() {
    if !allowed() {
        return;
    }
    let tally = std::cell::Cell::default();
    run(&lan_servers(), |case| {
        let parsed = LanServer::parse(&case.text, "lan-server.toml");
        let config = parsed
            .map_err(|e| TestCaseError::fail(e.to_string()))?
            .config;
        let environment = environment("edge0", config.ranges().networks);
        let model = lan_policy::model(&config, &environment);
        let lan = [
            ("lan0", "10.17.5.1/24"),
            ("lan0", "10.17.3.1/24"),
            ("lan0", "192.168.0.15/24"),
            ("lan0", "fd17:5::1/64"),
        ];
        compare_all(model.desired, "lan0", &lan, &case.packets, &tally)
    });
    let tally = tally.get();
    assert!(tally.is_complete(), "{tally:?}");
}
