//! The checked form of `lan-server.toml`.
mod check;
mod draft;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

pub use draft::KEYS;

use super::cloudflare::{self, Ranges};
use super::common::{
    AddressSet, Endpoint, InterfaceAddress, PortRange, Protocol, Service, SourceIp, Sources, Tunnel,
};
use super::document;
use super::error::{ConfigErrors, Parsed};
use super::policy_test::PolicyTest;
use super::refresh::Refresh;
use crate::model::PublicKey;

/// Configuration of the LAN end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanServer {
    /// Private keys and what must survive a restart; mode 0700.
    pub state_dir: PathBuf,
    /// Sockets, pid, status.
    pub runtime_dir: PathBuf,
    /// Our end of the tunnel.
    pub tunnel: Tunnel,
    /// Gateways, at least one; names, keys and addresses are unique. (This version runs exactly one.)
    pub gateways: Vec<Gateway>,
    /// What the tunnel may reach with callers' own addresses.
    pub publishes: Vec<Publish>,
    /// What tunnel peers may reach.
    pub access: Vec<Access>,
    /// Every set that a publish names.
    pub sets: Vec<AddressSet>,
    /// Where newer lists of the set `cloudflare` come from; `None` when they don't.
    pub refresh: Option<Refresh>,
    /// What is to become of calls.
    pub tests: Vec<PolicyTest>,
}

impl LanServer {
    /// Reads the text of a `lan-server.toml`; `file` is how messages name it. All independent mistakes are found at once.
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
        let theirs = self.gateways.iter().flat_map(|gateway| {
            let endpoint = cloudflare::network_of(&gateway.endpoint);
            gateway.networks.iter().copied().chain(endpoint)
        });
        let vips = self.publishes.iter().map(|publish| publish.vip.into());
        let services = self.access.iter().flat_map(|access| &access.to);
        let services = services.map(|service| service.network);
        let ours = tunnel.chain(theirs).chain(vips).chain(services);
        Ranges::new(&self.sets, self.refresh.as_ref(), ours)
    }
}

/// `[[gateway]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Unique name.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its key.
    pub public_key: PublicKey,
    /// Absolute path.
    pub preshared_key_file: Option<PathBuf>,
    /// Its addresses in the tunnel, one per family at most, at least one; inside `networks`.
    pub addresses: Vec<IpAddr>,
    /// The tunnel networks (`network`), one per family at most.
    pub networks: Vec<IpNetwork>,
    /// Seconds between keepalives; 0 is off, 25 the default.
    pub persistent_keepalive_secs: u16,
}

/// `[[publish]]` of the LAN end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Unique name: letters, digits, `_`, `-`.
    pub name: String,
    /// What may be reached.
    pub vip: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Ports of the VIP. Unlike on the gateway nothing is mapped here.
    pub ports: Vec<PortRange>,
    /// Sources accepted with preserved addresses; no private, tunnel or VIP network.
    pub from: Sources,
    /// Whether the VIP sees the caller or this host.
    pub source_ip: SourceIp,
}

/// `[[access]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What tunnel peers may reach.
    pub to: Vec<Service>,
    /// Whether it sees the peer or this host.
    pub source_ip: SourceIp,
}
