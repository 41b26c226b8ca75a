//! Facts about single hosts and about the way through both ends.
use std::net::IpAddr;

use crate::api::trace::{Outcome, Trace};
use crate::config::common::{PortRange, Protocol};
use crate::model::InterfaceName;
use crate::plan::desired::{Address, protocol};
use crate::plan::ruleset::{
    AddressRange, BaseChain, Chain, ChainKind, Family, Hook, Part, Rule, Set, Side, VerdictMap,
    priority,
};
use crate::plan::{Desired, Route, RoutingRule, Ruleset};

use super::*;

fn link(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rule(parts: impl IntoIterator<Item = Part>) -> Rule {
    Rule {
        parts: parts.into_iter().collect(),
        comment: None,
    }
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        base: None,
        rules,
    }
}

fn base(name: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        base: Some(BaseChain {
            kind,
            hook,
            priority,
        }),
        ..chain(name, rules)
    }
}

fn forward(rules: Vec<Rule>) -> Chain {
    base(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        priority::FILTER,
        rules,
    )
}

fn port(port: u16) -> Part {
    Part::Ports {
        protocol: Protocol::Tcp,
        side: Side::Destination,
        ports: vec![PortRange::from(port)],
    }
}

fn address(side: Side, network: &str, negated: bool) -> Part {
    Part::Address {
        side,
        network: network.parse().unwrap(),
        negated,
    }
}

/// 10.0.0.1 on `in0`, 10.1.0.1 on `out0`, the default route over `out0`.
fn host(chains: Vec<Chain>) -> Host {
    host_with(chains, Vec::new(), Vec::new())
}

fn host_with(chains: Vec<Chain>, sets: Vec<Set>, maps: Vec<VerdictMap>) -> Host {
    let address = |name: &str, address: &str| Address {
        link: link(name),
        address: ip(address),
        prefix_len: 24,
    };
    Host::of(Desired {
        protocol: protocol::GATEWAY,
        links: Vec::new(),
        addresses: vec![address("in0", "10.0.0.1"), address("out0", "10.1.0.1")],
        routes: vec![
            Route {
                destination: Family::Ipv4.everything(),
                link: link("out0"),
                table: 254,
                source: None,
            },
            Route {
                destination: Family::Ipv4.everything(),
                link: link("in0"),
                table: 17,
                source: None,
            },
        ],
        rules: vec![RoutingRule {
            ipv6: false,
            priority: 17,
            mark: 0x100,
            mask: 0xff00,
            table: 17,
        }],
        sysctls: Vec::new(),
        ruleset: Ruleset {
            table: "t".to_owned(),
            sets,
            maps,
            chains,
        },
    })
}

fn syn(from: &str, to: &str, port: u16) -> Packet {
    Packet::opening(Protocol::Tcp, (ip(from), 50_000), (ip(to), port))
}

/// What becomes of a SYN from 10.0.0.7 to 10.1.0.9:443 that comes over `in0`.
fn pass(host: &Host) -> Passage {
    host.pass(
        Entry::Link(&link("in0")),
        syn("10.0.0.7", "10.1.0.9", 443),
        None,
    )
}

fn told(passage: &Passage) -> Vec<String> {
    let steps = passage.steps.iter();
    steps
        .map(|step| format!("{}: {}", step.chain, step.rule))
        .collect()
}

#[test]
fn without_a_rule_a_packet_is_routed() {
    let passage = pass(&host(Vec::new()));
    let packet = syn("10.0.0.7", "10.1.0.9", 443);
    let link = link("out0");
    assert_eq!(passage.end, End::Sent { link, packet });
    assert_eq!(passage.steps, []);
}

#[test]
fn only_rules_that_match_are_steps_and_the_first_verdict_counts() {
    let passage = pass(&host(vec![forward(vec![
        rule([port(80), Part::Accept]),
        rule([port(443), Part::Counter]),
        rule([port(443), Part::Drop]),
        rule([Part::Accept]),
    ])]));
    assert_eq!(passage.end, End::DroppedByRule);
    assert_eq!(
        told(&passage),
        [
            "forward: tcp dport 443 counter",
            "forward: tcp dport 443 drop"
        ]
    );
    assert_eq!(passage.steps[0].outcome, Outcome::GoesOn);
}

#[test]
fn accept_ends_its_base_chain_only() {
    let early = base(
        "early",
        ChainKind::Filter,
        Hook::Forward,
        priority::FILTER - 1,
        vec![rule([Part::Accept]), rule([Part::Drop])],
    );
    let late = forward(vec![rule([Part::Drop])]);
    let passage = pass(&host(vec![late, early]));
    assert_eq!(passage.end, End::DroppedByRule);
    assert_eq!(told(&passage), ["early: accept", "forward: drop"]);
}

#[test]
fn a_jump_comes_back_unless_it_ends_with_a_verdict() {
    let side = chain("side", vec![rule([Part::Return]), rule([Part::Drop])]);
    let end = chain("end", vec![rule([port(443), Part::Accept])]);
    let jumps = ["side", "end"].map(|name| rule([Part::Jump(name.to_owned())]));
    let mut rules = jumps.to_vec();
    rules.push(rule([Part::Drop]));
    let passage = pass(&host(vec![side, end, forward(rules)]));
    assert!(matches!(passage.end, End::Sent { .. }), "{passage:?}");
    assert_eq!(
        told(&passage),
        [
            "forward: jump side",
            "side: return",
            "forward: jump end",
            "end: tcp dport 443 accept"
        ]
    );
}

#[test]
fn a_map_leads_to_the_chain_of_the_source_and_says_so() {
    let map = VerdictMap {
        name: "m".to_owned(),
        family: Family::Ipv4,
        elements: ["10.0.0.3", "10.0.0.7"]
            .map(|address| (ip(address), "end".into()))
            .to_vec(),
    };
    let look_up = rule([Part::SourceVerdictMap {
        family: Family::Ipv4,
        map: "m".to_owned(),
    }]);
    let end = chain("end", vec![rule([Part::Drop])]);
    let host = host_with(
        vec![end, forward(vec![look_up, rule([Part::Accept])])],
        Vec::new(),
        vec![map],
    );
    let passage = pass(&host);
    assert_eq!(passage.end, End::DroppedByRule);
    assert_eq!(passage.steps[0].note.as_deref(), Some("jump end"));
    let other = syn("10.0.0.8", "10.1.0.9", 443);
    let passage = host.pass(Entry::Link(&link("in0")), other, None);
    assert!(matches!(passage.end, End::Sent { .. }));
}

#[test]
fn a_comparison_of_the_other_family_fails_even_when_it_is_negated() {
    let foreign = rule([address(Side::Source, "fd00::/8", true), Part::Drop]);
    let passage = pass(&host(vec![forward(vec![foreign])]));
    assert!(matches!(passage.end, End::Sent { .. }));
    let own = rule([address(Side::Source, "10.9.0.0/16", true), Part::Drop]);
    let passage = pass(&host(vec![forward(vec![own])]));
    assert_eq!(passage.end, End::DroppedByRule);
}

#[test]
fn what_a_rule_has_done_before_it_fails_is_done() {
    let mark = |value| Part::SetCtMark { keep: 0, value };
    let marked = |value| Part::CtMark {
        mask: u32::MAX,
        value,
        negated: false,
    };
    let passage = pass(&host(vec![forward(vec![
        rule([mark(7), port(80), Part::Accept]),
        rule([marked(7), Part::Drop]),
    ])]));
    assert_eq!(told(&passage), ["forward: ct mark 0x00000007 drop"]);
}

#[test]
fn dnat_comes_before_the_route_and_its_answer_has_the_old_address() {
    let to_vip = rule([
        Part::DestinationIsLocal,
        port(443),
        Part::Dnat {
            address: ip("10.1.0.9"),
            port: Some(8443),
        },
    ]);
    let nat = base(
        "publish",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
        vec![to_vip],
    );
    let masquerade = base(
        "source_nat",
        ChainKind::Nat,
        Hook::Postrouting,
        priority::SRCNAT,
        vec![rule([Part::CtStatusDnat, Part::Masquerade])],
    );
    let host = host(vec![nat, masquerade]);
    let call = syn("10.0.0.7", "10.0.0.1", 443);
    let passage = host.pass(Entry::Link(&link("in0")), call, None);
    let End::Sent { packet, .. } = passage.end else {
        panic!("{passage:?}");
    };
    assert_eq!(packet, syn("10.1.0.1", "10.1.0.9", 8443));
    assert_eq!(
        passage.steps[1].note.as_deref(),
        Some("the source is 10.1.0.1 now")
    );
    let connection = passage.connection;
    let answer = host.pass(
        Entry::Link(&link("out0")),
        packet.reversed(),
        connection.as_ref(),
    );
    let link = link("in0");
    let packet = call.reversed();
    assert_eq!(answer.end, End::Sent { link, packet });
}

#[test]
fn one_of_a_pool_stands_for_the_caller() {
    let pool = |first: &str, last: &str| {
        let range = AddressRange::new(ip(first), ip(last));
        rule([Part::Snat(range.unwrap())])
    };
    let source_nat = base(
        "source_nat",
        ChainKind::Nat,
        Hook::Postrouting,
        priority::SRCNAT,
        vec![pool("fd00::1", "fd00::1"), pool("10.1.0.4", "10.1.0.6")],
    );
    let host = host(vec![source_nat]);
    let call = syn("10.0.0.7", "10.1.0.9", 443);
    let passage = host.pass(Entry::Link(&link("in0")), call, None);
    let End::Sent { packet, .. } = passage.end else {
        panic!("{passage:?}");
    };
    assert_eq!(
        packet,
        syn("10.1.0.4", "10.1.0.9", 443),
        "not of the other family"
    );
    assert_eq!(
        passage.steps.last().and_then(|step| step.note.as_deref()),
        Some("the source is one of 10.1.0.4-10.1.0.6 now")
    );
    let answer = host.pass(
        Entry::Link(&link("out0")),
        packet.reversed(),
        passage.connection.as_ref(),
    );
    let link = link("in0");
    let packet = call.reversed();
    assert_eq!(answer.end, End::Sent { link, packet });
}

#[test]
fn an_answer_goes_by_the_table_of_its_mark() {
    let entering = |negated| Part::InputInterface {
        name: link("in0"),
        negated,
    };
    let mark = Part::SetCtMark {
        keep: 0xff,
        value: 0x100,
    };
    let connmark = base(
        "connmark",
        ChainKind::Filter,
        Hook::Prerouting,
        priority::MANGLE,
        vec![
            rule([entering(false), Part::CtNew, mark]),
            rule([entering(true), Part::SetMarkFromCt { mask: 0xff00 }]),
        ],
    );
    let host = host(vec![connmark]);
    let call = syn("198.51.100.7", "10.1.0.9", 443);
    let there = host.pass(Entry::Link(&link("in0")), call, None);
    let back = |connection: Option<&Connection>| {
        let passage = host.pass(Entry::Link(&link("out0")), call.reversed(), connection);
        match passage.end {
            End::Sent { link, .. } => link.to_string(),
            end @ (End::DroppedByRule | End::Dropped(_) | End::Delivered(_)) => panic!("{end:?}"),
        }
    };
    assert_eq!(back(there.connection.as_ref()), "in0");
    assert_eq!(back(None), "out0", "without a connection");
}

#[test]
fn before_tracking_nothing_is_new_and_what_is_untracked_is_not_translated() {
    let raw = base(
        "raw",
        ChainKind::Filter,
        Hook::Prerouting,
        priority::RAW,
        vec![
            rule([Part::CtNew, Part::Drop]),
            rule([port(443), Part::Notrack]),
        ],
    );
    let nat = base(
        "nat",
        ChainKind::Nat,
        Hook::Prerouting,
        priority::DSTNAT,
        vec![rule([Part::Dnat {
            address: ip("10.0.0.9"),
            port: None,
        }])],
    );
    let host = host(vec![raw, nat]);
    let passage = pass(&host);
    assert_eq!(told(&passage), ["raw: tcp dport 443 notrack"]);
    assert_eq!(passage.connection, None);
    let tracked = syn("10.0.0.7", "10.1.0.9", 80);
    let passage = host.pass(Entry::Link(&link("in0")), tracked, None);
    assert_eq!(told(&passage), ["nat: dnat ip to 10.0.0.9"]);
}

#[test]
fn the_kernel_drops_what_it_has_no_route_or_no_address_for() {
    let nowhere = Packet::opening(Protocol::Udp, (ip("fd00::1"), 1), (ip("fd00:1::1"), 2));
    let passage = host(Vec::new()).pass(Entry::Link(&link("in0")), nowhere, None);
    assert!(
        matches!(&passage.end, End::Dropped(why) if why.contains("no route")),
        "{passage:?}"
    );
    let own = syn("10.1.0.1", "10.1.0.9", 443);
    let passage = host(Vec::new()).pass(Entry::Link(&link("in0")), own, None);
    assert!(
        matches!(&passage.end, End::Dropped(why) if why.contains("takes no packet from itself")),
        "{passage:?}"
    );
}

/// 10.9.0.0/16 is the tunnel; `a` has 10.9.0.2, the LAN server `home` 10.9.5.0/24.
fn site(chains: Vec<Chain>) -> Site {
    let desired = |chains| Desired {
        protocol: protocol::GATEWAY,
        links: Vec::new(),
        addresses: vec![Address {
            link: link("edge0"),
            address: ip("10.9.0.1"),
            prefix_len: 16,
        }],
        routes: Vec::new(),
        rules: Vec::new(),
        sysctls: Vec::new(),
        ruleset: Ruleset {
            table: "t".to_owned(),
            sets: vec![Set {
                name: "s".to_owned(),
                family: Family::Ipv4,
                elements: vec!["192.0.2.0/24".parse().unwrap()],
            }],
            maps: Vec::new(),
            chains,
        },
    };
    let peer = |name: &str, is_lan_server, network: &str| Peer {
        name: name.to_owned(),
        is_lan_server,
        networks: vec![network.parse().unwrap()],
    };
    Site::Gateway {
        end: TunnelEnd {
            host: Host::of(desired(chains)),
            tunnel: link("edge0"),
            peers: vec![
                peer("a", false, "10.9.0.2/32"),
                peer("home", true, "10.9.5.0/24"),
            ],
        },
        wan: link("eth0"),
        lan: Vec::new(),
    }
}

fn trace(site: &Site, from: &str, to: &str) -> Trace {
    site.trace(ip(from), to.parse().unwrap())
}

#[test]
fn a_peer_calls_by_the_tunnel_and_a_stranger_by_the_wan() {
    let by = |name: &str| Part::InputInterface {
        name: link(name),
        negated: false,
    };
    let site = site(vec![forward(vec![rule([by("eth0"), Part::Drop])])]);
    let peer = trace(&site, "10.9.0.2", "10.9.5.7:443");
    assert!(peer.allowed, "{peer:?}");
    assert_eq!(peer.not_looked_at.as_deref(), Some("home"));
    let texts: Vec<&str> = peer.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "10.9.0.2 belongs to a",
            "10.9.5.7 is reached by edge0",
            "10.9.5.7 belongs to home (10.9.5.0/24)",
            "10.9.0.2 is reached by edge0"
        ]
    );
    let stranger = trace(&site, "198.51.100.7", "10.9.5.7:443");
    assert!(!stranger.allowed);
    assert_eq!(
        stranger.reason,
        "dropped by rule `iifname \"eth0\" drop` of chain forward on gateway"
    );
}

#[test]
fn an_address_that_no_peer_has_is_not_reached() {
    let lost = trace(&site(Vec::new()), "10.9.0.2", "10.9.7.7:443");
    assert_eq!(lost.reason, "no peer of the gateway has 10.9.7.7");
}

#[test]
fn an_address_that_nothing_leads_to_is_one_of_the_gateway_on_the_internet() {
    let called = trace(&site(Vec::new()), "198.51.100.7", "203.0.113.10:22");
    assert!(called.allowed, "{called:?}");
    assert_eq!(called.reason, "no rule of ours stops it");
    assert_eq!(called.steps[1].text, "203.0.113.10 is this host");
}

#[test]
fn an_answer_that_is_dropped_is_no_way() {
    let reply = forward(vec![rule([Part::CtDirectionReply, Part::Drop])]);
    let call = trace(&site(vec![reply]), "10.9.0.2", "10.9.5.7:443");
    assert_eq!(
        call.reason,
        "the answer is dropped by rule `ct direction reply drop` of chain forward on gateway"
    );
    assert!(call.steps.last().unwrap().answer);
}

#[test]
fn a_stranger_is_in_no_set_and_no_network() {
    let stranger = site(Vec::new()).stranger(Family::Ipv4);
    assert_eq!(stranger, ip("192.0.3.0"));
    let stranger = site(Vec::new()).stranger(Family::Ipv6);
    assert_eq!(stranger, ip("2001:db8::1"));
}
