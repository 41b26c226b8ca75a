//! The checked form of `gateway.toml`.
mod check;
mod draft;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;

pub use draft::KEYS;

use super::cloudflare::{self, Ranges};
use super::common::{
    AddressSet, Endpoint, InterfaceAddress, PortMap, Protocol, Service, SourceIp, Sources, Tunnel,
};
use super::document;
use super::error::{ConfigErrors, Parsed};
use super::policy_test::PolicyTest;
use super::refresh::Refresh;
use crate::model::{InterfaceName, PublicKey};

/// Configuration of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Private keys and what must survive a restart; mode 0700.
    pub state_dir: PathBuf,
    /// Sockets, pid, status.
    pub runtime_dir: PathBuf,
    /// The link to the internet.
    pub wan: Wan,
    /// Our end of the tunnel.
    pub tunnel: Tunnel,
    /// Hosts that bring LAN networks; names, keys and addresses are unique among these and `peers`.
    pub lan_servers: Vec<LanServerPeer>,
    /// Services for the internet; no two of them listen on the same protocol, family and port.
    pub publishes: Vec<Publish>,
    /// What tunnel peers may reach.
    pub roles: Vec<Role>,
    /// Every set that a publish names, `cloudflare` included when it is used or defined.
    pub sets: Vec<AddressSet>,
    /// Where newer lists of the set `cloudflare` come from; `None` when they don't.
    pub refresh: Option<Refresh>,
    /// Static peers.
    pub peers: Vec<Peer>,
    /// Admin API.
    pub admin: Admin,
    /// What is to become of calls.
    pub tests: Vec<PolicyTest>,
}

impl Gateway {
    /// Reads the text of a `gateway.toml`; `file` is how messages name it. All independent mistakes are found at once.
    pub fn parse(text: &str, file: &str) -> Result<Parsed<Self>, ConfigErrors> {
        document::parse(text, file, KEYS, |report, root| {
            let draft = draft::read(root);
            check::check(report, &draft);
            draft.build()
        })
    }

    /// What is said of the set `cloudflare`.
    pub fn ranges(&self) -> Ranges {
        let tunnel = self.tunnel.addresses.iter().map(InterfaceAddress::network);
        let lan = self.lan_servers.iter().flat_map(|lan| &lan.networks);
        let vips = self.publishes.iter().map(|publish| publish.vip.into());
        let ours = tunnel.chain(lan.copied()).chain(vips);
        let ours = ours.chain(cloudflare::network_of(&self.wan.endpoint));
        Ranges::new(&self.sets, self.refresh.as_ref(), ours)
    }
}

/// `[wan]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wan {
    /// `None` for `"auto"`: the link of the default route.
    pub interface: Option<InterfaceName>,
    /// What peers dial.
    pub endpoint: Endpoint,
}

/// `[[lan_server]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanServerPeer {
    /// Unique name.
    pub name: String,
    /// Its key; `None` when it comes by pairing.
    pub public_key: Option<PublicKey>,
    /// Absolute path; only beside a key.
    pub preshared_key_file: Option<PathBuf>,
    /// Its addresses inside the tunnel networks, one per family at most, at least one.
    pub addresses: Vec<IpAddr>,
    /// Networks behind it, sorted; no two LAN servers' networks overlap.
    pub networks: Vec<IpNetwork>,
}

/// `[[publish]]` of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Unique name: letters, digits, `_`, `-`.
    pub name: String,
    /// Where to; inside a network of a LAN server. Its family is the family that is published.
    pub vip: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Ports; listen ports do not overlap.
    pub ports: Vec<PortMap>,
    /// Who may call.
    pub allow: Sources,
    /// What the VIP sees as source.
    pub source_ip: SourceIp,
}

/// `[[role]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Unique name: letters, digits, `_`, `-`.
    pub name: String,
    /// What it may reach.
    pub allow: Vec<Service>,
}

/// `[[peer]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Unique name.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Absolute path.
    pub preshared_key_file: Option<PathBuf>,
    /// Its addresses inside the tunnel networks, one per family at most, at least one.
    pub addresses: Vec<IpAddr>,
    /// Name of a role in [`Gateway::roles`]; `None` reaches nothing.
    pub role: Option<String>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Optional TCP listener on a tunnel address.
    pub listen: Option<SocketAddr>,
    /// Whether TCP callers need a bearer token.
    pub tokens: bool,
}
