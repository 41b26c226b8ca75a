//! Golden rulesets: what the configuration of the documentation asks for, word for word.
use shared::config::cloudflare;
use shared::config::gateway::Gateway;

use super::*;

const EXAMPLE: &str = include_str!("../../../packaging/examples/gateway.toml");

fn config(text: &str) -> Gateway {
    match Gateway::parse(text, "gateway.toml") {
        Ok(parsed) => parsed.config,
        Err(errors) => panic!("{errors}"),
    }
}

fn environment() -> Environment {
    Environment {
        wan: "eth0".parse().unwrap(),
        wan_accepts_router_advertisements: false,
        cloudflare: cloudflare::networks(),
    }
}

fn minimal(publish: &str) -> Gateway {
    config(&format!(
        r#"
[wan]
endpoint = "203.0.113.10:51820"

[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]

[[lan_server]]
name = "home"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address = ["10.17.0.2", "fd17::2"]
networks = ["10.17.5.0/24", "fd17:5::/64"]
{publish}
"#
    ))
}

fn rules(config: &Gateway, chain: &str) -> Vec<String> {
    let model = model(config, &environment(), &Members::default());
    let chains = model.desired.ruleset.chains;
    let chain = chains.into_iter().find(|c| c.name == chain).unwrap();
    chain.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_gives_this_ruleset() {
    let text = model(&config(EXAMPLE), &environment(), &Members::default())
        .desired
        .ruleset
        .to_string();
    assert_eq!(text, include_str!("golden.nft"), "\n{text}");
}

#[test]
fn an_ipv6_vip_publishes_ipv6_only() {
    let config = minimal(
        r#"
[[publish]]
name = "web"
vip = "fd17:5::30"
protocol = "tcp"
ports = [443]
allow = ["cloudflare"]
"#,
    );
    assert_eq!(
        rules(&config, "publish"),
        [
            "iifname \"eth0\" ip6 saddr @cf6 fib daddr type local tcp dport 443 counter name \"publish_web\" dnat ip6 to fd17:5::30 comment \"web\""
        ]
    );
    let sysctls = model(&config, &environment(), &Members::default())
        .desired
        .sysctls;
    let paths: Vec<String> = sysctls.iter().map(|s| s.path.join(".")).collect();
    assert_eq!(
        paths,
        ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    );
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
allow = ["cloudflare"]
"#,
    );
    let environment = Environment {
        cloudflare: vec!["198.51.100.0/24".parse().unwrap()],
        ..environment()
    };
    let sets = model(&config, &environment, &Members::default())
        .desired
        .ruleset
        .sets;
    let set = sets.iter().find(|set| set.name == "cf4").unwrap();
    assert_eq!(set.elements, environment.cloudflare);
}

#[test]
fn ranges_keep_their_ports_and_mapped_ports_get_a_rule_each() {
    let config = minimal(
        r#"
[[publish]]
name = "game"
vip = "10.17.5.40"
protocol = "udp"
ports = [53, "8443:443", "30000-30100"]
allow = ["any"]
source_ip = "masquerade"
"#,
    );
    assert_eq!(
        rules(&config, "publish"),
        [
            "iifname \"eth0\" meta nfproto ipv4 fib daddr type local udp dport { 53, 30000-30100 } counter name \"publish_game\" dnat ip to 10.17.5.40 comment \"game\"",
            "iifname \"eth0\" meta nfproto ipv4 fib daddr type local udp dport 8443 counter name \"publish_game\" dnat ip to 10.17.5.40:443 comment \"game\"",
        ]
    );
    assert!(
        !rules(&config, "guard")
            .iter()
            .any(|rule| rule.contains("dport 8443")),
        "any may call: no guard"
    );
    assert_eq!(
        rules(&config, "source_nat"),
        [
            "oifname \"edge0\" ct status dnat ip daddr 10.17.5.40 udp dport { 53, 443, 30000-30100 } masquerade comment \"game\""
        ]
    );
}

#[test]
fn the_route_to_a_lan_network_prefers_our_address_of_its_family() {
    let model = model(&minimal(""), &environment(), &Members::default());
    let sources: Vec<_> = model
        .desired
        .routes
        .iter()
        .map(|r| r.source.unwrap().to_string())
        .collect();
    assert_eq!(sources, ["10.17.0.1", "fd17::1"]);
}

#[test]
fn a_wan_link_that_lives_on_router_advertisements_keeps_them() {
    let environment = Environment {
        wan_accepts_router_advertisements: true,
        ..environment()
    };
    let sysctls = model(&minimal(""), &environment, &Members::default())
        .desired
        .sysctls;
    let accept = sysctls
        .iter()
        .find(|s| s.path.last().is_some_and(|key| key == "accept_ra"));
    assert_eq!(
        accept.unwrap().path.join("/"),
        "net/ipv6/conf/eth0/accept_ra"
    );
}
