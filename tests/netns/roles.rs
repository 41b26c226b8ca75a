//! What laptops in the tunnel reach, and what reaches them: every pair, both directions.
use tests::edge::Setup;
use tests::servers::{Server, ask_tcp, ask_udp};
use tests::world::addresses::{
    API_PORT, API_VIP, DNS, GATEWAY, GUEST, INGRESS_VIP, LAN_SERVER, MASTER, OPERATOR, UDP_PORT, at,
};

use crate::support::with_edge;

/// What exists to be reached, and whether `kube-admin` may.
const TCP: [(std::net::SocketAddr, bool); 6] = [
    (at(API_VIP, API_PORT), true),
    (at(INGRESS_VIP, 80), false),
    (at(INGRESS_VIP, 22), false),
    (at(MASTER, API_PORT), false),
    (at(DNS, 53), false),
    (at(LAN_SERVER, 22), false),
];
const UDP: [(std::net::SocketAddr, bool); 2] =
    [(at(DNS, 53), true), (at(INGRESS_VIP, UDP_PORT), false)];

#[test]
fn operator_reaches_what_the_role_names_and_nothing_else() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _ssh = Server::tcp(&world.lan_host, "0.0.0.0:22".parse()?)?;
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        for (to, allowed) in TCP {
            assert_eq!(
                ask_tcp(&world.road_warrior, to).is_ok(),
                allowed,
                "tcp {to}"
            );
        }
        for (to, allowed) in UDP {
            assert_eq!(
                ask_udp(&world.road_warrior, to).is_ok(),
                allowed,
                "udp {to}"
            );
        }
        Ok(())
    });
}

#[test]
fn guest_without_a_role_reaches_nothing() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _ssh = Server::tcp(&world.vps, "0.0.0.0:22".parse()?)?;
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &edge.setup.guest, GUEST.into())?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        for (to, _) in TCP {
            assert!(ask_tcp(&world.road_warrior, to).is_err(), "tcp {to}");
        }
        for (to, _) in UDP {
            assert!(ask_udp(&world.road_warrior, to).is_err(), "udp {to}");
        }
        assert!(
            ask_tcp(&world.road_warrior, at(GATEWAY, 22)).is_err(),
            "SSH of the VPS itself"
        );
        Ok(())
    });
}

#[test]
fn laptop_cannot_take_another_ones_address() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        // The guest's key, the operator's address: the source does not belong to the key.
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.guest, OPERATOR.into())?;
        assert!(ask_tcp(&world.road_warrior, at(API_VIP, API_PORT)).is_err());
        assert!(world.road_warrior.pings(&GATEWAY.to_string()).is_err());
        let dropped = edge.gateway.status()?.dropped_packets;
        let count = dropped
            .get("source_not_allowed")
            .copied()
            .unwrap_or_default();
        assert!(count > 0, "{dropped:?}");
        Ok(())
    });
}

#[test]
fn cluster_and_lan_host_do_not_reach_laptops() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        let _service = Server::tcp(&world.road_warrior, "0.0.0.0:8080".parse()?)?;
        for node in [&world.lan_host, &world.backend, &world.client] {
            assert!(
                ask_tcp(node, at(OPERATOR, 8080)).is_err(),
                "{}",
                node.name()
            );
            assert!(
                node.pings(&OPERATOR.to_string()).is_err(),
                "{}",
                node.name()
            );
        }
        Ok(())
    });
}

#[test]
fn laptops_do_not_reach_each_other() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        let _other = edge
            .setup
            .dial_in(&world.stranger, &edge.setup.guest, GUEST.into())?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        world.stranger.pings(&GATEWAY.to_string())?;
        let _one = Server::tcp(&world.road_warrior, "0.0.0.0:8080".parse()?)?;
        let _two = Server::tcp(&world.stranger, "0.0.0.0:8080".parse()?)?;
        assert!(ask_tcp(&world.road_warrior, at(GUEST, 8080)).is_err());
        assert!(ask_tcp(&world.stranger, at(OPERATOR, 8080)).is_err());
        Ok(())
    });
}

#[test]
fn lan_host_itself_gets_answers_from_the_gateway() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        world.lan_host.pings("10.17.0.1")
    });
}
