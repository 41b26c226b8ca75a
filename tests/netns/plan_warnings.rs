//! The warnings of `plan`: each comes with its cause, is borne out by real packets, goes with the line that it prints, and
//! nothing of the host is changed by asking.
use std::fs;

use anyhow::{Context as _, Result, ensure};
use shared::api::plan::{Plan, PlanWarning};
use tests::api::Api;
use tests::edge::{Edge, Instance, Setup};
use tests::expect::{differing, eventually, lasting_state};
use tests::node::Node;
use tests::servers::{Server, ask_tcp};
use tests::world::LightWorld;
use tests::world::addresses::{CLIENT, public};

use crate::support::{SOON, with_edge};

/// The plan's warnings but for those of `check`; asking has changed nothing.
fn warnings(instance: &Instance) -> Result<Vec<PlanWarning>> {
    let node = instance.daemon.node();
    let before = lasting_state(node)?;
    let output = instance.output(&["plan", "--json"])?;
    let plan: Plan = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let after = lasting_state(node)?;
    ensure!(before == after, "{}", differing(&before, &after));
    let mut warnings = plan.warnings;
    warnings.retain(|warning| warning.name != "configuration");
    Ok(warnings)
}

fn ensure_none(instance: &Instance, when: &str) -> Result<()> {
    let warnings = warnings(instance)?;
    ensure!(warnings.is_empty(), "{when}: {warnings:?}");
    Ok(())
}

/// The only warning, which has this name.
fn only(instance: &Instance, name: &str) -> Result<PlanWarning> {
    let mut warnings = warnings(instance)?;
    ensure!(
        warnings.len() == 1 && warnings.iter().all(|warning| warning.name == name),
        "not {name} alone: {warnings:?}"
    );
    warnings.pop().context("one warning")
}

fn sh(node: &Node, script: &str) -> Result<()> {
    node.run(&["sh", "-euc", script]).map(drop)
}

/// Every table but ours is gone.
fn without_neighbours(node: &Node) -> Result<()> {
    sh(
        node,
        "nft list tables | { grep -v wg_edge || true; } | while read -r table; do nft delete $table; done",
    )
}

/// Whether a visitor gets through: a new connection, and the answer to it.
fn visit(world: &LightWorld) -> Result<()> {
    ask_tcp(&world.client, public(443)).map(drop)
}

/// Rules of others, as a script; what they do to visitors.
type Neighbour = (&'static str, Does);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Nothing.
    LetPass,
    /// They are dropped, and `plan` says so.
    Stop,
    /// What `plan` can't know decides, and this time it lets them pass.
    Perhaps,
}

const OF_VPS: [Neighbour; 9] = [
    ("true", Does::LetPass),
    // Debian's.
    (
        "nft 'table inet filter { chain input { type filter hook input priority filter; };
            chain forward { type filter hook forward priority filter; }; }'",
        Does::LetPass,
    ),
    // docs/neighbours.md.
    (
        "nft 'table inet filter {
            chain input { type filter hook input priority filter; policy drop;
                ct state established,related accept; iif lo accept; udp dport 51820 accept; iifname \"edge0\" accept; };
            chain forward { type filter hook forward priority filter; policy drop;
                iifname \"eth0\" oifname \"edge0\" ct status dnat accept; iifname \"edge0\" accept; }; }'",
        Does::LetPass,
    ),
    (
        "nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop;
            ct state established,related accept; }; }'",
        Does::Stop,
    ),
    (
        "nft 'table inet filter { chain input { type filter hook input priority filter; policy drop;
            ct state established,related accept; iif lo accept; tcp dport 22 accept; }; }'",
        Does::Stop,
    ),
    // Answers are not let through.
    (
        "nft 'table ip mine { chain forward { type filter hook forward priority 5; policy accept;
            ct direction reply oifname vmap { \"eth0\" : drop }; }; }'",
        Does::Stop,
    ),
    (
        "nft 'table ip mine { set cf { type ipv4_addr; flags interval; elements = { 103.21.244.0/22, 173.245.48.0/20 }; };
            chain early { type filter hook prerouting priority mangle;
                iifname \"eth0\" tcp dport { 80, 443 } ip saddr != @cf drop; }; }'",
        Does::LetPass,
    ),
    (
        "nft 'table inet mine { chain forward { type filter hook forward priority filter; policy drop;
            limit rate 1000/second accept; }; }'",
        Does::Perhaps,
    ),
    // As Docker lists it where it has switched forwarding on.
    (
        "iptables -P FORWARD DROP
        iptables -N DOCKER-USER
        iptables -A FORWARD -j DOCKER-USER
        iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -i docker0 -j ACCEPT",
        Does::Stop,
    ),
];

const OF_LAN: [Neighbour; 6] = [
    ("true", Does::LetPass),
    // The reference host's.
    (
        "nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop;
            ct state established,related accept
            iifname { \"virbr-infra\", \"virbr-nodes\", \"virbr-vip\" } accept; }; }'",
        Does::Stop,
    ),
    (
        "nft 'table inet filter { chain forward { type filter hook forward priority filter; policy drop;
            ct state established,related accept; iifname \"edge0\" accept; }; }'",
        Does::LetPass,
    ),
    (
        "for chain in FWI FWO FWX; do iptables -N LIBVIRT_$chain; iptables -A FORWARD -j LIBVIRT_$chain; done
        iptables -A LIBVIRT_FWI -d 10.17.5.0/24 -o virbr-vip -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A LIBVIRT_FWI -o virbr-vip -j REJECT --reject-with icmp-port-unreachable
        iptables -A LIBVIRT_FWO -s 10.17.5.0/24 -i virbr-vip -j ACCEPT
        iptables -A LIBVIRT_FWO -i virbr-vip -j REJECT --reject-with icmp-port-unreachable
        iptables -A LIBVIRT_FWX -i virbr-vip -o virbr-vip -j ACCEPT",
        Does::Stop,
    ),
    (
        "nft 'table ip libvirt_network {
            chain guest_output { ip saddr 10.17.5.0/24 iif virbr-vip counter accept; iif virbr-vip counter reject; };
            chain guest_input {
                oif virbr-vip ip daddr 10.17.5.0/24 ct state established,related counter accept
                oif virbr-vip counter reject; };
            chain guest_cross { iif virbr-vip oif virbr-vip counter accept; };
            chain forward { type filter hook forward priority filter; policy accept;
                counter jump guest_cross; counter jump guest_input; counter jump guest_output; }; }'",
        Does::Stop,
    ),
    // What libvirt does for a network of another kind.
    (
        "nft 'table ip libvirt_network { chain guest_input { oif lo counter reject; };
            chain forward { type filter hook forward priority filter; policy accept; counter jump guest_input; }; }'",
        Does::LetPass,
    ),
];

/// Each ruleset does to real packets what the plan says of it, until the lines that it prints were carried out.
fn each_is_judged(world: &LightWorld, instance: &Instance, neighbours: &[Neighbour]) -> Result<()> {
    let node = instance.daemon.node();
    for &(rules, does) in neighbours {
        sh(node, rules)?;
        let told = warnings(instance)?;
        let of_firewall = told
            .iter()
            .all(|warning| warning.name == "foreign_firewall");
        ensure!(of_firewall, "{rules}: {told:?}");
        let certain = told
            .iter()
            .any(|warning| !warning.text.contains("unless a rule"));
        let passes = visit(world);
        match does {
            Does::LetPass => ensure!(
                told.is_empty() && passes.is_ok(),
                "{rules}: {passes:?} {told:?}"
            ),
            Does::Stop => ensure!(certain && passes.is_err(), "{rules}: {passes:?} {told:?}"),
            Does::Perhaps => ensure!(
                !told.is_empty() && !certain && passes.is_ok(),
                "{rules}: {passes:?} {told:?}"
            ),
        }
        for warning in &told {
            let remedy = warning
                .remedy
                .as_deref()
                .context("a line that lets them pass")?;
            sh(node, remedy)?;
        }
        ensure_none(instance, &format!("{rules}: remedied as {told:?} say"))?;
        eventually(SOON, rules, || visit(world))?;
        without_neighbours(node)?;
    }
    Ok(())
}

#[test]
fn rulesets_of_others_on_the_vps_do_what_the_plan_says() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        each_is_judged(world, &edge.gateway, &OF_VPS)
    });
}

#[test]
fn rulesets_of_others_on_the_lan_host_do_what_the_plan_says() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        each_is_judged(world, &edge.lan_server, &OF_LAN)
    });
}

#[test]
fn routes_of_the_lan_that_are_missing_are_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let (lan_host, lan_server) = (&world.lan_host, &edge.lan_server);
        lan_host.ip("route del 10.17.5.0/24 dev virbr-vip\n")?;
        ensure!(visit(world).is_err(), "without a route to the VIP");
        let told = warnings(lan_server)?;
        let subjects: Vec<_> = told
            .iter()
            .map(|warning| (warning.name.as_str(), warning.subject.as_str()))
            .collect();
        let missing = "more_specific_route_missing";
        ensure!(
            subjects.contains(&(missing, "10.17.5.30"))
                && subjects.contains(&(missing, "10.17.5.10")),
            "{told:?}"
        );
        ensure!(told[0].text.contains("back into edge0"), "{told:?}");
        lan_host.ip("route add 10.17.5.0/24 dev virbr-vip\n")?;
        ensure_none(lan_server, "with the route")?;
        visit(world)
    });
}

#[test]
fn a_lan_host_without_a_default_route_is_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let (lan_host, lan_server) = (&world.lan_host, &edge.lan_server);
        lan_host.ip("route add 203.0.113.10 via 192.168.0.1\nroute del default\n")?;
        ensure!(
            visit(world).is_err(),
            "preserved sources without a route back"
        );
        let told = only(lan_server, "reverse_path_filter")?;
        ensure!(told.text.contains("a default route is enough"), "{told:?}");
        lan_host.ip("route add default via 192.168.0.1\n")?;
        ensure_none(lan_server, "with a default route")?;
        visit(world)
    });
}

#[test]
fn a_more_specific_route_of_others_on_the_vps_is_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.vps.ip("route add 10.17.5.0/25 dev eth0\n")?;
        ensure!(visit(world).is_err(), "the VIP by another link");
        let told = warnings(&edge.gateway)?;
        let mut told = told.into_iter();
        // The strict filter of a link that is no longer the way back may be told besides.
        let told = told.find(|warning| warning.name == "more_specific_route");
        let remedy = told.and_then(|warning| warning.remedy);
        sh(&world.vps, &remedy.context("a line")?)?;
        ensure_none(&edge.gateway, "without the route")?;
        visit(world)
    });
}

#[test]
fn a_strict_filter_before_visitors_is_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        // Their packets come in by `eth0`, and the way back leads elsewhere.
        world.vps.ip("link add veth7 type veth peer name veth8\nlink set veth7 up\nlink set veth8 up\n
            addr add 198.51.100.130/25 dev veth7\nroute add 173.245.48.0/20 via 198.51.100.131 dev veth7\nroute add 103.21.244.0/22 via 198.51.100.131 dev veth7\n")?;
        world.vps.set_sysctl("net/ipv4/conf/eth0/rp_filter", "1")?;
        ensure!(visit(world).is_err(), "a strict filter");
        let told = only(&edge.gateway, "reverse_path_filter")?;
        sh(&world.vps, &told.remedy.context("a line")?)?;
        ensure_none(&edge.gateway, "with a loose filter")
    });
}

#[test]
fn ports_of_others_are_told_with_the_process() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let server = Server::tcp(&world.vps, "0.0.0.0:443".parse()?)?;
        let told = only(&edge.gateway, "port_taken")?;
        let pid = format!("(pid {})", std::process::id());
        ensure!(
            told.subject == "tcp 443" && told.text.contains(&pid),
            "{told:?}"
        );
        drop(server);
        ensure_none(&edge.gateway, "without the server")
    });
}

#[test]
fn sources_that_get_lost_are_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        for (instance, link) in [(&edge.gateway, "edge0"), (&edge.lan_server, "virbr-vip")] {
            let node = instance.daemon.node();
            let rules = format!(
                "table ip mine {{ chain out {{ type nat hook postrouting priority srcnat; oifname \"{link}\" masquerade; }}; }}\n"
            );
            node.nft(&rules)?;
            let seen = ask_tcp(&world.client, public(443)).map(|caller| caller.ip());
            ensure!(
                !seen.as_ref().is_ok_and(|caller| *caller == CLIENT),
                "{seen:?}"
            );
            let told = warnings(instance)?;
            ensure!(
                !told.is_empty() && told.iter().all(|warning| warning.name == "double_nat"),
                "{told:?}"
            );
            for warning in &told {
                sh(node, warning.remedy.as_deref().context("a line")?)?;
            }
            ensure_none(instance, "with the lines of the plan")?;
            let seen = ask_tcp(&world.client, public(443))?;
            ensure!(seen.ip() == CLIENT, "{seen}");
            without_neighbours(node)?;
        }
        Ok(())
    });
}

/// An address of Cloudflare's is refused by the configuration itself; a name may become one at any time.
#[test]
fn an_endpoint_that_has_become_cloudflares_is_told() {
    with_edge(Setup::new().unwrap(), |_, edge: &mut Edge| {
        for instance in [&edge.gateway, &edge.lan_server] {
            let node = instance.daemon.node();
            let hosts = node.write(
                "hosts",
                "127.0.0.1 localhost\n104.16.1.1 edge.example.org\n",
            )?;
            let hosts = hosts.display().to_string();
            node.run(&["mount", "--bind", &hosts, "/etc/hosts"])?;
            let text = fs::read_to_string(&instance.config)?;
            let named = text.replace("\"203.0.113.10:51820\"", "\"edge.example.org:51820\"");
            ensure!(text != named, "{text}");
            fs::write(&instance.config, named)?;
            let told = only(instance, "endpoint_is_cloudflare")?;
            ensure!(told.text.contains("104.16.1.1"), "{told:?}");
            node.write(
                "hosts",
                "127.0.0.1 localhost\n203.0.113.10 edge.example.org\n",
            )?;
            ensure_none(instance, "resolved without the proxy")?;
        }
        Ok(())
    });
}

#[test]
fn what_stands_in_the_way_is_in_the_status_too() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let obstacles = || -> Result<Vec<PlanWarning>> { Ok(edge.gateway.status()?.obstacles) };
        let found = obstacles()?;
        ensure!(found.is_empty(), "{found:?}");
        world.vps.nft(
            "table inet strangers { chain careful { type filter hook forward priority filter; policy drop; }; }",
        )?;
        eventually(SOON, "it is told", || {
            let found = obstacles()?;
            let told = found.iter().find(|of| of.name == "foreign_firewall");
            let told = told.with_context(|| format!("{found:?}"))?;
            ensure!(
                told.subject.contains("strangers") && told.remedy.is_some(),
                "{told:?}"
            );
            Ok(())
        })?;
        let screen = edge.gateway.command(&["status"])?;
        ensure!(
            screen.contains("warning: ") && screen.contains("-> nft insert rule inet strangers"),
            "{screen}"
        );
        let page = Api::of(&edge.gateway, "gateway")?.get("/metrics")?;
        let page = page.as_str().context("text")?;
        ensure!(
            page.contains("\nedge_obstacles ") && !page.contains("\nedge_obstacles 0\n"),
            "{page}"
        );
        without_neighbours(&world.vps)?;
        eventually(SOON, "it is gone", || {
            let found = obstacles()?;
            ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })
    });
}
