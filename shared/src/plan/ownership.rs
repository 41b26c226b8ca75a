//! What is ours: the one place that decides which kernel objects may be touched.
use std::collections::BTreeSet;

use super::actual::{DEFAULT_TABLE, KERNEL_PROTOCOL, LOCAL_TABLE, MAIN_TABLE};
use super::{Actual, Desired, LinkKind, LiveLink, LiveRoute, LiveRule};
use crate::model::InterfaceName;

/// Whose a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkClaim {
    /// A TUN link with our name and our alias.
    Ours,
    /// A TUN link with our name and no alias: as the data path makes it. It is configured, which includes the alias, but
    /// [`removal`](super::removal) leaves it alone.
    Unmarked,
    /// A TUN link with our alias under a name that is no longer wanted: left over from an earlier configuration.
    Stale,
    /// Somebody else's. Never touched, nor anything on it.
    Foreign,
}

/// Decides what is ours in an [`Actual`], given what we want.
#[derive(Debug)]
pub struct Ownership<'a> {
    desired: &'a Desired,
    tables: BTreeSet<u32>,
    links: BTreeSet<&'a str>,
}

impl<'a> Ownership<'a> {
    /// Looks at the live links to know which of them are ours.
    pub fn new(desired: &'a Desired, actual: &'a Actual) -> Self {
        let links = actual
            .links
            .iter()
            .filter(|link| claim(desired, link) != LinkClaim::Foreign)
            .map(|link| link.name.as_str())
            .collect();
        Self {
            desired,
            tables: own_tables(desired),
            links,
        }
    }

    /// Whose link this is.
    pub fn claim(&self, link: &LiveLink) -> LinkClaim {
        claim(self.desired, link)
    }

    /// Whether routes over the link of this name are ours.
    pub fn owns_link(&self, name: &str) -> bool {
        self.links.contains(name)
    }

    /// Whether we made this route, or it stands where only ours may stand. What the kernel makes is never ours.
    pub fn owns_route(&self, route: &LiveRoute) -> bool {
        if route.protocol == KERNEL_PROTOCOL || route.table == LOCAL_TABLE {
            return false;
        }
        route.protocol == self.desired.protocol
            || self.tables.contains(&route.table)
            || route
                .link
                .as_deref()
                .is_some_and(|link| self.owns_link(link))
    }

    /// Whether we made this rule, or it leads into a table of ours.
    pub fn owns_rule(&self, rule: &LiveRule) -> bool {
        rule.protocol == self.desired.protocol || self.tables.contains(&rule.rule.table)
    }

    /// Whether a desired link of this name can be had: nobody else has the name.
    pub fn may_use(&self, actual: &Actual, name: &InterfaceName) -> bool {
        actual
            .link(name)
            .is_none_or(|link| self.claim(link) != LinkClaim::Foreign)
    }
}

/// Tables that are ours alone.
fn own_tables(desired: &Desired) -> BTreeSet<u32> {
    let routes = desired.routes.iter().map(|route| route.table);
    let rules = desired.rules.iter().map(|rule| rule.table);
    routes
        .chain(rules)
        .filter(|&table| !matches!(table, 0 | DEFAULT_TABLE | MAIN_TABLE | LOCAL_TABLE))
        .collect()
}

fn claim(desired: &Desired, link: &LiveLink) -> LinkClaim {
    if link.kind != LinkKind::Tun {
        return LinkClaim::Foreign;
    }
    let wanted = desired.links.iter().find(|wanted| wanted.name == link.name);
    match wanted {
        Some(wanted) if wanted.alias == link.alias => LinkClaim::Ours,
        Some(_) if link.alias.is_empty() => LinkClaim::Unmarked,
        Some(_) => LinkClaim::Foreign,
        None if link.alias.is_empty() => LinkClaim::Foreign,
        None if desired
            .links
            .iter()
            .any(|wanted| wanted.alias == link.alias) =>
        {
            LinkClaim::Stale
        }
        None => LinkClaim::Foreign,
    }
}
