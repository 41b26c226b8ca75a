//! What goes, and what goes with it: the kernel removes more than it is told to.
use std::net::IpAddr;

use super::actual::KERNEL_PROTOCOL;
use super::{Actual, Address, Desired, LinkClaim, LiveLink, LiveRoute, Ownership, Route};
use crate::model::InterfaceName;

/// What is removed, and what the kernel then removes by itself.
pub(super) struct Going<'a> {
    actual: &'a Actual,
    /// Addresses to remove.
    pub(super) addresses: Vec<&'a Address>,
    /// Routes to remove.
    pub(super) routes: Vec<&'a LiveRoute>,
    /// Addresses that disappear with the first.
    lost_addresses: Vec<&'a Address>,
    /// Links that lose their last IPv4 address, even if another is added later.
    flushed_links: Vec<&'a InterfaceName>,
    /// Links that are removed.
    stale_links: Vec<&'a InterfaceName>,
}

impl<'a> Going<'a> {
    pub(super) fn new(desired: &Desired, actual: &'a Actual, ownership: &Ownership<'_>) -> Self {
        let addresses: Vec<&Address> = actual
            .addresses
            .iter()
            .filter(|live| {
                let wanted_link = desired.links.iter().any(|link| link.name == live.link);
                wanted_link
                    && ownership.owns_link(live.link.as_str())
                    && !is_link_local(live.address)
                    && !desired.addresses.contains(live)
            })
            .collect();
        let routes = actual
            .routes
            .iter()
            .filter(|live| {
                let wanted = desired
                    .routes
                    .iter()
                    .any(|wanted| live.is(wanted, desired.protocol));
                ownership.owns_route(live) && !wanted
            })
            .collect();
        let lost_addresses = lost_addresses(actual, &addresses);
        let flushed_links = flushed_links(desired, actual, &addresses, &lost_addresses);
        let stale = |link: &&LiveLink| ownership.claim(link) == LinkClaim::Stale;
        Self {
            actual,
            addresses,
            routes,
            lost_addresses,
            flushed_links,
            stale_links: actual
                .links
                .iter()
                .filter(stale)
                .map(|link| &link.name)
                .collect(),
        }
    }

    pub(super) fn takes_address(&self, address: &Address) -> bool {
        self.addresses.contains(&address) || self.lost_addresses.contains(&address)
    }

    /// Whether this route may stay until it makes room for `wanted`. One whose source goes earlier may not: it would no
    /// longer be the route that we know.
    pub(super) fn precedes(&self, live: &LiveRoute, wanted: &Route) -> bool {
        live.excludes(wanted)
            && self.routes.contains(&live)
            && !self.takes_route(live)
            && !self.takes_source(live)
    }

    /// Whether the kernel drops this route by itself: with its link, or with an address.
    pub(super) fn takes_route(&self, route: &LiveRoute) -> bool {
        let over = |name: &&InterfaceName| route.link.as_deref() == Some(name.as_str());
        if self.stale_links.iter().any(over) {
            return true;
        }
        if route.destination.is_ipv4() {
            self.takes_source(route) || self.flushed_links.iter().any(over)
        } else {
            self.takes_network(route)
        }
    }

    /// Whether the source of this route goes. IPv4 routes go with it (`fib_sync_down_addr` in `net/ipv4/fib_frontend.c`),
    /// IPv6 routes have none from then on (`rt6_remove_prefsrc` in `net/ipv6/route.c`).
    fn takes_source(&self, route: &LiveRoute) -> bool {
        let mut gone = self.addresses.iter().chain(&self.lost_addresses);
        gone.any(|address| route.source == Some(address.address))
    }

    /// The kernel's own IPv6 route to a network goes with the last address in it (`check_cleanup_prefix_route` in
    /// `net/ipv6/addrconf.c`). Those of IPv4 have the address as source.
    fn takes_network(&self, route: &LiveRoute) -> bool {
        let brings = |address: &Address| {
            address.network() == route.destination
                && route.link.as_deref() == Some(address.link.as_str())
        };
        let stays = |address: &&Address| !self.addresses.contains(address);
        route.protocol == KERNEL_PROTOCOL
            && self.addresses.iter().any(|gone| brings(gone))
            && !self.actual.addresses.iter().filter(stays).any(brings)
    }
}

/// Addresses that stay wanted, but lie in the network of one that is removed: if that one is the network's primary
/// address, its secondary ones go with it unless `promote_secondaries` is set (`__inet_del_ifa` in `net/ipv4/devinet.c`).
/// Adding an address that is still there does no harm.
fn lost_addresses<'a>(actual: &'a Actual, removed: &[&Address]) -> Vec<&'a Address> {
    let shares_network = |live: &Address, gone: &Address| {
        live.link == gone.link
            && live.prefix_len == gone.prefix_len
            && live.address.is_ipv4()
            && live.network().contains(gone.address)
    };
    actual
        .addresses
        .iter()
        .filter(|live| {
            !removed.contains(live) && removed.iter().any(|gone| shares_network(live, gone))
        })
        .collect()
}

/// Links all of whose IPv4 addresses go: the kernel then drops all their IPv4 routes (`fib_disable_ip` in
/// `net/ipv4/fib_frontend.c`).
fn flushed_links<'a>(
    desired: &Desired,
    actual: &'a Actual,
    removed: &[&Address],
    lost: &[&Address],
) -> Vec<&'a InterfaceName> {
    let keeps_one = |name: &InterfaceName| {
        actual.addresses.iter().any(|live| {
            live.link == *name
                && live.address.is_ipv4()
                && !removed.contains(&live)
                && !lost.contains(&live)
        })
    };
    let loses_one = |name: &InterfaceName| {
        let gone = |address: &&Address| address.link == *name && address.address.is_ipv4();
        removed.iter().any(gone)
    };
    actual
        .links
        .iter()
        .map(|link| &link.name)
        .filter(|name| desired.links.iter().any(|link| link.name == **name))
        .filter(|name| loses_one(name) && !keeps_one(name))
        .collect()
}

/// `fe80::/10`: the kernel gives one to every link that is up (RFC 4291 §2.1).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
