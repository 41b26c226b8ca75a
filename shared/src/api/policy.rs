//! What the configuration file says, read-only: roles, published services, LAN servers.
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::probe::{Health, Probe};

/// What tunnel peers of this role may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// Name.
    pub name: String,
    /// Services, as in the configuration: `10.17.5.10:6443/tcp`.
    pub allow: Vec<String>,
    /// Number of peers that have it.
    pub peers: usize,
}

/// A host that brings LAN networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LanServer {
    /// Name.
    pub name: String,
    /// Its key; `null` when it has not joined yet.
    #[schema(required)]
    pub public_key: Option<String>,
    /// When it joined by a token; `null` when it has not, or the file gives it its key.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub joined_at: Option<Timestamp>,
    /// Its tunnel addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Networks behind it.
    pub networks: Vec<String>,
}

/// What the gateway publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Publish {
    /// Name.
    pub name: String,
    /// Where to.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Ports, as in the configuration: `443`, `8443:443`, `30000-30100`.
    pub ports: Vec<String>,
    /// Who may call: names of sets and networks, or `any`.
    pub allow: Vec<String>,
    /// `preserve`, `masquerade` or a pool of addresses as `192.168.0.20-192.168.0.23`.
    pub source_ip: String,
    /// Connections accepted since the table was made; `null` when its counters can't be read, or it is gone.
    #[schema(required)]
    pub connections: Option<u64>,
    /// Whether it answers; `null` over UDP, which nobody can try.
    #[schema(required)]
    pub health: Option<Health>,
    /// The same by port.
    pub probes: Vec<Probe>,
}

/// Where a list of networks is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangesSource {
    /// The list that came with the program.
    Bundled,
    /// `cloudflare` in `[sets]` of the configuration file.
    File,
    /// A list that was fetched, or the file that `[cloudflare] refresh` names.
    Refreshed,
}

/// The networks that the set `cloudflare` stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudflareRanges {
    /// Networks, sorted.
    pub networks: Vec<String>,
    /// Where they are from.
    pub source: RangesSource,
    /// Day on which Cloudflare's own list was like that; `null` for one of the file.
    #[schema(required)]
    pub as_of: Option<String>,
    /// Networks among them that the latest list lacks: they stay for seven days.
    pub leaving: Vec<LeavingRange>,
    /// How it is kept up to date; `null` when it is not.
    #[schema(required)]
    pub refresh: Option<CloudflareRefresh>,
}

/// A network that is about to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeavingRange {
    /// The network.
    pub network: String,
    /// When it was missed first.
    #[schema(value_type = String, format = DateTime)]
    pub absent_since: Timestamp,
}

/// How the list of Cloudflare's networks is kept up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudflareRefresh {
    /// URL or file.
    pub from: String,
    /// As of when the latest list was that was taken; `null` as long as there was none, and the bundled one is in use.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub confirmed_at: Option<Timestamp>,
    /// When the latest attempt ended; `null` before the first of this process.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub checked_at: Option<Timestamp>,
    /// Why it failed, or why the list was refused; `null` when it was taken.
    #[schema(required)]
    pub error: Option<String>,
}
