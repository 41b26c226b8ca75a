//! What correct files become.
use std::path::Path;

use super::*;
use crate::config::common::{
    AddressSet, Endpoint, InterfaceAddress, PortMap, PortRange, Protocol, Service, SourceIp,
    Sources, Tunnel,
};
use crate::config::{gateway, lan_server};
use crate::plan::ruleset::AddressRange;

fn gateway(text: &str) -> Parsed<Gateway> {
    Gateway::parse(&edited(text, &[]), "gateway.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn lan_server(text: &str) -> Parsed<LanServer> {
    LanServer::parse(&edited(text, &[]), "lan-server.toml")
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn port(port: u16) -> PortMap {
    PortRange::from(port).into()
}

fn service(text: &str) -> Service {
    text.parse().unwrap()
}

fn cloudflare_itself() -> Refresh {
    Refresh::Url("https://api.cloudflare.com/client/v4/ips".parse().unwrap())
}

fn cloudflare_set() -> AddressSet {
    AddressSet {
        name: "cloudflare".to_owned(),
        networks: cloudflare::networks(),
    }
}

#[test]
fn the_gateway_example_of_the_interface_is_accepted() {
    let expected = Gateway {
        state_dir: "/var/lib/wg-edge".into(),
        runtime_dir: "/run/wg-edge".into(),
        wan: gateway::Wan {
            interface: Some("eth0".parse().unwrap()),
            endpoint: Endpoint::Address("203.0.113.10:51820".parse().unwrap()),
        },
        tunnel: Tunnel {
            interface: "edge0".parse().unwrap(),
            addresses: vec![InterfaceAddress {
                address: "10.17.0.1".parse().unwrap(),
                prefix_len: 16,
            }],
            listen_port: 51820,
            mtu: 1420,
            private_key_file: "/var/lib/wg-edge/gateway.key".into(),
            fwmark: 0,
            threads: None,
        },
        lan_servers: vec![gateway::LanServerPeer {
            name: "home".to_owned(),
            public_key: Some(PUBLIC_KEYS[0].parse().unwrap()),
            preshared_key_file: None,
            addresses: vec!["10.17.0.2".parse().unwrap()],
            networks: ["10.17.3.0/24", "10.17.4.0/24", "10.17.5.0/24"]
                .map(|network| network.parse().unwrap())
                .to_vec(),
        }],
        publishes: vec![gateway::Publish {
            name: "ingress".to_owned(),
            vip: "10.17.5.30".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: vec![port(80), port(443)],
            allow: Sources::Listed {
                sets: vec!["cloudflare".to_owned()],
                networks: Vec::new(),
            },
            source_ip: SourceIp::Preserve,
        }],
        roles: vec![gateway::Role {
            name: "kube-admin".to_owned(),
            allow: vec![service("10.17.5.10:6443/tcp"), service("10.17.3.11:53/udp")],
        }],
        sets: vec![cloudflare_set()],
        refresh: Some(cloudflare_itself()),
        peers: vec![gateway::Peer {
            name: "alice".to_owned(),
            public_key: PUBLIC_KEYS[1].parse().unwrap(),
            preshared_key_file: None,
            addresses: vec!["10.17.0.10".parse().unwrap()],
            role: Some("kube-admin".to_owned()),
        }],
        admin: gateway::Admin {
            listen: Some("10.17.0.1:8443".parse().unwrap()),
            tokens: true,
        },
        tests: Vec::new(),
    };
    let parsed = gateway(GATEWAY);
    assert_eq!(parsed.config, expected);
    assert_eq!(parsed.warnings.len(), 1, "{:?}", parsed.warnings);
}

#[test]
fn the_lan_server_example_of_the_interface_is_accepted() {
    let expected = LanServer {
        state_dir: "/var/lib/wg-edge".into(),
        runtime_dir: "/run/wg-edge".into(),
        tunnel: Tunnel {
            interface: "edge0".parse().unwrap(),
            addresses: vec![InterfaceAddress {
                address: "10.17.0.2".parse().unwrap(),
                prefix_len: 32,
            }],
            listen_port: 0,
            mtu: 1420,
            private_key_file: "/var/lib/wg-edge/lan-server.key".into(),
            fwmark: 0,
            threads: None,
        },
        gateways: vec![lan_server::Gateway {
            name: "vps1".to_owned(),
            endpoint: Endpoint::Address("203.0.113.10:51820".parse().unwrap()),
            public_key: PUBLIC_KEYS[0].parse().unwrap(),
            preshared_key_file: None,
            addresses: vec!["10.17.0.1".parse().unwrap()],
            networks: vec!["10.17.0.0/16".parse().unwrap()],
            persistent_keepalive_secs: 25,
        }],
        publishes: vec![lan_server::Publish {
            name: "ingress".to_owned(),
            vip: "10.17.5.30".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: vec![80.into(), 443.into()],
            from: Sources::Listed {
                sets: vec!["cloudflare".to_owned()],
                networks: Vec::new(),
            },
            source_ip: SourceIp::Preserve,
        }],
        access: vec![lan_server::Access {
            to: vec![service("10.17.5.10:6443/tcp"), service("10.17.3.11:53/udp")],
            source_ip: SourceIp::Masquerade,
        }],
        sets: vec![cloudflare_set()],
        refresh: Some(cloudflare_itself()),
        tests: Vec::new(),
    };
    let parsed = lan_server(LAN_SERVER);
    assert_eq!(parsed.config, expected);
    assert_eq!(parsed.warnings, []);
}

#[test]
fn a_short_gateway_file_gets_the_defaults() {
    let config = gateway(
        r#"
[wan]
endpoint = "vpn.example.com:51820"
[tunnel]
address = "10.17.0.1/16"
"#,
    )
    .config;
    assert_eq!(config.state_dir, Path::new("/var/lib/wg-edge"));
    assert_eq!(config.runtime_dir, Path::new("/run/wg-edge"));
    assert_eq!(config.wan.interface, None);
    assert_eq!(config.tunnel.interface.as_str(), "edge0");
    assert_eq!(
        (config.tunnel.listen_port, config.tunnel.mtu),
        (51820, 1420)
    );
    assert_eq!((config.tunnel.fwmark, config.tunnel.threads), (0, None));
    assert_eq!(
        config.tunnel.private_key_file,
        Path::new("/var/lib/wg-edge/gateway.key")
    );
    assert_eq!((config.admin.listen, config.admin.tokens), (None, true));
    assert_eq!(config.sets, []);
}

#[test]
fn a_short_lan_server_file_gets_the_defaults() {
    let config = lan_server(
        r#"
[tunnel]
address = "10.17.0.2/32"
[[gateway]]
name = "vps1"
endpoint = "vpn.example.com:51820"
public_key = "KEY0"
address = "10.17.0.1"
network = "10.17.0.0/16"
[[publish]]
name = "web"
vip = "10.17.5.30"
protocol = "tcp"
ports = [80]
from = ["cloudflare"]
[[access]]
to = ["10.17.5.10:6443/tcp"]
"#,
    )
    .config;
    assert_eq!((config.tunnel.listen_port, config.tunnel.mtu), (0, 1420));
    assert_eq!(
        config.tunnel.private_key_file,
        Path::new("/var/lib/wg-edge/lan-server.key")
    );
    assert_eq!(config.gateways[0].persistent_keepalive_secs, 25);
    assert_eq!(config.publishes[0].source_ip, SourceIp::Preserve);
    assert_eq!(config.access[0].source_ip, SourceIp::Masquerade);
}

#[test]
fn both_families_can_stand_side_by_side() {
    let config = gateway(
        r#"
[wan]
endpoint = "[2001:db8::10]:51820"
interface = "auto"
[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]
fwmark = 0xe1
threads = 1
[[lan_server]]
name = "home"
public_key = "KEY0"
preshared_key_file = "home.psk"
address = ["10.17.0.2", "fd17::2"]
networks = ["fd00:5::/64", "10.17.5.0/24"]
[[publish]]
name = "web6"
vip = "fd00:5::30"
protocol = "tcp"
ports = ["8443:443", "30000-30100"]
allow = ["office", "2001:db8:2::/48", "2001:db8:1::7"]
source_ip = "masquerade"
[[publish]]
name = "web4"
vip = "10.17.5.30"
protocol = "tcp"
ports = [8443]
allow = ["cloudflare"]
[[role]]
name = "all"
allow = ["[fd00:5::/64]:1-65535/tcp", "[fd00:5::9]:53/udp", "10.17.5.0/24:8000-8100/tcp"]
[sets]
office = ["198.51.100.0/24", "2001:db8:3::/48"]
cloudflare = ["192.0.2.0/24"]
unused = ["203.0.113.0/24"]
"#,
    )
    .config;
    assert_eq!(
        config.tunnel.addresses[1].network().to_string(),
        "fd17::/64"
    );
    assert_eq!(config.tunnel.fwmark, 0xe1);
    assert_eq!(config.tunnel.threads, Some(1));
    let server = &config.lan_servers[0];
    assert_eq!(
        server.preshared_key_file.as_deref(),
        Some(Path::new("/var/lib/wg-edge/home.psk"))
    );
    assert!(server.networks.is_sorted());
    let web = &config.publishes[0];
    assert_eq!(web.ports[0].listen, 8443.into());
    assert_eq!(web.ports[0].target, 443.into());
    assert_eq!(web.ports[1].target, web.ports[1].listen);
    let Sources::Listed { sets, networks } = &web.allow else {
        panic!("not any");
    };
    assert_eq!(sets, &["office"]);
    assert!(networks.is_sorted());
    let services: Vec<_> = config.roles[0]
        .allow
        .iter()
        .map(Service::to_string)
        .collect();
    assert_eq!(
        services,
        [
            "[fd00:5::/64]:1-65535/tcp",
            "[fd00:5::9]:53/udp",
            "10.17.5.0/24:8000-8100/tcp"
        ]
    );
    // The file's own `cloudflare` replaces the built-in list; what nothing names is left out.
    let names: Vec<_> = config.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["cloudflare", "office"]);
    assert_eq!(config.sets[0].networks, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.refresh, None, "nor is it refreshed");
}

#[test]
fn an_absolute_key_file_stays_where_it_is() {
    let text = edited(GATEWAY, &[("\"gateway.key\"", "\"/etc/keys/gateway.key\"")]);
    let config = gateway(&text).config;
    assert_eq!(
        config.tunnel.private_key_file,
        Path::new("/etc/keys/gateway.key")
    );
}

#[test]
fn one_port_serves_both_protocols_and_both_families() {
    let other = |protocol: &str| {
        format!(
            "tokens = true\n[[publish]]\nname = \"other\"\nvip = \"10.17.5.30\"\n\
             protocol = \"{protocol}\"\nports = [443]\nallow = [\"office\"]\n"
        )
    };
    gateway(&edited(GATEWAY, &[("tokens = true\n", &other("udp"))]));
}

#[test]
fn private_sources_may_be_masqueraded_by_the_lan_end() {
    let edits = [
        ("[\"cloudflare\"]", "[\"192.168.0.0/16\", \"10.17.0.1\"]"),
        ("\"preserve\" ", "\"masquerade\""),
    ];
    lan_server(&edited(LAN_SERVER, &edits));
}

#[test]
fn the_packaged_examples_are_accepted() {
    let gateway_toml = include_str!("../../../../packaging/examples/gateway.toml");
    let lan_server_toml = include_str!("../../../../packaging/examples/lan-server.toml");
    assert_eq!(gateway(gateway_toml).warnings, []);
    assert_eq!(lan_server(lan_server_toml).warnings, []);
}

#[test]
fn source_ip_may_be_addresses() {
    let pool = |first: &str, last: &str| {
        let range = AddressRange::new(first.parse().unwrap(), last.parse().unwrap());
        SourceIp::Pool(range.unwrap())
    };
    let text = edited(
        LAN_SERVER,
        &[
            (
                r#"source_ip = "preserve"  "#,
                r#"source_ip = "192.168.0.20-192.168.0.23""#,
            ),
            (r#"source_ip = "masquerade""#, r#"source_ip = "10.17.5.1""#),
        ],
    );
    let config = LanServer::parse(&text, "F").unwrap().config;
    let publish = config.publishes[0].source_ip;
    assert_eq!(publish, pool("192.168.0.20", "192.168.0.23"));
    assert_eq!(publish.to_string(), "192.168.0.20-192.168.0.23");
    let access = config.access[0].source_ip;
    assert_eq!(access, pool("10.17.5.1", "10.17.5.1"));
    assert_eq!(access.to_string(), "10.17.5.1");
}
