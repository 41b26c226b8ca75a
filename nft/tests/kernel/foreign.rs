//! What others' rulesets do with our packets: real `nft` and `iptables` write them, we read them.
//!
//! That what is called certain happens to real packets, and that what is not named passes, is shown with traffic in
//! `tests/netns/plan_warnings.rs`.
use std::process::Command;

use nft::Nftables;
use nft::foreign::{At, Link, Obstacle, Path, Purpose, Tracking, Way};
use shared::config::common::Protocol;
use shared::plan::ruleset::{Family, Hook};

use crate::world::{in_namespace, load, nft};

fn link(name: &str, index: u32) -> Link {
    Link {
        name: name.parse().unwrap(),
        index: Some(index),
    }
}

/// On the VPS: the first packet of a visitor, DNAT from port 443 of this host to 10.17.5.30:443.
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
        destination_port: Some(443),
        tracking: Tracking::New,
        called_port: Some(443),
        masqueraded: false,
        way_back: Some(2),
    }
}

/// The answer to it.
fn answer() -> Path {
    let visitor = visitor();
    Path {
        purpose: Purpose::FromTunnel("edge0".parse().unwrap()),
        input: visitor.output.clone(),
        output: visitor.input.clone(),
        source: visitor.destination,
        source_port: visitor.destination_port,
        destination: visitor.source,
        destination_port: None,
        tracking: Tracking::Answer,
        ..visitor
    }
}

/// A datagram of the tunnel.
fn datagram() -> Path {
    Path {
        purpose: Purpose::Datagrams(51820),
        way: Way::Received,
        output: None,
        protocol: Protocol::Udp,
        source: None,
        destination: None,
        destination_port: Some(51820),
        tracking: Tracking::Untracked,
        called_port: None,
        ..visitor()
    }
}

/// On the LAN host: the same visitor out of the tunnel.
fn into_lan() -> Path {
    Path {
        purpose: Purpose::FromTunnel("edge0".parse().unwrap()),
        input: Some(link("edge0", 3)),
        output: Some(link("virbr-vip", 4)),
        called_port: None,
        ..visitor()
    }
}

fn obstacles(path: &Path) -> Vec<Obstacle> {
    let mut nftables = Nftables::open().unwrap();
    nftables.foreign("wg_edge").unwrap().obstacles(path)
}

/// `forward policy` or `forward 7`, with a question mark when it is not certain.
fn told(path: &Path) -> Vec<String> {
    let obstacles = obstacles(path).into_iter();
    obstacles
        .map(|obstacle| {
            let at = match &obstacle.at {
                At::Policy => "policy".to_owned(),
                At::Rule { text, .. } => text.clone(),
            };
            let doubt = if obstacle.certain { "" } else { "?" };
            format!("{}: {at}{doubt}", obstacle.chain)
        })
        .collect()
}

/// Runs a line of a shell.
fn sh(line: &str) {
    let output = Command::new("sh").args(["-euc", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The remedy of the only obstacle, carried out.
fn remedied(path: &Path) -> String {
    let obstacles = obstacles(path);
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    let remedy = obstacles[0].remedy.clone();
    sh(&remedy);
    assert_eq!(told(path), [""; 0], "after {remedy}");
    remedy
}

const REFERENCE_HOST: &str = r#"
flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iif lo accept
        tcp dport 22 accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname { "virbr-infra", "virbr-nodes", "virbr-vip" } accept
    }
}
"#;

#[test]
fn a_host_with_a_ruleset_of_its_own() {
    in_namespace(|| {
        load(REFERENCE_HOST);
        assert_eq!(told(&answer()), [""; 0]);
        assert_eq!(told(&visitor()), ["forward: policy"]);
        assert_eq!(told(&datagram()), ["input: policy"]);
        let remedy = remedied(&visitor());
        assert_eq!(
            remedy,
            "nft insert rule inet filter forward iifname \"eth0\" oifname \"edge0\" ct status dnat accept"
        );
        assert_eq!(
            remedied(&datagram()),
            "nft insert rule inet filter input udp dport 51820 accept"
        );
        assert_eq!(
            remedied(&into_lan()),
            "nft insert rule inet filter forward iifname \"edge0\" accept"
        );
    });
}

#[test]
fn a_plain_host_has_nothing_in_the_way() {
    in_namespace(|| {
        assert_eq!(told(&visitor()), [""; 0]);
        // Debian's.
        load(
            "flush ruleset
            table inet filter {
                chain input { type filter hook input priority filter; }
                chain forward { type filter hook forward priority filter; }
                chain output { type filter hook output priority filter; }
            }",
        );
        for path in [visitor(), answer(), datagram(), into_lan()] {
            assert_eq!(told(&path), [""; 0]);
        }
    });
}

/// As Docker 28 lists them, with a container that publishes port 8080; `policy` is what it is without `ip-forward-no-drop`.
fn docker(policy: &str) {
    sh(&format!(
        "iptables -P FORWARD {policy}
        iptables -N DOCKER; iptables -N DOCKER-BRIDGE; iptables -N DOCKER-CT; iptables -N DOCKER-FORWARD
        iptables -N DOCKER-ISOLATION-STAGE-1; iptables -N DOCKER-ISOLATION-STAGE-2; iptables -N DOCKER-USER
        iptables -A FORWARD -j DOCKER-USER
        iptables -A FORWARD -j DOCKER-FORWARD
        iptables -A DOCKER ! -i docker0 -o docker0 -p tcp -d 172.17.0.2 --dport 80 -j ACCEPT
        iptables -A DOCKER ! -i docker0 -o docker0 -j DROP
        iptables -A DOCKER-BRIDGE -o docker0 -j DOCKER
        iptables -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A DOCKER-FORWARD -j DOCKER-CT
        iptables -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
        iptables -A DOCKER-FORWARD -j DOCKER-BRIDGE
        iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
        iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
        iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
        iptables -t nat -N DOCKER
        iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
        iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
    ));
}

#[test]
fn docker_lets_us_pass_unless_it_has_set_the_policy() {
    in_namespace(|| {
        docker("ACCEPT");
        for path in [visitor(), answer(), datagram(), into_lan()] {
            assert_eq!(told(&path), [""; 0]);
        }
    });
    in_namespace(|| {
        docker("DROP");
        assert_eq!(told(&visitor()), ["FORWARD: policy"]);
        // Docker's rule for answers is about its own link.
        assert_eq!(told(&answer()), ["FORWARD: policy"]);
        assert_eq!(
            remedied(&visitor()),
            "iptables -I DOCKER-USER -i eth0 -o edge0 -m conntrack --ctstate DNAT -j ACCEPT"
        );
        assert_eq!(
            remedied(&answer()),
            "iptables -I DOCKER-USER -i edge0 -j ACCEPT"
        );
    });
}

#[test]
fn libvirt_keeps_new_connections_out_of_its_networks() {
    let iptables = in_namespace(|| {
        sh("for chain in FWI FWO FWX; do iptables -N LIBVIRT_$chain; iptables -A FORWARD -j LIBVIRT_$chain; done
            iptables -A LIBVIRT_FWI -d 10.17.5.0/24 -o virbr-vip -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            iptables -A LIBVIRT_FWI -o virbr-vip -j REJECT --reject-with icmp-port-unreachable
            iptables -A LIBVIRT_FWO -s 10.17.5.0/24 -i virbr-vip -j ACCEPT
            iptables -A LIBVIRT_FWO -i virbr-vip -j REJECT --reject-with icmp-port-unreachable
            iptables -A LIBVIRT_FWX -i virbr-vip -o virbr-vip -j ACCEPT");
        assert_eq!(told(&into_lan()), ["FORWARD: oifname \"virbr-vip\" reject"]);
        remedied(&into_lan())
    });
    if let Some(remedy) = iptables {
        assert_eq!(remedy, "iptables -I LIBVIRT_FWI -i edge0 -j ACCEPT");
    }
    in_namespace(|| {
        load(
            "table ip libvirt_network {
                chain guest_input {
                    oifname virbr-vip ip daddr 10.17.5.0/24 ct state established,related counter accept
                    oifname virbr-vip counter reject
                }
                chain guest_cross { iifname virbr-vip oifname virbr-vip counter accept; }
                chain forward {
                    type filter hook forward priority filter; policy accept;
                    counter jump guest_cross
                    counter jump guest_input
                }
            }",
        );
        assert_eq!(told(&into_lan()), ["forward: oifname \"virbr-vip\" reject"]);
        assert_eq!(
            remedied(&into_lan()),
            "nft insert rule ip libvirt_network guest_input iifname \"edge0\" accept"
        );
    });
}

/// The shape of firewalld 1.3 with the zone `public` for everything.
const FIREWALLD: &str = r#"
table inet firewalld {
    chain mangle_PREROUTING {
        type filter hook prerouting priority mangle + 10; policy accept;
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        iifname vmap { "trusted0" : goto filter_IN_trusted, "eth*" : goto filter_IN_public }
        goto filter_IN_public
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_POLICIES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_POLICIES {
        iifname "trusted0" oifname "eth0" accept
    }
    chain filter_IN_trusted { accept; }
    chain filter_IN_public {
        tcp dport 22 accept
        meta l4proto { icmp, ipv6-icmp } accept
        reject with icmpx admin-prohibited
    }
}
"#;

#[test]
fn firewalld_lets_pass_what_is_sent_on_and_rejects_the_rest() {
    in_namespace(|| {
        // nft 1.0.6 wants the map's interval flag, which firewalld sets itself.
        load(&FIREWALLD.replace("        iifname vmap { \"trusted0\" : goto filter_IN_trusted, \"eth*\" : goto filter_IN_public }\n", "        iifname vmap { \"trusted0\" : goto filter_IN_trusted, \"eth0\" : goto filter_IN_public }\n"));
        assert_eq!(told(&visitor()), [""; 0]);
        assert_eq!(told(&answer()), [""; 0]);
        assert_eq!(told(&datagram()), ["filter_INPUT: reject"]);
        assert_eq!(told(&into_lan()), ["filter_FORWARD: reject"]);
        let remedies: Vec<String> = [datagram(), into_lan()]
            .iter()
            .map(|path| obstacles(path)[0].remedy.clone())
            .collect();
        assert_eq!(
            remedies,
            [
                "firewall-cmd --permanent --add-port=51820/udp && firewall-cmd --reload",
                "firewall-cmd --permanent --zone=trusted --add-interface=edge0 && firewall-cmd --reload",
            ]
        );
        // Preserved IPv6 sources have their way back by another link.
        let ipv6 = Path {
            family: Family::Ipv6,
            source: Some("2400:cb00::1".parse().unwrap()),
            destination: Some("fd17:5::30".parse().unwrap()),
            ..into_lan()
        };
        assert!(
            told(&ipv6)[0].starts_with("mangle_PREROUTING: "),
            "{:?}",
            told(&ipv6)
        );
    });
}

#[test]
fn sets_maps_and_ranges_are_looked_into() {
    in_namespace(|| {
        for (rules, expected) in [
            ("ip saddr @cloudflare tcp dport @ports accept", &[][..]),
            ("ip saddr . tcp dport @services accept", &[]),
            ("ip saddr 173.245.48.0/20 tcp dport 1-443 accept", &[]),
            ("tcp dport != { 1-442, 444 } accept", &[]),
            ("iifname { \"lo\", \"eth0\" } oifname \"edge*\" accept", &[]),
            ("iifname . oifname vmap { eth0 . edge0 : accept }", &[]),
            ("ip saddr vmap @of_callers", &[]),
            ("ct state vmap { new : accept, invalid : drop }", &[]),
            ("ip protocol { tcp, udp } ct direction original accept", &[]),
            (
                "meta l4proto tcp tcp flags & (fin|syn|rst|ack) == syn accept",
                &[],
            ),
            ("tcp dport @others accept", &["forward: policy"]),
            (
                "ip saddr . tcp dport @services tcp dport 80 accept",
                &["forward: policy"],
            ),
            ("iifname \"eth\" accept", &["forward: policy"]),
            ("ct state established accept", &["forward: policy"]),
            ("meta mark 7 accept", &["forward: policy?"]),
            ("limit rate 1/second accept", &["forward: policy?"]),
            (
                "ip saddr @cloudflare drop",
                &["forward: ip saddr @cloudflare drop"],
            ),
            ("ip saddr vmap @of_callers ip saddr != 10.0.0.0/9 drop", &[]),
        ] {
            load(&format!(
                "flush ruleset
                table inet filter {{
                    set cloudflare {{ type ipv4_addr; flags interval; elements = {{ 104.16.0.0/13, 173.245.48.0/20 }}; }}
                    set ports {{ type inet_service; elements = {{ 80, 443 }}; }}
                    set others {{ type inet_service; flags interval; elements = {{ 1-442, 444-65535 }}; }}
                    set services {{ type ipv4_addr . inet_service; flags interval; elements = {{ 173.245.0.0/16 . 400-500 }}; }}
                    map of_callers {{ type ipv4_addr : verdict; flags interval; elements = {{ 173.245.48.0/20 : goto friends }}; }}
                    chain friends {{ accept; }}
                    chain forward {{
                        type filter hook forward priority filter; policy drop;
                        {rules}
                    }}
                }}"
            ));
            assert_eq!(told(&visitor()), expected, "{rules}");
        }
    });
}

#[test]
fn a_chain_that_gives_callers_another_source_is_found() {
    in_namespace(|| {
        let translated = |path: &Path| -> Vec<Obstacle> {
            let mut nftables = Nftables::open().unwrap();
            nftables.foreign("wg_edge").unwrap().translations(path)
        };
        docker("ACCEPT");
        assert_eq!(translated(&visitor()), []);
        sh("iptables -t nat -A POSTROUTING -o edge0 -j MASQUERADE");
        let found = translated(&visitor());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].certain && found[0].hook == Hook::Postrouting,
            "{found:?}"
        );
        assert_eq!(
            found[0].remedy,
            "iptables -t nat -I POSTROUTING -d 10.17.5.30 -j ACCEPT"
        );
        sh(&found[0].remedy);
        assert_eq!(translated(&visitor()), []);
        load(
            "table ip mine { chain out { type nat hook postrouting priority srcnat; oifname \"edge0\" masquerade; }; }",
        );
        let found = translated(&visitor());
        assert_eq!(
            found[0].remedy,
            "nft insert rule ip mine out ip daddr 10.17.5.30 accept"
        );
        sh(&found[0].remedy);
        assert_eq!(translated(&visitor()), []);
    });
}

#[test]
fn our_own_table_and_one_that_sleeps_are_left_out() {
    in_namespace(|| {
        let table = |family: &str, name: &str, flags: &str| {
            load(&format!(
                "table {family} {name} {{ {flags} chain forward {{ type filter hook forward priority filter; policy drop; }}; }}"
            ));
        };
        table("inet", "wg_edge", "");
        table("inet", "asleep", "flags dormant;");
        table("ip6", "other_family", "");
        assert_eq!(told(&visitor()), [""; 0]);
        table("ip", "wg_edge", "");
        assert_eq!(told(&visitor()), ["forward: policy"]);
        let before = nft(&["-s", "list", "ruleset"]).stdout;
        let _ = told(&visitor());
        assert_eq!(nft(&["-s", "list", "ruleset"]).stdout, before);
    });
}
