//! Rules put together at random are listed as `nft` lists what it makes of their text.
use nft::{Applied, Nftables};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::config::common::{PortRange, Protocol};
use shared::plan::Ruleset;
use shared::plan::ruleset::{ChainKind, Family, Hook, Part, Rule, Side, priority};

use crate::rulesets::{TABLE, base, chain, input, link, map, output, set};
use crate::world::{comparable, in_namespace, list, load};

/// One side only: nft joins comparisons of neighbouring fields (sport and dport, saddr and daddr) and then lists them in
/// the order of the header.
const SIDE: Side = Side::Destination;

fn network(family: Family) -> BoxedStrategy<ipnetwork::IpNetwork> {
    match family {
        Family::Ipv4 => (any::<u32>(), 0_u8..=32)
            .prop_map(|(address, prefix)| {
                ipnetwork::IpNetwork::new(std::net::Ipv4Addr::from(address).into(), prefix).unwrap()
            })
            .boxed(),
        // Not in ::/8, where nft prints some addresses with dots.
        Family::Ipv6 => (any::<u128>(), 8_u8..=128)
            .prop_map(|(address, prefix)| {
                let address = std::net::Ipv6Addr::from(address | 1 << 127);
                ipnetwork::IpNetwork::new(address.into(), prefix).unwrap()
            })
            .boxed(),
    }
}

fn ports(protocol: Protocol) -> impl Strategy<Value = Part> {
    let range = (1_u16.., prop_oneof![Just(0_u16), any::<u16>()]);
    let range = range.prop_map(|(first, more)| PortRange {
        first,
        last: first.saturating_add(more),
    });
    prop::collection::vec(range, 1..5).prop_map(move |ports| Part::Ports {
        protocol,
        side: SIDE,
        ports,
    })
}

fn part(family: Family, protocol: Protocol) -> impl Strategy<Value = Part> {
    let name = move |name4: &str, name6: &str| {
        if family == Family::Ipv4 { name4 } else { name6 }.to_owned()
    };
    let [s, m] = [name("s4", "s6"), name("m4", "m6")];
    prop_oneof![
        Just(input("eth0")),
        Just(output("edge0")),
        (network(family), any::<bool>()).prop_map(|(network, negated)| {
            Part::Address {
                side: SIDE,
                network,
                negated,
            }
        }),
        any::<bool>().prop_map(move |negated| Part::AddressInSet {
            side: SIDE,
            family,
            set: s.clone(),
            negated
        }),
        Just(Part::NetworkFamily(family)),
        Just(Part::TransportProtocol(protocol)),
        ports(protocol),
        Just(Part::DestinationIsLocal),
        Just(Part::SourceNotRoutedVia(link("edge0"))),
        Just(Part::CtEstablishedRelated),
        Just(Part::CtStatusDnat),
        Just(Part::CtDirectionReply),
        (any::<u32>(), any::<u32>(), any::<bool>()).prop_map(|(mask, value, negated)| {
            Part::CtMark {
                mask: mask | 1,
                value: value & (mask | 1),
                negated,
            }
        }),
        (any::<u32>(), any::<u32>()).prop_map(|(keep, value)| Part::SetCtMark { keep, value }),
        (1_u32..).prop_map(|mask| Part::SetMarkFromCt { mask }),
        Just(Part::Counter),
        Just(Part::NamedCounter("hits".to_owned())),
        Just(Part::SourceVerdictMap { family, map: m }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = (
        prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)],
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
    );
    let parts = kind
        .prop_flat_map(|(family, protocol)| prop::collection::vec(part(family, protocol), 1..6));
    parts.prop_map(|parts| Rule {
        parts,
        comment: None,
    })
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let networks = |family| prop::collection::vec(network(family), 0..20);
    (
        prop::collection::vec(rule(), 40),
        networks(Family::Ipv4),
        networks(Family::Ipv6),
    )
        .prop_map(|(rules, four, six)| {
            let mut sets = vec![set("s4", Family::Ipv4, &[]), set("s6", Family::Ipv6, &[])];
            sets[0].elements = four;
            sets[1].elements = six;
            Ruleset {
                table: TABLE.to_owned(),
                sets,
                maps: vec![
                    map("m4", Family::Ipv4, &[("10.0.0.1", "end")]),
                    map("m6", Family::Ipv6, &[("fd00::1", "end")]),
                ],
                chains: vec![
                    chain("end", Vec::new()),
                    base(
                        "every",
                        ChainKind::Filter,
                        Hook::Forward,
                        priority::FILTER,
                        rules,
                    ),
                ],
            }
        })
}

#[test]
fn random_rules_are_listed_as_printed_and_as_loaded_by_nft() {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&ruleset(), |wanted| {
        let ours = in_namespace(|| {
            let mut nftables = Nftables::open().unwrap();
            assert_eq!(nftables.replace(&wanted).unwrap(), Applied::Replaced);
            list(TABLE)
        });
        let theirs = in_namespace(|| {
            load(&wanted.to_string());
            list(TABLE)
        });
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            assert_eq!(comparable(&ours), comparable(&theirs));
            assert_eq!(comparable(&ours), comparable(&wanted.to_string()));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
