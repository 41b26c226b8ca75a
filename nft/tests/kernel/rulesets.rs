//! Rulesets to test with.
use std::net::IpAddr;

use shared::config::common::{PortRange, Protocol};
use shared::model::InterfaceName;
use shared::plan::Ruleset;
use shared::plan::ruleset::{
    AddressRange, BaseChain, Chain, ChainKind, Family, Hook, Part, Rule, Set, Side, VerdictMap,
    priority,
};

pub(crate) const TABLE: &str = "wg_edge";

pub(crate) fn link(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

pub(crate) fn input(name: &str) -> Part {
    Part::InputInterface {
        name: link(name),
        negated: false,
    }
}

pub(crate) fn output(name: &str) -> Part {
    Part::OutputInterface {
        name: link(name),
        negated: false,
    }
}

pub(crate) fn address(side: Side, network: &str, negated: bool) -> Part {
    Part::Address {
        side,
        network: network.parse().unwrap(),
        negated,
    }
}

pub(crate) fn in_set(family: Family, set: &str, negated: bool) -> Part {
    Part::AddressInSet {
        side: Side::Source,
        family,
        set: set.to_owned(),
        negated,
    }
}

pub(crate) fn port_ranges(protocol: Protocol, side: Side, ports: &[(u16, u16)]) -> Part {
    let ports = ports
        .iter()
        .map(|&(first, last)| PortRange { first, last })
        .collect();
    Part::Ports {
        protocol,
        side,
        ports,
    }
}

pub(crate) fn tcp(ports: &[u16]) -> Part {
    let ports: Vec<_> = ports.iter().map(|&p| (p, p)).collect();
    port_ranges(Protocol::Tcp, Side::Destination, &ports)
}

pub(crate) fn dnat(address: &str, port: Option<u16>) -> Part {
    Part::Dnat {
        address: address.parse().unwrap(),
        port,
    }
}

pub(crate) fn snat(first: &str, last: &str) -> Part {
    let range = AddressRange::new(first.parse().unwrap(), last.parse().unwrap());
    Part::Snat(range.expect("a range"))
}

pub(crate) fn rule(parts: impl IntoIterator<Item = Part>) -> Rule {
    Rule {
        parts: parts.into_iter().collect(),
        comment: None,
    }
}

pub(crate) fn commented(parts: impl IntoIterator<Item = Part>, comment: &str) -> Rule {
    Rule {
        comment: Some(comment.to_owned()),
        ..rule(parts)
    }
}

pub(crate) fn set(name: &str, family: Family, networks: &[&str]) -> Set {
    Set {
        name: name.to_owned(),
        family,
        elements: networks.iter().map(|n| n.parse().unwrap()).collect(),
    }
}

pub(crate) fn map(name: &str, family: Family, elements: &[(&str, &str)]) -> VerdictMap {
    let element = |&(key, chain): &(&str, &str)| (key.parse::<IpAddr>().unwrap(), chain.into());
    VerdictMap {
        name: name.to_owned(),
        family,
        elements: elements.iter().map(element).collect(),
    }
}

pub(crate) fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        base: None,
        rules,
    }
}

pub(crate) fn base(
    name: &str,
    kind: ChainKind,
    hook: Hook,
    priority: i32,
    rules: Vec<Rule>,
) -> Chain {
    Chain {
        name: name.to_owned(),
        base: Some(BaseChain {
            kind,
            hook,
            priority,
        }),
        rules,
    }
}

pub(crate) const CLOUDFLARE_4: &[&str] = &[
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
];
pub(crate) const CLOUDFLARE_6: &[&str] = &[
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// The gateway of the design: origin guard, publishing, roles, clamping.
pub(crate) fn gateway() -> Ruleset {
    let guarded = |family, set| {
        rule([
            input("eth0"),
            Part::DestinationIsLocal,
            tcp(&[80, 443]),
            in_set(family, set, true),
            Part::Counter,
            Part::Drop,
        ])
    };
    let guard = vec![
        rule([
            port_ranges(Protocol::Udp, Side::Destination, &[(51820, 51820)]),
            Part::Notrack,
        ]),
        rule([
            port_ranges(Protocol::Udp, Side::Source, &[(51820, 51820)]),
            Part::Notrack,
        ]),
        rule([
            input("eth0"),
            address(Side::Source, "10.17.0.0/16", false),
            Part::Drop,
        ]),
        guarded(Family::Ipv4, "cf4"),
        guarded(Family::Ipv6, "cf6"),
    ];
    let publish = vec![
        commented(
            [
                input("eth0"),
                in_set(Family::Ipv4, "cf4", false),
                Part::DestinationIsLocal,
                tcp(&[80, 443]),
                Part::NamedCounter("publish_ingress".to_owned()),
                dnat("10.17.5.30", None),
            ],
            "publish ingress",
        ),
        rule([
            input("eth0"),
            Part::DestinationIsLocal,
            tcp(&[8443]),
            Part::Counter,
            dnat("10.17.5.10", Some(6443)),
        ]),
    ];
    let forward = vec![
        rule([output("edge0"), Part::ClampMss]),
        rule([input("edge0"), Part::ClampMss]),
        rule([Part::CtInvalid, input("edge0"), Part::Drop]),
        rule([Part::CtEstablishedRelated, Part::Accept]),
        rule([
            input("eth0"),
            output("edge0"),
            Part::CtStatusDnat,
            Part::Accept,
        ]),
        rule([
            input("edge0"),
            output("edge0"),
            Part::SourceVerdictMap {
                family: Family::Ipv4,
                map: "peers4".to_owned(),
            },
        ]),
        rule([
            input("edge0"),
            output("edge0"),
            Part::SourceVerdictMap {
                family: Family::Ipv6,
                map: "peers6".to_owned(),
            },
        ]),
        rule([
            input("edge0"),
            Part::NamedCounter("peer_denied".to_owned()),
            Part::Drop,
        ]),
        rule([output("edge0"), Part::Counter, Part::Drop]),
    ];
    let role_admin = vec![
        rule([
            address(Side::Destination, "10.17.5.10", false),
            tcp(&[6443]),
            Part::Accept,
        ]),
        rule([
            address(Side::Destination, "10.17.3.11", false),
            port_ranges(Protocol::Udp, Side::Destination, &[(53, 53)]),
            Part::Accept,
        ]),
        rule([
            address(Side::Destination, "10.17.3.0/24", false),
            port_ranges(Protocol::Tcp, Side::Destination, &[(8000, 8100)]),
            Part::Accept,
        ]),
        rule([Part::EchoRequest(Family::Ipv4), Part::Accept]),
        rule([Part::Return]),
    ];
    Ruleset {
        table: TABLE.to_owned(),
        sets: vec![
            set("cf4", Family::Ipv4, CLOUDFLARE_4),
            set("cf6", Family::Ipv6, CLOUDFLARE_6),
        ],
        maps: vec![
            map(
                "peers4",
                Family::Ipv4,
                &[
                    ("10.17.0.10", "role_admin"),
                    ("10.17.0.11", "role_admin"),
                    ("10.17.0.12", "role_none"),
                ],
            ),
            map(
                "peers6",
                Family::Ipv6,
                &[("fd00::10", "role_admin"), ("fd00::11", "role_none")],
            ),
        ],
        chains: vec![
            chain("role_admin", role_admin),
            chain("role_none", Vec::new()),
            base(
                "guard",
                ChainKind::Filter,
                Hook::Prerouting,
                priority::RAW,
                guard,
            ),
            base(
                "publish",
                ChainKind::Nat,
                Hook::Prerouting,
                priority::DSTNAT,
                publish,
            ),
            base(
                "forward",
                ChainKind::Filter,
                Hook::Forward,
                priority::FILTER,
                forward,
            ),
            base(
                "source_nat",
                ChainKind::Nat,
                Hook::Postrouting,
                priority::SRCNAT,
                vec![rule([
                    output("edge0"),
                    Part::CtStatusDnat,
                    Part::Masquerade,
                ])],
            ),
        ],
    }
}

/// The LAN host of the design: marks by tunnel, replies back by the same, accessible services only.
pub(crate) fn lan() -> Ruleset {
    const MASK: u32 = 0x3f00_0000;
    let mark = vec![
        rule([
            input("edge0"),
            Part::CtNew,
            Part::SetCtMark {
                keep: !MASK,
                value: 0x0100_0000,
            },
        ]),
        rule([
            input("edge1"),
            Part::CtNew,
            Part::SetCtMark {
                keep: !MASK,
                value: 0x0200_0000,
            },
        ]),
        rule([
            Part::InputInterface {
                name: link("edge0"),
                negated: true,
            },
            Part::InputInterface {
                name: link("edge1"),
                negated: true,
            },
            Part::CtMark {
                mask: MASK,
                value: 0,
                negated: true,
            },
            Part::SetMarkFromCt { mask: MASK },
        ]),
    ];
    let forward = vec![
        rule([output("edge0"), Part::ClampMss]),
        rule([
            input("edge0"),
            Part::SourceNotRoutedVia(link("edge0")),
            Part::Counter,
            Part::Drop,
        ]),
        rule([input("edge0"), Part::Redirect(Family::Ipv4), Part::Drop]),
        rule([input("edge0"), Part::Redirect(Family::Ipv6), Part::Drop]),
        rule([Part::CtEstablishedRelated, Part::Accept]),
        rule([
            input("edge0"),
            address(Side::Source, "192.168.0.0/24", false),
            Part::Counter,
            Part::Drop,
        ]),
        rule([input("edge0"), Part::Jump("from_tunnel".to_owned())]),
        rule([
            input("edge0"),
            Part::NamedCounter("tunnel_denied".to_owned()),
            Part::Drop,
        ]),
    ];
    let from_tunnel = vec![
        rule([
            in_set(Family::Ipv4, "cf4", false),
            address(Side::Destination, "10.17.5.30", false),
            tcp(&[80, 443]),
            Part::NamedCounter("publish_ingress".to_owned()),
            Part::Accept,
        ]),
        rule([
            address(Side::Source, "10.17.0.0/16", false),
            address(Side::Destination, "10.17.5.10", false),
            tcp(&[6443]),
            Part::Accept,
        ]),
    ];
    let snat = vec![rule([
        input("edge0"),
        address(Side::Source, "10.17.0.0/16", false),
        address(Side::Destination, "10.17.5.10", false),
        tcp(&[6443]),
        Part::Masquerade,
    ])];
    Ruleset {
        table: "wg_edge_lan".to_owned(),
        sets: vec![set("cf4", Family::Ipv4, CLOUDFLARE_4)],
        maps: Vec::new(),
        chains: vec![
            base(
                "tunnel_mark",
                ChainKind::Filter,
                Hook::Prerouting,
                priority::MANGLE,
                mark,
            ),
            chain("from_tunnel", from_tunnel),
            base(
                "forward",
                ChainKind::Filter,
                Hook::Forward,
                priority::FILTER,
                forward,
            ),
            base(
                "source_nat",
                ChainKind::Nat,
                Hook::Postrouting,
                priority::SRCNAT,
                snat,
            ),
        ],
    }
}

/// Every part in every form that it has, each alone in a rule where it can stand alone.
pub(crate) fn every_part() -> Ruleset {
    use Part::{Accept, Counter};
    let (source, destination) = (Side::Source, Side::Destination);
    let (v4, v6) = (Family::Ipv4, Family::Ipv6);
    let mark = |mask, value, negated| {
        rule([Part::CtMark {
            mask,
            value,
            negated,
        }])
    };
    let set_mark = |keep, value| rule([Part::SetCtMark { keep, value }]);
    let udp = |ports: &[(u16, u16)]| rule([port_ranges(Protocol::Udp, source, ports)]);
    let in_set = |side, family, set: &str, negated| {
        rule([Part::AddressInSet {
            side,
            family,
            set: set.to_owned(),
            negated,
        }])
    };
    let snats = vec![
        rule([Part::Masquerade]),
        rule([snat("192.168.0.20", "192.168.0.20")]),
        rule([snat("192.168.0.20", "192.168.0.23")]),
        rule([tcp(&[80]), snat("192.168.0.20", "192.168.0.24")]),
        rule([Part::NetworkFamily(v6), snat("fd00::3", "fd00::3")]),
        rule([
            address(destination, "fd00::9", false),
            snat("fd00::3", "fd00::9"),
        ]),
    ];
    let matches = vec![
        rule([input("edge0")]),
        rule([Part::InputInterface {
            name: link("abcdefghijklmno"),
            negated: true,
        }]),
        rule([output("eth0.100")]),
        rule([Part::OutputInterface {
            name: link("br-lan"),
            negated: true,
        }]),
        rule([address(source, "10.17.0.0/16", false)]),
        rule([address(destination, "10.17.0.1", true)]),
        rule([address(source, "10.0.0.0/7", true)]),
        rule([address(source, "10.0.0.0/8", true)]),
        rule([address(destination, "10.1.2.128/25", false)]),
        rule([address(source, "0.0.0.0/0", false)]),
        rule([address(source, "0.0.0.0/0", true)]),
        rule([address(source, "0.0.0.0", false)]),
        rule([address(source, "255.255.255.255", false)]),
        rule([address(source, "fd00::/8", false)]),
        rule([address(source, "fd00:0:0:1::/63", true)]),
        rule([
            address(destination, "fd00::1", false),
            address(source, "fd00::/64", true),
        ]),
        rule([address(destination, "::/0", false)]),
        rule([address(
            destination,
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            false,
        )]),
        in_set(source, v4, "s4", false),
        in_set(destination, v4, "s4", true),
        in_set(source, v6, "s6", true),
        in_set(destination, v6, "s6", false),
        rule([Part::NetworkFamily(v4), Accept]),
        rule([Part::NetworkFamily(v6), Counter]),
        rule([
            Part::NetworkFamily(v4),
            input("edge0"),
            address(source, "10.0.0.1", false),
        ]),
        rule([
            Part::NetworkFamily(v4),
            tcp(&[80]),
            address(source, "10.0.0.1", false),
        ]),
        rule([Part::NetworkFamily(v4), tcp(&[80]), Accept]),
        rule([
            Part::NetworkFamily(v4),
            Counter,
            address(source, "10.0.0.1", false),
        ]),
        rule([Part::NetworkFamily(v6), Part::EchoRequest(v6)]),
        rule([
            Part::NetworkFamily(v4),
            Part::SourceVerdictMap {
                family: v4,
                map: "m4".to_owned(),
            },
        ]),
        rule([Part::TransportProtocol(Protocol::Tcp), Accept]),
        rule([Part::TransportProtocol(Protocol::Udp)]),
        rule([
            Part::TransportProtocol(Protocol::Tcp),
            input("edge0"),
            tcp(&[80]),
        ]),
        rule([Part::TransportProtocol(Protocol::Tcp), Counter, tcp(&[80])]),
        rule([Part::TransportProtocol(Protocol::Tcp), Part::ClampMss]),
        rule([tcp(&[80]), Part::ClampMss]),
        rule([tcp(&[443])]),
        rule([tcp(&[80, 443])]),
        rule([port_ranges(Protocol::Tcp, source, &[(1024, 65535)])]),
        udp(&[(3000, 3010)]),
        udp(&[(53, 53), (3000, 3010)]),
        udp(&[(3000, 3010), (65535, 65535)]),
        udp(&[(80, 80), (81, 82)]),
        udp(&[(1, 3), (5, 65535)]),
        udp(&[(65534, 65534), (1, 1)]),
        rule([Part::EchoRequest(v4)]),
        rule([Part::EchoRequest(v6), address(source, "fd00::1", false)]),
        rule([Part::Redirect(v4)]),
        rule([Part::Redirect(v6)]),
        rule([Part::DestinationIsLocal]),
        rule([Part::SourceNotRoutedVia(link("edge0"))]),
        rule([Part::CtEstablishedRelated]),
        rule([Part::CtRelated]),
        rule([Part::CtDirectionReply]),
        rule([Part::CtNew]),
        rule([Part::CtInvalid]),
        rule([Part::CtStatusDnat]),
        mark(0x3f00_0000, 0x0100_0000, false),
        mark(0x3f00_0000, 0, true),
        mark(0x0100_0000, 0x0100_0000, false),
        mark(0x0100_0000, 0, false),
        mark(0xff00_0000, 0x0100_0000, false),
        mark(0xffff_0000, 0, true),
        mark(u32::MAX, 1, false),
        mark(u32::MAX, 1, true),
        set_mark(0xc0ff_ffff, 0x0100_0000),
        set_mark(0xc0ff_ffff, 0),
        set_mark(u32::MAX, 0),
        set_mark(u32::MAX, 1),
        set_mark(0, 0x0100_0000),
        set_mark(0xffff_0000, 0x1234),
        rule([Part::SetMarkFromCt { mask: 0x3f00_0000 }]),
        rule([Part::SetMarkFromCt { mask: u32::MAX }]),
        rule([Part::ClampMss]),
        rule([Counter]),
        rule([Part::NamedCounter("second".to_owned())]),
        rule([Part::NamedCounter("first".to_owned())]),
        rule([Part::SourceVerdictMap {
            family: v4,
            map: "m4".to_owned(),
        }]),
        rule([Part::SourceVerdictMap {
            family: v6,
            map: "m6".to_owned(),
        }]),
        rule([Part::Jump("helper".to_owned())]),
        commented([Accept], "a comment with spaces; and more"),
        rule([Part::Drop]),
    ];
    let dnats = vec![
        rule([dnat("10.17.5.30", None)]),
        rule([tcp(&[443]), dnat("10.17.5.30", Some(8443))]),
        rule([
            Part::TransportProtocol(Protocol::Udp),
            dnat("10.17.5.30", Some(53)),
        ]),
        rule([dnat("fd00::1", None)]),
        rule([tcp(&[443]), dnat("fd00::1", Some(8443))]),
    ];
    Ruleset {
        table: TABLE.to_owned(),
        sets: vec![
            set("s4", Family::Ipv4, &["10.0.0.0/8"]),
            set("s6", Family::Ipv6, &["fd00::/8"]),
            set("empty", Family::Ipv4, &[]),
        ],
        maps: vec![
            map("m4", Family::Ipv4, &[("10.0.0.1", "helper")]),
            map(
                "m6",
                Family::Ipv6,
                &[("fd00::1", "helper"), ("fd00::2", "helper")],
            ),
            map("no_elements", Family::Ipv6, &[]),
        ],
        chains: vec![
            chain("helper", vec![rule([Part::Return])]),
            base(
                "matches",
                ChainKind::Filter,
                Hook::Forward,
                priority::FILTER,
                matches,
            ),
            base(
                "untracked",
                ChainKind::Filter,
                Hook::Output,
                priority::RAW - 1,
                vec![rule([Part::Notrack])],
            ),
            base(
                "rerouted",
                ChainKind::Route,
                Hook::Output,
                priority::MANGLE,
                Vec::new(),
            ),
            base(
                "local_in",
                ChainKind::Filter,
                Hook::Input,
                priority::FILTER + 7,
                Vec::new(),
            ),
            base("far", ChainKind::Filter, Hook::Input, 77, Vec::new()),
            base(
                "dnats",
                ChainKind::Nat,
                Hook::Prerouting,
                priority::DSTNAT,
                dnats,
            ),
            base(
                "dnats_local",
                ChainKind::Nat,
                Hook::Output,
                priority::DSTNAT,
                Vec::new(),
            ),
            base(
                "snats",
                ChainKind::Nat,
                Hook::Postrouting,
                priority::SRCNAT,
                snats,
            ),
        ],
    }
}

/// Sets at the edges of their families.
pub(crate) fn edges() -> Ruleset {
    let last6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    Ruleset {
        table: TABLE.to_owned(),
        sets: vec![
            set("all4", Family::Ipv4, &["0.0.0.0/0"]),
            set("all6", Family::Ipv6, &["::/0"]),
            set("ends4", Family::Ipv4, &["0.0.0.0/32", "255.255.255.255/32"]),
            set("ends6", Family::Ipv6, &["::/128", &format!("{last6}/128")]),
            set("upper4", Family::Ipv4, &["128.0.0.0/1"]),
            set("lower6", Family::Ipv6, &["::/1"]),
            set(
                "touching4",
                Family::Ipv4,
                &["104.16.0.0/13", "104.24.0.0/14", "104.28.0.0/32"],
            ),
            set("halves6", Family::Ipv6, &["fd00::/9", "fd80::/9"]),
            set(
                "inside4",
                Family::Ipv4,
                &["10.0.0.0/8", "10.1.0.0/16", "10.255.255.255/32"],
            ),
            set(
                "open4",
                Family::Ipv4,
                &["254.0.0.0/8", "255.0.0.0/9", "255.128.0.0/9"],
            ),
        ],
        maps: Vec::new(),
        chains: Vec::new(),
    }
}
