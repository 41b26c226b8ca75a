//! The interpreter, rule by rule. What real rulesets do is in `tests/kernel/foreign.rs`.
use std::collections::BTreeMap;

use nftnl_sys::libc;
use shared::config::common::Protocol;
use shared::plan::ruleset::{Family, Hook};

use super::instruction::{Gives, Instruction, Source};
use super::read::{ForeignChain, ForeignRule, ForeignTable};
use super::set::ForeignSet;
use super::xtables::{Match, TargetEnd};
use super::*;
use crate::sys::{ChainHook, ElementTarget, SetEntry, SetHeader};

const DROP: i32 = libc::NF_DROP;
const ACCEPT: i32 = libc::NF_ACCEPT;

fn link(name: &str, index: u32) -> Link {
    Link {
        name: name.parse().unwrap(),
        index: Some(index),
    }
}

/// A visitor's first packet: `eth0` to `edge0`, DNAT from port 443 to 10.17.5.30:8443.
fn visitor() -> Path {
    Path {
        purpose: Purpose::Published {
            wan: "eth0".parse().unwrap(),
            tunnel: "edge0".parse().unwrap(),
        },
        way: Way::Forwarded,
        input: Some(link("eth0", 2)),
        output: Some(link("edge0", 3)),
        family: Family::Ipv4,
        protocol: Protocol::Tcp,
        source: Some("173.245.48.1".parse().unwrap()),
        source_port: None,
        destination: Some("10.17.5.30".parse().unwrap()),
        destination_port: Some(8443),
        tracking: Tracking::New,
        called_port: Some(443),
        masqueraded: false,
        way_back: Some(2),
    }
}

/// Name; hook, priority and whether its policy is to drop; rules.
type Of<'a> = (&'a str, Option<(Hook, i32, bool)>, Vec<Vec<Instruction>>);

fn table(chains: Vec<Of<'_>>) -> Foreign {
    let chains = chains.into_iter().map(|(name, hook, rules)| ForeignChain {
        name: name.to_owned(),
        hook: hook.map(|(hook, priority, drops)| ChainHook {
            kind: "filter".to_owned(),
            hook: match hook {
                Hook::Prerouting => 0,
                Hook::Input => 1,
                Hook::Forward => 2,
                Hook::Output => 3,
                Hook::Postrouting => 4,
            },
            priority,
            policy: u32::from(!drops),
        }),
        rules: rules
            .into_iter()
            .zip(1..)
            .map(|(instructions, handle)| ForeignRule {
                handle,
                instructions,
            })
            .collect(),
    });
    Foreign {
        tables: vec![ForeignTable {
            family: TableFamily::Inet,
            name: "t".to_owned(),
            chains: chains.collect(),
            sets: BTreeMap::new(),
        }],
    }
}

/// A table with one chain on the forward hook.
fn forward(drops: bool, rules: Vec<Vec<Instruction>>) -> Foreign {
    table(vec![("forward", Some((Hook::Forward, 0, drops)), rules)])
}

fn verdict(code: i32) -> Instruction {
    Instruction::Verdict { code, chain: None }
}

fn to_chain(code: i32, chain: &str) -> Instruction {
    Instruction::Verdict {
        code,
        chain: Some(chain.to_owned()),
    }
}

fn load(source: Source) -> Instruction {
    Instruction::Load {
        source,
        to: Some(0),
    }
}

fn compare(op: u32, data: &[u8]) -> Instruction {
    Instruction::Compare {
        from: Some(0),
        op,
        data: data.to_vec(),
    }
}

/// `oifname NAME`.
fn leaving(name: &str) -> Vec<Instruction> {
    let mut bytes = name.as_bytes().to_vec();
    if name.ends_with('*') {
        bytes.pop();
    } else {
        bytes.resize(16, 0);
    }
    vec![load(Source::Meta(7)), compare(0, &bytes)]
}

fn rule(parts: &[Vec<Instruction>]) -> Vec<Instruction> {
    parts.concat()
}

fn unknown() -> Vec<Instruction> {
    vec![Instruction::Unknown("limit".to_owned())]
}

/// What is found: where, and whether for certain.
fn found(foreign: &Foreign, path: &Path) -> Vec<(Option<u64>, bool)> {
    let obstacles = foreign.obstacles(path).into_iter();
    obstacles
        .map(|obstacle| match obstacle.at {
            At::Policy => (None, obstacle.certain),
            At::Rule { handle, .. } => (Some(handle), obstacle.certain),
        })
        .collect()
}

#[test]
fn a_policy_drops_what_no_rule_accepts() {
    let accept = |links: &str| forward(true, vec![rule(&[leaving(links), vec![verdict(ACCEPT)]])]);
    assert_eq!(found(&forward(false, vec![]), &visitor()), []);
    assert_eq!(found(&forward(true, vec![]), &visitor()), [(None, true)]);
    assert_eq!(found(&accept("edge0"), &visitor()), []);
    assert_eq!(found(&accept("edge*"), &visitor()), []);
    assert_eq!(found(&accept("edge"), &visitor()), [(None, true)]);
}

#[test]
fn what_is_not_known_is_neither_a_drop_nor_an_acceptance() {
    let perhaps_accepted = forward(true, vec![rule(&[unknown(), vec![verdict(ACCEPT)]])]);
    assert_eq!(found(&perhaps_accepted, &visitor()), [(None, false)]);
    // Written for some packets; nobody says that ours are among them.
    let perhaps_dropped = forward(false, vec![rule(&[unknown(), vec![verdict(DROP)]])]);
    assert_eq!(found(&perhaps_dropped, &visitor()), []);
    // Whatever it is, the packet is dropped.
    let dropped_anyway = forward(true, vec![rule(&[unknown(), vec![Instruction::Reject]])]);
    assert_eq!(found(&dropped_anyway, &visitor()), [(None, true)]);
    let stale = vec![
        load(Source::Meta(7)),
        Instruction::Unknown("hash".to_owned()),
        compare(0, b"edge0\0\0\0\0\0\0\0\0\0\0\0"),
        verdict(DROP),
    ];
    assert_eq!(found(&forward(false, vec![stale]), &visitor()), []);
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let chains = |code| {
        table(vec![
            (
                "forward",
                Some((Hook::Forward, 0, true)),
                vec![vec![to_chain(code, "user")], vec![verdict(ACCEPT)]],
            ),
            (
                "user",
                None,
                vec![vec![verdict(libc::NFT_RETURN)], vec![verdict(DROP)]],
            ),
        ])
    };
    assert_eq!(found(&chains(libc::NFT_JUMP), &visitor()), []);
    assert_eq!(found(&chains(libc::NFT_GOTO), &visitor()), [(None, true)]);
    // A dump that was torn apart may have a loop.
    let loops = table(vec![
        (
            "forward",
            Some((Hook::Forward, 0, true)),
            vec![vec![to_chain(libc::NFT_JUMP, "a")]],
        ),
        ("a", None, vec![vec![to_chain(libc::NFT_JUMP, "a")]]),
    ]);
    assert_eq!(found(&loops, &visitor()), [(None, false)]);
}

#[test]
fn addresses_and_ports_are_those_of_before_and_after_nat() {
    let port = |number: u16| {
        vec![
            load(Source::Payload {
                base: 2,
                offset: 2,
                len: 2,
            }),
            compare(0, &number.to_be_bytes()),
            verdict(DROP),
        ]
    };
    let at = |hook, priority, number| {
        table(vec![(
            "c",
            Some((hook, priority, false)),
            vec![port(number)],
        )])
    };
    for (hook, priority, number, drops) in [
        (Hook::Prerouting, -150, 443, true),
        (Hook::Prerouting, -150, 8443, false),
        (Hook::Prerouting, 0, 8443, true),
        (Hook::Forward, 0, 443, false),
        (Hook::Forward, 0, 8443, true),
        (Hook::Postrouting, 0, 8443, true),
    ] {
        let told = found(&at(hook, priority, number), &visitor());
        assert_eq!(!told.is_empty(), drops, "{hook:?} {priority} {number}");
    }
}

#[test]
fn connection_tracking_says_what_it_says() {
    let state = |bits: u32| {
        vec![
            load(Source::Ct {
                key: 0,
                of_original: None,
            }),
            Instruction::Mask {
                from: Some(0),
                to: Some(0),
                mask: bits.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            },
            compare(1, &[0; 4]),
            verdict(ACCEPT),
        ]
    };
    let answer = Path {
        tracking: Tracking::Answer,
        ..visitor()
    };
    let datagram = Path {
        tracking: Tracking::Untracked,
        called_port: None,
        ..visitor()
    };
    let established = forward(true, vec![state(1 << 1)]);
    assert_eq!(found(&established, &visitor()), [(None, true)]);
    assert_eq!(found(&established, &answer), []);
    assert_eq!(found(&established, &datagram), [(None, true)]);
    let translated = forward(
        true,
        vec![vec![
            load(Source::Ct {
                key: 2,
                of_original: None,
            }),
            Instruction::Mask {
                from: Some(0),
                to: Some(0),
                mask: 0x20_u32.to_ne_bytes().to_vec(),
                xor: vec![0; 4],
            },
            compare(1, &[0; 4]),
            verdict(ACCEPT),
        ]],
    );
    assert_eq!(found(&translated, &visitor()), []);
    // Without a connection the rule is over.
    assert_eq!(found(&translated, &datagram), [(None, true)]);
}

#[test]
fn verdict_maps_lead_where_their_elements_say() {
    let mut foreign = table(vec![
        (
            "forward",
            Some((Hook::Forward, 0, false)),
            vec![vec![
                load(Source::Meta(7)),
                Instruction::Lookup {
                    from: Some(0),
                    set: "m".to_owned(),
                    inverted: false,
                    gives: Gives::Verdict,
                },
            ]],
        ),
        ("no", None, vec![vec![Instruction::Reject]]),
    ]);
    // A map that could not be read may lead anywhere.
    assert_eq!(found(&foreign, &visitor()), []);
    let mut key = b"edge0".to_vec();
    key.resize(16, 0);
    let entry = SetEntry {
        key,
        last: None,
        ends: false,
        catch_all: false,
        target: Some(ElementTarget {
            verdict: u32::from_ne_bytes(libc::NFT_JUMP.to_ne_bytes()),
            chain: Some("no".to_owned()),
        }),
    };
    let header = SetHeader {
        name: "m".to_owned(),
        flags: 0,
        key_type: 41,
        key_len: 16,
        data_type: None,
        size: None,
        userdata: Vec::new(),
    };
    let map = ForeignSet::new(&header, vec![entry]);
    foreign.tables[0].sets.insert("m".to_owned(), map);
    assert_eq!(found(&foreign, &visitor()), [(Some(1), true)]);
}

#[test]
fn matches_and_targets_of_iptables() {
    let reject = || Instruction::Target {
        name: "REJECT".to_owned(),
        end: TargetEnd::Rejects,
    };
    let comment = || vec![Instruction::Match(Match::Comment)];
    let owner = || vec![Instruction::Match(Match::Unknown("owner".to_owned()))];
    let one = |parts: [Vec<Instruction>; 2]| found(&forward(false, vec![rule(&parts)]), &visitor());
    assert_eq!(one([comment(), vec![reject()]]), [(Some(1), true)]);
    assert_eq!(one([owner(), vec![reject()]]), []);
    let log = Instruction::Target {
        name: "LOG".to_owned(),
        end: TargetEnd::Continues,
    };
    assert_eq!(one([vec![log], vec![reject()]]), []);
}

#[test]
fn a_way_back_by_another_link_is_missing_to_fib() {
    let missing = vec![
        load(Source::Fib {
            result: 1,
            flags: 1 | 1 << 3,
        }),
        compare(0, &[0; 4]),
        verdict(DROP),
    ];
    let at_prerouting = table(vec![(
        "c",
        Some((Hook::Prerouting, 0, false)),
        vec![missing],
    )]);
    assert_eq!(found(&at_prerouting, &visitor()), []);
    let elsewhere = Path {
        way_back: Some(9),
        ..visitor()
    };
    assert_eq!(found(&at_prerouting, &elsewhere), [(Some(1), true)]);
    let nobody_knows = Path {
        way_back: None,
        ..visitor()
    };
    assert_eq!(found(&at_prerouting, &nobody_knows), []);
}

#[test]
fn an_obstacle_names_the_place_and_the_line() {
    let obstacles = forward(true, vec![]).obstacles(&visitor());
    assert_eq!(
        obstacles[0].to_string(),
        "the policy of chain forward of table inet t drops them"
    );
    assert_eq!(
        obstacles[0].remedy,
        "nft insert rule inet t forward iifname \"eth0\" oifname \"edge0\" ct status dnat accept"
    );
    let rules = vec![rule(&[leaving("edge*"), vec![Instruction::Reject]])];
    let obstacles = forward(false, rules).obstacles(&visitor());
    assert_eq!(
        obstacles[0].to_string(),
        "the rule `oifname \"edge*\" reject` (handle 1) of chain forward of table inet t rejects them"
    );
}
