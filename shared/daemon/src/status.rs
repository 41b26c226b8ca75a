//! The status of a daemon: who can say it, and how a person reads it.
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;

use shared::api::policy::CloudflareRanges;
use shared::api::probe::Probe;
use shared::api::status::{Peer, Publish, Status};

use crate::cli::output::{size, span};
use crate::error::Failure;
use crate::readiness::Problems;

/// Who knows the status. A trait, so that the admin routes are tested without a kernel.
pub trait Reporter: Send + Sync {
    /// The status now.
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>>;

    /// What is wrong now; costs next to nothing, however often it is asked.
    fn problems(&self) -> Pin<Box<dyn Future<Output = Problems> + Send + '_>>;

    /// Published services now, as in the status.
    fn publishes(&self) -> Pin<Box<dyn Future<Output = Vec<Publish>> + Send + '_>>;

    /// Whether published services answer.
    fn probes(&self) -> Vec<Probe>;

    /// What the set `cloudflare` stands for.
    fn cloudflare_ranges(&self) -> CloudflareRanges;
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// One screen of at most 80 columns.
pub fn render(status: &Status, colour: bool) -> String {
    let paint = |style: &str, text: &str| {
        if colour {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    };
    let mut screen = String::new();
    let state = if status.ready {
        paint(GREEN, "ready")
    } else {
        paint(RED, "not ready")
    };
    let mut line = |text: String| {
        screen.push_str(&text);
        screen.push('\n');
    };
    line(format!(
        "{} {}  {state}  pid {}, since {}",
        paint(BOLD, &status.product),
        status.version,
        status.pid,
        status.started_at
    ));
    for problem in &status.problems {
        line(format!("  {} {problem}", paint(RED, "!")));
    }
    line(format!(
        "interface {}  UDP port {}, MTU {}",
        paint(BOLD, &status.interface.name),
        status.interface.listen_port,
        status.interface.mtu
    ));
    if let Some(key) = &status.interface.public_key {
        line(format!("  public key {key}"));
    }
    let off: Vec<&str> = status
        .interface
        .offloads
        .iter()
        .filter(|(_, on)| !**on)
        .map(|(name, _)| name.as_str())
        .collect();
    if !off.is_empty() {
        line(format!(
            "  offloads that this kernel lacks: {}",
            off.join(", ")
        ));
    }
    if !status.firewall_protected {
        line("  firewall table unprotected: this kernel lets others flush it".to_owned());
    }
    line(paint(BOLD, "\npeers"));
    for text in status.peers.iter().map(peer_lines) {
        line(text);
    }
    line(paint(BOLD, "\npublished"));
    for text in status.publishes.iter().map(publish_line) {
        line(text);
    }
    let refused = counters(&status.refused_packets);
    line(paint(BOLD, "\nrefused by the firewall (packets)"));
    line(refused);
    line(paint(BOLD, "\ndropped by the tunnel (packets)"));
    line(counters(&status.dropped_packets));
    screen
}

fn peer_lines(peer: &Peer) -> String {
    let short: String = peer.public_key.chars().take(8).collect();
    let name = peer.name.clone().unwrap_or_else(|| format!("{short}…"));
    let handshake = peer
        .latest_handshake_age_seconds
        .map_or_else(|| "never".to_owned(), |age| format!("{} ago", span(age)));
    let endpoint = peer
        .endpoint
        .map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
    let online = if peer.online { "online " } else { "offline" };
    format!(
        "  {name:<20} {online}  {endpoint}\n  {:<20} handshake {handshake}, received {}, sent {}",
        "",
        size(peer.rx_bytes),
        size(peer.tx_bytes)
    )
}

fn publish_line(publish: &Publish) -> String {
    let mut text = format!(
        "  {:<20} {}/{} → {} ({} only, {})",
        publish.name,
        publish.ports.join(","),
        publish.protocol,
        publish.vip,
        publish.family,
        publish.source_ip
    );
    // Writing to a string can't fail.
    let connections = publish.connections.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let _written = write!(text, "\n  {:<20} {connections} connections", "");
    text
}

fn counters(counters: &std::collections::BTreeMap<String, u64>) -> String {
    let lines: Vec<String> = counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("  {name:<40} {count}"))
        .collect();
    if lines.is_empty() {
        "  none".to_owned()
    } else {
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::api::status::Interface;

    use super::*;

    fn status() -> Status {
        Status {
            product: "gateway".to_owned(),
            version: "0.1.0".to_owned(),
            host: "vps".to_owned(),
            pid: 4_194_304,
            started_at: "2026-11-22T22:19:29Z".to_owned(),
            reported_at: "2026-11-22T22:20:29Z".to_owned(),
            ready: true,
            problems: Vec::new(),
            firewall_protected: false,
            interface: Interface {
                name: "edge0".to_owned(),
                public_key: Some("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned()),
                listen_port: 51820,
                fwmark: 0,
                mtu: 1420,
                offloads: BTreeMap::from([("tun_uso".to_owned(), false)]),
            },
            peers: vec![Peer {
                name: Some("home".to_owned()),
                kind: "lan_server".to_owned(),
                public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
                endpoint: Some("[2001:db8:1111:2222::3]:51820".parse().unwrap()),
                allowed_ips: vec!["10.17.0.2/32".to_owned()],
                latest_handshake_age_seconds: Some(119),
                online: true,
                rx_bytes: 1536,
                tx_bytes: u64::MAX,
            }],
            publishes: vec![Publish {
                name: "ingress".to_owned(),
                vip: "10.17.5.30".parse().unwrap(),
                family: "ipv4".to_owned(),
                protocol: "tcp".to_owned(),
                ports: vec!["80".to_owned(), "443".to_owned()],
                source_ip: "preserve".to_owned(),
                connections: Some(3),
                health: None,
            }],
            probes: Vec::new(),
            cloudflare_ranges_as_of: None,
            refused_packets: BTreeMap::from([("guard_ipv4".to_owned(), 7)]),
            dropped_packets: BTreeMap::from([("invalid_mac1".to_owned(), 0)]),
            handshakes: BTreeMap::new(),
            applies: BTreeMap::new(),
            io: BTreeMap::new(),
        }
    }

    #[test]
    fn the_screen_fits_80_columns_and_names_what_matters() {
        let screen = render(&status(), false);
        for line in screen.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in [
            "gateway 0.1.0  ready",
            "home                 online   [2001:db8:1111:2222::3]:51820",
            "handshake 1m 59s ago, received 1.50 KiB",
            "ingress              80,443/tcp → 10.17.5.30 (ipv4 only, preserve)",
            "this kernel lets others flush it",
            "guard_ipv4                               7",
            "offloads that this kernel lacks: tun_uso",
        ] {
            assert!(screen.contains(part), "{part:?} is missing in\n{screen}");
        }
        assert!(!screen.contains("invalid_mac1"), "a zero counter is noise");
        assert!(!screen.contains('\x1b'), "no colours off a terminal");
    }
}
