//! The kernel state that is there, as far as it concerns a [`Desired`].
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Address, Desired, Link, Ownership, Route, RoutingRule};
use crate::model::InterfaceName;

/// `RT_TABLE_MAIN` of the kernel's `include/uapi/linux/rtnetlink.h`.
pub const MAIN_TABLE: u32 = 254;
/// `RT_TABLE_LOCAL`: addresses and broadcasts; the kernel's alone.
pub const LOCAL_TABLE: u32 = 255;
/// `RT_TABLE_DEFAULT`: empty on most machines, but everyone's.
pub const DEFAULT_TABLE: u32 = 253;
/// `RTPROT_KERNEL`: routes that the kernel makes when an address is added.
pub const KERNEL_PROTOCOL: u8 = 2;
/// `RTN_UNICAST`: a route that leads to a link.
pub const UNICAST: u8 = 1;
/// `IP6_RT_PRIO_USER` of `include/net/ip6_fib.h`: the metric of an IPv6 route that was added without one.
pub const IPV6_DEFAULT_METRIC: u32 = 1024;

/// What is live. Foreign objects are included where they stand in the way or are worth a warning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Links with the name or the alias of a desired link.
    pub links: Vec<LiveLink>,
    /// Addresses of these links.
    pub addresses: Vec<Address>,
    /// Routes over these links, routes in our tables, routes with our protocol number, routes that exclude a desired one,
    /// and every route of the main table that overlaps one of ours there or a network of our addresses; for overlaps,
    /// default routes don't count.
    pub routes: Vec<LiveRoute>,
    /// Rules that point to our tables or carry our protocol number.
    pub rules: Vec<LiveRule>,
    /// The desired sysctls, in the same order.
    pub sysctls: Vec<LiveSysctl>,
}

impl Actual {
    /// The link of this name.
    pub fn link(&self, name: &InterfaceName) -> Option<&LiveLink> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The network at another link that this route of the main table would take hosts from: the hosts next to us are found
    /// by a route without a next hop, and a narrower one, or the same with a lower metric, wins.
    pub fn neighbours_taken_by(&self, wanted: &Route) -> Option<&LiveRoute> {
        self.routes.iter().find(|route| {
            route.table == MAIN_TABLE
                && wanted.table == MAIN_TABLE
                && route.route_type == UNICAST
                && route.gateway.is_none()
                && route
                    .link
                    .as_deref()
                    .is_some_and(|link| link != wanted.link.as_str())
                && route.destination.prefix() > 0
                && route.destination.prefix() <= wanted.destination.prefix()
                && route.destination.contains(wanted.destination.network())
        })
    }

    /// Given all there is in the kernel, keep what concerns `desired`.
    pub fn retain_relevant(&mut self, desired: &Desired) {
        let named = |link: &LiveLink, wanted: &Link| {
            link.name == wanted.name || (link.alias == wanted.alias && !link.alias.is_empty())
        };
        self.links
            .retain(|link| desired.links.iter().any(|wanted| named(link, wanted)));
        let on_link = |name: &str| self.links.iter().any(|link| link.name.as_str() == name);
        self.addresses
            .retain(|address| on_link(address.link.as_str()));

        let ownership = Ownership::new(desired, self);
        let overlaps = |route: &LiveRoute| {
            let ours = desired
                .routes
                .iter()
                .filter(|ours| ours.table == MAIN_TABLE);
            let ours = ours
                .map(|ours| ours.destination)
                .filter(|network| network.prefix() > 0);
            let ours = ours.chain(desired.addresses.iter().map(Address::network));
            let is_main = route.table == MAIN_TABLE && route.destination.prefix() > 0;
            is_main
                && ours
                    .into_iter()
                    .any(|network| overlap(network, route.destination))
        };
        let relevant = |route: &LiveRoute| {
            route.table != LOCAL_TABLE
                && (ownership.owns_route(route)
                    || route.link.as_deref().is_some_and(on_link)
                    || desired.routes.iter().any(|wanted| route.excludes(wanted))
                    || overlaps(route))
        };
        let routes = self
            .routes
            .iter()
            .filter(|route| relevant(route))
            .cloned()
            .collect();
        let owned = |rule: &&LiveRule| ownership.owns_rule(rule);
        let rules = self.rules.iter().filter(owned).copied().collect();
        self.routes = routes;
        self.rules = rules;
    }
}

fn overlap(left: IpNetwork, right: IpNetwork) -> bool {
    left.contains(right.network()) || right.contains(left.network())
}

impl Address {
    /// The network that the address lies in.
    pub fn network(&self) -> IpNetwork {
        IpNetwork::new(self.address, self.prefix_len)
            .and_then(|network| IpNetwork::new(network.network(), self.prefix_len))
            .unwrap_or_else(|_| IpNetwork::from(self.address))
    }
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// A TUN device: the only kind we make and the only kind we remove.
    Tun,
    /// Another kind as `ip -d link` names it (`veth`, `bridge`, `tap`, …), or `physical` where it names none.
    Other(String),
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tun => f.write_str("tun"),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLink {
    /// Name.
    pub name: InterfaceName,
    /// Kind.
    pub kind: LinkKind,
    /// Alias; empty when there is none.
    pub alias: String,
    /// Bytes.
    pub mtu: u32,
    /// Packets.
    pub txqueuelen: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
}

/// A route, in as much detail as it takes to remove exactly this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRoute {
    /// Destination.
    pub destination: IpNetwork,
    /// Table.
    pub table: u32,
    /// Name of the link; `None` for routes that drop packets and for those with several next hops.
    pub link: Option<String>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Metric (`metric`, `RTA_PRIORITY`): of several routes to one destination the lowest wins.
    pub metric: u32,
    /// Type of service, 0 on nearly all routes.
    pub tos: u8,
    /// Who made it: `RTPROT_…`.
    pub protocol: u8,
    /// What it does: `RTN_…`, see [`UNICAST`].
    pub route_type: u8,
}

impl LiveRoute {
    /// Whether this is `route` as `protocol` would have made it.
    pub fn is(&self, route: &Route, protocol: u8) -> bool {
        self.leads_like(route)
            && self.source == route.source
            && self.protocol == protocol
            && self.metric == route.metric()
    }

    /// Whether the kernel itself made this route and it does what `route` asks for.
    pub fn is_kernel_made(&self, route: &Route) -> bool {
        self.protocol == KERNEL_PROTOCOL
            && self.leads_like(route)
            && (route.source.is_none() || self.source == route.source)
    }

    /// Whether the kernel refuses to have this route and `route` side by side (`EEXIST`).
    pub fn excludes(&self, route: &Route) -> bool {
        self.destination == route.destination
            && self.table == route.table
            && self.metric == route.metric()
            && self.tos == 0
    }

    fn leads_like(&self, route: &Route) -> bool {
        self.destination == route.destination
            && self.table == route.table
            && self.link.as_deref() == Some(route.link.as_str())
            && self.gateway.is_none()
            && self.tos == 0
            && self.route_type == UNICAST
    }
}

impl Route {
    /// The metric that the kernel gives this route: 0 for IPv4, [`IPV6_DEFAULT_METRIC`] for IPv6.
    pub const fn metric(&self) -> u32 {
        match self.destination {
            IpNetwork::V4(_) => 0,
            IpNetwork::V6(_) => IPV6_DEFAULT_METRIC,
        }
    }
}

/// A policy routing rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRule {
    /// The part that we can ask for.
    pub rule: RoutingRule,
    /// Who made it: `RTPROT_…`.
    pub protocol: u8,
    /// Whether `rule` tells everything about it. Others have further selectors (`from`, `iif`, …) or another action.
    pub plain: bool,
}

/// A kernel switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSysctl {
    /// Parts of the path.
    pub path: Vec<String>,
    /// Value without white space around it; `None` when the kernel has no such switch (yet).
    pub value: Option<String>,
}
