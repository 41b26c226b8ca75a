//! What a binary's policy hands to the daemon: the same nouns for both ends.
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use shared::config::common::{Endpoint, PortMap, Protocol, SourceIp};
use shared::model::{InterfaceName, PresharedKey, PublicKey};
use shared::plan::Desired;

/// What a policy has to know of the host beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The link to the internet: as configured, or the link of the default route.
    pub wan: InterfaceName,
    /// Whether that link takes its IPv6 address or route from router advertisements (`accept_ra` is 1 or 2).
    pub wan_accepts_router_advertisements: bool,
    /// What the set `cloudflare` stands for now.
    pub cloudflare: Vec<IpNetwork>,
}

/// What a configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name of the TUN link.
    pub interface: InterfaceName,
    /// Kernel state.
    pub desired: Desired,
    /// Peers of the WireGuard device, in the order of the file. Shared: of thousands most are the same ones in the next model.
    pub peers: Vec<Arc<PeerModel>>,
    /// Published services, for status.
    pub publishes: Vec<PublishModel>,
}

/// What a peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// A public gateway (seen from the LAN end).
    Gateway,
    /// A LAN host that brings networks (seen from the gateway).
    LanServer,
    /// Any other WireGuard client.
    Peer,
}

/// A peer of the WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerModel {
    /// Name in the configuration.
    pub name: String,
    /// What it is.
    pub kind: PeerKind,
    /// Its key.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: PresharedKeyFrom,
    /// Where to dial; `None` waits for the peer.
    pub endpoint: Option<Endpoint>,
    /// Its networks.
    pub allowed_ips: Vec<IpNetwork>,
    /// Seconds between keepalives; 0 is off.
    pub persistent_keepalive_secs: u16,
    /// Whose networks it takes over with its first message: that peer's client is about to change its key.
    pub succeeds: Option<PublicKey>,
}

/// Where a preshared key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresharedKeyFrom {
    /// There is none.
    Nowhere,
    /// A file, read at each start and reload.
    File(PathBuf),
    /// It is known already.
    Here(PresharedKey),
}

impl From<Option<PathBuf>> for PresharedKeyFrom {
    fn from(file: Option<PathBuf>) -> Self {
        file.map_or(Self::Nowhere, Self::File)
    }
}

/// A published service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishModel {
    /// Name in the configuration.
    pub name: String,
    /// Where to.
    pub vip: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Ports.
    pub ports: Vec<PortMap>,
    /// What happens to the source address.
    pub source_ip: SourceIp,
}
