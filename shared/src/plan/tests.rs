//! The plan as a whole: whatever there was and whatever is wanted, one difference leads there and touches nothing else.
use ipnetwork::IpNetwork;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::actual::{MAIN_TABLE, UNICAST};
use super::fake_kernel::{FakeKernel, switch_of};
use super::{
    Actual, Address, Change, Changes, Desired, Link, LinkKind, LiveLink, LiveRoute, LiveRule,
    Ownership, Route, RoutingRule, Ruleset, Sysctl, desired::protocol, difference, removal,
};
use crate::model::InterfaceName;

const ALIAS: &str = "wg-edge gateway";
const LINKS: [&str; 2] = ["edge0", "edge0.1"];
/// Each address has its link. The first two, and the fourth and fifth, are secondary to each other.
const ADDRESSES: [(&str, &str); 8] = [
    ("edge0", "10.17.0.1/16"),
    ("edge0", "10.17.0.2/16"),
    ("edge0", "10.17.0.3/32"),
    ("edge0.1", "10.27.0.1/16"),
    ("edge0.1", "10.27.0.2/16"),
    ("edge0", "fd17::1/64"),
    ("edge0", "fd17::2/64"),
    ("edge0.1", "fd27::1/128"),
];
const DESTINATIONS: [&str; 9] = [
    "10.17.0.0/16",
    "10.27.0.0/16",
    "10.17.5.0/24",
    "10.99.0.0/16", // foreign in the fake kernel
    "0.0.0.0/0",    // foreign too
    "fd17::/64",
    "fd27::1/128",
    "fd17:5::/64",
    "::/0",
];
const TABLES: [u32; 3] = [MAIN_TABLE, 51_820, 51_821];

fn name(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn address(&(link, address): &(&str, &str)) -> Address {
    let (address, prefix_len) = address.split_once('/').unwrap();
    Address {
        link: name(link),
        address: address.parse().unwrap(),
        prefix_len: prefix_len.parse().unwrap(),
    }
}

fn rule(index: u32) -> RoutingRule {
    RoutingRule {
        ipv6: index % 2 == 1,
        priority: 5000 + index / 4,
        mark: index << 24,
        mask: 0x3f00_0000,
        table: TABLES[1 + index as usize % 2],
    }
}

fn live_route(destination: &str, table: u32, link: Option<&str>, protocol: u8) -> LiveRoute {
    let destination = network(destination);
    LiveRoute {
        destination,
        table,
        link: link.map(str::to_owned),
        gateway: None,
        source: None,
        metric: if destination.is_ipv4() { 0 } else { 1024 },
        tos: 0,
        protocol,
        route_type: if link.is_some() { UNICAST } else { 6 },
    }
}

/// A machine with a life of its own.
fn foreign_kernel(promotes_secondaries: bool) -> FakeKernel {
    let eth0 = name("eth0");
    let mut kernel = FakeKernel {
        promotes_secondaries,
        ..FakeKernel::default()
    };
    kernel.state.links.push(LiveLink {
        name: eth0.clone(),
        kind: LinkKind::Other("veth".to_owned()),
        alias: String::new(),
        mtu: 1500,
        txqueuelen: 1000,
        up: true,
    });
    kernel
        .add_address(&address(&("eth0", "192.0.2.10/24")))
        .unwrap();
    kernel.state.routes.extend([
        live_route("0.0.0.0/0", MAIN_TABLE, Some("eth0"), 3),
        live_route("10.99.0.0/16", MAIN_TABLE, Some("eth0"), 4),
        live_route("10.17.5.0/24", 77, Some("eth0"), 4),
        live_route("2001:db8::/32", MAIN_TABLE, Some("eth0"), 3),
    ]);
    kernel.state.rules.push(LiveRule {
        rule: RoutingRule {
            table: 77,
            ..rule(0)
        },
        protocol: 3,
        plain: true,
    });
    let forward = ["net", "ipv4", "ip_forward"].map(str::to_owned).to_vec();
    kernel.sysctls.insert(forward, "0".to_owned());
    kernel
}

prop_compose! {
    fn some_route(links: Vec<&'static str>, addresses: Vec<Address>)(
        destination in select(&DESTINATIONS),
        table in select(&TABLES),
        link in select(links),
        with_source in any::<bool>(),
    ) -> Route {
        let destination = network(destination);
        let source = addresses.iter().find(|address| {
            address.link.as_str() == link && address.address.is_ipv4() == destination.is_ipv4()
        });
        // Of several addresses in a network the first one to be added is the source of the kernel's own route.
        let is_own_network = addresses.iter().any(|address| address.network() == destination);
        Route {
            destination,
            link: name(link),
            table,
            source: source.filter(|_| with_source && !is_own_network).map(|source| source.address),
        }
    }
}

fn some_desired() -> impl Strategy<Value = Desired> {
    let parts = (subsequence(&LINKS, 1..=2), subsequence(&ADDRESSES, 0..=8));
    parts.prop_flat_map(|(links, addresses)| {
        let addresses = addresses.iter().map(address);
        let addresses: Vec<_> = addresses
            .filter(|address| links.contains(&address.link.as_str()))
            .collect();
        let routes = prop::collection::vec(some_route(links.clone(), addresses.clone()), 0..8);
        let rules = prop::collection::btree_set((0..8u32).prop_map(rule), 0..4);
        let rest = (1280..1500u32, 1..1000u32, select(&["0", "1"]));
        (Just(links), Just(addresses), routes, rules, rest).prop_map(
            |(links, addresses, mut routes, rules, (mtu, txqueuelen, switch))| {
                // To want the network of one link's address over another link is to want what no kernel does.
                routes.retain(|route| {
                    let elsewhere = |address: &&Address| address.link != route.link;
                    let mut others = addresses.iter().filter(elsewhere);
                    !others.any(|address| address.network() == route.destination)
                });
                routes.sort_by_key(|route| (route.destination, route.table));
                routes.dedup_by_key(|route| (route.destination, route.table));
                let of_links = links.iter().map(|link| Sysctl {
                    path: switch_of(&name(link)),
                    value: "2".to_owned(),
                    of_our_link: true,
                });
                let forward = Sysctl {
                    path: ["net", "ipv4", "ip_forward"].map(str::to_owned).to_vec(),
                    value: switch.to_owned(),
                    of_our_link: false,
                };
                let link = |link: &&str| Link {
                    name: name(link),
                    alias: ALIAS.to_owned(),
                    mtu,
                    txqueuelen,
                };
                Desired {
                    protocol: protocol::GATEWAY,
                    links: links.iter().map(link).collect(),
                    addresses,
                    routes,
                    rules: rules.into_iter().collect(),
                    sysctls: std::iter::once(forward).chain(of_links).collect(),
                    ruleset: Ruleset {
                        table: "wg_edge".to_owned(),
                        sets: Vec::new(),
                        maps: Vec::new(),
                        chains: Vec::new(),
                    },
                }
            },
        )
    })
}

/// What others do to what is ours.
#[derive(Debug, Clone)]
enum Drift {
    RemoveLink(&'static str),
    LinkMtu(&'static str),
    LosesAlias(&'static str),
    RemoveAddress(Address),
    AddAddress(Address),
    RemoveRoute(usize),
    AddRoute(LiveRoute),
    RemoveRule(usize),
    AddRule(LiveRule),
}

fn some_drift() -> impl Strategy<Value = Drift> {
    let any_address = || select(&ADDRESSES).prop_map(|pair| address(&pair));
    let foreign_link = prop::option::of(select(&["edge0", "edge0.1", "eth0"]));
    let route = (
        select(&DESTINATIONS),
        select(&TABLES),
        foreign_link,
        select(&[3u8, 4, protocol::GATEWAY]),
    );
    let foreign_rule = (0..8u32, select(&[0u8, 3, protocol::GATEWAY]), any::<bool>());
    prop_oneof![
        select(&LINKS).prop_map(Drift::RemoveLink),
        select(&LINKS).prop_map(Drift::LinkMtu),
        select(&LINKS).prop_map(Drift::LosesAlias),
        any_address().prop_map(Drift::RemoveAddress),
        any_address().prop_map(Drift::AddAddress),
        (0..20usize).prop_map(Drift::RemoveRoute),
        route.prop_map(|(destination, table, link, protocol)| {
            Drift::AddRoute(live_route(destination, table, link, protocol))
        }),
        (0..4usize).prop_map(Drift::RemoveRule),
        foreign_rule.prop_map(|(index, protocol, plain)| {
            Drift::AddRule(LiveRule {
                rule: rule(index),
                protocol,
                plain,
            })
        }),
    ]
}

fn drift(kernel: &mut FakeKernel, drift: &Drift) {
    let known = |kernel: &FakeKernel, link: &str| {
        kernel
            .state
            .links
            .iter()
            .any(|live| live.name.as_str() == link)
    };
    match drift {
        Drift::RemoveLink(link) => kernel.remove_link(&name(link)),
        Drift::LinkMtu(link) | Drift::LosesAlias(link) => {
            let mut links = kernel.state.links.iter_mut();
            if let Some(live) = links.find(|live| live.name.as_str() == *link) {
                if matches!(drift, Drift::LinkMtu(_)) {
                    live.mtu = 9000;
                } else {
                    live.alias.clear();
                }
            }
        }
        Drift::RemoveAddress(address) => kernel.remove_address(address),
        Drift::AddAddress(address) => drop(kernel.add_address(address)),
        Drift::RemoveRoute(index) => {
            if kernel.state.routes.get(*index).is_some() {
                kernel.state.routes.remove(*index);
            }
        }
        Drift::AddRoute(route) => {
            let excluded = kernel.state.routes.iter().any(|live| {
                (live.destination, live.table, live.metric)
                    == (route.destination, route.table, route.metric)
            });
            if !excluded && route.link.as_deref().is_none_or(|link| known(kernel, link)) {
                kernel.state.routes.push(route.clone());
            }
        }
        Drift::RemoveRule(index) => {
            if kernel.state.rules.get(*index).is_some() {
                kernel.state.rules.remove(*index);
            }
        }
        Drift::AddRule(rule) => {
            if !kernel.state.rules.iter().any(|live| live.rule == rule.rule) {
                kernel.state.rules.push(*rule);
            }
        }
    }
}

/// What neither `before` nor after may lose or gain: all that is not ours.
fn foreign(kernel: &FakeKernel, desired: &Desired) -> Actual {
    let actual = &kernel.state;
    let ownership = Ownership::new(desired, actual);
    let on_ours = |link: &str| LINKS.contains(&link);
    let routes = actual.routes.iter().filter(|route| {
        let over_ours = route.link.as_deref().is_some_and(on_ours);
        !over_ours && !ownership.owns_route(route)
    });
    Actual {
        links: actual
            .links
            .iter()
            .filter(|link| !on_ours(link.name.as_str()))
            .cloned()
            .collect(),
        addresses: actual
            .addresses
            .iter()
            .filter(|live| !on_ours(live.link.as_str()))
            .cloned()
            .collect(),
        routes: routes.cloned().collect(),
        rules: actual
            .rules
            .iter()
            .filter(|rule| !ownership.owns_rule(rule))
            .copied()
            .collect(),
        sysctls: Vec::new(),
    }
}

/// Applies the difference; the fake kernel must take every change, and nothing may be left to do.
fn reconcile(kernel: &mut FakeKernel, desired: &Desired) -> Result<Changes, TestCaseError> {
    let theirs = foreign(kernel, desired);
    let changes = difference(desired, &kernel.read(desired));
    for change in changes.iter() {
        let result = kernel.apply(change);
        prop_assert!(result.is_ok(), "`{change}`: {result:?} in {changes:#?}");
    }
    let again = difference(desired, &kernel.read(desired));
    prop_assert!(again.is_empty(), "{again:#?} is left after {changes:#?}");
    prop_assert_eq!(&again.conflicts, &changes.conflicts);
    prop_assert_eq!(foreign(kernel, desired), theirs);
    Ok(changes)
}

/// Everything wanted is there, but for what conflicts.
fn assert_reached(
    kernel: &FakeKernel,
    desired: &Desired,
    changes: &Changes,
) -> Result<(), TestCaseError> {
    for wanted in &desired.addresses {
        prop_assert!(
            kernel.state.addresses.contains(wanted),
            "{wanted} is missing"
        );
    }
    for wanted in &desired.routes {
        let there = kernel
            .state
            .routes
            .iter()
            .any(|live| live.is(wanted, desired.protocol) || live.is_kernel_made(wanted));
        let conflicts = changes.conflicts.iter().any(|conflict| match conflict {
            super::Conflict::RouteTaken { wanted: taken, .. } => taken == wanted,
            super::Conflict::LinkTaken(_) => false,
        });
        prop_assert!(
            there || conflicts,
            "{wanted:?} in {:#?}",
            kernel.state.routes
        );
    }
    for wanted in &desired.sysctls {
        prop_assert_eq!(kernel.sysctls.get(&wanted.path), Some(&wanted.value));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn one_difference_leads_from_anywhere_to_desired_and_touches_nothing_foreign(
        first in some_desired(),
        drifts in prop::collection::vec(some_drift(), 0..6),
        second in some_desired(),
        promotes_secondaries in any::<bool>(),
    ) {
        let mut kernel = foreign_kernel(promotes_secondaries);
        reconcile(&mut kernel, &first)?;
        for step in &drifts {
            drift(&mut kernel, step);
        }
        let changes = reconcile(&mut kernel, &second)?;
        assert_reached(&kernel, &second, &changes)?;
    }

    #[test]
    fn removal_leaves_nothing_of_ours_and_touches_nothing_foreign(
        desired in some_desired(),
        drifts in prop::collection::vec(some_drift(), 0..6),
    ) {
        let mut kernel = foreign_kernel(false);
        reconcile(&mut kernel, &desired)?;
        for step in &drifts {
            drift(&mut kernel, step);
        }
        let theirs = foreign(&kernel, &desired);
        for change in removal(&desired, &kernel.read(&desired)) {
            prop_assert!(kernel.apply(&change).is_ok(), "{}", change);
        }
        prop_assert_eq!(foreign(&kernel, &desired), theirs);
        let left = kernel.read(&desired);
        // A link without our alias stays: someone may have made it.
        let marked = left.links.iter().find(|link| link.alias == ALIAS);
        prop_assert_eq!(marked, None);
        let ownership = Ownership::new(&desired, &left);
        prop_assert_eq!(left.routes.iter().find(|route| ownership.owns_route(route)), None);
        prop_assert_eq!(left.rules.iter().find(|rule| ownership.owns_rule(rule)), None);
    }

    /// The order that fails closed: see `Changes`.
    #[test]
    fn what_goes_goes_first_and_forwarding_comes_last(
        first in some_desired(),
        second in some_desired(),
    ) {
        let mut kernel = foreign_kernel(false);
        reconcile(&mut kernel, &first)?;
        let changes = difference(&second, &kernel.read(&second));
        let is_removal = |change: &Change| matches!(
            change,
            Change::RemoveRule(_) | Change::RemoveRoute(_) | Change::RemoveAddress(_) | Change::RemoveLink { .. }
        );
        prop_assert!(changes.before_ruleset.iter().all(is_removal));
        let last = changes.after_ruleset.iter().position(
            |change| matches!(change, Change::SetSysctl { sysctl, .. } if !sysctl.of_our_link),
        );
        prop_assert!(last.is_none_or(|last| last + 1 == changes.after_ruleset.len()));
    }
}

#[test]
fn a_route_takes_neighbours_from_another_link_when_it_is_as_narrow_or_narrower() {
    let via = |mut route: LiveRoute| {
        route.gateway = Some("192.0.2.1".parse().unwrap());
        route
    };
    let actual = Actual {
        routes: vec![
            live_route("172.31.0.0/20", MAIN_TABLE, Some("eth0"), 2),
            live_route("10.17.0.0/16", MAIN_TABLE, Some("edge0"), 2),
            via(live_route("10.0.0.0/8", MAIN_TABLE, Some("eth0"), 4)),
            live_route("0.0.0.0/0", MAIN_TABLE, Some("eth0"), 3),
            live_route("192.168.7.0/24", 100, Some("eth0"), 2),
            live_route("192.168.8.0/24", MAIN_TABLE, None, 2),
        ],
        ..Actual::default()
    };
    for (destination, expected) in [
        ("172.31.0.1/32", true),
        ("172.31.0.0/20", true), // a lower metric would win
        ("172.31.0.0/16", false),
        ("172.31.16.0/24", false),
        ("10.17.5.0/24", false), // our own link
        ("10.50.0.0/24", false), // those are not next to us
        ("192.168.7.0/25", false),
        ("192.168.8.0/25", false),
    ] {
        let wanted = Route {
            destination: network(destination),
            link: name("edge0"),
            table: MAIN_TABLE,
            source: None,
        };
        let taken = actual.neighbours_taken_by(&wanted).is_some();
        assert_eq!(taken, expected, "{destination}");
    }
}
