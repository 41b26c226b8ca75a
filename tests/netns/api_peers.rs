//! Peers of the admin API: what they may reach, from the first packet to the last.
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Api, id_of, text};
use tests::edge::{INTERFACE, Setup};
use tests::expect::eventually;
use tests::keys::KeyPair;
use tests::node::Node;
use tests::servers::{Conversation, Server, ask_tcp};
use tests::wireguard_go::WireguardGo;
use tests::world::addresses::{API_PORT, API_VIP, GATEWAY, INGRESS_VIP, MASTER, OPERATOR, at};

use crate::support::{SOON, with_edge};

/// Dial in with a configuration as the API told it, read by the real `wg-quick`.
fn dial_in_with(node: &Node, config: &str) -> Result<WireguardGo> {
    let path = node.write("told.conf", config)?;
    let path = path.to_str().context("its path is not UTF-8")?;
    let stripped = node.run(&["wg-quick", "strip", path])?;
    let value = |name: &str| -> Result<Vec<String>> {
        let line = config.lines().find_map(|line| line.strip_prefix(name));
        let values = line.with_context(|| format!("no {name} in\n{config}"))?;
        Ok(values
            .trim_start_matches(" = ")
            .split(", ")
            .map(str::to_owned)
            .collect())
    };
    let mut lines = Vec::new();
    for address in value("Address")? {
        lines.push(format!("addr add {address} dev {INTERFACE}"));
    }
    for network in value("AllowedIPs")? {
        lines.push(format!("route add {network} dev {INTERFACE}"));
    }
    WireguardGo::start(node, INTERFACE, &stripped, &(lines.join("\n") + "\n"))
}

fn created(api: &mut Api, body: &Value) -> Result<(String, String)> {
    let answer = api.create(body)?;
    Ok((id_of(&answer)?, text(&answer, "config")?.to_owned()))
}

#[test]
fn peer_with_the_configuration_that_it_was_told_reaches_what_its_role_names() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let wish = json!({"name": "alice", "generate_key": true, "role": "kube-admin"});
        let (id, config) = created(&mut api, &wish)?;
        assert!(config.contains("PresharedKey = "), "{config}");
        let _laptop = dial_in_with(&world.road_warrior, &config)?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;
        world
            .road_warrior
            .ip(&format!("route add 10.17.4.0/22 dev {INTERFACE}"))?;
        for refused in [at(MASTER, API_PORT), at(INGRESS_VIP, 80)] {
            assert!(ask_tcp(&world.road_warrior, refused).is_err(), "{refused}");
        }
        let peer = api.get(&format!("/v1/peers/{id}"))?;
        assert_eq!(peer["connection"]["online"], true, "{peer}");
        assert!(peer["usage"]["rx_bytes"].as_u64() > Some(0), "{peer}");
        assert!(
            text(&peer["connection"], "endpoint")?.starts_with("192.0.2.50:"),
            "{peer}"
        );
        Ok(())
    });
}

#[test]
fn role_holds_at_once_for_open_connections_too() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        edge.gateway.reload(|text| {
            text.to_owned() + "\n[[role]]\nname = \"dns\"\nallow = [\"10.17.3.11:53/udp\"]\n"
        })?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let wish = json!({"name": "alice", "public_key": keys.public.to_string(),
            "preshared_key": "none", "addresses": ["10.17.0.77"], "role": "kube-admin"});
        let (id, _) = created(&mut api, &wish)?;
        let address = "10.17.0.77".parse()?;
        let _laptop = edge.setup.dial_in(&world.road_warrior, &keys, address)?;
        let mut open = Conversation::open(&world.road_warrior, at(API_VIP, API_PORT))?;
        open.echo("with the role")?;
        for role in [json!("dns"), Value::Null] {
            api.patch(&id, &json!({"role": role}))?;
            assert!(
                ask_tcp(&world.road_warrior, at(API_VIP, API_PORT)).is_err(),
                "new, {role}"
            );
            assert!(open.echo("without it").is_err(), "open, {role}");
            api.patch(&id, &json!({"role": "kube-admin"}))?;
            ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;
            // What was refused meanwhile is sent again by TCP: read the echoes until the newest.
            open = Conversation::open(&world.road_warrior, at(API_VIP, API_PORT))?;
        }
        world.road_warrior.pings(&GATEWAY.to_string())
    });
}

#[test]
fn disabled_and_removed_peers_are_cut_off() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let wish = json!({"name": "alice", "public_key": keys.public.to_string(),
            "preshared_key": "none", "addresses": ["10.17.0.77"]});
        let (id, _) = created(&mut api, &wish)?;
        let dial = || {
            edge.setup
                .dial_in(&world.road_warrior, &keys, "10.17.0.77".parse()?)
        };
        let mut laptop = dial()?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        let off = api.patch(&id, &json!({"enabled": false}))?;
        assert_eq!(off["state"], "disabled");
        assert!(
            world.road_warrior.pings(&GATEWAY.to_string()).is_err(),
            "disabled"
        );
        api.patch(&id, &json!({"enabled": true}))?;
        // It does not know that its session is gone, and would find out after 15 seconds (whitepaper §6.2).
        laptop.daemon.stop(Signal::SIGTERM, SOON)?;
        let _laptop = dial()?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        api.delete(&id)?;
        assert!(
            world.road_warrior.pings(&GATEWAY.to_string()).is_err(),
            "removed"
        );
        let gone = api.call("GET", &format!("/v1/peers/{id}"), &[], &Value::Null)?;
        gone.expect_problem(404, "not_found")
    });
}

#[test]
fn networks_behind_a_peer_are_reached_and_may_call() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let wish = json!({"name": "branch", "public_key": keys.public.to_string(),
            "preshared_key": "none", "addresses": ["10.17.0.77"],
            "networks": ["192.168.77.0/24"], "role": "kube-admin"});
        let (id, _) = created(&mut api, &wish)?;
        let node = &world.road_warrior;
        let _branch = edge.setup.dial_in(node, &keys, "10.17.0.77".parse()?)?;
        node.ip("addr add 192.168.77.5/32 dev lo")?;
        let vps = &world.vps;
        eventually(
            SOON,
            "the network behind the peer answers the gateway",
            || vps.pings("192.168.77.5"),
        )?;
        // From that network: its own address is not known in the cluster, the gateway's stands for it.
        let from_behind = [
            "curl",
            "--silent",
            "--max-time",
            "2",
            "--interface",
            "192.168.77.5",
        ];
        let call = |port: u16| {
            let mut command = from_behind.to_vec();
            let url = format!("telnet://{API_VIP}:{port}");
            command.push(&url);
            node.output(&command)
                .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        };
        let said = call(API_PORT)?;
        assert!(!said.is_empty(), "the API VIP says who calls");
        api.patch(&id, &json!({"role": null}))?;
        assert_eq!(call(API_PORT)?, "", "without a role");
        api.patch(&id, &json!({"networks": null}))?;
        assert!(
            vps.pings("192.168.77.5").is_err(),
            "it is no network of its any more"
        );
        Ok(())
    });
}

#[test]
fn nobody_takes_what_belongs_to_another() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let _ssh = Server::tcp(&world.lan_host, "0.0.0.0:22".parse()?)?;
        let laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        for (field, value, status) in [
            ("addresses", json!(["10.17.5.10"]), 409),
            ("addresses", json!(["192.0.2.1"]), 422),
            ("addresses", json!(["10.17.0.1"]), 409),
            ("addresses", json!(["10.17.0.10"]), 409),
            ("networks", json!(["10.17.5.10/32"]), 409),
            ("networks", json!(["0.0.0.0/0"]), 422),
            ("networks", json!(["203.0.113.0/24"]), 422),
            ("name", json!("operator"), 409),
            ("name", json!("a\"; flush ruleset; #"), 422),
            ("name", json!("../../etc/passwd"), 422),
            ("labels", json!({"a\nb": "c"}), 422),
            ("role", json!("root"), 422),
        ] {
            let mut wish = json!({"name": "eve", "generate_key": true});
            wish[field] = value.clone();
            let reply = api.call("POST", "/v1/peers", &[], &wish)?;
            assert_eq!(reply.status, status, "{field} {value}: {reply:?}");
            assert_eq!(
                reply.header("content-type"),
                Some("application/problem+json")
            );
        }
        let page = api.get("/v1/peers?managed_by=api")?;
        assert_eq!(page["items"], json!([]));
        world.road_warrior.pings(&GATEWAY.to_string())?;
        drop(laptop);
        Ok(())
    });
}
