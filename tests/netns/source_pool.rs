//! Several addresses of the LAN host stand for callers.
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::api::diagnosis::{Diagnosis, HopKind};
use shared::api::plan::{Plan, PlanWarning};
use tests::edge::{Instance, Setup};
use tests::node::Node;
use tests::world::LightWorld;
use tests::world::addresses::{UDP_PORT, public};

use crate::support::with_edge;

const POOL: &str = "10.17.5.4-10.17.5.7";
/// The callers: 192.0.2.60 and those after it.
const CALLERS: u8 = 12;
/// Ports of each: more for all of them than one address has.
const PORTS: std::ops::Range<u16> = 2000..8000;
/// Datagrams sent at once, and the pause after them: some 10,000 a second.
const BATCH: u16 = 100;
const PAUSE: Duration = Duration::from_millis(10);

fn setup() -> Setup {
    Setup {
        ipv4_only: true,
        lan_source_ip: POOL,
        ..Setup::new().expect("keys can be made")
    }
}

fn callers() -> impl Iterator<Item = Ipv4Addr> {
    (60..60 + CALLERS).map(|host| Ipv4Addr::new(192, 0, 2, host))
}

/// As many callers, and the pool on the bridge of the VIPs.
fn prepare(world: &LightWorld) -> Result<()> {
    for caller in callers() {
        let line = format!("addr add {caller}/24 dev eth0\n");
        world.road_warrior.ip(&line)?;
    }
    for host in 4..8 {
        let line = format!("addr add 10.17.5.{host}/32 dev virbr-vip\n");
        world.lan_host.ip(&line)?;
    }
    Ok(())
}

/// As whom the service over UDP sees one of the callers.
fn seen_as(node: &Node, caller: Ipv4Addr) -> Result<IpAddr> {
    let socket = node.enter(|| {
        let socket = UdpSocket::bind((caller, 0))?;
        Ok(socket.connect(public(UDP_PORT)).map(|()| socket)?)
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 128];
    let mut attempts = (0..6).map(|_| {
        socket.send(b"?")?;
        socket.recv(&mut buffer)
    });
    let length = attempts.find_map(Result::ok);
    drop(attempts);
    let answer = buffer.get(..length.context("no answer")?);
    let text = std::str::from_utf8(answer.unwrap_or_default())?;
    let address = text.trim().strip_prefix("you are ");
    let address = address.and_then(|address| address.parse::<SocketAddr>().ok());
    let address = address.with_context(|| text.to_owned())?;
    Ok(address.ip())
}

fn missing(instance: &Instance) -> Result<Vec<PlanWarning>> {
    let output = instance.output(&["plan", "--json"])?;
    let plan: Plan = serde_json::from_slice(&output.stdout)?;
    let warnings = plan.warnings.into_iter();
    Ok(warnings
        .filter(|warning| warning.name == "source_address_missing")
        .collect())
}

#[test]
fn each_caller_has_one_address_of_the_lan_hosts_pool() {
    with_edge(setup(), |world, edge| {
        let told = missing(&edge.lan_server)?;
        let remedies = told.iter().filter_map(|warning| warning.remedy.as_deref());
        let remedies: Vec<&str> = remedies.collect();
        let wanted =
            [4, 5, 6, 7].map(|host| format!("ip address add 10.17.5.{host}/32 dev virbr-vip"));
        ensure!(remedies == wanted, "{told:?}");
        let output = edge.lan_server.output(&["doctor", "--json"])?;
        let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout)?;
        let names: Vec<&str> = diagnosis.faults.iter().map(|of| of.of.as_str()).collect();
        ensure!(names == ["ingress", "stun", "iperf"], "{diagnosis:#?}");
        for fault in &diagnosis.faults {
            let is_it = fault
                .evidence
                .contains("10.17.5.4 of `source_ip` is no address of this host");
            ensure!(fault.hop == HopKind::Route && is_it, "{fault:#?}");
            let remedy = fault.remedy.as_ref();
            ensure!(
                remedy.is_some_and(|remedy| remedy.starts_with(&wanted[0])),
                "{fault:#?}"
            );
        }
        for remedy in remedies {
            world.lan_host.run(&remedy.split(' ').collect::<Vec<_>>())?;
        }
        let told = missing(&edge.lan_server)?;
        ensure!(told.is_empty(), "{told:?}");

        for caller in callers() {
            let line = format!("addr add {caller}/24 dev eth0\n");
            world.road_warrior.ip(&line)?;
        }
        let mut seen = BTreeSet::new();
        for caller in callers() {
            let address = seen_as(&world.road_warrior, caller)?;
            let again = seen_as(&world.road_warrior, caller)?;
            ensure!(address == again, "{caller}: {address}, then {again}");
            seen.insert(address.to_string());
        }
        let pool: BTreeSet<String> = (4..8).map(|host| format!("10.17.5.{host}")).collect();
        ensure!(seen.is_subset(&pool), "{seen:?}");
        // Not all of them by chance: one in four million.
        ensure!(seen.len() > 1, "{seen:?}");
        let status = edge.lan_server.status()?;
        let mut publishes = status.publishes.iter();
        ensure!(publishes.all(|publish| publish.source_ip == POOL));
        Ok(())
    });
}

#[test]
fn a_pool_has_room_for_more_connections_than_one_address() {
    with_edge(setup(), |world, edge| {
        prepare(world)?;
        for timeout in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            let name = format!("net/netfilter/{timeout}");
            world.lan_host.set_sysctl(&name, "600")?;
        }
        let call = || {
            world.road_warrior.enter(|| {
                for port in PORTS {
                    for caller in callers() {
                        let socket = UdpSocket::bind((caller, port))?;
                        socket.send_to(b"?", public(UDP_PORT))?;
                    }
                    if port % (BATCH / u16::from(CALLERS)) == 0 {
                        std::thread::sleep(PAUSE);
                    }
                }
                Ok(())
            })
        };
        // Some may get lost on the way, and are sent again.
        let mut most = 0_u64;
        let mut enough = false;
        for _ in 0..4 {
            call()?;
            let count = world.lan_host.sysctl("net/netfilter/nf_conntrack_count")?;
            most = most.max(count.parse()?);
            enough |= most >= 71_500;
            if enough {
                break;
            }
        }
        ensure!(enough, "{most} connections at most: one address has 64,512");
        let failures = world.lan_host.run(&["conntrack", "-S"])?;
        let failed: u64 = failures
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("insert_failed="))
            .map(|count| count.parse().unwrap_or(u64::MAX))
            .sum();
        // Two processors may choose one port at the same moment; without room there would be thousands.
        ensure!(failed <= 50, "{failures}");
        let status = edge.lan_server.status()?;
        ensure!(status.source_ports.is_empty(), "{:?}", status.source_ports);
        Ok(())
    });
}
