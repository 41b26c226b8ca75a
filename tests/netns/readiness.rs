//! `/readyz`: what others take from the kernel is seen, and a reload puts it right.
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::api::{Api, Reply};
use tests::edge::{Edge, Instance, Setup};
use tests::expect::{eventually, holds};

use crate::support::{SOON, in_light_world, with_edge};

/// What is not as it should be is seen within this.
const NOTICED: Duration = Duration::from_secs(2);

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
fn what_others_take_from_the_gateway_is_seen_until_a_reload_puts_it_right() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        answers(&edge.gateway, "gateway", 200)?;
        for (taken, named) in [
            ("route delete 10.17.5.0/24 dev edge0", "10.17.5.0/24"),
            ("address delete 10.17.0.1/16 dev edge0", "10.17.0.1/16"),
            ("link set dev edge0 mtu 1300", "mtu"),
            ("link set dev edge0 down", "edge0"),
        ] {
            world.vps.ip(taken)?;
            let reply = answers(&edge.gateway, "gateway", 503)?;
            reply.expect_problem(503, "not_ready")?;
            let detail = reply.body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(named), "{taken}: {detail}");
            let status = edge.gateway.status()?;
            assert!(!status.ready && !status.problems.is_empty(), "{status:?}");
            edge.gateway.reload(str::to_owned)?;
            assert_eq!(readyz(&edge.gateway, "gateway")?.status, 200, "{taken}");
        }
        Ok(())
    });
}

#[test]
fn an_element_that_somebody_takes_from_the_table_is_seen() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let is_protected = edge.gateway.status()?.firewall_protected;
        let command = "delete element inet wg_edge peers4 { 10.17.0.10 }";
        let taken = world.vps.run(&["nft", command]);
        // A kernel that knows owners of tables (6.9) lets nobody else do that.
        assert_eq!(taken.is_err(), is_protected, "{taken:?}");
        if is_protected {
            std::thread::sleep(Duration::from_millis(1100));
            assert_eq!(readyz(&edge.gateway, "gateway")?.status, 200);
            return Ok(());
        }
        answers(&edge.gateway, "gateway", 503)?;
        edge.gateway.reload(str::to_owned)?;
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
        answers(&edge.lan_server, "lan-server", 200)?;
        world.lan_host.ip("route flush table 17001")?;
        answers(&edge.lan_server, "lan-server", 503)?;
        edge.lan_server.reload(str::to_owned)?;
        answers(&edge.lan_server, "lan-server", 200).map(drop)
    });
}
