//! Answer of `GET /v1/status`, file `status.json`, output of `status --json`.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::apply::Apply;
use super::diagnosis::Hop;
use super::drift::DriftSummary;
use super::plan::PlanWarning;
use super::policy::CloudflareRefresh;
use super::probe::{Health, Probe};

/// A daemon as it is. Times are RFC 3339 in UTC, numbers carry their unit in the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// `gateway` or `lan-server`.
    pub product: String,
    /// Version of the program.
    pub version: String,
    /// Name of the host.
    #[serde(default)]
    #[schema(required)]
    pub host: String,
    /// Process.
    pub pid: u32,
    /// When the process started.
    pub started_at: String,
    /// When this was said.
    pub reported_at: String,
    /// Whether the daemon does what its configuration asks for, and a published service answers, as `/readyz` says.
    pub ready: bool,
    /// What is wrong now, in sentences; empty when nothing is.
    pub problems: Vec<String>,
    /// What works still and needs somebody to look at it, in sentences.
    #[serde(default)]
    #[schema(required)]
    pub warnings: Vec<String>,
    /// What on this host stands in the way of the configuration although nothing of it is ours, as `plan` warns of it.
    #[serde(default)]
    #[schema(required)]
    pub obstacles: Vec<PlanWarning>,
    /// Whether our firewall table is protected from other programs (Linux 6.9); otherwise a foreign flush removes it.
    pub firewall_protected: bool,
    /// The tunnel interface.
    pub interface: Interface,
    /// Peers in the order in which they were added.
    pub peers: Vec<Peer>,
    /// Published services.
    pub publishes: Vec<Publish>,
    /// Whether their TCP ports answer, as `/v1/probes` says.
    #[serde(default)]
    #[schema(required)]
    pub probes: Vec<Probe>,
    /// Where published paths are broken, as `doctor` found by itself when they stopped to work: the first hop that fails of each.
    #[serde(default)]
    #[schema(required)]
    pub faults: Vec<Hop>,
    /// Day of the list of Cloudflare's networks; `null` when the configuration brings its own.
    #[serde(default)]
    #[schema(required)]
    pub cloudflare_ranges_as_of: Option<String>,
    /// How that list is kept up to date; `null` when it is not.
    #[serde(default)]
    #[schema(required)]
    pub cloudflare_refresh: Option<CloudflareRefresh>,
    /// Packets that the firewall refused, by the counter that refused them.
    pub refused_packets: BTreeMap<String, u64>,
    /// Datagrams and packets that the tunnel dropped, by reason.
    pub dropped_packets: BTreeMap<String, u64>,
    /// Handshakes of the tunnel since the start, by how they ended.
    #[serde(default)]
    #[schema(required)]
    pub handshakes: BTreeMap<String, u64>,
    /// Configurations and changes of peers that were put in place (`ok`) or not (`failed`), and configurations that were
    /// applied and taken back (`rolled_back`), since the start.
    #[serde(default)]
    #[schema(required)]
    pub applies: BTreeMap<String, u64>,
    /// The latest configuration that was applied on trial; `null` when there was none.
    #[serde(default)]
    #[schema(required)]
    pub apply: Option<Apply>,
    /// What others have changed of links, addresses, routes, rules, switches and firewall table since the start.
    #[serde(default)]
    #[schema(required)]
    pub drift: DriftSummary,
    /// How full the kernel's table of connections is; `null` where it tracks none.
    #[serde(default)]
    #[schema(required)]
    pub conntrack: Option<Conntrack>,
    /// Destinations to which few source ports are left, of connections whose source is translated, ours and others.
    #[serde(default)]
    #[schema(required)]
    pub source_ports: Vec<SourcePorts>,
    /// Traffic between kernel and tunnel, by kind.
    pub io: BTreeMap<String, u64>,
}

/// The kernel's table of connections, of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conntrack {
    /// Connections in it (`nf_conntrack_count`).
    pub entries: u64,
    /// Connections for which there is room (`nf_conntrack_max`); 0 is no limit.
    pub limit: u64,
}

/// Ports that connections to one destination have at one address of this host, which stands for their callers'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourcePorts {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The address.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// The destination, with its port.
    #[schema(value_type = String)]
    pub destination: SocketAddr,
    /// Ports in use.
    pub used: u64,
    /// Ports that there are; a new connection fails when all are in use.
    pub limit: u64,
}

/// The tunnel interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TunnelInterface)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Our key.
    pub public_key: Option<String>,
    /// UDP port that is bound.
    pub listen_port: u16,
    /// Mark of our datagrams; 0 is none.
    pub fwmark: u32,
    /// Bytes.
    pub mtu: u32,
    /// Offloads that this kernel gave us, by name.
    pub offloads: BTreeMap<String, bool>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TunnelPeer)]
pub struct Peer {
    /// Name in the configuration; `None` for one that was added with `wg set`.
    pub name: Option<String>,
    /// `gateway`, `lan_server` or `peer`.
    pub kind: String,
    /// Its key.
    pub public_key: String,
    /// Where it was last heard from, or is configured to be.
    #[schema(required, value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// Networks that it may send from and that are sent to it.
    pub allowed_ips: Vec<String>,
    /// Age of the latest completed handshake; `None` before the first.
    pub latest_handshake_age_seconds: Option<u64>,
    /// Whether a session is up: a handshake within the last 180 seconds (whitepaper §6.1, Reject-After-Time).
    pub online: bool,
    /// Received, as on the wire.
    pub rx_bytes: u64,
    /// Sent, as on the wire.
    pub tx_bytes: u64,
}

/// A published service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PublishedService)]
pub struct Publish {
    /// Name in the configuration.
    pub name: String,
    /// Where to.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// Address family that is published: `ipv4` or `ipv6`, that of the VIP.
    pub family: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Ports as in the configuration.
    pub ports: Vec<String>,
    /// `preserve`, `masquerade` or a pool of addresses as `192.168.0.20-192.168.0.23`.
    pub source_ip: String,
    /// Connections accepted since the table was made; `null` when its counters can't be read, or it is gone.
    #[schema(required)]
    pub connections: Option<u64>,
    /// Whether it answers; `null` over UDP, which nobody can try.
    #[serde(default)]
    #[schema(required)]
    pub health: Option<Health>,
}
