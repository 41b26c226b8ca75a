//! What a change of the documented configuration does to open connections, on both ends.
use shared::config::common::{InterfaceAddress, Protocol};
use shared::simulate::{Cause, Connection, Fate, LanEnd, Packet, Transition, TunnelEnd};

use super::*;

const GATEWAY: &str = include_str!("../../../packaging/examples/gateway.toml");
const LAN_SERVER: &str = include_str!("../../../packaging/examples/lan-server.toml");

fn environment() -> Environment {
    Environment {
        wan: "eth0".parse().unwrap(),
        wan_accepts_router_advertisements: false,
        cloudflare: cloudflare::networks(),
    }
}

fn edited(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1)
}

/// The VPS with its public address on `eth0`.
fn gateway(text: &str) -> TunnelEnd {
    let config = Gateway::parse(text, "gateway.toml").unwrap().config;
    let mut end = tunnel_end(desired::model(&config, &environment(), &Members::default()));
    let wan = environment().wan;
    let public = InterfaceAddress {
        address: "203.0.113.10".parse().unwrap(),
        prefix_len: 24,
    };
    let everything = "0.0.0.0/0".parse().unwrap();
    end.host = end.host.with_address(&wan, public);
    end.host = end.host.with_route(everything, &wan);
    end
}

fn lan_server(text: &str) -> TunnelEnd {
    let config = LanServer::parse(text, "lan-server.toml").unwrap().config;
    let LanEnd { end, .. } =
        lan_policy::simulate::lan_end(&config, &environment(), Some("home"), &[]);
    end
}

fn address(text: &str) -> (IpAddr, u16) {
    let address: std::net::SocketAddr = text.parse().unwrap();
    (address.ip(), address.port())
}

/// `caller` called `called`, and `callee` answers `seen_as`.
fn connection(caller: &str, called: &str, callee: &str, seen_as: &str) -> Connection {
    let packet = |from, to| Packet::later(Protocol::Tcp, address(from), address(to));
    Connection {
        original: packet(caller, called),
        answer: packet(callee, seen_as),
        mark: 0,
        has_dnat: called != callee,
    }
}

fn visitor(of: &str) -> Connection {
    connection(of, "203.0.113.10:443", "10.17.5.30:443", of)
}

fn alice() -> Connection {
    let (alice, api) = ("10.17.0.10:40000", "10.17.5.10:6443");
    connection(alice, api, api, alice)
}

/// The gateway's own attempt at the VIP.
fn attempt() -> Connection {
    let (gateway, vip) = ("10.17.0.1:40000", "10.17.5.30:443");
    connection(gateway, vip, vip, gateway)
}

/// What the rule that drops is about.
fn cause(fate: &Fate) -> &str {
    match fate {
        Fate::NotOurs => "not ours",
        Fate::Stays => "stays",
        Fate::Cut { cause, .. } => match cause {
            Cause::Rule { chain, .. } => chain,
            Cause::Peer => "peer",
            Cause::Route => "route",
        },
    }
}

const CLOUDFLARE: &str = "173.245.48.10:50000";

#[test]
fn a_change_of_the_gateway_cuts_what_is_judged_by_the_packet() {
    let publish = &GATEWAY[GATEWAY.find("[[publish]]").unwrap()..GATEWAY.find("[[role]]").unwrap()];
    let alice_of_file =
        &GATEWAY[GATEWAY.find("[[peer]]").unwrap()..GATEWAY.find("[[test]]").unwrap()];
    let without_tests = &GATEWAY[..GATEWAY.find("[[test]]").unwrap()];
    for (old, new, of_visitor, of_alice, of_attempt) in [
        ("", "", "stays", "stays", "stays"),
        // What is translated and established stays so.
        (publish, "", "stays", "stays", "stays"),
        (
            "ports     = [80, 443]",
            "ports = [80]",
            "stays",
            "stays",
            "stays",
        ),
        (
            "\"10.17.5.30\"",
            "\"10.17.5.31\"",
            "stays",
            "stays",
            "stays",
        ),
        // The guard looks at each packet before it is known to belong to a connection.
        (
            "[\"cloudflare\"]",
            "[\"office\"]",
            "guard",
            "stays",
            "stays",
        ),
        // So do roles.
        (
            "[\"10.17.5.10:6443/tcp\", ",
            "[",
            "stays",
            "forward",
            "stays",
        ),
        (
            "role       = \"kube-admin\"",
            "",
            "stays",
            "forward",
            "stays",
        ),
        (alice_of_file, "", "stays", "peer", "stays"),
        ("\"10.17.0.10\"", "\"10.17.0.12\"", "stays", "peer", "stays"),
        (
            "\"10.17.5.0/24\"]",
            "\"10.17.5.30/32\"]",
            "stays",
            "peer",
            "stays",
        ),
    ] {
        let after = edited(without_tests, old, new);
        let transition = Transition::new(gateway(without_tests), gateway(&after));
        for (connection, expected) in [
            (visitor(CLOUDFLARE), of_visitor),
            (alice(), of_alice),
            (attempt(), of_attempt),
        ] {
            let fate = transition.fate(&connection);
            assert_eq!(cause(&fate), expected, "{old:?} {new:?} {connection:?}");
            let alike = transition.representative(&connection);
            assert_eq!(transition.fate(&alike), fate, "{old:?} {new:?}");
        }
    }
}

#[test]
fn whose_a_connection_is_is_told() {
    let without_tests = &GATEWAY[..GATEWAY.find("[[test]]").unwrap()];
    let after = edited(without_tests, "\"10.17.0.10\"", "\"10.17.0.12\"");
    let transition = Transition::new(gateway(without_tests), gateway(&after));
    let Fate::Cut { caller, callee, .. } = transition.fate(&alice()) else {
        panic!("it is cut")
    };
    assert_eq!(caller.as_deref(), Some("alice"));
    assert_eq!(callee.as_deref(), Some("home"));
}

#[test]
fn what_does_not_pass_the_tunnel_or_not_even_now_is_not_ours() {
    let without_tests = &GATEWAY[..GATEWAY.find("[[test]]").unwrap()];
    let transition = Transition::new(gateway(without_tests), gateway(without_tests));
    let (operator, here) = ("198.51.100.9:40000", "203.0.113.10:22");
    for (why, connection) in [
        ("ssh", connection(operator, here, here, operator)),
        ("a stranger's", visitor("198.51.100.7:50000")),
        (
            "nobody's",
            connection(
                "10.17.0.99:1025",
                "10.17.5.10:6443",
                "10.17.5.10:6443",
                "10.17.0.99:1025",
            ),
        ),
    ] {
        assert_eq!(transition.fate(&connection), Fate::NotOurs, "{why}");
    }
}

#[test]
fn ports_that_no_rule_looks_at_are_alike() {
    let end = || gateway(&GATEWAY[..GATEWAY.find("[[test]]").unwrap()]);
    let transition = Transition::new(end(), end());
    let kind = |caller: &str| transition.representative(&visitor(caller));
    assert_eq!(kind("173.245.48.10:50000"), kind("173.245.48.10:50001"));
    assert_ne!(kind("173.245.48.10:50000"), kind("173.245.48.11:50000"));
    // A port that a rule names is not like another one.
    assert_ne!(kind("173.245.48.10:50000"), kind("173.245.48.10:6443"));
}

/// What came out of the tunnel has the mark.
const MARK: u32 = 0x0100_0000;

#[test]
fn a_change_of_the_lan_end_cuts_those_whose_addresses_the_tunnel_no_longer_takes() {
    let text = &LAN_SERVER[..LAN_SERVER.find("[[test]]").unwrap()];
    let publish = &text[text.find("[[publish]]").unwrap()..text.find("[[access]]").unwrap()];
    let access = &text[text.find("[[access]]").unwrap()..];
    let marked = |connection| Connection {
        mark: MARK,
        has_dnat: false,
        ..connection
    };
    let vip = "10.17.5.30:443";
    let visitor = marked(connection(CLOUDFLARE, vip, vip, CLOUDFLARE));
    // Masqueraded: the VIP answers to the LAN host.
    let (caller, api) = ("10.17.0.10:40000", "10.17.5.10:6443");
    let alice = marked(connection(caller, api, api, "10.17.5.1:40000"));
    for (old, new, of_visitor, of_alice) in [
        ("", "", "stays", "stays"),
        (publish, "", "peer", "stays"),
        ("[80, 443]", "[80]", "stays", "stays"),
        ("[\"cloudflare\"]", "[\"198.51.100.0/24\"]", "peer", "stays"),
        (access, "", "stays", "stays"),
        ("\"10.17.0.0/16\"", "\"10.17.0.0/29\"", "stays", "peer"),
    ] {
        let after = edited(text, old, new);
        let ends = [text, after.as_str()].map(|text| {
            let mut end = lan_server(text);
            let lan = InterfaceAddress {
                address: "10.17.5.1".parse().unwrap(),
                prefix_len: 24,
            };
            let link = end.host.link_towards("10.17.5.30".parse().unwrap());
            let link = link.unwrap().clone();
            end.host = end.host.with_address(&link, lan);
            end
        });
        let [before, after] = ends;
        let transition = Transition::new(before, after);
        for (connection, expected) in [(visitor, of_visitor), (alice, of_alice)] {
            let fate = transition.fate(&connection);
            assert_eq!(cause(&fate), expected, "{old:?} {new:?} {connection:?}");
        }
    }
}
