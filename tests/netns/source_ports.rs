//! One address that stands for all callers has 64512 ports for a destination: when most are in use, the status says so.
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::edge::{Instance, Setup};
use tests::expect::eventually;
use tests::node::Node;
use tests::world::addresses::{ROAD_WARRIOR, UDP_PORT, public};

use crate::support::with_edge;

/// Ports of one caller: a little more than four fifths of those that there are.
const PORTS: std::ops::Range<u16> = 1024..53_024;
/// Datagrams sent at once, and the pause after them: some 10,000 a second.
const BATCH: u16 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// For how long the status may go on saying what it has counted.
const COUNTED_AGAIN: Duration = Duration::from_secs(20);

/// A datagram to the published service from each of these ports.
fn call(node: &Node, ports: std::ops::Range<u16>) -> Result<()> {
    node.enter(|| {
        for port in ports {
            let socket = UdpSocket::bind((ROAD_WARRIOR, port))
                .with_context(|| format!("port {port} of the caller"))?;
            socket.send_to(b"?", public(UDP_PORT))?;
            if port % BATCH == 0 {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    })
}

fn metric(instance: &Instance) -> Result<u64> {
    let node = instance.daemon.node();
    let socket = node.dir().join("run/wg-edge/lan-server.sock");
    let socket = socket.display().to_string();
    let url = "http://localhost/metrics";
    let page = node.run(&["curl", "-s", "--unix-socket", &socket, url])?;
    let mut values = page
        .lines()
        .filter_map(|line| line.strip_prefix("edge_source_ports_used "));
    Ok(values.next().context("no such metric")?.parse()?)
}

#[test]
fn source_ports_that_run_short_are_told() {
    let setup = Setup {
        lan_source_ip: "masquerade",
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, edge| {
        let (lan_host, lan_server) = (&world.lan_host, &edge.lan_server);
        // Nothing is forgotten while the table fills.
        for timeout in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            lan_host.set_sysctl(&format!("net/netfilter/{timeout}"), "600")?;
        }
        call(&world.road_warrior, 1024..1124)?;
        let status = lan_server.status()?;
        ensure!(
            status.warnings.is_empty() && status.source_ports.is_empty(),
            "{status:?}"
        );
        ensure!(metric(lan_server)? == 0);

        // Some may get lost on the way, and are sent again.
        let enough = (0..4).any(|_| {
            let called = call(&world.road_warrior, PORTS);
            let count = lan_host.sysctl("net/netfilter/nf_conntrack_count");
            let count = count.ok().and_then(|count| count.parse::<u64>().ok());
            called.is_ok() && count.is_some_and(|count| count >= 51_700)
        });
        ensure!(enough, "the table was not filled");
        let status = lan_server.status()?;
        let [of] = &status.source_ports[..] else {
            anyhow::bail!("{:?}", status.source_ports)
        };
        ensure!(
            of.protocol == "udp"
                && of.source.to_string() == "10.17.5.1"
                && of.destination.to_string() == "10.17.5.30:3478"
                && (51_610..=52_100).contains(&of.used)
                && of.limit == 64_512,
            "{of:?}"
        );
        ensure!(
            status.warnings.iter().any(|warning| warning
                .starts_with("connections to 10.17.5.30:3478/udp have ")
                && warning.contains("of the 64512 ports of 10.17.5.1")),
            "{:?}",
            status.warnings
        );
        let told = metric(lan_server)?;
        ensure!(told == of.used, "{told} for {}", of.used);

        lan_host.run(&["conntrack", "-F"])?;
        eventually(COUNTED_AGAIN, "the status without a warning", || {
            let status = lan_server.status()?;
            ensure!(status.source_ports.is_empty(), "{:?}", status.warnings);
            Ok(())
        })
    });
}
