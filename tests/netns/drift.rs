//! What others change of ours in the kernel is put right, soon and without a restart.
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use shared::api::drift::DriftSummary;
use tests::api::{Api, items, text};
use tests::edge::{Instance, Setup, answer_of_lan_end};
use tests::expect::{differing, eventually, holds, lasting_state};
use tests::node::Node;

use crate::support::{SOON, with_edge};

/// What is changed is right again within this (figure P10 of the design).
const HEALED: Duration = Duration::from_secs(2);
/// And our link.
const LINK_HEALED: Duration = Duration::from_secs(3);

/// What one command breaks, of which kind that is, and how long it may last.
type Broken = (&'static str, &'static str, Duration);

const OF_GATEWAY: [Broken; 11] = [
    ("ip route delete 10.17.5.0/24 dev edge0", "route", HEALED),
    ("ip -6 route delete fd17:5::/64 dev edge0", "route", HEALED),
    ("ip route add 10.99.0.0/16 dev edge0", "route", HEALED),
    (
        "ip address delete 10.17.0.1/16 dev edge0",
        "address",
        HEALED,
    ),
    ("ip address delete fd17::1/64 dev edge0", "address", HEALED),
    ("ip address add 10.99.0.1/24 dev edge0", "address", HEALED),
    ("ip link set edge0 mtu 1300", "link", HEALED),
    ("ip link set edge0 txqueuelen 5", "link", HEALED),
    ("ip link set edge0 down", "link", HEALED),
    ("sysctl -qw net.ipv4.ip_forward=0", "sysctl", HEALED),
    ("ip link delete edge0", "link", LINK_HEALED),
];

const OF_LAN_SERVER: [Broken; 6] = [
    ("ip route flush table 17001", "route", HEALED),
    (
        "ip rule delete fwmark 0x1000000/0x3f000000 lookup 17001",
        "rule",
        HEALED,
    ),
    (
        "ip address delete 10.17.0.2/32 dev edge0",
        "address",
        HEALED,
    ),
    (
        "sysctl -qw net.ipv4.conf.edge0.rp_filter=1",
        "sysctl",
        HEALED,
    ),
    ("sysctl -qw net.ipv4.ip_forward=0", "sysctl", HEALED),
    ("ip link delete edge0", "link", LINK_HEALED),
];

fn run(node: &Node, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    node.run(&words).map(drop)
}

/// What was counted more than before, of which kind.
fn counted(before: &DriftSummary, after: &DriftSummary) -> Vec<(String, u64)> {
    let kinds = after.found.iter();
    kinds
        .filter_map(|(kind, count)| {
            let more = count - before.found.get(kind).copied().unwrap_or_default();
            (more > 0).then(|| (kind.clone(), more))
        })
        .collect()
}

/// Break one thing after the other on a node, and see each put right, counted once and logged.
fn each_is_healed(
    node: &Node,
    instance: &mut Instance,
    broken: &[Broken],
    carries: impl Fn() -> Result<()>,
) -> Result<()> {
    let whole = lasting_state(node)?;
    for &(command, kind, within) in broken {
        let before = instance.status()?.drift;
        let logged = instance.daemon.log().len();
        run(node, command)?;
        let at = Instant::now();
        let drift = eventually(within, command, || {
            let now = lasting_state(node)?;
            holds(now == whole, || differing(&whole, &now))?;
            let drift = instance.status()?.drift;
            holds(drift.healed > before.healed, || format!("{drift:?}"))?;
            Ok(drift)
        })?;
        eventually(within.saturating_sub(at.elapsed()), command, &carries)?;
        instance.daemon.alive()?;
        let found = counted(&before, &drift);
        ensure!(
            found == [(kind.to_owned(), 1)],
            "{command}: counted {found:?}"
        );
        ensure!(drift.healed == before.healed + 1, "{command}: {drift:?}");
        let log = instance.daemon.log();
        let log = log.get(logged..).unwrap_or_default();
        ensure!(log.contains("put right"), "{command}: {log}");
    }
    Ok(())
}

#[test]
fn whatever_is_taken_from_the_gateway_is_put_right() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let tunnel = || answer_of_lan_end(world);
        each_is_healed(&world.vps, &mut edge.gateway, &OF_GATEWAY, tunnel)
    });
}

#[test]
fn whatever_is_taken_from_the_lan_server_is_put_right() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let tunnel = || answer_of_lan_end(world);
        each_is_healed(
            &world.lan_host,
            &mut edge.lan_server,
            &OF_LAN_SERVER,
            tunnel,
        )
    });
}

#[test]
fn a_fight_is_left_after_five_rounds_and_told_everywhere() {
    const SUBJECT: &str = "route 10.17.5.0/24 table 254";
    with_edge(Setup::new().unwrap(), |world, edge| {
        let (vps, gateway) = (&world.vps, &mut edge.gateway);
        let route = || -> Result<()> {
            let routes = vps.run(&["ip", "route", "show", "10.17.5.0/24"])?;
            holds(!routes.trim().is_empty(), || "no route".to_owned())
        };
        for _ in 0..5 {
            run(vps, "ip route delete 10.17.5.0/24 dev edge0")?;
            eventually(HEALED, "the route is back", route)?;
        }
        run(vps, "ip route delete 10.17.5.0/24 dev edge0")?;
        let status = eventually(HEALED, "the fight is seen", || {
            let status = gateway.status()?;
            holds(status.drift.fought == [SUBJECT], || format!("{status:?}"))?;
            Ok(status)
        })?;
        ensure!(status.drift.healed == 5, "{:?}", status.drift);
        let mut api = Api::of(gateway, "gateway")?;
        let problem = eventually(HEALED, "/readyz says it", || {
            let reply = api.call("GET", "/readyz", &[], &Value::Null)?;
            holds(reply.status == 503, || format!("{reply:?}"))?;
            let detail = text(&reply.body, "detail")?.to_owned();
            // Whoever looked before the fight was seen has a part of it, for a second.
            holds(detail.contains("left for now"), || detail.clone())?;
            Ok(detail)
        })?;
        ensure!(problem.contains(SUBJECT), "{problem}");
        let page = eventually(HEALED, "the API says it", || {
            let page = api.get("/v1/drift")?;
            let newest = items(&page)?.first().cloned().unwrap_or_default();
            let is_fought = text(&newest, "outcome")? == "fought";
            holds(is_fought && text(&newest, "subject")? == SUBJECT, || {
                page.to_string()
            })?;
            Ok(page)
        })?;
        let told = items(&page)?.len();
        // It stays as it is, and is not told again and again.
        run(vps, "ip address add 198.51.100.77/32 dev lo")?;
        std::thread::sleep(Duration::from_millis(1500));
        route().expect_err("it is left alone");
        ensure!(items(&api.get("/v1/drift")?)?.len() == told, "told again");
        // Who reloads has looked at it.
        gateway.reload(str::to_owned)?;
        route()?;
        let ready = api.call("GET", "/readyz", &[], &Value::Null)?;
        ensure!(ready.status == 200, "{ready:?}");
        // And the minute of the fight is over for him.
        run(vps, "ip route delete 10.17.5.0/24 dev edge0")?;
        eventually(HEALED, "the route is back after a reload", route)
    });
}

#[test]
fn what_somebody_adds_and_takes_away_besides_is_nobodys_drift() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let before = edge.lan_server.status()?.drift;
        for line in [
            "ip link add veth9 type veth peer name veth10",
            "ip address add 198.51.100.1/24 dev veth9",
            "ip link set veth9 up",
            "ip route add 203.0.113.128/25 via 198.51.100.2 dev veth9 onlink",
            "ip rule add pref 30000 lookup 9",
            "ip link delete veth9",
        ] {
            run(&world.lan_host, line)?;
        }
        std::thread::sleep(Duration::from_millis(1500));
        let rules = world.lan_host.run(&["ip", "rule"])?;
        ensure!(rules.contains("30000:"), "{rules}");
        let drift = edge.lan_server.status()?.drift;
        ensure!(drift == before, "{drift:?}");
        Ok(())
    });
}

#[test]
fn a_session_outlives_its_link() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let sessions = |instance: &Instance| -> Result<Option<u64>> {
            let status = instance.status()?;
            let peer = status.peers.first();
            Ok(peer.and_then(|peer| peer.latest_handshake_age_seconds))
        };
        std::thread::sleep(Duration::from_millis(2100));
        run(&world.vps, "ip link delete edge0")?;
        eventually(LINK_HEALED, "the tunnel carries", || {
            answer_of_lan_end(world)
        })?;
        let age = sessions(&edge.gateway)?;
        ensure!(
            age.is_some_and(|age| age >= 2),
            "the session outlives the link: {age:?}"
        );
        // And the next process finds the link as ever.
        edge.gateway.daemon.kill();
        edge.gateway.restart()?;
        edge.wait_for_tunnel(world, SOON)
    });
}
