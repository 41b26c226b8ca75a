//! A stolen VPS. Whoever holds the gateway's key may send what he likes into the tunnel; the LAN end still lets only
//! published and accessible services be called, and only from sources that its own configuration names.
//!
//! Here `wireguard-go` with the gateway's key is the thief, and `lan-server` is on its own.
use anyhow::{Context as _, Result};
use tests::edge::{Instance, LAN_TABLE, START_TIMEOUT, Setup, answer_of_lan_end};
use tests::expect::nft_tables;
use tests::servers::{Conversation, Server, ask_tcp, ask_udp};
use tests::standin;
use tests::wireguard_go::WireguardGo;
use tests::world::LightWorld;
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, DNS, INGRESS_VIP, LAN_HOST, LAN_SERVER, MASTER, OPERATOR, UDP_PORT,
    at,
};

use crate::support::in_light_world;

/// The thief's tunnel and the LAN end; the thief holds the addresses that it pretends to have.
fn steal_vps(world: &LightWorld) -> Result<(WireguardGo, Instance)> {
    let setup = Setup::new()?;
    let thief = standin::gateway(world, &setup)?;
    // The rules of the honest gateway are gone, and with them its scruples.
    world.vps.nft("flush ruleset\n")?;
    thief.set(&[
        "peer",
        &setup.lan_server.public.to_string(),
        "allowed-ips",
        "0.0.0.0/0,::/0",
    ])?;
    let config = setup.install_lan_server(&world.lan_host)?;
    let mut lan_server = Instance::start(&world.lan_host, "lan-server", config)?;
    lan_server
        .daemon
        .wait_until(START_TIMEOUT, "an answer through the tunnel", || {
            answer_of_lan_end(world)
        })?;
    Ok((thief, lan_server))
}

/// Let the VPS call the cluster and the LAN from this source address, and from no other that it pretended to have.
fn pretend_to_be(world: &LightWorld, source: &str) -> Result<()> {
    world.vps.ip("addr flush dev lo scope global\n")?;
    world.vps.ip(&format!("addr add {source}/32 dev lo\n"))?;
    for network in [
        "10.17.3.0/24",
        "10.17.4.0/24",
        "10.17.5.0/24",
        "192.168.0.0/24",
    ] {
        world
            .vps
            .ip(&format!("route replace {network} dev edge0 src {source}\n"))?;
    }
    Ok(())
}

#[test]
fn stolen_gateway_calls_published_services_only() {
    in_light_world(|world| {
        let _ends = steal_vps(world)?;
        let _ssh = Server::tcp(&world.lan_host, "0.0.0.0:22".parse()?)?;
        pretend_to_be(world, "173.245.48.99")?;
        assert_eq!(
            ask_tcp(&world.vps, at(INGRESS_VIP, 80))?.ip().to_string(),
            "173.245.48.99"
        );
        for to in [
            at(INGRESS_VIP, 22),
            at(API_VIP, API_PORT),
            at(MASTER, API_PORT),
            at(DNS, 53),
            at(LAN_HOST, 22),
            at(LAN_SERVER, 22),
        ] {
            assert!(ask_tcp(&world.vps, to).is_err(), "{to}");
        }
        assert!(ask_udp(&world.vps, at(DNS, 53)).is_err());
        assert!(
            ask_udp(&world.vps, at(INGRESS_VIP, UDP_PORT)).is_err(),
            "not from Cloudflare"
        );
        Ok(())
    });
}

#[test]
fn stolen_gateway_cannot_invent_sources() {
    in_light_world(|world| {
        let _ends = steal_vps(world)?;
        // A LAN host, a pod, another VIP, a node, a stranger: none is in `from`.
        for source in [
            "192.168.0.77",
            "10.42.0.7",
            "10.17.5.31",
            "10.17.4.24",
            "198.51.100.7",
        ] {
            pretend_to_be(world, source)?;
            assert!(
                ask_tcp(&world.vps, at(INGRESS_VIP, 80)).is_err(),
                "{source}"
            );
            assert!(
                ask_tcp(&world.vps, at(API_VIP, API_PORT)).is_err(),
                "{source}"
            );
        }
        pretend_to_be(world, &CLIENT.to_string())?;
        assert_eq!(ask_tcp(&world.vps, at(INGRESS_VIP, 80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn stolen_gateway_as_a_laptop_reaches_accessible_services_only() {
    in_light_world(|world| {
        let _ends = steal_vps(world)?;
        pretend_to_be(world, &OPERATOR.to_string())?;
        assert!(ask_tcp(&world.vps, at(API_VIP, API_PORT)).is_ok());
        assert!(ask_udp(&world.vps, at(DNS, 53)).is_ok());
        for to in [
            at(INGRESS_VIP, 80),
            at(INGRESS_VIP, 22),
            at(MASTER, API_PORT),
            at(DNS, 53),
        ] {
            assert!(ask_tcp(&world.vps, to).is_err(), "{to}");
        }
        Ok(())
    });
}

#[test]
fn tunnel_addresses_cannot_join_connections_of_the_lan() {
    in_light_world(|world| {
        let _ends = steal_vps(world)?;
        // A connection of the LAN that the LAN end forwards and knows: from the home network to a master.
        world
            .home_router
            .ip("route add 10.17.4.0/24 via 192.168.0.15\n")?;
        let mut conversation = Conversation::open(&world.home_router, at(MASTER, API_PORT))?;
        conversation.echo("before")?;
        // The thief sends what could belong to it, with the master's address as source.
        pretend_to_be(world, &MASTER.to_string())?;
        let counted = || -> Result<u64> {
            let listing = world.lan_host.run(&[
                "nft",
                "-j",
                "list",
                "counter",
                "inet",
                "wg_edge_lan",
                "refused_own_source",
            ])?;
            let listing: serde_json::Value = serde_json::from_str(&listing)?;
            let counters = listing
                .pointer("/nftables")
                .and_then(serde_json::Value::as_array);
            let packets = counters
                .into_iter()
                .flatten()
                .find_map(|entry| entry.pointer("/counter/packets")?.as_u64());
            packets.context("no such counter")
        };
        let before = counted()?;
        assert!(ask_tcp(&world.vps, at(LAN_HOST, 22)).is_err());
        assert!(counted()? > before);
        conversation.echo("after")
    });
}

#[test]
fn lan_end_makes_one_table_and_no_other() {
    in_light_world(|world| {
        let _ends = steal_vps(world)?;
        assert_eq!(nft_tables(&world.lan_host)?, [LAN_TABLE]);
        Ok(())
    });
}
