//! Desired minus actual, actual minus desired, in an order that fails closed.
//!
//! The steps:
//! 1. what must go: rules, routes, addresses, stale links (this file and `going.rs`);
//! 2. what goes with it, because the kernel removes more than it is told to (`going.rs`);
//! 3. what is missing: links, their attributes and switches, addresses, routes, rules, other switches, forwarding
//!    (`missing.rs`).
use super::going::Going;
use super::missing::Missing;
use super::{Actual, Change, Changes, Desired, LinkClaim, LiveRoute, Ownership, Route};

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
