//! What a change touches, and what it leaves.
use std::net::UdpSocket;

use nft::{Applied, Difference, Error, InvalidRuleset, Live, Nftables, matches};
use shared::config::common::Protocol;
use shared::plan::Ruleset;
use shared::plan::ruleset::{ChainKind, Family, Hook, Part, Side, priority};

use crate::rulesets::{
    CLOUDFLARE_4, TABLE, base, chain, commented, dnat, edges, every_part, gateway, input, lan, map,
    port_ranges, rule, set, tcp,
};
use crate::world::{in_namespace, list, load, loopback_up, nft};

/// Counts what leaves over the loopback, in two chains and one named counter.
fn counting(ports: &[u16]) -> Ruleset {
    let udp = |port: u16| port_ranges(Protocol::Udp, Side::Destination, &[(port, port)]);
    let rules = ports
        .iter()
        .map(|&p| rule([udp(p), Part::Counter]))
        .collect();
    let named = vec![rule([
        udp(9),
        Part::NamedCounter("sent".to_owned()),
        Part::Counter,
    ])];
    Ruleset {
        table: TABLE.to_owned(),
        sets: vec![set("s4", Family::Ipv4, &["192.0.2.0/24"])],
        maps: vec![map("m4", Family::Ipv4, &[("192.0.2.1", "target")])],
        chains: vec![
            chain("target", Vec::new()),
            chain("other", Vec::new()),
            base(
                "first",
                ChainKind::Filter,
                Hook::Output,
                priority::FILTER,
                named,
            ),
            base(
                "second",
                ChainKind::Filter,
                Hook::Output,
                priority::FILTER + 1,
                rules,
            ),
        ],
    }
}

fn send_datagrams(count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // The discard port refuses, which a later send reports: of no interest here.
    (0..count).for_each(|_| drop(socket.send_to(b"12345", "127.0.0.1:9")));
}

fn anonymous_count(live: &Live, chain: &str, index: usize) -> u64 {
    live.chain(chain).unwrap().rules[index].counts[0].packets
}

/// Sends some datagrams, then changes the table; both counters are asked before and after.
fn counts_after(wanted: &Ruleset, expected: Applied) -> Option<(u64, u64)> {
    in_namespace(|| {
        loopback_up();
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&counting(&[9])).unwrap();
        send_datagrams(3);
        let live = nftables.read(TABLE).unwrap().unwrap();
        assert!(live.counter("sent").unwrap().packets > 0);
        assert_eq!(nftables.replace(wanted).unwrap(), expected);
        let live = nftables.read(TABLE).unwrap().unwrap();
        let counters = nftables.counters(TABLE).unwrap();
        assert_eq!(counters, live.counters);
        (
            counters[0].count.packets,
            anonymous_count(&live, "first", 0),
        )
    })
}

#[test]
fn a_change_of_elements_keeps_every_counter() {
    let mut wanted = counting(&[9]);
    wanted.sets[0] = set(
        "s4",
        Family::Ipv4,
        &["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
    );
    wanted.maps[0] = map("m4", Family::Ipv4, &[("192.0.2.1", "other")]);
    if let Some(counts) = counts_after(
        &wanted,
        Applied::Elements {
            added: 3,
            removed: 1,
        },
    ) {
        assert!(counts.0 >= 1 && counts.1 >= 1, "{counts:?}");
        assert_eq!(counts.0, counts.1);
    }
}

#[test]
fn elements_change_without_a_look_at_the_rest() {
    in_namespace(|| {
        let from = counting(&[9]);
        let mut to = counting(&[9]);
        to.sets = vec![set(
            "s4",
            Family::Ipv4,
            &["192.0.2.0/25", "198.51.100.7/32"],
        )];
        // One element goes, one comes, one leads elsewhere.
        to.maps = vec![map(
            "m4",
            Family::Ipv4,
            &[("192.0.2.1", "other"), ("192.0.2.9", "target")],
        )];
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&from).unwrap();
        assert!(nftables.change_elements(&from, &to).unwrap());
        assert_eq!(nftables.replace(&to).unwrap(), Applied::Unchanged);

        // What is in the kernel is not `from` any more: nothing is changed, and the caller is told.
        assert!(!nftables.change_elements(&from, &counting(&[7])).unwrap());
        let mut elsewhere = from.clone();
        elsewhere.maps = vec![map("m4", Family::Ipv4, &[("192.0.2.77", "target")])];
        let mut removed = from.clone();
        removed.maps = vec![map("m4", Family::Ipv4, &[])];
        assert!(!nftables.change_elements(&elsewhere, &removed).unwrap());
        assert_eq!(nftables.replace(&to).unwrap(), Applied::Unchanged);
    });
}

#[test]
fn a_change_of_one_chain_keeps_the_counters_of_the_others() {
    if let Some(counts) = counts_after(&counting(&[9, 10]), Applied::Replaced) {
        assert!(counts.0 >= 1 && counts.1 >= 1, "{counts:?}");
    }
}

#[test]
fn a_change_of_the_frame_keeps_named_counters() {
    let mut wanted = counting(&[9]);
    wanted.chains.swap(2, 3);
    if let Some(counts) = counts_after(&wanted, Applied::Replaced) {
        assert!(counts.0 >= 1, "{counts:?}");
        assert_eq!(counts.1, 0);
    }
}

/// From each ruleset to each other one, the result is the wanted one and a second call does nothing.
#[test]
fn every_step_between_rulesets_ends_at_the_wanted_one() {
    let mut other_hook = gateway();
    other_hook.chains[2].base.as_mut().unwrap().priority += 1;
    let mut retyped = gateway();
    retyped.sets[1] = set("cf6", Family::Ipv4, &["192.0.2.0/24"]);
    retyped.chains[2]
        .rules
        .retain(|rule| !rule.to_string().contains("cf6"));
    let mut fewer = gateway();
    fewer.chains.remove(1);
    fewer
        .maps
        .iter_mut()
        .for_each(|map| map.elements.retain(|(_, chain)| &**chain != "role_none"));
    let mut empty = edges();
    empty.sets.clear();
    let rulesets = [
        gateway(),
        every_part(),
        edges(),
        other_hook,
        retyped,
        fewer,
        counting(&[9]),
        empty,
        lan_as_gateway(),
    ];
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&rulesets[0]).unwrap();
        for (_, to) in every_step(&rulesets) {
            assert_ne!(nftables.replace(to).unwrap(), Applied::Unchanged);
            assert_eq!(matches(to, &nftables.read(TABLE).unwrap().unwrap()), Ok(()));
        }
        assert!(nftables.remove(TABLE).unwrap());
        assert!(!nftables.remove(TABLE).unwrap());
        assert!(nftables.read(TABLE).unwrap().is_none());
        assert_eq!(nft(&["list", "ruleset"]).stdout, "");
    });
}

fn lan_as_gateway() -> Ruleset {
    Ruleset {
        table: TABLE.to_owned(),
        ..lan()
    }
}

#[test]
fn five_thousand_elements_fit_into_one_transaction() {
    let networks = |step: u32| {
        (0..5_000_u32)
            .map(move |i| format!("10.{}.{}.{}/32", i / 16384, i / 64 % 256, i % 64 * 4 + step))
    };
    let with = |step: u32| {
        let texts: Vec<String> = networks(step).collect();
        let names: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut ruleset = gateway();
        ruleset.sets[0] = set("cf4", Family::Ipv4, &names);
        ruleset
    };
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        assert_eq!(nftables.replace(&with(0)).unwrap(), Applied::Replaced);
        assert_eq!(
            nftables
                .read(TABLE)
                .unwrap()
                .unwrap()
                .set("cf4")
                .unwrap()
                .len(),
            5_000
        );
        assert_eq!(
            nftables.replace(&with(1)).unwrap(),
            Applied::Elements {
                added: 5_000,
                removed: 5_000
            }
        );
        assert_eq!(nftables.replace(&with(1)).unwrap(), Applied::Unchanged);
        assert_eq!(
            nftables.replace(&gateway()).unwrap(),
            Applied::Elements {
                added: 14,
                removed: 5_000
            }
        );
    });
}

#[test]
fn a_thousand_rules_fit_into_one_transaction() {
    let mut ruleset = gateway();
    let drop_from = |i: u16| {
        rule([
            input("eth0"),
            tcp(&[i + 1, i + 3, i + 5]),
            Part::Counter,
            Part::Drop,
        ])
    };
    ruleset.chains[2].rules.extend((0..1_000).map(drop_from));
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        assert_eq!(nftables.replace(&ruleset).unwrap(), Applied::Replaced);
        assert_eq!(nftables.replace(&ruleset).unwrap(), Applied::Unchanged);
    });
}

#[test]
fn elements_change_in_place_at_every_edge() {
    let steps: &[&[&str]] = &[
        &[],
        &["0.0.0.0/0"],
        &["128.0.0.0/1"],
        &["0.0.0.0/32", "255.255.255.255/32"],
        &["255.255.255.254/31"],
        &["10.0.0.0/24", "10.0.1.0/24"],
        &["10.0.1.0/24", "10.0.3.0/24"],
        &["10.0.0.0/22"],
        CLOUDFLARE_4,
    ];
    let with = |networks: &[&str]| {
        let mut ruleset = counting(&[9]);
        ruleset.sets[0] = set("s4", Family::Ipv4, networks);
        ruleset
    };
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&with(steps[0])).unwrap();
        for (from, to) in every_step(steps) {
            let applied = nftables
                .replace(&with(to))
                .unwrap_or_else(|error| panic!("{from:?} -> {to:?}: {error}"));
            assert!(
                matches!(applied, Applied::Elements { .. }),
                "{from:?} -> {to:?}: {applied:?}"
            );
            let wanted = set("s4", Family::Ipv4, to).ranges();
            assert_eq!(
                nftables.read(TABLE).unwrap().unwrap().set("s4").unwrap(),
                wanted
            );
        }
    });
}

/// A walk from the first item that takes every step between two different items once, and ends at the last one.
fn every_step<T>(items: &[T]) -> Vec<(&T, &T)> {
    let mut steps = Vec::new();
    for (index, here) in items.iter().enumerate() {
        let there_and_back = items
            .iter()
            .skip(index + 1)
            .flat_map(|there| [(here, there), (there, here)]);
        steps.extend(there_and_back);
        steps.extend(items.get(index + 1).map(|next| (here, next)));
    }
    steps
}

#[test]
fn a_refused_transaction_leaves_the_old_table() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        let before = list(TABLE);
        let mut refused = gateway();
        // The kernel takes `dnat` only in chains of type nat.
        refused.chains[0].rules.clear();
        refused.chains[4]
            .rules
            .insert(2, rule([dnat("10.0.0.1", None)]));
        for error in [
            nftables.replace(&refused).unwrap_err(),
            nftables.check(&refused).unwrap_err(),
        ] {
            let Error::Refused { object, source, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(object, "rule 3 of chain forward (`dnat ip to 10.0.0.1`)");
            assert_eq!(source.raw_os_error(), Some(libc::EOPNOTSUPP));
            assert!(
                error
                    .to_string()
                    .contains("nothing was changed; is the kernel module"),
                "{error}"
            );
        }
        assert_eq!(list(TABLE), before);
        assert_eq!(nftables.replace(&gateway()).unwrap(), Applied::Unchanged);
    });
}

#[test]
fn a_check_changes_nothing() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.check(&gateway()).unwrap();
        assert_eq!(nft(&["list", "ruleset"]).stdout, "");
        nftables.replace(&gateway()).unwrap();
        nftables.check(&every_part()).unwrap();
        assert_eq!(nftables.replace(&gateway()).unwrap(), Applied::Unchanged);
    });
}

#[test]
fn a_jump_in_a_circle_is_refused_by_the_kernel_and_by_name() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        let jump = |to: &str| vec![rule([Part::Jump(to.to_owned())])];
        let mut circle = counting(&[9]);
        circle.maps.clear();
        circle.chains = vec![
            chain("a", jump("b")),
            chain("b", jump("a")),
            base("c", ChainKind::Filter, Hook::Input, 0, jump("a")),
        ];
        let error = nftables.replace(&circle).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { source, .. } if source.raw_os_error() == Some(libc::EMLINK)),
            "{error:?}"
        );
        assert_eq!(nft(&["list", "ruleset"]).stdout, "");
    });
}

#[test]
fn without_the_capability_the_error_says_so() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        crate::world::drop_capabilities();
        for error in [
            Nftables::open().unwrap_err(),
            nftables.replace(&every_part()).unwrap_err(),
            nftables.read(TABLE).unwrap_err(),
        ] {
            assert!(matches!(error, Error::NotPermitted), "{error}");
            assert!(
                error
                    .to_string()
                    .contains("AmbientCapabilities=CAP_NET_ADMIN")
            );
        }
    });
}

#[test]
fn drift_is_told_in_words() {
    in_namespace(|| {
        let mut table = gateway();
        load(&table.to_string());
        for command in [
            "add rule inet wg_edge forward tcp dport 22 accept",
            "delete element inet wg_edge cf4 { 173.245.48.0/20 }",
            "add element inet wg_edge cf4 { 192.0.2.7 }",
            "add chain inet wg_edge intruder",
            "add quota inet wg_edge q { 1 mbytes }",
            "flush chain inet wg_edge source_nat",
            "add chain inet wg_edge guard { policy drop; }",
        ] {
            load(command);
        }
        let live = Nftables::open().unwrap().read(TABLE).unwrap().unwrap();
        table.sets.push(set("absent", Family::Ipv6, &[]));
        let texts: Vec<String> = matches(&table, &live)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        let handle = live.chain("forward").unwrap().rules.last().unwrap().handle;
        assert_eq!(texts, [
            "the object q is not ours".to_owned(),
            "the chain intruder is not ours".to_owned(),
            "chain guard is `type filter hook prerouting priority -300; policy drop;` instead of `type filter hook prerouting priority -300; policy accept;`".to_owned(),
            format!(
                "chain forward has a rule that is not ours (handle {handle}): [ meta load l4proto => reg 1 ] [ cmp eq reg 1 0x06 ] \
                 [ payload load 2b @ transport header + 2 => reg 1 ] [ cmp eq reg 1 0x0016 ] [ immediate reg 0 accept ]"
            ),
            "chain source_nat lacks its rule 1 `oifname \"edge0\" ct status dnat masquerade`".to_owned(),
            "the set absent is missing".to_owned(),
            "set cf4 lacks 173.245.48.0/20 and has too much: 192.0.2.7".to_owned(),
        ]);
    });
}

#[test]
fn every_kind_of_drift_is_healed() {
    for command in [
        "add rule inet wg_edge forward meta mark set 0x1 limit rate 1/second accept",
        "insert rule inet wg_edge forward accept",
        "flush table inet wg_edge",
        "flush set inet wg_edge cf4",
        "add element inet wg_edge peers4 { 10.17.0.99 : accept }",
        "add chain inet wg_edge intruder { type filter hook input priority 0; policy drop; }",
        "add set inet wg_edge intruder { type ether_addr; }",
        "add quota inet wg_edge q { 1 mbytes }",
        "add counter inet wg_edge extra",
        "add chain inet wg_edge guard { policy drop; }",
        "add table inet wg_edge { flags dormant; }",
        "add flowtable inet wg_edge f { hook ingress priority 0; devices = { lo }; }",
        "delete table inet wg_edge",
    ] {
        in_namespace(|| {
            load(&gateway().to_string());
            let flowtable = nft(&[command]);
            // Not every kernel has flowtables.
            assert!(
                flowtable.success || command.contains("flowtable"),
                "{command}: {}",
                flowtable.stderr
            );
            let mut nftables = Nftables::open().unwrap();
            nftables.replace(&gateway()).unwrap();
            assert_eq!(
                nftables.replace(&gateway()).unwrap(),
                Applied::Unchanged,
                "{command}"
            );
            assert!(
                nft(&["list", "flowtables"])
                    .stdout
                    .find("flowtable")
                    .is_none()
            );
        });
    }
}

#[test]
fn comments_differ_and_are_read_back() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        let live = nftables.read(TABLE).unwrap().unwrap();
        assert_eq!(
            live.chain("publish").unwrap().rules[0].comment.as_deref(),
            Some("publish ingress")
        );
        let mut other = gateway();
        let longest = "c".repeat(128);
        other.chains[3].rules[0] = commented([Part::Counter], &longest);
        assert_eq!(nftables.replace(&other).unwrap(), Applied::Replaced);
        other.chains[3].rules[0] = commented([Part::Counter], &"c".repeat(129));
        let error = nftables.replace(&other).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Invalid(InvalidRuleset::Comment { number: 1, .. })
            ),
            "{error}"
        );
    });
}

#[test]
fn a_wanted_table_that_cannot_be_is_a_difference() {
    in_namespace(|| {
        let mut nftables = Nftables::open().unwrap();
        nftables.replace(&gateway()).unwrap();
        let live = nftables.read(TABLE).unwrap().unwrap();
        let mut wrong = gateway();
        wrong.chains[0].name = "snat".to_owned();
        let differences = matches(&wrong, &live).unwrap_err();
        assert_eq!(
            differences,
            [Difference::Invalid(InvalidRuleset::Name {
                name: "snat".to_owned()
            })]
        );
    });
}
