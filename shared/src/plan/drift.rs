//! What others have changed of what was left in the kernel, and how often that is put right.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::{Change, Changes, LiveRule};
use crate::model::InterfaceName;

/// Of what kind a thing is that was not as it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftKind {
    /// A link or one of its attributes.
    Link,
    /// An address.
    Address,
    /// A route.
    Route,
    /// A policy routing rule.
    Rule,
    /// A kernel switch.
    Sysctl,
    /// The nftables table or something in it.
    Nftables,
}

impl DriftKind {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Link,
        Self::Address,
        Self::Route,
        Self::Rule,
        Self::Sysctl,
        Self::Nftables,
    ];

    /// As in JSON and in labels of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Sysctl => "sysctl",
            Self::Nftables => "nftables",
        }
    }
}

/// One thing that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Its kind.
    pub kind: DriftKind,
    /// Which it is, whatever has become of it: `route 10.17.5.0/24 table 254`.
    pub subject: String,
}

impl Drift {
    fn new(kind: DriftKind, subject: String) -> Self {
        Self { kind, subject }
    }
}

impl Change {
    /// What this change puts right, when it is needed although nothing else is desired than before.
    pub fn drift(&self) -> Drift {
        use DriftKind::{Address, Link, Route, Rule, Sysctl};
        match self {
            Self::AddLink(link) => Drift::new(Link, format!("link {}", link.name)),
            Self::RemoveLink { name, .. } => Drift::new(Link, format!("link {name}")),
            Self::SetLinkAlias { name, .. } => Drift::new(Link, format!("alias of link {name}")),
            Self::SetLinkMtu { name, .. } => Drift::new(Link, format!("MTU of link {name}")),
            Self::SetLinkTxQueueLen { name, .. } => {
                Drift::new(Link, format!("queue length of link {name}"))
            }
            Self::SetLinkUp { name } => Drift::new(Link, format!("state of link {name}")),
            Self::AddAddress(address) | Self::RemoveAddress(address) => {
                Drift::new(Address, format!("address {address}"))
            }
            Self::AddRoute { route, .. } => Drift::new(
                Route,
                format!("route {} table {}", route.destination, route.table),
            ),
            Self::RemoveRoute(live) => Drift::new(
                Route,
                format!("route {} table {}", live.destination, live.table),
            ),
            Self::AddRule { rule, .. } | Self::RemoveRule(LiveRule { rule, .. }) => {
                let family = if rule.ipv6 { "IPv6 " } else { "" };
                Drift::new(Rule, format!("{family}rule {rule}"))
            }
            Self::SetSysctl { sysctl, .. } => {
                Drift::new(Sysctl, format!("sysctl {}", sysctl.path.join("/")))
            }
        }
    }
}

impl Changes {
    /// What others have changed, when these changes lead back to what was left there. What went along with a link, or with
    /// its being up, or with an address, is not named: nobody has changed that.
    pub fn drifts(&self) -> impl Iterator<Item = (&Change, Drift)> {
        let causes = self
            .iter()
            .filter(|change| self.causes(change).next().is_none());
        causes.map(|change| (change, change.drift()))
    }

    /// Without what concerns these subjects, and without what went along with them.
    #[must_use]
    pub fn without(&self, subjects: &BTreeSet<String>) -> Self {
        let is_named = |change: &Change| subjects.contains(&change.drift().subject);
        let stays = |change: &&Change| !is_named(change) && !self.causes(change).any(is_named);
        let of = |changes: &[Change]| changes.iter().filter(stays).cloned().collect();
        Self {
            before_ruleset: of(&self.before_ruleset),
            after_ruleset: of(&self.after_ruleset),
            conflicts: self.conflicts.clone(),
        }
    }

    fn causes(&self, change: &Change) -> impl Iterator<Item = &Change> {
        self.iter()
            .filter(move |cause| *cause != change && brings(cause, change))
    }
}

/// Whether what `change` puts right went because of what `cause` puts right.
fn brings(cause: &Change, change: &Change) -> bool {
    if let Change::AddLink(link) = cause {
        return concerns(change, &link.name);
    }
    // The kernel drops IPv6 addresses and all routes of a link that goes down (`addrconf_ifdown` in net/ipv6/addrconf.c,
    // `fib_sync_down_dev` in net/ipv4/fib_semantics.c).
    if let Change::SetLinkUp { name } = cause {
        let goes = matches!(change, Change::AddAddress(_) | Change::AddRoute { .. });
        return goes && concerns(change, name);
    }
    // And routes with the address that they have as source, or with the link's last one (`fib_sync_down_addr` in
    // net/ipv4/fib_semantics.c, `fib_disable_ip` in net/ipv4/fib_frontend.c).
    if let (Change::AddAddress(address), Change::AddRoute { route, .. }) = (cause, change) {
        let is_ipv4 = is_ipv4(route.destination);
        return route.link == address.link && is_ipv4 == address.address.is_ipv4();
    }
    // IPv6 routes stay, but without it (`rt6_remove_prefsrc` in net/ipv6/route.c), and make room for the right ones.
    if let (Change::AddAddress(address), Change::RemoveRoute(live)) = (cause, change) {
        let lost_source = live.source.is_none() && !is_ipv4(live.destination);
        return lost_source && address.address.is_ipv6() && concerns(change, &address.link);
    }
    false
}

const fn is_ipv4(network: IpNetwork) -> bool {
    matches!(network, IpNetwork::V4(_))
}

/// Whether a change is about this link or something on it.
fn concerns(change: &Change, link: &InterfaceName) -> bool {
    match change {
        Change::AddLink(of) => of.name == *link,
        Change::RemoveLink { name, .. }
        | Change::SetLinkAlias { name, .. }
        | Change::SetLinkMtu { name, .. }
        | Change::SetLinkTxQueueLen { name, .. }
        | Change::SetLinkUp { name } => name == link,
        Change::AddAddress(address) | Change::RemoveAddress(address) => address.link == *link,
        Change::AddRoute { route, .. } => route.link == *link,
        Change::RemoveRoute(live) => live.link.as_deref() == Some(link.as_str()),
        Change::AddRule { .. } | Change::RemoveRule(_) => false,
        Change::SetSysctl { sysctl, .. } => {
            sysctl.of_our_link && sysctl.path.iter().any(|part| part == link.as_str())
        }
    }
}

/// Heals of one thing within [`Heals::PERIOD`] before it is left alone.
const MOST: usize = 5;

/// How often each thing was put right lately. Two programs that each put right what the other has done would keep a host
/// busy and never agree; this one leaves off, and says so.
#[derive(Debug, Default)]
pub struct Heals {
    latest: BTreeMap<String, VecDeque<Instant>>,
}

impl Heals {
    /// Time in which heals count.
    pub const PERIOD: Duration = Duration::from_secs(60);

    /// Whether this may be put right now; if so, that counts.
    pub fn allow(&mut self, subject: &str, now: Instant) -> bool {
        self.forget(now);
        let latest = self.latest.entry(subject.to_owned()).or_default();
        if latest.len() >= MOST {
            return false;
        }
        latest.push_back(now);
        true
    }

    /// What was put right so often within the period that it is left alone.
    pub fn fights(&mut self, now: Instant) -> Vec<String> {
        self.forget(now);
        let fights = self.latest.iter().filter(|(_, at)| at.len() >= MOST);
        fights.map(|(subject, _)| subject.clone()).collect()
    }

    fn forget(&mut self, now: Instant) {
        self.latest.retain(|_, latest| {
            latest.retain(|&at| now.saturating_duration_since(at) < Self::PERIOD);
            !latest.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Address, Link, LiveRoute, Route, Sysctl};

    fn name() -> InterfaceName {
        "edge0".parse().unwrap()
    }

    fn address(text: &str) -> Change {
        Change::AddAddress(Address {
            link: name(),
            address: text.parse().unwrap(),
            prefix_len: 16,
        })
    }

    fn route(destination: &str) -> Change {
        Change::AddRoute {
            route: Route {
                destination: destination.parse().unwrap(),
                link: name(),
                table: 254,
                source: None,
            },
            protocol: 87,
        }
    }

    fn switch(link: &str) -> Change {
        let path = ["net", "ipv4", "conf", link, "rp_filter"].map(str::to_owned);
        Change::SetSysctl {
            sysctl: Sysctl {
                path: path.to_vec(),
                value: "2".to_owned(),
                of_our_link: link == "edge0",
            },
            was: None,
        }
    }

    fn subjects(after_ruleset: Vec<Change>) -> Vec<String> {
        let changes = Changes {
            after_ruleset,
            ..Changes::default()
        };
        let drifts = changes.drifts();
        drifts.map(|(_, drift)| drift.subject).collect()
    }

    #[test]
    fn what_went_with_a_link_is_not_named() {
        let link = Link {
            name: name(),
            alias: "alias".to_owned(),
            mtu: 1420,
            txqueuelen: 500,
        };
        let gone = vec![
            Change::AddLink(link),
            Change::SetLinkUp { name: name() },
            switch("edge0"),
            address("10.17.0.1"),
            route("10.17.5.0/24"),
            switch("all"),
        ];
        let all = "sysctl net/ipv4/conf/all/rp_filter";
        assert_eq!(subjects(gone), ["link edge0", all]);
    }

    #[test]
    fn what_went_because_a_link_was_down_is_not_named_but_its_switches_stay() {
        let down = vec![
            Change::SetLinkUp { name: name() },
            switch("edge0"),
            address("fd17::1"),
            route("10.17.5.0/24"),
        ];
        let switch = "sysctl net/ipv4/conf/edge0/rp_filter";
        assert_eq!(subjects(down), ["state of link edge0", switch]);
    }

    #[test]
    fn routes_of_the_other_family_do_not_go_with_an_address() {
        let gone = vec![
            address("10.17.0.1"),
            route("10.17.5.0/24"),
            route("fd17::/64"),
        ];
        let named = subjects(gone);
        assert_eq!(
            named,
            [
                "address 10.17.0.1/16 dev edge0",
                "route fd17::/64 table 254"
            ]
        );
    }

    #[test]
    fn what_is_left_alone_takes_along_what_went_with_it() {
        let changes = Changes {
            after_ruleset: vec![
                address("10.17.0.1"),
                route("10.17.5.0/24"),
                route("fd17::/64"),
            ],
            ..Changes::default()
        };
        let fought = BTreeSet::from(["address 10.17.0.1/16 dev edge0".to_owned()]);
        let rest = changes.without(&fought);
        assert_eq!(rest.after_ruleset, [route("fd17::/64")]);
    }

    #[test]
    fn a_route_is_the_same_whether_it_is_missing_or_another_stands_there() {
        let surplus = Change::RemoveRoute(LiveRoute {
            destination: "10.17.5.0/24".parse().unwrap(),
            table: 254,
            link: Some("edge0".to_owned()),
            gateway: Some("10.17.0.2".parse().unwrap()),
            source: None,
            metric: 0,
            tos: 0,
            protocol: 4,
            route_type: 1,
        });
        assert_eq!(surplus.drift(), route("10.17.5.0/24").drift());
    }

    #[test]
    fn the_sixth_heal_within_a_minute_is_a_fight_and_waits_for_its_end() {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning of time")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heals = Heals::default();
        for seconds in 0..5 {
            assert!(heals.fights(at(seconds)).is_empty());
            assert!(heals.allow("route", at(seconds)), "{seconds}");
        }
        assert!(!heals.allow("route", at(5)));
        assert!(heals.allow("address", at(5)), "another thing");
        assert_eq!(heals.fights(at(59)), ["route"]);
        assert!(heals.allow("route", at(60)), "the first is forgotten");
        assert!(!heals.allow("route", at(60)));
        assert!(heals.fights(at(120)).is_empty());
        assert!(heals.latest.len() <= 1, "nothing is kept for ever");
    }
}
