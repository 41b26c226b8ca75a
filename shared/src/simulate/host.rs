//! What a host knows beside its rules: which addresses are its own, and by which link it reaches others.
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::config::common::InterfaceAddress;
use crate::model::InterfaceName;
use crate::plan::actual::MAIN_TABLE;
use crate::plan::ruleset::Family;
use crate::plan::{self, Desired, Route, RoutingRule, Ruleset};

/// A host as far as our rules can tell: what we put there ourselves, and what is said of its other links.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) ruleset: Arc<Ruleset>,
    addresses: Vec<(InterfaceName, InterfaceAddress)>,
    /// Links with addresses that nobody has told.
    anonymous: Vec<InterfaceName>,
    routes: Vec<Route>,
    rules: Vec<RoutingRule>,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination<'h> {
    /// To the host itself.
    Local,
    /// Over a link.
    Link(&'h InterfaceName),
    /// There is no route.
    Nowhere,
}

/// What a host has as address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// This one.
    Address(IpAddr),
    /// One that nobody has told.
    Unknown,
    /// None of this family.
    None,
}

impl Host {
    /// With what is ours on it, and nothing else.
    pub fn of(desired: Desired) -> Self {
        let host = Self {
            ruleset: Arc::new(desired.ruleset),
            addresses: Vec::new(),
            anonymous: Vec::new(),
            routes: desired.routes,
            rules: desired.rules,
        };
        desired.addresses.into_iter().fold(host, |host, of_link| {
            let address = InterfaceAddress {
                address: of_link.address,
                prefix_len: of_link.prefix_len,
            };
            host.with_address(&of_link.link, address)
        })
    }

    /// With what is ours on it, among the addresses and routes of the rest of the host.
    pub fn among(desired: Desired, rest: &plan::Host) -> Self {
        let ours: Vec<InterfaceName> = desired.links.iter().map(|link| link.name.clone()).collect();
        let mut host = Self::of(desired);
        for (link, address) in rest.addresses() {
            let address = InterfaceAddress {
                address,
                prefix_len: Family::of(address).bits(),
            };
            if !ours.contains(&link) {
                host.addresses.push((link, address));
            }
        }
        for (link, destination) in rest.main_routes() {
            if !ours.contains(&link) {
                host = host.with_route(destination, &link);
            }
        }
        host
    }

    /// With another address, and the route that the kernel makes of it.
    #[must_use]
    pub fn with_address(mut self, link: &InterfaceName, address: InterfaceAddress) -> Self {
        self.addresses.push((link.clone(), address));
        self.with_route(address.network(), link)
    }

    /// With a link whose addresses are not known.
    #[must_use]
    pub fn with_anonymous_link(mut self, link: &InterfaceName) -> Self {
        self.anonymous.push(link.clone());
        self
    }

    /// With another route of the main table.
    #[must_use]
    pub fn with_route(mut self, destination: IpNetwork, link: &InterfaceName) -> Self {
        self.routes.push(Route {
            destination,
            link: link.clone(),
            table: MAIN_TABLE,
            source: None,
        });
        self
    }

    /// Whether an address is its own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let mut addresses = self.addresses.iter();
        address.is_loopback() || addresses.any(|(_, own)| own.address == address)
    }

    /// The link over which packets without a mark go to an address; `None` when they go nowhere or to the host itself.
    pub fn link_towards(&self, address: IpAddr) -> Option<&InterfaceName> {
        match self.route(address, 0) {
            Destination::Link(link) => Some(link),
            Destination::Local | Destination::Nowhere => None,
        }
    }

    /// Own addresses first; then the tables of the rules that the mark is for, by priority; then the main table.
    pub(super) fn route(&self, to: IpAddr, mark: u32) -> Destination<'_> {
        if self.is_local(to) {
            return Destination::Local;
        }
        let mut rules: Vec<&RoutingRule> = self
            .rules
            .iter()
            .filter(|rule| rule.ipv6 == to.is_ipv6() && mark & rule.mask == rule.mark)
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        let mut tables = rules.iter().map(|rule| rule.table).chain([MAIN_TABLE]);
        let found = tables.find_map(|table| self.route_of(table, to));
        found.map_or(Destination::Nowhere, |route| Destination::Link(&route.link))
    }

    /// The longest one; of several, the one that was there first.
    fn route_of(&self, table: u32, to: IpAddr) -> Option<&Route> {
        let routes = self.routes.iter();
        let fitting = routes.filter(|r| r.table == table && r.destination.contains(to));
        fitting.rev().max_by_key(|route| route.destination.prefix())
    }

    /// A link that a route leads over.
    pub(super) fn link_named(&self, name: &InterfaceName) -> Option<&InterfaceName> {
        let mut links = self.routes.iter().map(|route| &route.link);
        links.find(|link| *link == name)
    }

    /// The address with which packets to another one leave over a link: of its network if there is such, else the first
    /// (`inet_select_addr`).
    pub(super) fn own_address(&self, link: &InterfaceName, to: IpAddr) -> Own {
        let of_link = self.addresses.iter().filter(|(of, _)| of == link);
        let addresses = of_link.map(|(_, address)| address);
        let mut addresses = addresses.filter(|own| own.address.is_ipv4() == to.is_ipv4());
        let near = addresses.clone().find(|own| own.network().contains(to));
        match near.or_else(|| addresses.next()) {
            Some(own) => Own::Address(own.address),
            None if self.anonymous.contains(link) => Own::Unknown,
            None => Own::None,
        }
    }
}
