//! `/readyz`: what is not as the configuration asks, and can't be put right, is told.
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::api::{Api, Reply};
use tests::edge::{Edge, Instance, Setup};
use tests::expect::{eventually, holds};

use crate::support::{SOON, in_light_world, with_edge};

/// What is not as it should be is seen within this.
const NOTICED: Duration = Duration::from_secs(2);

/// Services are tried every ten seconds, and have two to answer.
const TRIED: Duration = Duration::from_secs(16);

fn readyz(instance: &Instance, name: &str) -> Result<Reply> {
    Api::of(instance, name)?.call("GET", "/readyz", &[], &Value::Null)
}

fn answers(instance: &Instance, name: &str, wanted: u16) -> Result<Reply> {
    let mut last = None;
    eventually(NOTICED, &format!("/readyz says {wanted}"), || {
        let reply = readyz(instance, name)?;
        let status = reply.status;
        let text = format!("{reply:?}");
        last = Some(reply);
        holds(status == wanted, || text)
    })?;
    last.ok_or_else(|| anyhow::anyhow!("no answer"))
}

#[test]
fn what_stands_in_place_of_ours_is_told_until_it_goes() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        answers(&edge.gateway, "gateway", 200)?;
        // In one go: between the two ours would come back.
        let batch = "route delete 10.17.5.0/24 dev edge0\nroute add 10.17.5.0/24 dev eth0\n";
        world.vps.run_with_input(&["ip", "-batch", "-"], batch)?;
        let reply = answers(&edge.gateway, "gateway", 503)?;
        reply.expect_problem(503, "not_ready")?;
        let detail = reply.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("10.17.5.0/24"), "{detail}");
        let status = edge.gateway.status()?;
        assert!(!status.ready && !status.problems.is_empty(), "{status:?}");
        world.vps.ip("route delete 10.17.5.0/24 dev eth0")?;
        answers(&edge.gateway, "gateway", 200).map(drop)
    });
}

#[test]
fn an_element_that_somebody_takes_from_the_table_comes_back() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let is_protected = edge.gateway.status()?.firewall_protected;
        let command = "delete element inet wg_edge peers4 { 10.17.0.10 }";
        let taken = world.vps.run(&["nft", command]);
        // A kernel that knows owners of tables (6.9) lets nobody else do that.
        assert_eq!(taken.is_err(), is_protected, "{taken:?}");
        eventually(NOTICED, "it is there", || {
            let map = world
                .vps
                .run(&["nft", "list", "map", "inet", "wg_edge", "peers4"])?;
            holds(map.contains("10.17.0.10"), || map)
        })?;
        answers(&edge.gateway, "gateway", 200).map(drop)
    });
}

#[test]
fn a_lan_server_is_ready_when_it_has_a_session() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let config = setup.install_lan_server(&world.lan_host)?;
        let mut lan_server = Instance::start(&world.lan_host, "lan-server", config)?;
        lan_server.daemon.wait_for_log(SOON, 0, &["ready"])?;
        let reply = answers(&lan_server, "lan-server", 503)?;
        let detail = reply.body["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("no session with the gateway vps"),
            "{detail}"
        );
        let gateway = Instance::start(&world.vps, "gateway", setup.install_gateway(&world.vps)?)?;
        let mut edge = Edge {
            gateway,
            lan_server,
            setup,
        };
        edge.wait_for_tunnel(world, tests::edge::START_TIMEOUT)?;
        answers(&edge.lan_server, "lan-server", 200).map(drop)
    });
}

#[test]
fn an_end_from_which_no_service_is_reached_is_not_ready() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let ends = [(&edge.gateway, "gateway"), (&edge.lan_server, "lan-server")];
        let script = "table inet deaf { chain input { type filter hook input priority filter; tcp dport { 80, 443, 5201 } drop; }; }";
        world.backend.nft(script)?;
        for (instance, name) in ends {
            eventually(TRIED, "not ready", || {
                let reply = readyz(instance, name)?;
                let detail = reply.body["detail"].as_str().unwrap_or_default();
                holds(
                    reply.status == 503 && detail.contains("no published service answers"),
                    || format!("{reply:?}"),
                )
            })?;
        }
        // One of two services is a path.
        world
            .backend
            .nft("insert rule inet deaf input tcp dport 80 accept")?;
        for (instance, name) in ends {
            eventually(TRIED, "ready", || {
                let reply = readyz(instance, name)?;
                holds(reply.status == 200, || format!("{reply:?}"))
            })?;
        }
        Ok(())
    });
}
