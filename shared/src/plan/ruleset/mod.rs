//! An nftables table as plain data. `Display` gives the text that `nft -f` takes; the `nft` crate gives the same to the
//! kernel as one transaction.
mod name;
mod range;
mod text;

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::config::common::{PortRange, Protocol};
use crate::model::InterfaceName;

pub use name::{MAX_NAME_LEN, is_valid_name};
pub use range::{AddressRange, merge_networks, merged_ports, merged_ranges};

/// One table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Name of the table.
    pub table: String,
    /// Named sets of addresses.
    pub sets: Vec<Set>,
    /// Named verdict maps.
    pub maps: Vec<VerdictMap>,
    /// Chains in the order in which they are listed; a chain stands before the rules that jump to it are added.
    pub chains: Vec<Chain>,
}

/// Address family of a set or of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Family of a network.
    pub const fn of_network(network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(_) => Self::Ipv4,
            IpNetwork::V6(_) => Self::Ipv6,
        }
    }
}

/// `set NAME { type ipv4_addr; flags interval; elements = { … } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Type of the elements.
    pub family: Family,
    /// Networks, sorted, without overlap and with touching ones merged (see [`merge_networks`]).
    pub elements: Vec<IpNetwork>,
}

/// `map NAME { type ipv4_addr : verdict; elements = { 10.17.0.10 : jump role_admin, … } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictMap {
    /// Name.
    pub name: String,
    /// Type of the keys.
    pub family: Family,
    /// Address → chain to jump to; sorted by address. Thousands of them share a few names.
    pub elements: Vec<(IpAddr, Arc<str>)>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// Where it is hooked in; `None` for a chain that others jump to.
    pub base: Option<BaseChain>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// `type … hook … priority …; policy accept;`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// Type.
    pub kind: ChainKind,
    /// Hook.
    pub hook: Hook,
    /// Priority: see the constants of [`priority`].
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// `filter`.
    Filter,
    /// `nat`.
    Nat,
    /// `route`: like filter on the output hook, but a changed mark routes the packet again.
    Route,
}

/// Netfilter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// Standard priorities (`include/uapi/linux/netfilter_ipv4.h`).
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Where marks are set.
    pub const MANGLE: i32 = -150;
    /// Where DNAT happens.
    pub const DSTNAT: i32 = -100;
    /// Where packets are filtered.
    pub const FILTER: i32 = 0;
    /// Where SNAT happens.
    pub const SRCNAT: i32 = 100;
}

/// A rule: statements from left to right; a match that fails ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Matches and statements.
    pub parts: Vec<Part>,
    /// `comment "…"`: at most 128 bytes, no quotes.
    pub comment: Option<String>,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `saddr`, `sport`.
    Source,
    /// `daddr`, `dport`.
    Destination,
}

/// A match or statement. The listing of each is in the documentation of its variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `iifname "edge0"`, `iifname != "edge0"`.
    InputInterface {
        /// Name.
        name: InterfaceName,
        /// `!=`.
        negated: bool,
    },
    /// `oifname "edge0"`, `oifname != "edge0"`.
    OutputInterface {
        /// Name.
        name: InterfaceName,
        /// `!=`.
        negated: bool,
    },
    /// `ip saddr 10.17.0.0/16`, `ip6 daddr fd00::1`, with `!=` when negated; a prefix of full length lists as an address.
    Address {
        /// Which end.
        side: Side,
        /// Network.
        network: IpNetwork,
        /// `!=`.
        negated: bool,
    },
    /// `ip saddr @cf4`, `ip6 saddr != @cf6`.
    AddressInSet {
        /// Which end.
        side: Side,
        /// Family of the set.
        family: Family,
        /// Name of the set.
        set: String,
        /// `!=`.
        negated: bool,
    },
    /// `meta nfproto ipv4`.
    NetworkFamily(Family),
    /// `tcp dport 443`, `udp dport { 53, 3000-3010 }`: an anonymous set when there are several. Sorted, no overlap.
    Ports {
        /// Protocol.
        protocol: Protocol,
        /// Which end.
        side: Side,
        /// Ports; never empty.
        ports: Vec<PortRange>,
    },
    /// `meta l4proto tcp`.
    TransportProtocol(Protocol),
    /// `icmp type echo-request` or `icmpv6 type echo-request`.
    EchoRequest(Family),
    /// `icmp type redirect` or `icmpv6 type nd-redirect`.
    Redirect(Family),
    /// `fib daddr type local`.
    DestinationIsLocal,
    /// `fib saddr oifname != "edge0"`: the way back to the source does not lead over this link.
    SourceNotRoutedVia(InterfaceName),
    /// `ct state established,related`.
    CtEstablishedRelated,
    /// `ct state related`: what belongs to a connection without being part of it, ICMP errors above all.
    CtRelated,
    /// `ct direction reply`: from the end that did not open the connection.
    CtDirectionReply,
    /// `ct state new`.
    CtNew,
    /// `ct state invalid`.
    CtInvalid,
    /// `ct status dnat`.
    CtStatusDnat,
    /// `ct mark & MASK == VALUE`, or `!=` when negated (nft lists `ct mark & 0x3f000000 != 0x00000000`).
    CtMark {
        /// Bits that count.
        mask: u32,
        /// Their value.
        value: u32,
        /// `!=`.
        negated: bool,
    },
    /// `ct mark set ct mark & KEEP | VALUE`: `KEEP` are the bits of others, which stay.
    SetCtMark {
        /// Bits that stay.
        keep: u32,
        /// Bits that are set.
        value: u32,
    },
    /// `meta mark set ct mark`, only the bits of `mask`, the other bits of the packet's mark staying where nftables of
    /// the supported kernels can say so; else `meta mark set ct mark & MASK`.
    SetMarkFromCt {
        /// Bits that are copied.
        mask: u32,
    },
    /// `tcp flags syn tcp option maxseg size set rt mtu` for `tcp flags & syn != 0`.
    ClampMss,
    /// `notrack`.
    Notrack,
    /// `counter`.
    Counter,
    /// `counter name "publish_ingress"`: an object of the table that [`Ruleset`] declares by use.
    NamedCounter(String),
    /// `dnat ip to 10.17.5.30`, `dnat ip to 10.17.5.30:443`, `dnat ip6 to [fd00::1]:443`.
    Dnat {
        /// New destination.
        address: IpAddr,
        /// New port; `None` keeps it.
        port: Option<u16>,
    },
    /// `masquerade`.
    Masquerade,
    /// `snat ip to 192.168.0.20`, `snat ip to 192.168.0.20-192.168.0.23`: which of them depends on source and destination alone
    /// (`find_best_ips_proto` of `net/netfilter/nf_nat_core.c`).
    Snat(AddressRange),
    /// `ip saddr vmap @peers4`.
    SourceVerdictMap {
        /// Family of the map.
        family: Family,
        /// Name of the map.
        map: String,
    },
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `return`.
    Return,
    /// `jump NAME`.
    Jump(String),
}

impl Ruleset {
    /// Names of the named counters in the order of their first use: the objects that the table declares.
    pub fn counters(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for part in self
            .chains
            .iter()
            .flat_map(|c| &c.rules)
            .flat_map(|r| &r.parts)
        {
            if let Part::NamedCounter(name) = part {
                if !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
        }
        names
    }
}

impl Set {
    /// The elements as the kernel gets them: sorted, touching and overlapping networks joined to one range.
    ///
    /// 104.16.0.0/13 and 104.24.0.0/14 are no network together, but one interval: 104.16.0.0-104.27.255.255.
    pub fn ranges(&self) -> Vec<AddressRange> {
        merged_ranges(self.elements.iter().copied())
    }
}
