//! What is missing, from the link up to forwarding.
use std::net::IpAddr;

use super::actual::MAIN_TABLE;
use super::going::Going;
use super::{
    Actual, Address, Change, Conflict, Desired, Link, LinkClaim, LiveRoute, LiveRule, Ownership,
    Route, Sysctl,
};

/// Finds what is missing, given what goes.
pub(super) struct Missing<'a> {
    pub(super) desired: &'a Desired,
    pub(super) actual: &'a Actual,
    pub(super) ownership: &'a Ownership<'a>,
    pub(super) going: &'a Going<'a>,
}

impl Missing<'_> {
    pub(super) fn add_links(&self, changes: &mut Vec<Change>) {
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

    pub(super) fn add_addresses(&self, changes: &mut Vec<Change>) {
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

    pub(super) fn add_routes(&self, changes: &mut Vec<Change>) {
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
    pub(super) fn routes(&self) -> Vec<&Route> {
        let wanted = self.desired.routes.iter();
        wanted
            .filter(|wanted| self.lacks_route(wanted) && self.in_the_way(wanted).is_none())
            .collect()
    }

    /// What is wanted, but its place is taken by something that is not ours to move.
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let links = self.desired.links.iter().filter_map(|wanted| {
            let live = self.actual.link(&wanted.name)?;
            let is_foreign = self.ownership.claim(live) == LinkClaim::Foreign;
            is_foreign.then(|| Conflict::LinkTaken(live.clone()))
        });
        let routes = self.desired.routes.iter().filter_map(|wanted| {
            Some(Conflict::RouteTaken {
                wanted: wanted.clone(),
                by: self.in_the_way(wanted)?.clone(),
            })
        });
        links.chain(routes).collect()
    }

    /// A route that is not ours, stays, and excludes `wanted`. It may even stand beside ours or the kernel's own (`ip route
    /// append`), and then decides the packets' way.
    fn in_the_way(&self, wanted: &Route) -> Option<&LiveRoute> {
        let mut routes = self
            .actual
            .routes
            .iter()
            .filter(|live| live.excludes(wanted));
        let found = routes.find(|live| {
            !self.ownership.owns_route(live)
                && !self.going.takes_route(live)
                && !live.is_kernel_made(wanted)
        });
        found.filter(|_| self.ownership.may_use(self.actual, &wanted.link))
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

    pub(super) fn add_rules(&self, changes: &mut Vec<Change>) {
        let protocol = self.desired.protocol;
        let missing = self.desired.rules.iter().filter(|wanted| {
            let is_there =
                |live: &LiveRule| live.plain && live.protocol == protocol && live.rule == **wanted;
            !self.actual.rules.iter().any(is_there)
        });
        changes.extend(missing.map(|&rule| Change::AddRule { rule, protocol }));
    }

    /// Switches that are not of a link, forwarding last: packets of others flow only when all else stands.
    pub(super) fn set_sysctls(&self, changes: &mut Vec<Change>) {
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
