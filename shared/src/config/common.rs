//! What both configuration files speak of.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use crate::model::InterfaceName;
use crate::plan::ruleset::AddressRange;

/// Transport protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports from `first` to `last`, both included; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port; equal to `first` for a single port.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// An entry of `ports`: where we listen and where the VIP listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMap {
    /// Ports that callers dial.
    pub listen: PortRange,
    /// Ports of the VIP. A range is published as it is (`target == listen`); `"8443:443"` maps one port to another.
    pub target: PortRange,
}

/// What happens to the source address on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceIp {
    /// The service sees the caller's own address.
    Preserve,
    /// The service sees the address of the host that forwards.
    Masquerade,
    /// The service sees one of these addresses of the host that forwards: the same one for the same caller. Never more than
    /// [`SourceIp::MOST`].
    Pool(AddressRange),
}

impl SourceIp {
    /// How many addresses a pool can have. Each leaves room for 64512 connections to one port of a service, so that these hold
    /// more than any host can track.
    pub const MOST: u128 = 256;
}

impl fmt::Display for SourceIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserve => f.write_str("preserve"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Pool(pool) if pool.count() == 1 => write!(f, "{pool}"),
            Self::Pool(pool) => write!(f, "{}-{}", pool.first(), pool.last()),
        }
    }
}

/// Addresses from which a service may be called: entries of `allow` or `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sources {
    /// `"any"`, written out.
    Any,
    /// Named sets and networks.
    Listed {
        /// Names of sets in the order of the file: `cloudflare` or a key of `[sets]`; each occurs once.
        sets: Vec<String>,
        /// Networks that stand in the entry itself, sorted; overlapping ones are refused.
        networks: Vec<IpNetwork>,
    },
}

/// A named set of `[sets]`, or the built-in `cloudflare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSet {
    /// Name by which `allow` and `from` refer to it: letters, digits, `_`, `-`.
    pub name: String,
    /// Its networks, sorted, without overlap.
    pub networks: Vec<IpNetwork>,
}

/// A service that tunnel peers may reach: `"10.17.5.10:6443/tcp"`, `"[fd00::1]:53/udp"`, `"10.17.3.0/24:8000-8100/tcp"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Address or network.
    pub network: IpNetwork,
    /// Ports.
    pub ports: PortRange,
    /// Protocol.
    pub protocol: Protocol,
}

/// Where a peer listens: `host:port`, `address:port`, `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address.
    Address(SocketAddr),
    /// A name that has to be resolved.
    Name {
        /// Host name, checked against RFC 1123 §2.1.
        host: String,
        /// UDP port; never 0.
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// An address with the length of the network it lies in, as written in `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address itself.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_len: u8,
}

impl InterfaceAddress {
    /// The network that the address lies in.
    pub fn network(&self) -> IpNetwork {
        IpNetwork::new(self.address, self.prefix_len).map_or_else(
            |_| IpNetwork::from(self.address),
            |n| IpNetwork::new(n.network(), self.prefix_len).unwrap_or(n),
        )
    }
}

/// `[tunnel]` of either file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Name of the TUN link.
    pub interface: InterfaceName,
    /// Our addresses, on the gateway with the tunnel networks: one per family at most, at least one; the first is the
    /// main one.
    pub addresses: Vec<InterfaceAddress>,
    /// UDP port. 0 lets the kernel choose: the default of the LAN end, which dials; never on the gateway.
    pub listen_port: u16,
    /// Largest inner packet in bytes, 576 (with IPv6 1280) to 65,455.
    pub mtu: u16,
    /// Absolute path (relative ones are joined to `state_dir`).
    pub private_key_file: PathBuf,
    /// Mark of our datagrams; 0 is none.
    pub fwmark: u32,
    /// Worker threads; `None` lets the program choose.
    pub threads: Option<u16>,
}
