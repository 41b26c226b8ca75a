//! The worlds carry traffic as they should with `wireguard-go` and rules made by hand. When these fail, the world is wrong,
//! and no other failure means anything.
use std::path::Path;

use tests::edge::Setup;
use tests::servers::{Conversation, ask_tcp, ask_udp};
use tests::standin::StandIn;
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, CLIENT6, DNS, INGRESS_VIP, LAN_HOST, OPERATOR, ROAD_WARRIOR,
    UDP_PORT, VIP_ROUTER, VPS, VPS6, at, public, public6,
};

use crate::support::{in_light_world, in_reference_world, in_topology};

#[test]
fn nothing_of_the_cluster_is_reachable_without_a_tunnel() {
    in_light_world(|world| {
        world.client.pings(&VPS.to_string())?;
        world.lan_host.pings(&VPS.to_string())?;
        assert!(world.client.pings(&LAN_HOST.to_string()).is_err());
        assert!(ask_tcp(&world.client, public(80)).is_err());
        assert!(ask_tcp(&world.client, at(INGRESS_VIP, 80)).is_err());
        assert_eq!(
            ask_tcp(&world.lan_host, at(INGRESS_VIP, 80))?.ip(),
            VIP_ROUTER
        );
        Ok(())
    });
}

#[test]
fn light_world_preserves_sources_by_hand() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let _edge = StandIn::start(world, &setup)?;
        let _laptop = setup.dial_in(&world.road_warrior, &setup.operator, OPERATOR.into())?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public(443))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public6(80))?.ip(), CLIENT6);
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            ROAD_WARRIOR
        );
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        assert_eq!(
            ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?.ip(),
            VIP_ROUTER
        );
        assert!(ask_udp(&world.road_warrior, at(DNS, 53)).is_ok());
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.download(10_000_000)?;
        transfer.upload(10_000_000)
    });
}

#[test]
fn light_world_works_with_the_tunnel_over_ipv6() {
    in_light_world(|world| {
        let setup = Setup::new()?.over_ipv6();
        let _edge = StandIn::start(world, &setup)?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn two_worlds_side_by_side_do_not_see_each_other() {
    in_light_world(|one| {
        in_light_world(|two| {
            let setup = Setup::new()?;
            let _edge = StandIn::start(one, &setup)?;
            assert!(ask_tcp(&one.client, public(80)).is_ok());
            assert!(ask_tcp(&two.client, public(80)).is_err());
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn reference_world_serves_web_and_api_by_hand() {
    in_reference_world(|world| {
        let setup = Setup::new()?;
        let _edge = StandIn::start(world, &setup)?;
        let _laptop = setup.dial_in(&world.road_warrior, &setup.operator, OPERATOR.into())?;
        let seen = format!("you are {CLIENT}\n");
        assert_eq!(world.visit(&world.client, &format!("http://{VPS}/"))?, seen);
        assert_eq!(
            world.visit(&world.client, "https://www.example.org/")?,
            seen
        );
        let seen = format!("you are {CLIENT6}\n");
        assert_eq!(
            world.visit(&world.client, &format!("http://[{VPS6}]/"))?,
            seen
        );
        let answer = world.ask_api(&world.road_warrior)?;
        assert!(answer.starts_with("ok from master"), "{answer}");
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            ROAD_WARRIOR
        );
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        assert!(
            world.load_balancers[0]
                .haproxy_log()?
                .contains(&format!("{CLIENT} http worker1"))
        );
        assert!(world.web_log()?.contains(&format!("{CLIENT} https / 200")));
        Ok(())
    });
}

#[test]
fn worlds_leave_nothing_behind() {
    let mut left = Vec::new();
    in_topology(|topology| {
        let [node] = topology.add_nodes(["node"])?;
        left.extend([
            Path::new("/run/netns").join(node.netns()),
            topology.dir().to_owned(),
        ]);
        assert!(left.iter().all(|path| path.exists()));
        Ok(())
    });
    assert!(!left.iter().any(|path| path.exists()), "{left:?}");
}
