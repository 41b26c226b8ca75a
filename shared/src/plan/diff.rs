//! Desired minus actual, actual minus desired, in an order that fails closed.
//!
//! The steps, and the functions in the same order:
//! 1. what must go: rules, routes, addresses, stale links;
//! 2. what goes with it, because the kernel removes more than it is told to;
//! 3. what is missing: links, their attributes and switches, addresses, routes, rules, other switches, forwarding.
use std::net::IpAddr;

use super::actual::MAIN_TABLE;
use super::{
    Actual, Address, Change, Changes, Conflict, Desired, Link, LinkClaim, LiveLink, LiveRoute,
    Ownership, Route, Sysctl,
};
use crate::model::InterfaceName;

/// The changes that lead from `actual` to `desired`. The ruleset is not looked at: see [`Changes`] for its place.
///
/// When they have been applied, the difference is empty; conflicts stay.
pub fn difference(desired: &Desired, actual: &Actual) -> Changes {
    let ownership = Ownership::new(desired, actual);
    let going = Going::new(desired, actual, &ownership);
    let missing = Missing {
        desired,
        actual,
        ownership: &ownership,
        going: &going,
    };
    let mut before = Vec::new();
    remove_rules(desired, actual, &ownership, &mut before);
    remove_routes(&missing.routes(), &going, &mut before);
    remove_addresses(&going, &mut before);
    remove_links(actual, &ownership, &[LinkClaim::Stale], &mut before);

    let mut after = Vec::new();
    missing.add_links(&mut after);
    missing.add_addresses(&mut after);
    missing.add_routes(&mut after);
    missing.add_rules(&mut after);
    missing.set_sysctls(&mut after);
    Changes {
        before_ruleset: before,
        after_ruleset: after,
        conflicts: missing.conflicts(),
    }
}

/// The changes that remove everything of ours, wanted or not: what `down` does. Sysctls are not in it: see
/// `shared_os::sysctl::Remembered`.
pub fn removal(desired: &Desired, actual: &Actual) -> Vec<Change> {
    let ownership = Ownership::new(desired, actual);
    let mut changes = Vec::new();
    let rules = actual.rules.iter().filter(|rule| ownership.owns_rule(rule));
    changes.extend(rules.copied().map(Change::RemoveRule));
    let routes = actual
        .routes
        .iter()
        .filter(|route| ownership.owns_route(route));
    changes.extend(routes.cloned().map(Change::RemoveRoute));
    // Addresses go with their link.
    remove_links(
        actual,
        &ownership,
        &[LinkClaim::Ours, LinkClaim::Stale],
        &mut changes,
    );
    changes
}

// 1. What must go.

fn remove_rules(
    desired: &Desired,
    actual: &Actual,
    ownership: &Ownership<'_>,
    changes: &mut Vec<Change>,
) {
    let unwanted = actual.rules.iter().filter(|live| {
        let wanted =
            live.plain && live.protocol == desired.protocol && desired.rules.contains(&live.rule);
        ownership.owns_rule(live) && !wanted
    });
    changes.extend(unwanted.copied().map(Change::RemoveRule));
}

/// Routes with a successor wait until it is added, so that the gap is only that of two system calls.
fn remove_routes(added: &[&Route], going: &Going<'_>, changes: &mut Vec<Change>) {
    let waits = |live: &LiveRoute| added.iter().any(|wanted| going.precedes(live, wanted));
    let now = going.routes.iter().filter(|live| !waits(live));
    changes.extend(now.map(|&live| Change::RemoveRoute(live.clone())));
}

fn remove_addresses(going: &Going<'_>, changes: &mut Vec<Change>) {
    let addresses = going.addresses.iter().copied().cloned();
    changes.extend(addresses.map(Change::RemoveAddress));
}

fn remove_links(
    actual: &Actual,
    ownership: &Ownership<'_>,
    claims: &[LinkClaim],
    changes: &mut Vec<Change>,
) {
    let going = actual
        .links
        .iter()
        .filter(|link| claims.contains(&ownership.claim(link)));
    changes.extend(going.map(|link| Change::RemoveLink {
        name: link.name.clone(),
        alias: link.alias.clone(),
    }));
}

// 2. What goes with it.

/// What is removed, and what the kernel then removes by itself.
struct Going<'a> {
    /// Addresses to remove.
    addresses: Vec<&'a Address>,
    /// Routes to remove.
    routes: Vec<&'a LiveRoute>,
    /// Addresses that disappear with the first.
    lost_addresses: Vec<&'a Address>,
    /// Links that lose their last IPv4 address, even if another is added later.
    flushed_links: Vec<&'a InterfaceName>,
    /// Links that are removed.
    stale_links: Vec<&'a InterfaceName>,
}

impl<'a> Going<'a> {
    fn new(desired: &Desired, actual: &'a Actual, ownership: &Ownership<'_>) -> Self {
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

    fn takes_address(&self, address: &Address) -> bool {
        self.addresses.contains(&address) || self.lost_addresses.contains(&address)
    }

    /// Whether this route makes room for `wanted` by being removed.
    fn precedes(&self, live: &LiveRoute, wanted: &Route) -> bool {
        live.excludes(wanted) && self.routes.contains(&live) && !self.takes_route(live)
    }

    /// Whether the kernel drops this route by itself: with its link, or with an address. The latter it does for IPv4
    /// only (`fib_sync_down_addr`, `fib_disable_ip` in `net/ipv4/fib_frontend.c`).
    fn takes_route(&self, route: &LiveRoute) -> bool {
        let over = |name: &&InterfaceName| route.link.as_deref() == Some(name.as_str());
        if self.stale_links.iter().any(over) {
            return true;
        }
        let source_goes = route.source.is_some_and(|source| {
            let mut gone = self.addresses.iter().chain(&self.lost_addresses);
            gone.any(|address| address.address == source)
        });
        route.destination.is_ipv4() && (source_goes || self.flushed_links.iter().any(over))
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

/// Links all of whose IPv4 addresses go: the kernel then drops all their IPv4 routes.
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

// 3. What is missing.

struct Missing<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    ownership: &'a Ownership<'a>,
    going: &'a Going<'a>,
}

impl Missing<'_> {
    fn add_links(&self, changes: &mut Vec<Change>) {
        let usable = |link: &&Link| self.ownership.may_use(self.actual, &link.name);
        for link in self.desired.links.iter().filter(usable) {
            self.add_link(link, changes);
        }
    }

    /// The link with its attributes and switches, up at last.
    fn add_link(&self, link: &Link, changes: &mut Vec<Change>) {
        let live = self.actual.link(&link.name);
        let name = link.name.clone();
        if live.is_none() {
            changes.push(Change::AddLink(link.clone()));
        }
        if live.is_none_or(|live| live.alias != link.alias) {
            let alias = link.alias.clone();
            changes.push(Change::SetLinkAlias {
                name: name.clone(),
                alias,
            });
        }
        if live.is_none_or(|live| live.mtu != link.mtu) {
            changes.push(Change::SetLinkMtu {
                name: name.clone(),
                mtu: link.mtu,
                was: live.map(|live| live.mtu),
            });
        }
        if live.is_none_or(|live| live.txqueuelen != link.txqueuelen) {
            changes.push(Change::SetLinkTxQueueLen {
                name: name.clone(),
                txqueuelen: link.txqueuelen,
                was: live.map(|live| live.txqueuelen),
            });
        }
        let switches = self.desired.sysctls.iter().filter(|sysctl| {
            sysctl.of_our_link && sysctl.path.iter().any(|part| part == link.name.as_str())
        });
        changes.extend(switches.filter_map(|sysctl| self.set_sysctl(sysctl)));
        if live.is_none_or(|live| !live.up) {
            changes.push(Change::SetLinkUp { name });
        }
    }

    fn add_addresses(&self, changes: &mut Vec<Change>) {
        let missing = self
            .desired
            .addresses
            .iter()
            .filter(|wanted| self.lacks_address(wanted));
        changes.extend(missing.cloned().map(Change::AddAddress));
    }

    fn lacks_address(&self, wanted: &Address) -> bool {
        let stays = self.actual.addresses.contains(wanted) && !self.going.takes_address(wanted);
        !stays && self.ownership.may_use(self.actual, &wanted.link)
    }

    fn add_routes(&self, changes: &mut Vec<Change>) {
        for wanted in self.routes() {
            let predecessors = self
                .going
                .routes
                .iter()
                .filter(|live| self.going.precedes(live, wanted));
            changes.extend(predecessors.map(|&live| Change::RemoveRoute(live.clone())));
            changes.push(Change::AddRoute {
                route: wanted.clone(),
                protocol: self.desired.protocol,
            });
        }
    }

    /// Routes to add: those that are missing and that nothing foreign excludes.
    fn routes(&self) -> Vec<&Route> {
        let wanted = self.desired.routes.iter();
        wanted
            .filter(|wanted| self.lacks_route(wanted) && self.in_the_way(wanted).is_none())
            .collect()
    }

    /// What is wanted, but its place is taken by something that is not ours to move.
    fn conflicts(&self) -> Vec<Conflict> {
        let links = self.desired.links.iter().filter_map(|wanted| {
            let live = self.actual.link(&wanted.name)?;
            let is_foreign = self.ownership.claim(live) == LinkClaim::Foreign;
            is_foreign.then(|| Conflict::LinkTaken(live.clone()))
        });
        let wanted = self
            .desired
            .routes
            .iter()
            .filter(|wanted| self.lacks_route(wanted));
        let routes = wanted.filter_map(|wanted| {
            Some(Conflict::RouteTaken {
                wanted: wanted.clone(),
                by: self.in_the_way(wanted)?.clone(),
            })
        });
        links.chain(routes).collect()
    }

    /// A route that is not ours, stays, and excludes `wanted`.
    fn in_the_way(&self, wanted: &Route) -> Option<&LiveRoute> {
        self.actual.routes.iter().find(|live| {
            live.excludes(wanted)
                && !self.ownership.owns_route(live)
                && !self.going.takes_route(live)
        })
    }

    fn lacks_route(&self, wanted: &Route) -> bool {
        self.ownership.may_use(self.actual, &wanted.link) && !self.has_route(wanted)
    }

    fn has_route(&self, wanted: &Route) -> bool {
        let protocol = self.desired.protocol;
        let is_there = self.actual.routes.iter().any(|live| {
            let does_it = live.is(wanted, protocol) || live.is_kernel_made(wanted);
            does_it && !self.going.takes_route(live)
        });
        is_there || self.kernel_makes(wanted)
    }

    /// Whether the route to the network of one of our addresses appears by itself: when the address is added, or when
    /// its link comes up.
    fn kernel_makes(&self, wanted: &Route) -> bool {
        let comes_up = self.actual.link(&wanted.link).is_none_or(|link| !link.up);
        wanted.table == MAIN_TABLE
            && self.desired.addresses.iter().any(|address| {
                address.link == wanted.link
                    && address.network() == wanted.destination
                    && brings_source(address, wanted.source)
                    && (comes_up || self.lacks_address(address))
            })
    }

    fn add_rules(&self, changes: &mut Vec<Change>) {
        let protocol = self.desired.protocol;
        let missing = self.desired.rules.iter().filter(|wanted| {
            let is_there = |live: &super::LiveRule| {
                live.plain && live.protocol == protocol && live.rule == **wanted
            };
            !self.actual.rules.iter().any(is_there)
        });
        changes.extend(missing.map(|&rule| Change::AddRule { rule, protocol }));
    }

    /// Switches that are not of a link, forwarding last: packets of others flow only when all else stands.
    fn set_sysctls(&self, changes: &mut Vec<Change>) {
        let of_link = |sysctl: &&Sysctl| {
            let has_name = |link: &Link| sysctl.path.iter().any(|part| part == link.name.as_str());
            sysctl.of_our_link && self.desired.links.iter().any(has_name)
        };
        let general = self
            .desired
            .sysctls
            .iter()
            .filter(|sysctl| !of_link(sysctl));
        let (forwarding, others): (Vec<_>, Vec<_>) =
            general.partition(|sysctl| is_forwarding(sysctl));
        let ordered = others.into_iter().chain(forwarding);
        changes.extend(ordered.filter_map(|sysctl| self.set_sysctl(sysctl)));
    }

    fn set_sysctl(&self, wanted: &Sysctl) -> Option<Change> {
        let live = self
            .actual
            .sysctls
            .iter()
            .find(|live| live.path == wanted.path);
        let was = live.and_then(|live| live.value.clone());
        let is_set = was
            .as_deref()
            .is_some_and(|was| same_value(was, &wanted.value));
        (!is_set).then(|| Change::SetSysctl {
            sysctl: wanted.clone(),
            was,
        })
    }
}

/// Whether two values of a switch are the same but for white space: the kernel lists vectors with tabs.
pub fn same_value(left: &str, right: &str) -> bool {
    left.split_whitespace().eq(right.split_whitespace())
}

fn is_forwarding(sysctl: &Sysctl) -> bool {
    let last = sysctl.path.last().map(String::as_str);
    matches!(last, Some("ip_forward" | "forwarding"))
}

/// Whether the kernel's route for this address has this source. For IPv6 it makes it without one.
fn brings_source(address: &Address, source: Option<IpAddr>) -> bool {
    source.is_none() || (source == Some(address.address) && address.address.is_ipv4())
}

/// `fe80::/10`: the kernel gives one to every link that is up (RFC 4291 §2.1).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
