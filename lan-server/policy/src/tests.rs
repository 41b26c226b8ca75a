//! Golden rulesets: what the configuration of the documentation asks for, word for word.
use shared::config::cloudflare;
use shared::config::lan_server::LanServer;

use super::*;

const EXAMPLE: &str = include_str!("../../../packaging/examples/lan-server.toml");

fn config(text: &str) -> LanServer {
    match LanServer::parse(text, "lan-server.toml") {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{errors}"),
    }
}

fn environment() -> Environment {
    Environment {
        wan: "edge0".parse().unwrap(),
        wan_accepts_router_advertisements: false,
        cloudflare: cloudflare::networks(),
    }
}

fn minimal(rest: &str) -> LanServer {
    config(&format!(
        r#"
[tunnel]
address = "10.17.0.2/32"

[[gateway]]
name = "vps1"
endpoint = "203.0.113.10:51820"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address = "10.17.0.1"
network = "10.17.0.0/16"
{rest}
"#
    ))
}

fn rules(config: &LanServer, chain: &str) -> Vec<String> {
    let chains = model(config, &environment()).desired.ruleset.chains;
    let chain = chains.into_iter().find(|c| c.name == chain).unwrap();
    chain.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_gives_this_ruleset() {
    let text = model(&config(EXAMPLE), &environment())
        .desired
        .ruleset
        .to_string();
    assert_eq!(text, include_str!("golden.nft"), "\n{text}");
}

#[test]
fn cryptokey_routing_accepts_the_tunnel_network_and_listed_sources_only() {
    let config = minimal(
        r#"
[[publish]]
name = "web"
vip = "10.17.5.30"
protocol = "tcp"
ports = [443]
from = ["198.51.100.0/25", "198.51.100.128/25"]
"#,
    );
    let model = model(&config, &environment());
    let allowed: Vec<String> = model.peers[0]
        .allowed_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(allowed, ["10.17.0.0/16", "198.51.100.0/24"]);
}

#[test]
fn the_set_cloudflare_stands_for_what_it_does_now() {
    let config = minimal(
        r#"
[[publish]]
name = "web"
vip = "10.17.5.30"
protocol = "tcp"
ports = [443]
from = ["cloudflare"]
"#,
    );
    let environment = Environment {
        cloudflare: vec!["198.51.100.0/24".parse().unwrap()],
        ..environment()
    };
    let model = model(&config, &environment);
    let sets = &model.desired.ruleset.sets;
    let set = sets.iter().find(|set| set.name == "cf4").unwrap();
    assert_eq!(set.elements, environment.cloudflare);
    assert!(
        model.peers[0]
            .allowed_ips
            .contains(&environment.cloudflare[0])
    );
}

#[test]
fn any_source_is_any_but_those_that_could_be_of_this_lan() {
    let config = minimal(
        r#"
[[publish]]
name = "web"
vip = "10.17.5.30"
protocol = "tcp"
ports = [443]
from = ["any"]
"#,
    );
    assert_eq!(
        rules(&config, "publish_web"),
        [
            "ip saddr 10.17.0.1 accept",
            "ip saddr != @never_public4 counter name \"publish_web\" accept"
        ]
    );
    let model = model(&config, &environment());
    let never = &model.desired.ruleset.sets[0];
    assert!(never.to_string().contains("10.0.0.0/8"), "{never}");
    assert_eq!(
        model.peers[0].allowed_ips.len(),
        1,
        "everything: {:?}",
        model.peers[0].allowed_ips
    );
}

#[test]
fn tunnel_peers_reach_what_is_listed() {
    let config = minimal(
        r#"
[[access]]
to = ["10.17.5.10:6443/tcp"]
source_ip = "masquerade"
"#,
    );
    assert_eq!(
        rules(&config, "from_tunnel"),
        ["ip saddr 10.17.0.0/16 ip daddr 10.17.5.10 tcp dport 6443 accept"]
    );
    assert_eq!(
        rules(&config, "source_nat"),
        [
            "oifname != \"edge0\" ct mark & 0x3f000000 == 0x01000000 ip saddr 10.17.0.0/16 ip daddr 10.17.5.10 tcp dport 6443 masquerade"
        ]
    );
}

#[test]
fn addresses_of_a_pool_stand_for_callers() {
    let entries = |pool: &str, more: &str| {
        minimal(&format!(
            "[[publish]]\nname = \"ingress\"\nvip = \"10.17.5.30\"\nprotocol = \"tcp\"\nports = [443]\n\
             from = [\"cloudflare\"]\nsource_ip = \"{pool}\"\n{more}"
        ))
    };
    let access = "[[access]]\nto = [\"10.17.5.10:6443/tcp\"]\nsource_ip = \"192.168.0.15\"\n";
    assert_eq!(
        rules(&entries("192.168.0.20-192.168.0.24", access), "source_nat"),
        [
            "oifname != \"edge0\" ct mark & 0x3f000000 == 0x01000000 ip daddr 10.17.5.30 tcp dport 443 snat ip to 192.168.0.20-192.168.0.24 comment \"ingress\"",
            "oifname != \"edge0\" ct mark & 0x3f000000 == 0x01000000 ip saddr 10.17.0.0/16 ip daddr 10.17.5.10 tcp dport 6443 snat ip to 192.168.0.15",
        ]
    );
}

#[test]
fn without_access_tunnel_peers_reach_nothing() {
    assert!(rules(&minimal(""), "from_tunnel").is_empty());
    let forward = rules(&minimal(""), "forward");
    assert!(
        forward.ends_with(&[
            "iifname \"edge0\" counter name \"refused_from_tunnel\" drop".to_owned(),
            "oifname \"edge0\" counter name \"refused_to_tunnel\" drop".to_owned(),
        ]),
        "{forward:?}"
    );
}

#[test]
fn a_source_of_this_lan_is_refused_before_anything_is_accepted() {
    for chain in ["forward", "input"] {
        let rules = rules(&minimal(""), chain);
        let refused = rules.iter().position(|rule| {
            rule == "iifname \"edge0\" ip saddr 10.17.0.0/16 fib saddr oifname != \"edge0\" counter name \"refused_own_source\" drop"
        });
        let accepted = rules.iter().position(|rule| rule.ends_with("accept"));
        assert!(
            refused.is_some() && refused < accepted,
            "{chain}: {rules:#?}"
        );
    }
}

#[test]
fn only_connections_that_came_by_the_tunnel_go_on_through_it() {
    let forward = rules(&minimal(""), "forward");
    assert!(
        forward.contains(
            &"iifname \"edge0\" ct state established,related ct mark & 0x3f000000 == 0x01000000 accept".to_owned()
        ),
        "{forward:#?}"
    );
}
