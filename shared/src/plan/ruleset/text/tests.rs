//! Texts, word for word.
use super::*;

fn rule(parts: Vec<Part>, comment: Option<&str>) -> Rule {
    Rule {
        parts,
        comment: comment.map(ToOwned::to_owned),
    }
}

fn small() -> Ruleset {
    let address = |text: &str, negated| Part::Address {
        side: Side::Source,
        network: text.parse().unwrap(),
        negated,
    };
    let ports = |ports: &[(u16, u16)]| Part::Ports {
        protocol: Protocol::Tcp,
        side: Side::Destination,
        ports: ports
            .iter()
            .map(|&(first, last)| PortRange { first, last })
            .collect(),
    };
    let networks = [
        "104.24.0.0/14",
        "104.16.0.0/13",
        "10.0.0.1/32",
        "10.0.1.0/24",
    ];
    Ruleset {
        table: "small".to_owned(),
        sets: vec![Set {
            name: "s4".to_owned(),
            family: Family::Ipv4,
            elements: networks.iter().map(|n| n.parse().unwrap()).collect(),
        }],
        maps: vec![VerdictMap {
            name: "m6".to_owned(),
            family: Family::Ipv6,
            elements: ["fd00::1", "fd00::2"]
                .map(|a| (a.parse().unwrap(), "target".into()))
                .to_vec(),
        }],
        chains: vec![
            Chain {
                name: "target".to_owned(),
                base: None,
                rules: vec![rule(vec![Part::Return], None)],
            },
            Chain {
                name: "publish".to_owned(),
                base: Some(BaseChain {
                    kind: ChainKind::Nat,
                    hook: Hook::Prerouting,
                    priority: priority::DSTNAT + 5,
                }),
                rules: vec![
                    rule(
                        vec![
                            Part::NetworkFamily(Family::Ipv4),
                            Part::InputInterface {
                                name: "eth0".parse().unwrap(),
                                negated: true,
                            },
                            address("10.0.0.0/8", true),
                            ports(&[(443, 443), (80, 80), (81, 82)]),
                            Part::NamedCounter("hits".to_owned()),
                            Part::Dnat {
                                address: "10.17.5.30".parse().unwrap(),
                                port: Some(443),
                            },
                        ],
                        Some("to the VIP"),
                    ),
                    rule(
                        vec![Part::NetworkFamily(Family::Ipv6), Part::Counter, Part::Drop],
                        None,
                    ),
                    rule(
                        vec![Part::SourceVerdictMap {
                            family: Family::Ipv6,
                            map: "m6".to_owned(),
                        }],
                        None,
                    ),
                ],
            },
        ],
    }
}

#[test]
fn a_ruleset_prints_as_nft_lists_it() {
    let expected = r#"table inet small {
	counter hits {
	}

	set s4 {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.1, 10.0.1.0/24,
			     104.16.0.0-104.27.255.255 }
	}

	map m6 {
		type ipv6_addr : verdict
		elements = { fd00::1 : jump target,
			     fd00::2 : jump target }
	}

	chain target {
		return
	}

	chain publish {
		type nat hook prerouting priority dstnat + 5; policy accept;
		iifname != "eth0" ip saddr != 10.0.0.0/8 tcp dport { 80-82, 443 } counter name "hits" dnat ip to 10.17.5.30:443 comment "to the VIP"
		meta nfproto ipv6 counter drop
		ip6 saddr vmap @m6
	}
}
"#;
    assert_eq!(small().to_string(), expected);
}

#[test]
fn marks_print_as_nft_lists_them() {
    let ct = |mask, value, negated| {
        Part::CtMark {
            mask,
            value,
            negated,
        }
        .to_string()
    };
    assert_eq!(
        ct(0x3f00_0000, 0x0100_0000, false),
        "ct mark & 0x3f000000 == 0x01000000"
    );
    assert_eq!(
        ct(0x3f00_0000, 0, true),
        "ct mark & 0x3f000000 != 0x00000000"
    );
    assert_eq!(
        ct(0xff00_0000, 0x0100_0000, true),
        "ct mark != 0x01000000/8"
    );
    assert_eq!(ct(u32::MAX, 1, false), "ct mark 0x00000001");
    let set = |keep, value| Part::SetCtMark { keep, value }.to_string();
    assert_eq!(
        set(0xc0ff_ffff, 0x0100_0000),
        "ct mark set ct mark & 0xc1ffffff | 0x01000000"
    );
    assert_eq!(set(0, 1), "ct mark set 0x00000001");
    assert_eq!(set(u32::MAX, 0), "ct mark set ct mark");
}

#[test]
fn a_priority_is_named_only_where_nft_knows_the_name() {
    let base = |hook, priority| {
        BaseChain {
            kind: ChainKind::Filter,
            hook,
            priority,
        }
        .to_string()
    };
    assert_eq!(
        base(Hook::Forward, 0),
        "type filter hook forward priority filter; policy accept;"
    );
    assert_eq!(
        base(Hook::Forward, -1),
        "type filter hook forward priority filter - 1; policy accept;"
    );
    assert_eq!(
        base(Hook::Output, -100),
        "type filter hook output priority -100; policy accept;"
    );
    assert_eq!(
        base(Hook::Input, 11),
        "type filter hook input priority 11; policy accept;"
    );
}
