//! The whole cluster behind the two ends: a load balancer dies under traffic.
use std::time::Duration;

use tests::edge::{Edge, Setup};
use tests::expect::{eventually, holds};
use tests::world::SITE;
use tests::world::addresses::{CLIENT, CLIENT6, OPERATOR, VPS, VPS6};

use crate::support::in_reference_world;

/// Three VRRP advertisements that stay away, gratuitous ARP, and a slow test machine.
const FAIL_OVER: Duration = Duration::from_secs(10);

#[test]
fn visitors_and_operators_are_served_by_the_load_balancer_that_lives() {
    in_reference_world(|world| {
        let edge = Edge::start(world, Setup::new()?)?;
        let setup = &edge.setup;
        let _laptop = setup.dial_in(&world.road_warrior, &setup.operator, OPERATOR.into())?;
        let pages = [
            (format!("http://{VPS}/"), CLIENT.to_string()),
            (format!("https://{SITE}/"), CLIENT.to_string()),
            (format!("http://[{VPS6}]/"), CLIENT6.to_string()),
        ];
        for (url, seen) in &pages {
            assert_eq!(
                world.visit(&world.client, url)?,
                format!("you are {seen}\n")
            );
        }
        assert!(
            world
                .ask_api(&world.road_warrior)?
                .starts_with("ok from master")
        );

        world.load_balancers[0].cut_power()?;
        eventually(FAIL_OVER, "VIPs on lb2", || {
            holds(world.load_balancers[1].is_active()?, || {
                "not there".to_owned()
            })
        })?;
        for (url, seen) in &pages {
            let page = eventually(FAIL_OVER, "a page from lb2", || {
                world.visit(&world.client, url)
            })?;
            assert_eq!(page, format!("you are {seen}\n"));
        }
        let answer = eventually(FAIL_OVER, "answer from the API", || {
            world.ask_api(&world.road_warrior)
        })?;
        assert!(answer.starts_with("ok from master"), "{answer}");
        assert!(
            world.load_balancers[1]
                .haproxy_log()?
                .contains(&format!("{CLIENT} https worker1"))
        );
        Ok(())
    });
}
