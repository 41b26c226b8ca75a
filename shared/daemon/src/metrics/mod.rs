//! The status as metrics for Prometheus. Pure, but for [`Process::of_self`].
//!
//! Names and labels of `wireguard_*` are those of the common WireGuard exporter, so that its dashboards work; `process_*` is
//! what every client library has; `edge_*` is ours. No label holds an endpoint: it changes with every roaming client.
//!
//! Counters of the tunnel begin with the process, those of the firewall with its table, which outlives the process; neither
//! begins anew with a reload.
mod page;
mod process;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use shared::api::drift::DriftSummary;
use shared::api::probe::ProbeState;
use shared::api::status::{Conntrack, Peer, SourcePorts, Status};

pub use process::Process;

use crate::pressure::SOURCE_PORTS;
use page::{Kind, Page};

/// Firewall counters of the origin guard, by family.
const GUARD: [(&str, &str); 2] = [("guard_ipv4", "ipv4"), ("guard_ipv6", "ipv6")];

/// All metrics.
pub fn text(status: &Status, process: &Process) -> String {
    let mut page = Page::default();
    device(&mut page, status);
    peers(&mut page, status);
    services(&mut page, status);
    drops(&mut page, status);
    costs(&mut page, status, process);
    page.into_text()
}

fn device(page: &mut Page, status: &Status) {
    let build = [
        ("product", status.product.as_str()),
        ("version", status.version.as_str()),
    ];
    page.family("edge_build_info", Kind::Gauge, "What runs here.")
        .sample(&build, 1);
    let help = "Whether the kernel holds what the configuration asks for.";
    page.family("edge_ready", Kind::Gauge, help)
        .sample(&[], u64::from(status.ready));
    let help = "What on this host stands in the way of the configuration: firewalls of others, routes, ports.";
    page.family("edge_obstacles", Kind::Gauge, help)
        .sample(&[], status.obstacles.len());
    let help = "Whether other programs can't remove our firewall table.";
    page.family("edge_firewall_protected", Kind::Gauge, help)
        .sample(&[], u64::from(status.firewall_protected));
    let name = "edge_apply_total";
    let help = "Configurations and changes of peers that were put in place, or failed and were taken back.";
    counters(page, name, help, "result", &status.applies);
    drift(page, &status.drift);
    conntrack(page, status.conntrack);
    source_ports(page, &status.source_ports);
    let interface = &status.interface;
    let port = interface.listen_port.to_string();
    let labels = [
        ("interface", interface.name.as_str()),
        ("listen_port", &port),
        (
            "public_key",
            interface.public_key.as_deref().unwrap_or_default(),
        ),
    ];
    page.family(
        "wireguard_device_info",
        Kind::Gauge,
        "The WireGuard device.",
    )
    .sample(&labels, 1);
}

/// As the node exporter has them, which not every host runs.
fn conntrack(page: &mut Page, conntrack: Option<Conntrack>) {
    let Some(Conntrack { entries, limit }) = conntrack else {
        return;
    };
    let help = "Connections that the kernel tracks.";
    page.family("edge_conntrack_entries", Kind::Gauge, help)
        .sample(&[], entries);
    let help = "Connections for which it has room; new ones are dropped beyond.";
    page.family("edge_conntrack_entries_limit", Kind::Gauge, help)
        .sample(&[], limit);
}

/// Which destination it is, the status says.
fn source_ports(page: &mut Page, source_ports: &[SourcePorts]) {
    let most = source_ports.iter().map(|of| of.used).max();
    let help = "Source ports that masqueraded connections to one destination have, where most are in use; 0 where they are not.";
    page.family("edge_source_ports_used", Kind::Gauge, help)
        .sample(&[], most.unwrap_or_default());
    let help = "Source ports that there are for one destination; new connections fail beyond.";
    page.family("edge_source_ports_limit", Kind::Gauge, help)
        .sample(&[], SOURCE_PORTS);
}

fn drift(page: &mut Page, drift: &DriftSummary) {
    let name = "edge_drift_total";
    let help =
        "How often something in the kernel was not as it was left, since others had changed it.";
    counters(page, name, help, "kind", &drift.found);
    let help = "How often it was put right.";
    page.family("edge_drift_healed_total", Kind::Counter, help)
        .sample(&[], drift.healed);
    let help = "Things that others change again and again, so that they are left for now.";
    let fought = drift.fought.len();
    page.family("edge_drift_fought", Kind::Gauge, help)
        .sample(&[], fought);
}

fn peers(page: &mut Page, status: &Status) {
    let device = status.interface.name.as_str();
    let mut family = page.family("wireguard_peer_info", Kind::Gauge, "Names of peers.");
    for peer in &status.peers {
        let labels = [
            ("interface", device),
            ("kind", peer.kind.as_str()),
            ("name", peer.name.as_deref().unwrap_or_default()),
            ("public_key", peer.public_key.as_str()),
        ];
        family.sample(&labels, 1);
    }
    let mut each = |name, kind, help, value: &dyn Fn(&Peer) -> u64| {
        let mut family = page.family(name, kind, help);
        for peer in &status.peers {
            let labels = [
                ("interface", device),
                ("public_key", peer.public_key.as_str()),
            ];
            family.sample(&labels, value(peer));
        }
    };
    let now = unix_seconds(&status.reported_at);
    each(
        "wireguard_peer_last_handshake_seconds",
        Kind::Gauge,
        "When the latest handshake was completed, in seconds since 1970; 0 before the first.",
        &|peer| {
            let age = peer.latest_handshake_age_seconds;
            age.map_or(0, |age| now.saturating_sub(age))
        },
    );
    each(
        "wireguard_peer_receive_bytes_total",
        Kind::Counter,
        "Bytes received from a peer, as on the wire.",
        &|peer| peer.rx_bytes,
    );
    each(
        "wireguard_peer_transmit_bytes_total",
        Kind::Counter,
        "Bytes sent to a peer, as on the wire.",
        &|peer| peer.tx_bytes,
    );
    each(
        "edge_peer_online",
        Kind::Gauge,
        "Whether a session with a peer is up.",
        &|peer| u64::from(peer.online),
    );
    peers_by_state(page, &status.peers);
    let name = "edge_handshake_total";
    let help = "Handshakes by how they ended; a refused one is a message, and edge_tunnel_drop_total says why.";
    counters(page, name, help, "result", &status.handshakes);
}

/// Both states of every kind that there is, so that none of them is missing when it is 0.
fn peers_by_state(page: &mut Page, peers: &[Peer]) {
    let mut kinds: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for peer in peers {
        let [online, offline] = kinds.entry(&peer.kind).or_default();
        *(if peer.online { online } else { offline }) += 1;
    }
    let help = "How many peers the tunnel has, by whether a session with them is up.";
    let mut family = page.family("edge_peers", Kind::Gauge, help);
    for (kind, [online, offline]) in kinds {
        family.sample(&[("kind", kind), ("state", "online")], online);
        family.sample(&[("kind", kind), ("state", "offline")], offline);
    }
}

fn services(page: &mut Page, status: &Status) {
    let help = "First packets of connections that a published service got.";
    let mut family = page.family("edge_publish_packets_total", Kind::Counter, help);
    for publish in &status.publishes {
        let vip = publish.vip.to_string();
        let labels = [("publish", publish.name.as_str()), ("vip", vip.as_str())];
        // What could not be read is left out: 0 would be a counter that has begun anew.
        if let Some(connections) = publish.connections {
            family.sample(&labels, connections);
        }
    }
    paths(page, status);
    faults(page, status);
    ranges(page, status);
    let help = "Packets to published ports from sources that may not call them.";
    let mut family = page.family("edge_origin_guard_dropped_total", Kind::Counter, help);
    for (counter, of) in GUARD {
        // A product without a guard has no such counter, and a table that is gone counts nothing.
        if let Some(count) = status.refused_packets.get(counter) {
            family.sample(&[("family", of)], count);
        }
    }
}

/// By gateway and address: two services may lead to the same port of a VIP. On a LAN server the path is that of each gateway
/// which it serves, on a gateway its own.
fn paths(page: &mut Page, status: &Status) {
    let configured = status.peers.iter().filter(|peer| peer.kind == "gateway");
    let mut gateways: BTreeSet<&str> = configured.filter_map(|peer| peer.name.as_deref()).collect();
    if gateways.is_empty() {
        gateways.insert(&status.host);
    }
    let up_by_address: BTreeMap<SocketAddr, u64> = status
        .probes
        .iter()
        .filter(|probe| probe.state != ProbeState::Unknown)
        .map(|probe| {
            let is_up = probe.state == ProbeState::Up;
            (SocketAddr::new(probe.vip, probe.port), u64::from(is_up))
        })
        .collect();
    let help = "Whether a published service took a connection when it was tried last.";
    let mut family = page.family("edge_path_up", Kind::Gauge, help);
    for gateway in gateways {
        for (address, up) in &up_by_address {
            let vip = address.to_string();
            family.sample(&[("gateway", gateway), ("vip", &vip)], up);
        }
    }
}

/// A sample for each, none while all paths work.
fn faults(page: &mut Page, status: &Status) {
    let help = "Where published paths are broken: the hop that fails, and of what.";
    let mut family = page.family("edge_path_fault", Kind::Gauge, help);
    for fault in &status.faults {
        let labels = [("hop", fault.hop.name()), ("of", fault.of.as_str())];
        family.sample(&labels, 1);
    }
}

/// The day as long as no list was taken, then the second.
fn ranges(page: &mut Page, status: &Status) {
    let refresh = status.cloudflare_refresh.as_ref();
    let confirmed_at = refresh.and_then(|refresh| refresh.confirmed_at);
    let confirmed_at = confirmed_at.and_then(|at| u64::try_from(at.as_second()).ok());
    let as_of = status.cloudflare_ranges_as_of.as_deref();
    let as_of = confirmed_at.or_else(|| as_of.map(|day| unix_seconds(&format!("{day}T00:00:00Z"))));
    let help = "Age of the list that the set cloudflare stands for; missing when the configuration brings its own.";
    let mut family = page.family("edge_cloudflare_ranges_age_seconds", Kind::Gauge, help);
    if let Some(as_of) = as_of {
        let now = unix_seconds(&status.reported_at);
        family.sample(&[], now.saturating_sub(as_of));
    }
    let help = "Whether the latest attempt to refresh that list failed, or its list was refused; missing when it is not refreshed.";
    let mut family = page.family("edge_cloudflare_refresh_failed", Kind::Gauge, help);
    if let Some(refresh) = refresh {
        family.sample(&[], u64::from(refresh.error.is_some()));
    }
}

fn drops(page: &mut Page, status: &Status) {
    counters(
        page,
        "edge_firewall_refused_packets_total",
        "Packets that our firewall table refused, by its counter.",
        "counter",
        &status.refused_packets,
    );
    counters(
        page,
        "edge_tunnel_drop_total",
        "Datagrams and packets that the tunnel dropped.",
        "reason",
        &status.dropped_packets,
    );
    counters(
        page,
        "edge_io_total",
        "Work between kernel and tunnel.",
        "kind",
        &status.io,
    );
}

/// A counter for each name.
fn counters(
    page: &mut Page,
    name: &'static str,
    help: &str,
    label: &str,
    counts: &BTreeMap<String, u64>,
) {
    let mut family = page.family(name, Kind::Counter, help);
    for (value, count) in counts {
        family.sample(&[(label, value)], count);
    }
}

fn costs(page: &mut Page, status: &Status, process: &Process) {
    let help = "When the process started, in seconds since 1970.";
    page.family("process_start_time_seconds", Kind::Gauge, help)
        .sample(&[], unix_seconds(&status.started_at));
    if let Some(spent) = process.cpu_time {
        let help = "Processor time of all threads, user and system.";
        page.family("process_cpu_seconds_total", Kind::Counter, help)
            .sample(&[], spent.as_secs_f64());
    }
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory that is in RAM.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space.",
            process.virtual_bytes,
        ),
        (
            "process_open_fds",
            "Open file descriptors.",
            process.open_fds,
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            process.max_fds,
        ),
    ] {
        if let Some(value) = value {
            page.family(name, Kind::Gauge, help).sample(&[], value);
        }
    }
}

fn unix_seconds(rfc3339: &str) -> u64 {
    let at = humantime::parse_rfc3339(rfc3339).unwrap_or(SystemTime::UNIX_EPOCH);
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}
