//! Facts about the page, read back by a parser of the text format that takes nothing but what the format allows.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shared::api::diagnosis::{Hop, HopKind, Verdict};
use shared::api::plan::PlanWarning;
use shared::api::policy::CloudflareRefresh;
use shared::api::probe::Probe;
use shared::api::status::{Interface, Publish, SourcePorts};

use super::*;

/// Everything that must be escaped in a label, and what need not be.
const AWKWARD: &str = "back\\slash \"quote\" new\nline, comma=} ü";

fn status() -> Status {
    let peer = |name: &str, kind: &str, key: &str, age: Option<u64>| Peer {
        name: (!name.is_empty()).then(|| name.to_owned()),
        kind: kind.to_owned(),
        public_key: key.to_owned(),
        endpoint: Some("203.0.113.9:4321".parse().unwrap()),
        allowed_ips: vec!["10.17.0.2/32".to_owned()],
        latest_handshake_age_seconds: age,
        online: age.is_some_and(|age| age < 180),
        rx_bytes: u64::MAX,
        tx_bytes: 2,
    };
    let publish = |name: &str, vip: &str| Publish {
        name: name.to_owned(),
        vip: vip.parse::<IpAddr>().unwrap(),
        family: "ipv4".to_owned(),
        protocol: "tcp".to_owned(),
        ports: vec!["80".to_owned()],
        source_ip: "preserve".to_owned(),
        connections: Some(7),
        health: None,
    };
    let probe = |publish: &str, port: u16, state| Probe {
        publish: publish.to_owned(),
        vip: "fd17:5::30".parse().unwrap(),
        port,
        state,
        since: None,
        checked_at: None,
        connect_milliseconds: None,
        error: None,
    };
    let counts = |names: &[(&str, u64)]| {
        let named = names.iter();
        named
            .map(|&(name, count)| (name.to_owned(), count))
            .collect()
    };
    Status {
        product: "gateway".to_owned(),
        version: "0.1.0".to_owned(),
        host: "vps".to_owned(),
        pid: 1,
        started_at: "1970-01-01T00:01:00Z".to_owned(),
        reported_at: "1970-01-01T01:00:00Z".to_owned(),
        ready: true,
        problems: Vec::new(),
        warnings: Vec::new(),
        obstacles: vec![PlanWarning {
            name: "foreign_firewall".to_owned(),
            subject: "inet filter forward".to_owned(),
            text: "it drops visitors".to_owned(),
            remedy: None,
        }],
        faults: vec![Hop {
            hop: HopKind::PathMtu,
            of: AWKWARD.to_owned(),
            verdict: Verdict::Failed,
            milliseconds: None,
            evidence: "it swallows large packets".to_owned(),
            remedy: None,
            cloudflare_error: None,
        }],
        firewall_protected: false,
        interface: Interface {
            name: "edge0".to_owned(),
            public_key: Some("own+key/=".to_owned()),
            listen_port: 51820,
            fwmark: 0,
            mtu: 1420,
            offloads: BTreeMap::new(),
        },
        peers: vec![
            peer("home", "lan_server", "a=", Some(119)),
            peer(AWKWARD, "peer", "b=", None),
            peer("", "peer", "c=", Some(180)),
        ],
        publishes: vec![
            publish("ingress", "10.17.5.30"),
            publish("v6", "fd17:5::30"),
        ],
        probes: vec![
            probe("v6", 80, ProbeState::Down),
            probe("v6", 443, ProbeState::Up),
            probe("v6", 8443, ProbeState::Unknown),
            probe("other", 443, ProbeState::Up),
        ],
        cloudflare_ranges_as_of: Some("1970-01-01".to_owned()),
        cloudflare_refresh: Some(CloudflareRefresh {
            from: "https://a.example/ips".to_owned(),
            confirmed_at: None,
            checked_at: None,
            error: Some("the answer broke off".to_owned()),
        }),
        refused_packets: counts(&[("guard_ipv4", 3), ("guard_ipv6", 0), ("refused", 5)]),
        dropped_packets: counts(&[("invalid_mac1", 4), ("no_room", 0)]),
        handshakes: counts(&[("completed", 6), ("given_up", 1), ("refused", 4)]),
        applies: counts(&[("failed", 1), ("ok", 2)]),
        apply: None,
        drift: DriftSummary {
            found: counts(&[("link", 0), ("route", 7)]),
            healed: 5,
            fought: vec!["route 10.17.5.0/24 table 254".to_owned()],
        },
        conntrack: None,
        source_ports: [50_000, 60_000].map(source_ports).into(),
        io: counts(&[("tun_writes", 9)]),
    }
}

fn source_ports(used: u64) -> SourcePorts {
    SourcePorts {
        protocol: "tcp".to_owned(),
        source: "10.17.5.1".parse().unwrap(),
        destination: "10.17.5.30:443".parse().unwrap(),
        used,
        limit: 64_512,
    }
}

fn process() -> Process {
    Process {
        resident_bytes: Some(10_000_000),
        virtual_bytes: Some(90_000_000),
        cpu_time: Some(Duration::from_millis(1250)),
        open_fds: Some(20),
        max_fds: Some(1024),
    }
}

type Labels = BTreeMap<String, String>;

/// A page as a scraper understands it: kind and samples of each family.
type Parsed = BTreeMap<String, (String, BTreeMap<Labels, f64>)>;

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Panics on whatever the format does not allow, and on what a page of ours must not have.
fn parsed(page: &str) -> Parsed {
    assert!(page.ends_with('\n'), "the last line must end, too");
    let mut families = Parsed::new();
    let mut current = String::new();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(helped.insert(name), "{name} is described twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no HELP");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let new = families.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
            assert!(new.is_none(), "{name} has two types");
            name.clone_into(&mut current);
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, current, "a sample outside of its family: {line}");
            let samples = &mut families.get_mut(&name).unwrap().1;
            assert!(samples.insert(labels, value).is_none(), "twice: {line}");
        }
    }
    assert_eq!(helped.len(), families.len(), "HELP without TYPE");
    families
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let (value, behind) = quoted(behind);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            let next = behind.strip_prefix(',');
            rest = next.unwrap_or(behind);
            if next.is_none() {
                break;
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap())
}

/// The value up to its closing quote, and what stands behind that.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (value, &text[place + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                other => panic!("\\{other} is no escape"),
            }),
            other => value.push(other),
        }
    }
    panic!("no closing quote: {text}")
}

fn value(page: &Parsed, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter();
    let labels = labels.map(|(label, value)| (label.to_string(), value.to_string()));
    page[name].1[&labels.collect::<Labels>()]
}

#[test]
fn every_family_is_described_and_no_series_is_there_twice() {
    let page = parsed(&text(&status(), &process()));
    assert_eq!(page.len(), 33, "{:?}", page.keys());
    let empty = page.iter().filter(|(_, (_, samples))| samples.is_empty());
    assert_eq!(empty.count(), 0);
}

#[test]
fn a_bare_status_makes_a_page_too() {
    let bare = Status {
        peers: Vec::new(),
        publishes: Vec::new(),
        probes: Vec::new(),
        faults: Vec::new(),
        cloudflare_ranges_as_of: None,
        cloudflare_refresh: None,
        refused_packets: BTreeMap::new(),
        dropped_packets: BTreeMap::new(),
        handshakes: BTreeMap::new(),
        applies: BTreeMap::new(),
        apply: None,
        conntrack: None,
        source_ports: Vec::new(),
        io: BTreeMap::new(),
        ..status()
    };
    let page = parsed(&text(&bare, &Process::default()));
    assert!(!page.contains_key("process_open_fds"), "nothing is made up");
    assert!(page["edge_origin_guard_dropped_total"].1.is_empty());
}

#[test]
fn a_count_that_could_not_be_read_is_left_out() {
    let mut status = status();
    status.publishes[0].connections = None;
    let page = parsed(&text(&status, &process()));
    let services = &page["edge_publish_packets_total"].1;
    let told: Vec<&str> = services.keys().map(|of| of["publish"].as_str()).collect();
    assert_eq!(told, ["v6"]);
}

#[test]
fn paths_are_told_by_gateway_and_address_once_they_were_tried() {
    let page = parsed(&text(&status(), &process()));
    let path = |gateway, vip| [("gateway", gateway), ("vip", vip)];
    assert_eq!(page["edge_path_up"].1.len(), 2);
    for (vip, up) in [("[fd17:5::30]:80", 0.0), ("[fd17:5::30]:443", 1.0)] {
        let found = value(&page, "edge_path_up", &path("vps", vip));
        assert!((found - up).abs() < f64::EPSILON, "{vip}");
    }
    let mut of_lan_server = status();
    for peer in &mut of_lan_server.peers {
        peer.kind = "gateway".to_owned();
        peer.name = Some("frankfurt".to_owned());
    }
    let page = parsed(&text(&of_lan_server, &process()));
    value(&page, "edge_path_up", &path("frankfurt", "[fd17:5::30]:80"));
}

#[test]
fn labels_come_back_as_they_were() {
    let page = parsed(&text(&status(), &process()));
    let labels = [
        ("interface", "edge0"),
        ("kind", "peer"),
        ("name", AWKWARD),
        ("public_key", "b="),
    ];
    assert!((value(&page, "wireguard_peer_info", &labels) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn values_are_those_of_the_status() {
    let page = parsed(&text(&status(), &process()));
    let key = |key| [("interface", "edge0"), ("public_key", key)];
    let state = |kind, state| [("kind", kind), ("state", state)];
    let handshake = "wireguard_peer_last_handshake_seconds";
    for (name, labels, expected) in [
        ("edge_ready", &[][..], 1.0),
        ("edge_cloudflare_ranges_age_seconds", &[], 3600.0),
        ("edge_cloudflare_refresh_failed", &[], 1.0),
        ("edge_firewall_protected", &[], 0.0),
        ("edge_obstacles", &[], 1.0),
        (
            "edge_path_fault",
            &[("hop", "path_mtu"), ("of", AWKWARD)],
            1.0,
        ),
        (handshake, &key("a="), 3481.0),
        (handshake, &key("b="), 0.0),
        ("edge_peer_online", &key("c="), 0.0),
        ("edge_peers", &state("lan_server", "online"), 1.0),
        ("edge_peers", &state("lan_server", "offline"), 0.0),
        ("edge_peers", &state("peer", "offline"), 2.0),
        ("edge_handshake_total", &[("result", "given_up")], 1.0),
        ("edge_apply_total", &[("result", "failed")], 1.0),
        ("edge_drift_total", &[("kind", "route")], 7.0),
        ("edge_drift_total", &[("kind", "link")], 0.0),
        ("edge_drift_healed_total", &[], 5.0),
        ("edge_drift_fought", &[], 1.0),
        ("edge_source_ports_used", &[], 60_000.0),
        ("edge_source_ports_limit", &[], 64_512.0),
        (
            "edge_origin_guard_dropped_total",
            &[("family", "ipv4")],
            3.0,
        ),
        ("process_start_time_seconds", &[], 60.0),
        ("process_cpu_seconds_total", &[], 1.25),
        ("process_resident_memory_bytes", &[], 10_000_000.0),
    ] {
        let found = value(&page, name, labels);
        assert!((found - expected).abs() < f64::EPSILON, "{name}: {found}");
    }
}

#[test]
fn a_list_is_as_old_as_when_it_was_confirmed() {
    let mut status = status();
    status.cloudflare_refresh = Some(CloudflareRefresh {
        from: "/etc/wg-edge/cloudflare.txt".to_owned(),
        confirmed_at: "1970-01-01T00:59:00Z".parse().ok(),
        checked_at: None,
        error: None,
    });
    let page = parsed(&text(&status, &process()));
    for (name, expected) in [
        ("edge_cloudflare_ranges_age_seconds", 60.0),
        ("edge_cloudflare_refresh_failed", 0.0),
    ] {
        let found = value(&page, name, &[]);
        assert!((found - expected).abs() < f64::EPSILON, "{name}: {found}");
    }
}

#[test]
fn no_label_tells_where_a_peer_is() {
    assert!(!text(&status(), &process()).contains("203.0.113.9"));
}
