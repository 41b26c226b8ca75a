//! What the product claims, each claim tried with real traffic.
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::edge::Edge;
use tests::expect::{eventually, holds};
use tests::node::Node;
use tests::servers::{ask_tcp, ask_udp};
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, CLIENT6, INGRESS_VIP, ROAD_WARRIOR, UDP_PORT, VPS, VPS6, at, public,
};
use tests::world::{ReferenceWorld, SITE};

use crate::measure::Visitors;
use crate::report::Report;

/// How long the VIPs may take to move.
const FAIL_OVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Visits before and after the fail-over that must be served.
const VISITS: usize = 10;
/// Address of the worker that no role and no publish names.
const WORKER: SocketAddr = at(Ipv4Addr::new(10, 17, 4, 24), 80);

/// Visitors from Cloudflare's ranges, and whom the cluster sees.
pub(crate) fn visitors(report: &mut Report, world: &ReferenceWorld) {
    report.section("Visitors who may call reach the ingress VIP with their own address");
    for (claim, url, caller, service) in [
        (
            "HTTP",
            format!("http://{VPS}/"),
            IpAddr::from(CLIENT),
            "http",
        ),
        (
            "HTTPS, certificate verified",
            format!("https://{SITE}/"),
            CLIENT.into(),
            "https",
        ),
        (
            "HTTP over IPv6",
            format!("http://[{VPS6}]/"),
            CLIENT6.into(),
            "http",
        ),
    ] {
        report.claim(claim, visit(world, &url, caller, service));
    }
    let udp = ask_udp(&world.road_warrior, public(UDP_PORT)).and_then(|seen| {
        ensure!(seen.ip() == ROAD_WARRIOR, "the service saw {seen}");
        Ok(format!(
            "service on {INGRESS_VIP}:{UDP_PORT} saw {}",
            seen.ip()
        ))
    });
    report.claim("UDP from the office 192.0.2.0/24", udp);
}

/// Fetch the page and compare what web server and `HAProxy` say about the caller.
fn visit(world: &ReferenceWorld, url: &str, caller: IpAddr, service: &str) -> Result<String> {
    let page = world.visit(&world.client, url)?;
    let seen = page
        .trim()
        .strip_prefix("you are ")
        .context("an unexpected page")?;
    ensure!(
        seen == caller.to_string(),
        "the web server saw {seen}, not {caller}"
    );
    let line = format!("{caller} {service} ");
    let [first, second] = &world.load_balancers;
    let logged = first.haproxy_log()?.contains(&line) || second.haproxy_log()?.contains(&line);
    ensure!(
        logged,
        "HAProxy logged no connection from {caller} to {service}"
    );
    Ok(format!("web server and HAProxy saw {seen}"))
}

/// What nobody gets.
pub(crate) fn refusals(report: &mut Report, world: &ReferenceWorld) {
    report.section("Nobody else gets in");
    for (claim, node, to) in [
        ("stranger, HTTP", &world.stranger, public(80)),
        ("stranger, HTTPS", &world.stranger, public(443)),
        (
            "stranger, HTTP over IPv6",
            &world.stranger,
            SocketAddr::new(VPS6.into(), 80),
        ),
        ("Cloudflare, port 22", &world.client, public(22)),
        (
            "Cloudflare, API port of the VPS",
            &world.client,
            public(API_PORT),
        ),
        (
            "stranger, API VIP itself",
            &world.stranger,
            at(API_VIP, API_PORT),
        ),
    ] {
        report.claim(claim, refused(node, to));
    }
    report.claim(
        "stranger, UDP",
        match ask_udp(&world.stranger, public(UDP_PORT)) {
            Ok(seen) => Err(anyhow::anyhow!("was answered, as {seen}")),
            Err(_) => Ok("no answer within 2 s".to_owned()),
        },
    );
}

/// Whether the caller stays without an answer, and what it notices of that.
fn refused(node: &Node, to: SocketAddr) -> Result<String> {
    let error = match ask_tcp(node, to) {
        Ok(seen) => bail!("was answered, as {seen}"),
        Err(error) => error,
    };
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    Ok(match kind {
        Some(ErrorKind::TimedOut) => format!("{to}: no answer within 2 s"),
        Some(ErrorKind::ConnectionRefused) => format!("{to}: connection refused"),
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            format!("{to}: no way there")
        }
        _ => return Err(error),
    })
}

/// Operators with WireGuard on their laptop.
pub(crate) fn operators(report: &mut Report, world: &ReferenceWorld) {
    report.section("An operator with the role kube-admin reaches the API VIP, and only that");
    let laptop = &world.road_warrior;
    let api = eventually(Duration::from_secs(5), "answer from the API", || {
        world.ask_api(laptop)
    });
    report.claim(
        "TLS to the API, certificate verified",
        api.map(|answer| answer.trim().to_owned()),
    );
    report.claim(
        "ingress VIP through the VPN",
        refused(laptop, at(INGRESS_VIP, 80)),
    );
    report.claim("a worker through the VPN", refused(laptop, WORKER));
    report.claim(
        "SSH of the LAN host through the VPN",
        refused(laptop, at(Ipv4Addr::new(10, 17, 0, 2), 22)),
    );
}

/// The daemons themselves.
pub(crate) fn daemons(report: &mut Report, edge: &Edge) {
    report.section("The daemons");
    for (name, instance) in [("gateway", &edge.gateway), ("lan-server", &edge.lan_server)] {
        let healthy = instance.status().and_then(|_| {
            let mebibytes = instance.daemon.resident_bytes()? >> 20;
            Ok(format!("`{name} status` answers; {mebibytes} MiB resident"))
        });
        report.claim(name, healthy);
    }
}

/// The active load balancer dies.
pub(crate) fn fail_over(report: &mut Report, world: &mut ReferenceWorld) {
    report.section("The active load balancer loses power (keepalived, HAProxy and cables at once)");
    let visitors = Visitors::start(&world.client, at(VPS, 80));
    let before = visitors.wait_for_more(VISITS);
    let moved = cut_power(world);
    let after = visitors.wait_for_more(VISITS);
    let gaps = visitors.finish();
    report.claim(
        "VRRP moves the VIPs",
        moved.map(|time| format!("to lb2 after {:.1} s", time.as_secs_f64())),
    );
    let gaps = before.and(after).and(gaps).map(|gaps| {
        format!(
            "longest gap {:.1} s; {} visits served, {} failed",
            gaps.longest.as_secs_f64(),
            gaps.served,
            gaps.failed
        )
    });
    report.claim("visitors are served again", gaps);
    let api = eventually(FAIL_OVER_TIMEOUT, "answer from the API", || {
        world.ask_api(&world.road_warrior)
    });
    report.claim(
        "the operator's API access too",
        api.map(|answer| answer.trim().to_owned()),
    );
    report.claim(
        "the web server still sees visitors",
        visit(world, &format!("https://{SITE}/"), CLIENT.into(), "https"),
    );
}

/// Kill `lb1` and wait until `lb2` holds the VIPs and serves.
fn cut_power(world: &mut ReferenceWorld) -> Result<Duration> {
    let start = Instant::now();
    let [first, _] = &mut world.load_balancers;
    first.cut_power()?;
    let [_, second] = &world.load_balancers;
    eventually(FAIL_OVER_TIMEOUT, "VIPs on lb2", || {
        holds(second.is_active()?, || "lb2 does not hold them".to_owned())
    })?;
    Ok(start.elapsed())
}
