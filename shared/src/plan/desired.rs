//! The kernel state that a configuration asks for.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Ruleset;
use crate::model::InterfaceName;

/// Who made a route or a rule: the number after `proto` in `ip route` and `ip rule`. Each daemon has its own, so that
/// both can live on one machine and each finds what it made, even in a table that its configuration no longer names.
///
/// The kernel leaves everything above `RTPROT_STATIC` (4) to user space (`include/uapi/linux/rtnetlink.h`); these numbers
/// are taken neither there nor in iproute2's `rt_protos`.
pub mod protocol {
    /// `proto 175`: the gateway.
    pub const GATEWAY: u8 = 175;
    /// `proto 176`: the LAN server.
    pub const LAN_SERVER: u8 = 176;
}

/// Everything that a daemon keeps in the kernel. Peers are not kernel state: see [`crate::wg::DeviceChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Marks our routes and rules: a constant of [`protocol`].
    pub protocol: u8,
    /// Our TUN links.
    pub links: Vec<Link>,
    /// Addresses on our links; others on these links are removed, but for link-local IPv6 ones.
    pub addresses: Vec<Address>,
    /// Routes over our links or in our tables; others over our links or in our tables are removed, but for those that
    /// the kernel makes itself (`proto kernel`). A network that an address of ours brings along needs no route here; it
    /// may have one, which is then added only when the kernel's own is missing.
    pub routes: Vec<Route>,
    /// Policy routing rules; others that point to our tables are removed. A table is ours when a route or rule of this
    /// value names it, unless it is one of the kernel's own (`default`, `main`, `local`).
    pub rules: Vec<RoutingRule>,
    /// Kernel switches.
    pub sysctls: Vec<Sysctl>,
    /// The nftables table.
    pub ruleset: Ruleset,
}

/// A TUN link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Name.
    pub name: InterfaceName,
    /// `ip link set alias`: marks the link as ours, so that a foreign link of the same name is never touched.
    pub alias: String,
    /// Bytes.
    pub mtu: u32,
    /// Length of the TUN queue in packets.
    pub txqueuelen: u32,
}

/// An address of a link.
#[expect(
    clippy::struct_field_names,
    reason = "an address with its link and prefix length"
)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Link.
    pub link: InterfaceName,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_len: u8,
}

/// A route to a link without a next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub destination: IpNetwork,
    /// Link.
    pub link: InterfaceName,
    /// Table: 254 is main.
    pub table: u32,
    /// Preferred source address (`src`).
    pub source: Option<IpAddr>,
}

/// `ip rule add pref PRIORITY fwmark MARK/MASK lookup TABLE`, for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutingRule {
    /// Whether it is a rule of `ip -6 rule`.
    pub ipv6: bool,
    /// Priority (`pref`).
    pub priority: u32,
    /// Mark.
    pub mark: u32,
    /// Bits of the mark that count.
    pub mask: u32,
    /// Table.
    pub table: u32,
}

/// A kernel switch under `/proc/sys`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Parts of the path, since link names may hold dots: `["net", "ipv4", "conf", "edge0", "rp_filter"]`.
    pub path: Vec<String>,
    /// Value as text.
    pub value: String,
    /// Belongs to one of our links: it goes with the link, so nothing has to be remembered or restored.
    pub of_our_link: bool,
}
