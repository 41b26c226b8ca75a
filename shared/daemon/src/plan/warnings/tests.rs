//! The warnings that need no kernel.
use std::collections::BTreeMap;
use std::path::PathBuf;

use shared::config::cloudflare::Ranges;
use shared::config::common::{Endpoint, PortMap, PortRange, Protocol, SourceIp};
use shared::plan::actual::{LOCAL_TABLE, MAIN_TABLE, UNICAST};
use shared::plan::desired::{Link, protocol};
use shared::plan::ruleset::{AddressRange, Family};
use shared::plan::{Address, Flow, FlowKind, Host, LiveRoute, Route, Ruleset};
use shared_os::sockets::Listener;

use super::*;
use crate::product::Wan;

fn settings() -> Settings {
    Settings {
        state_dir: PathBuf::new(),
        runtime_dir: PathBuf::new(),
        interface: "edge0".parse().unwrap(),
        link_alias: "",
        mtu: 1420,
        listen_port: 51820,
        fwmark: 0,
        private_key_file: PathBuf::new(),
        wan: Wan::Auto,
        admin_listen: Some("10.17.0.1:8443".parse().unwrap()),
        admin_tokens: true,
        cloudflare: Ranges {
            networks: Vec::new(),
            refresh: None,
            ours: Vec::new(),
        },
    }
}

fn environment() -> Environment {
    Environment {
        wan: "eth0".parse().unwrap(),
        wan_accepts_router_advertisements: false,
        cloudflare: vec!["173.245.48.0/20".parse().unwrap()],
    }
}

fn desired(protocol: u8) -> Desired {
    let edge = || "edge0".parse().unwrap();
    Desired {
        protocol,
        links: vec![Link {
            name: edge(),
            alias: String::new(),
            mtu: 1420,
            txqueuelen: 500,
        }],
        addresses: vec![Address {
            link: edge(),
            address: "10.17.0.1".parse().unwrap(),
            prefix_len: 32,
        }],
        routes: vec![Route {
            destination: "10.17.0.0/16".parse().unwrap(),
            link: edge(),
            table: MAIN_TABLE,
            source: None,
        }],
        rules: Vec::new(),
        sysctls: Vec::new(),
        ruleset: Ruleset {
            table: "wg_edge".to_owned(),
            sets: Vec::new(),
            maps: Vec::new(),
            chains: Vec::new(),
        },
    }
}

fn flow(kind: FlowKind, destination: &str) -> Flow {
    Flow {
        name: "visitors of ingress".to_owned(),
        kind,
        protocol: Protocol::Tcp,
        source: Some("173.245.48.1".parse().unwrap()),
        destination: Some(destination.parse().unwrap()),
        port: Some(443),
        source_ip: SourceIp::Preserve,
        family: Family::Ipv4,
    }
}

fn route(destination: &str, link: &str) -> LiveRoute {
    LiveRoute {
        destination: destination.parse().unwrap(),
        table: MAIN_TABLE,
        link: Some(link.to_owned()),
        gateway: None,
        source: None,
        metric: 0,
        tos: 0,
        protocol: 3,
        route_type: UNICAST,
    }
}

fn host(routes: &[(&str, &str)]) -> Host {
    let links = [("eth0", 2), ("edge0", 3), ("virbr-vip", 4)];
    Host {
        links: links.map(|(name, index)| (name.to_owned(), index)).into(),
        routes: routes.iter().map(|(to, link)| route(to, link)).collect(),
    }
}

/// Everything that a test looks at, with one flow.
struct Case {
    settings: Settings,
    environment: Environment,
    desired: Desired,
    expected: Expected,
    publishes: Vec<PublishModel>,
}

impl Case {
    fn new(protocol: u8, flow: Flow) -> Self {
        Self {
            settings: settings(),
            environment: environment(),
            desired: desired(protocol),
            expected: Expected {
                flows: vec![flow],
                endpoints: Vec::new(),
                far_ends: Vec::new(),
            },
            publishes: Vec::new(),
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            settings: &self.settings,
            environment: &self.environment,
            desired: &self.desired,
            expected: &self.expected,
            publishes: &self.publishes,
            running: Running::default(),
        }
    }
}

fn names(warnings: &[PlanWarning]) -> Vec<(&str, &str)> {
    let warnings = warnings.iter();
    warnings
        .map(|of| (of.name.as_str(), of.subject.as_str()))
        .collect()
}

#[test]
fn a_destination_on_the_lan_needs_a_route_of_the_lan() {
    let case = Case::new(
        protocol::LAN_SERVER,
        flow(FlowKind::FromTunnel, "10.17.5.30"),
    );
    let missing = |routes: &[(&str, &str)]| {
        let host = host(routes).with(&case.desired);
        routes::missing(&case.asked(), &host)
    };
    let told = missing(&[("0.0.0.0/0", "eth0")]);
    assert_eq!(
        names(&told),
        [("more_specific_route_missing", "10.17.5.30")]
    );
    assert!(told[0].text.contains("back into edge0"), "{}", told[0].text);
    assert!(
        told[0].text.contains("ip route add 10.17.5.0/24 dev LINK"),
        "{}",
        told[0].text
    );
    assert_eq!(
        missing(&[("0.0.0.0/0", "eth0"), ("10.17.5.0/24", "virbr-vip")]),
        []
    );

    let mut case = Case::new(
        protocol::LAN_SERVER,
        flow(FlowKind::FromTunnel, "192.168.7.30"),
    );
    let by_default = host(&[("0.0.0.0/0", "eth0")]);
    assert_eq!(routes::missing(&case.asked(), &by_default).len(), 1);
    // With our own address as source the answers come back.
    case.expected.flows[0].source_ip = SourceIp::Masquerade;
    assert_eq!(routes::missing(&case.asked(), &by_default), []);
    assert_eq!(routes::missing(&case.asked(), &host(&[])).len(), 1);
}

#[test]
fn addresses_that_stand_for_callers_have_to_be_of_this_host() {
    let mut case = Case::new(
        protocol::LAN_SERVER,
        flow(FlowKind::FromTunnel, "10.17.5.30"),
    );
    let range = |first: &str, last: &str| {
        let range = AddressRange::new(first.parse().unwrap(), last.parse().unwrap());
        SourceIp::Pool(range.unwrap())
    };
    case.expected.flows[0].source_ip = range("10.17.5.4", "10.17.5.5");
    // Ports of one service are several flows.
    let again = case.expected.flows[0].clone();
    case.expected.flows.push(again);
    let mut host = host(&[("0.0.0.0/0", "eth0"), ("10.17.5.0/24", "virbr-vip")]);
    let mut here = route("10.17.5.4/32", "virbr-vip");
    (here.table, here.route_type) = (LOCAL_TABLE, 2);
    host.routes.push(here);
    let told = routes::elsewhere(&case.asked(), &host);
    assert_eq!(names(&told), [("source_address_missing", "10.17.5.5")]);
    let text = "visitors of ingress: 10.17.5.5 of `source_ip` is no address of this host: answers to it find nobody";
    assert_eq!(told[0].text, text);
    assert_eq!(
        told[0].remedy.as_deref(),
        Some("ip address add 10.17.5.5/32 dev virbr-vip")
    );
    // In no network of the service's link: a router may send it here.
    case.expected.flows[0].source_ip = range("192.0.2.4", "192.0.2.4");
    case.expected.flows.truncate(1);
    let told = routes::elsewhere(&case.asked(), &host);
    assert!(
        told[0].text.ends_with("only if somebody routes them here"),
        "{}",
        told[0].text
    );
    case.expected.flows[0].source_ip = range("10.17.5.4", "10.17.5.4");
    assert_eq!(routes::elsewhere(&case.asked(), &host), []);
}

#[test]
fn a_gateway_loses_what_is_more_specific() {
    let mut actual = Actual {
        routes: vec![
            route("10.17.0.0/16", "edge0"),
            route("10.18.0.0/16", "eth0"),
        ],
        ..Actual::default()
    };
    let gateway = desired(protocol::GATEWAY);
    assert_eq!(routes::stolen(&gateway, &actual), []);
    actual.routes.push(route("10.17.5.0/24", "docker0"));
    let told = routes::stolen(&gateway, &actual);
    assert_eq!(names(&told), [("more_specific_route", "10.17.5.0/24")]);
    // Where the tunnel network covers the LAN, this is how it should be.
    assert_eq!(routes::stolen(&desired(protocol::LAN_SERVER), &actual), []);
}

#[test]
fn the_kernel_wants_a_way_back_for_preserved_sources() {
    let case = Case::new(
        protocol::LAN_SERVER,
        flow(FlowKind::FromTunnel, "10.17.5.30"),
    );
    let told = |routes: &[(&str, &str)], filter: u32| {
        let host = host(routes).with(&case.desired);
        let paths = path::all(&case.asked(), &host);
        routes::filtered(
            &paths,
            &host,
            |link| if link == "edge0" { filter } else { 0 },
        )
    };
    let lan = ("10.17.5.0/24", "virbr-vip");
    let default = ("0.0.0.0/0", "eth0");
    assert_eq!(told(&[lan, default], 2), []);
    assert_eq!(told(&[lan], 0), []);
    let no_route = told(&[lan], 2);
    assert_eq!(names(&no_route), [("reverse_path_filter", "edge0")]);
    assert!(
        no_route[0].text.contains("default route"),
        "{}",
        no_route[0].text
    );
    let strict = told(&[lan, default], 1);
    assert_eq!(
        strict[0].remedy.as_deref(),
        Some("sysctl -w net.ipv4.conf.edge0.rp_filter=2")
    );
}

#[test]
fn sockets_of_others_are_told_where_ours_have_to_be() {
    let kind = FlowKind::Published { called_port: 443 };
    let mut case = Case::new(protocol::GATEWAY, flow(kind, "10.17.5.30"));
    let ports = |first, last| {
        let range = PortRange { first, last };
        PortMap {
            listen: range,
            target: range,
        }
    };
    case.publishes.push(PublishModel {
        name: "ingress".to_owned(),
        vip: "10.17.5.30".parse().unwrap(),
        protocol: Protocol::Tcp,
        ports: vec![ports(80, 80), ports(440, 450)],
        source_ip: SourceIp::Preserve,
    });
    let told = |protocol, address: &str| {
        let listener = Listener {
            protocol,
            address: address.parse().unwrap(),
            inode: 7,
        };
        let owner = |_| Some("nginx (pid 9)".to_owned());
        ports::taken(&case.asked(), &[listener], owner)
    };
    for (protocol, address, expected) in [
        (Protocol::Udp, "0.0.0.0:51820", Some("udp 51820")),
        (Protocol::Udp, "0.0.0.0:51821", None),
        (Protocol::Tcp, "0.0.0.0:8443", Some("tcp 8443")),
        (Protocol::Tcp, "127.0.0.1:8443", None),
        (Protocol::Tcp, "0.0.0.0:443", Some("tcp 443")),
        (Protocol::Tcp, "[::]:443", Some("tcp 443")),
        (Protocol::Tcp, "[2001:db8::1]:443", None),
        (Protocol::Tcp, "203.0.113.10:80", Some("tcp 80")),
        (Protocol::Tcp, "0.0.0.0:439", None),
        (Protocol::Tcp, "127.0.0.1:443", None),
        (Protocol::Tcp, "10.17.0.1:443", None),
        (Protocol::Udp, "0.0.0.0:443", None),
    ] {
        let warnings = told(protocol, address);
        let subject = warnings.first().map(|warning| warning.subject.as_str());
        assert_eq!(subject, expected, "{protocol} {address}");
        if let Some(warning) = warnings.first() {
            assert!(
                warning.text.starts_with("nginx (pid 9) "),
                "{}",
                warning.text
            );
        }
    }
}

#[tokio::test]
async fn an_endpoint_of_cloudflares_is_told() {
    let mut case = Case::new(protocol::GATEWAY, flow(FlowKind::FromTunnel, "10.17.5.30"));
    let endpoint = |text: &str| Endpoint::Address(text.parse().unwrap());
    case.expected.endpoints = vec![endpoint("203.0.113.10:51820")];
    assert_eq!(endpoints::proxied(&case.asked()).await, []);
    case.expected.endpoints.push(endpoint("104.16.1.1:51820"));
    let told = endpoints::proxied(&case.asked()).await;
    assert_eq!(
        names(&told),
        [("endpoint_is_cloudflare", "104.16.1.1:51820")]
    );
}

#[test]
fn packets_go_where_routes_lead_and_answers_come_back() {
    let kind = FlowKind::Published { called_port: 443 };
    let case = Case::new(protocol::GATEWAY, flow(kind, "10.17.5.30"));
    let host = host(&[("0.0.0.0/0", "eth0")]).with(&case.desired);
    let paths = path::all(&case.asked(), &host);
    let links: Vec<_> = paths
        .iter()
        .map(|named| {
            let name =
                |link: &Option<nft::foreign::Link>| link.as_ref().map(|link| link.name.to_string());
            (name(&named.path.input), name(&named.path.output))
        })
        .collect();
    let (eth0, edge0) = (Some("eth0".to_owned()), Some("edge0".to_owned()));
    assert_eq!(links, [(eth0.clone(), edge0.clone()), (edge0, eth0)]);
    assert_eq!(paths[0].path.way_back, Some(2));
    assert_eq!(paths[1].name, "answers to visitors of ingress");

    // An address of this host, its own tunnel address among them, is no way through.
    let mut here = route("192.168.7.1/32", "eth0");
    (here.table, here.route_type) = (LOCAL_TABLE, 2);
    let mut host = Host {
        links: BTreeMap::new(),
        routes: vec![here],
    };
    host = host.with(&case.desired);
    for destination in ["192.168.7.1", "10.17.0.1"] {
        let case = Case::new(protocol::GATEWAY, flow(FlowKind::FromTunnel, destination));
        let paths = path::all(&case.asked(), &host);
        assert_eq!(paths.len(), 1, "{destination}");
        assert_eq!(paths[0].path.way, nft::foreign::Way::Received);
    }
}
