//! Who gets no answer, while those who may call get theirs.
use anyhow::Result;
use tests::edge::{Edge, Setup};
use tests::expect::{eventually, holds};
use tests::servers::{Server, ask_tcp, ask_udp};
use tests::world::World;
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, GATEWAY, INGRESS_VIP, LAN_SERVER, UDP_PORT, VPS, at, public, public6,
};

use crate::support::{SOON, with_edge};

/// Packets that the guard refused so far.
fn guarded(edge: &Edge) -> Result<u64> {
    let refused = edge.gateway.status()?.refused_packets;
    Ok(refused
        .iter()
        .filter(|(name, _)| name.starts_with("guard"))
        .map(|(_, count)| count)
        .sum())
}

#[test]
fn stranger_gets_no_answer_while_visitors_do() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let before = guarded(edge)?;
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        assert!(ask_tcp(&world.stranger, public(443)).is_err());
        assert!(ask_tcp(&world.stranger, public6(443)).is_err());
        assert!(ask_udp(&world.stranger, public(UDP_PORT)).is_err());
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        eventually(SOON, "the refusals are counted", || {
            let refused = guarded(edge)? - before;
            holds(refused >= 4, || format!("{refused} counted"))
        })
    });
}

#[test]
fn stranger_is_dropped_without_a_word() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        // A refusal by RST or ICMP would end the attempt at once; silence lasts until the caller gives up.
        let error = ask_tcp(&world.stranger, public(80)).expect_err("refused");
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::TimedOut), "{error:#}");
        Ok(())
    });
}

#[test]
fn unpublished_ports_are_not_forwarded() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        for port in [22, API_PORT] {
            assert!(ask_tcp(&world.client, public(port)).is_err(), "port {port}");
        }
        assert!(ask_udp(&world.client, public(UDP_PORT)).is_err());
        Ok(())
    });
}

/// Let the internet route the tunnel network to the VPS, as a neighbour in its data centre can.
fn route_tunnel_network_to_vps(world: &World) -> Result<()> {
    world
        .internet
        .ip(&format!("route add 10.17.0.0/16 via {VPS}\n"))
}

#[test]
fn vips_cannot_be_dialled_through_the_vps() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        route_tunnel_network_to_vps(world)?;
        for node in [&world.client, &world.stranger] {
            assert!(
                ask_tcp(node, at(INGRESS_VIP, 80)).is_err(),
                "{}",
                node.name()
            );
            assert!(
                ask_tcp(node, at(INGRESS_VIP, 22)).is_err(),
                "{}",
                node.name()
            );
            assert!(
                node.pings(&LAN_SERVER.to_string()).is_err(),
                "{}",
                node.name()
            );
        }
        Ok(())
    });
}

#[test]
fn tunnel_address_of_the_vps_does_not_answer_the_internet() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        // Linux answers on every link for every address that it has, unless it is told not to (CVE-2019-14899).
        route_tunnel_network_to_vps(world)?;
        let _admin = Server::tcp(&world.vps, at(GATEWAY, 8443))?;
        for node in [&world.client, &world.stranger] {
            assert!(ask_tcp(node, at(GATEWAY, 8443)).is_err(), "{}", node.name());
            assert!(node.pings(&GATEWAY.to_string()).is_err(), "{}", node.name());
        }
        Ok(())
    });
}

#[test]
fn tunnel_addresses_as_source_are_not_believed_from_the_internet() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        // The stranger pretends to be the operator; the internet here does not filter its sources.
        for switch in [
            "net/ipv4/conf/all/rp_filter",
            "net/ipv4/conf/stranger/rp_filter",
        ] {
            world.internet.set_sysctl(switch, "0")?;
        }
        world
            .internet
            .ip("route add 10.17.0.10/32 dev stranger\n")?;
        world.stranger.ip("addr add 10.17.0.10/32 dev lo\n")?;
        world
            .stranger
            .ip("route add 10.17.5.10/32 via 198.51.100.1 src 10.17.0.10\n")?;
        world
            .internet
            .ip(&format!("route add 10.17.5.10/32 via {VPS}\n"))?;
        assert!(ask_tcp(&world.stranger, at(API_VIP, API_PORT)).is_err());
        Ok(())
    });
}
