//! Whom the cluster sees when the internet calls a published service.
use std::net::IpAddr;

use tests::edge::Setup;
use tests::expect::eventually;
use tests::servers::{ask_tcp, ask_udp};
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, CLIENT6, IPERF_PORT, OPERATOR, ROAD_WARRIOR, UDP_PORT, VIP_ROUTER,
    at, public, public6,
};

use crate::support::{SOON, with_edge};

#[test]
fn ingress_vip_sees_visitors_own_address() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        for port in [80, 443] {
            assert_eq!(
                ask_tcp(&world.client, public(port))?.ip(),
                CLIENT,
                "port {port}"
            );
            assert_eq!(
                ask_tcp(&world.client, public6(port))?.ip(),
                CLIENT6,
                "port {port}"
            );
        }
        Ok(())
    });
}

#[test]
fn udp_service_sees_its_callers_own_address() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            ROAD_WARRIOR
        );
        Ok(())
    });
}

#[test]
fn callers_port_is_preserved_too() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        let conversation = tests::servers::Conversation::open(&world.client, public(80))?;
        let from = conversation.local_address()?;
        assert_eq!(conversation.seen_as(), from);
        Ok(())
    });
}

#[test]
fn api_vip_is_reached_by_the_operator_and_sees_the_lan_host() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        assert_eq!(
            ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?.ip(),
            VIP_ROUTER
        );
        Ok(())
    });
}

#[test]
fn source_is_preserved_with_the_tunnel_over_ipv6() {
    with_edge(Setup::new().unwrap().over_ipv6(), |world, edge| {
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public6(80))?.ip(), CLIENT6);
        let status = edge.gateway.status()?;
        let lan_server = status.peers.iter().find(|peer| peer.kind == "lan_server");
        let endpoint = lan_server.and_then(|peer| peer.endpoint);
        assert!(
            endpoint.is_some_and(|endpoint| endpoint.is_ipv6()),
            "{endpoint:?}"
        );
        Ok(())
    });
}

#[test]
fn masquerade_at_the_lan_end_shows_the_lan_host() {
    let setup = Setup {
        lan_source_ip: "masquerade",
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, _edge| {
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), VIP_ROUTER);
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            VIP_ROUTER
        );
        assert_eq!(
            ask_tcp(&world.client, public6(80))?.ip(),
            "fd17:5::1".parse::<IpAddr>()?
        );
        Ok(())
    });
}

#[test]
fn masquerade_at_both_ends_shows_the_lan_host() {
    let setup = Setup {
        gateway_source_ip: "masquerade",
        lan_source_ip: "masquerade",
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, _edge| {
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), VIP_ROUTER);
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            VIP_ROUTER
        );
        assert_eq!(
            ask_tcp(&world.client, public6(80))?.ip(),
            "fd17:5::1".parse::<IpAddr>()?
        );
        Ok(())
    });
}

#[test]
fn every_published_port_counts_its_connections() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.serve_tcp(at(tests::world::addresses::INGRESS_VIP, IPERF_PORT))?;
        for port in [80, 443, IPERF_PORT] {
            ask_tcp(&world.client, public(port))?;
        }
        eventually(SOON, "three connections in the status", || {
            let status = edge.gateway.status()?;
            let count = |name: &str| {
                status
                    .publishes
                    .iter()
                    .find(|publish| publish.name == name)
                    .and_then(|publish| publish.connections)
            };
            tests::expect::holds(
                count("ingress") == Some(2) && count("iperf") == Some(1),
                || format!("{:?}", status.publishes),
            )
        })
    });
}
