//! The status as metrics in the text format of Prometheus (version 0.0.4). Pure.
//!
//! Names and labels of `wireguard_*` are those of the common WireGuard exporter, so that its dashboards work; `edge_*` is
//! ours. No label holds an endpoint: it changes with every roaming client.
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use shared::api::status::Status;

/// Firewall counters of the origin guard, by family.
const GUARD: [(&str, &str); 2] = [("guard_ipv4", "ipv4"), ("guard_ipv6", "ipv6")];

/// All metrics.
pub fn text(status: &Status) -> String {
    let mut page = Page::default();
    device(&mut page, status);
    peers(&mut page, status);
    services(&mut page, status);
    drops(&mut page, status);
    process(&mut page, status);
    page.text
}

fn device(page: &mut Page, status: &Status) {
    page.family("edge_build_info", "gauge", "What runs here.");
    let version = status.version.as_str();
    page.sample(
        "edge_build_info",
        &[("product", &status.product), ("version", version)],
        1,
    );
    page.family(
        "edge_ready",
        "gauge",
        "Whether the kernel holds what the configuration asks for.",
    );
    page.sample("edge_ready", &[], u64::from(status.ready));
    page.family(
        "edge_firewall_protected",
        "gauge",
        "Whether other programs can't remove our firewall table.",
    );
    page.sample(
        "edge_firewall_protected",
        &[],
        u64::from(status.firewall_protected),
    );
    let interface = &status.interface;
    page.family("wireguard_device_info", "gauge", "The WireGuard device.");
    let port = interface.listen_port.to_string();
    let key = interface.public_key.as_deref().unwrap_or_default();
    let labels = [
        ("interface", interface.name.as_str()),
        ("listen_port", &port),
        ("public_key", key),
    ];
    page.sample("wireguard_device_info", &labels, 1);
}

fn peers(page: &mut Page, status: &Status) {
    let device = status.interface.name.as_str();
    page.family("wireguard_peer_info", "gauge", "Names of peers.");
    for peer in &status.peers {
        let labels = [
            ("interface", device),
            ("kind", peer.kind.as_str()),
            ("name", peer.name.as_deref().unwrap_or_default()),
            ("public_key", peer.public_key.as_str()),
        ];
        page.sample("wireguard_peer_info", &labels, 1);
    }
    let mut each = |name, kind, help, value: &dyn Fn(&shared::api::status::Peer) -> Option<u64>| {
        page.family(name, kind, help);
        for peer in &status.peers {
            if let Some(value) = value(peer) {
                let labels = [
                    ("interface", device),
                    ("public_key", peer.public_key.as_str()),
                ];
                page.sample(name, &labels, value);
            }
        }
    };
    let now = unix_seconds(&status.reported_at);
    each(
        "wireguard_peer_last_handshake_seconds",
        "gauge",
        "When the latest handshake was completed, in seconds since 1970; 0 before the first.",
        &|peer| {
            let age = peer.latest_handshake_age_seconds;
            Some(age.map_or(0, |age| now.saturating_sub(age)))
        },
    );
    each(
        "wireguard_peer_receive_bytes_total",
        "counter",
        "Bytes received from a peer, as on the wire.",
        &|peer| Some(peer.rx_bytes),
    );
    each(
        "wireguard_peer_transmit_bytes_total",
        "counter",
        "Bytes sent to a peer, as on the wire.",
        &|peer| Some(peer.tx_bytes),
    );
    each(
        "edge_peer_online",
        "gauge",
        "Whether a session with a peer is up.",
        &|peer| Some(u64::from(peer.online)),
    );
}

fn services(page: &mut Page, status: &Status) {
    let name = "edge_publish_packets_total";
    page.family(
        name,
        "counter",
        "First packets of connections that a published service got.",
    );
    for publish in &status.publishes {
        let vip = publish.vip.to_string();
        let labels = [("publish", publish.name.as_str()), ("vip", vip.as_str())];
        page.sample(name, &labels, publish.connections);
    }
    let name = "edge_origin_guard_dropped_total";
    page.family(
        name,
        "counter",
        "Packets to published ports from sources that may not call them.",
    );
    for (counter, family) in GUARD {
        let count = status.refused_packets.get(counter).copied().unwrap_or(0);
        page.sample(name, &[("family", family)], count);
    }
}

fn drops(page: &mut Page, status: &Status) {
    let name = "edge_firewall_refused_packets_total";
    page.family(
        name,
        "counter",
        "Packets that our firewall table refused, by its counter.",
    );
    for (counter, &count) in &status.refused_packets {
        page.sample(name, &[("counter", counter.as_str())], count);
    }
    let name = "edge_tunnel_drop_total";
    page.family(
        name,
        "counter",
        "Datagrams and packets that the tunnel dropped.",
    );
    for (reason, &count) in &status.dropped_packets {
        page.sample(name, &[("reason", reason.as_str())], count);
    }
    let name = "edge_io_total";
    page.family(name, "counter", "Work between kernel and tunnel.");
    for (kind, &count) in &status.io {
        page.sample(name, &[("kind", kind.as_str())], count);
    }
}

fn process(page: &mut Page, status: &Status) {
    let name = "process_start_time_seconds";
    page.family(
        name,
        "gauge",
        "When the process started, in seconds since 1970.",
    );
    page.sample(name, &[], unix_seconds(&status.started_at));
    if let Some(bytes) = resident_bytes() {
        let name = "process_resident_memory_bytes";
        page.family(name, "gauge", "Memory of the process.");
        page.sample(name, &[], bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let name = "process_open_fds";
        page.family(name, "gauge", "Open file descriptors.");
        page.sample(name, &[], open.count() as u64);
    }
}

/// `VmRSS` of `/proc/self/status` (`man 5 proc`).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn unix_seconds(rfc3339: &str) -> u64 {
    let at = humantime::parse_rfc3339(rfc3339).unwrap_or(SystemTime::UNIX_EPOCH);
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// The text, family by family.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _written = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _written = write!(self.text, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _written = writeln!(self.text, " {value}");
    }
}

/// A label's value may hold anything but these three.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
