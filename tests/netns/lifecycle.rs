//! Start, stop, crash, start again, remove.
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::edge::{Edge, INTERFACE, Instance, Setup, answer_of_lan_end};
use tests::expect::{eventually, kernel_state};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::addresses::{CLIENT, public};

use crate::support::{SOON, in_light_world, with_edge};

/// After a crash the tunnel carries packets again within this (P6 of the promises).
const AFTER_CRASH: Duration = Duration::from_secs(1);

#[test]
fn down_leaves_the_kernel_as_it_was() {
    in_light_world(|world| {
        let before = (kernel_state(&world.vps)?, kernel_state(&world.lan_host)?);
        let edge = Edge::start(world, Setup::new()?)?;
        ask_tcp(&world.client, public(80))?;
        edge.gateway.command(&["down"])?;
        edge.lan_server.command(&["down"])?;
        assert_same_state(&kernel_state(&world.vps)?, &before.0);
        assert_same_state(&kernel_state(&world.lan_host)?, &before.1);
        // Once more, with nothing there.
        edge.gateway.command(&["down"])?;
        edge.lan_server.command(&["down"])?;
        Ok(())
    });
}

/// Compare line by line, so that a failure shows the lines that differ and not two long listings.
#[track_caller]
fn assert_same_state(after: &str, before: &str) {
    let beyond = |some: &str, other: &str| -> Vec<String> {
        let new = some
            .lines()
            .filter(|line| !other.lines().any(|known| known == *line));
        new.map(str::to_owned).collect()
    };
    let (came, went) = (beyond(after, before), beyond(before, after));
    assert!(
        came.is_empty() && went.is_empty(),
        "came: {came:#?}\nwent: {went:#?}"
    );
}

/// The gateway's table without its first lines, which say whether the owner lives and who it is.
fn rules_of(node: &Node) -> Result<String> {
    let listing = node.run(&["nft", "-s", "list", "table", "inet", "wg_edge"])?;
    let lines = listing
        .lines()
        .filter(|line| !line.starts_with("table ") && !line.starts_with("\tflags "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn sigterm_leaves_link_and_closed_firewall() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let rules = rules_of(&world.vps)?;
        let status = edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        assert!(status.success(), "{status}");
        assert_same_state(&rules_of(&world.vps)?, &rules);
        world.vps.run(&["ip", "link", "show", "dev", INTERFACE])?;
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        Ok(())
    });
}

#[test]
fn sigkill_leaves_link_and_closed_firewall() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let rules = rules_of(&world.vps)?;
        edge.gateway.daemon.kill();
        assert_same_state(&rules_of(&world.vps)?, &rules);
        world.vps.run(&["ip", "link", "show", "dev", INTERFACE])?;
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        Ok(())
    });
}

/// Which end goes away, and how.
#[derive(Clone, Copy)]
enum Outage {
    GatewayKilled,
    GatewayStopped,
    LanServerKilled,
    LanServerStopped,
}

/// After the end is started again, the tunnel carries packets within [`AFTER_CRASH`] and open connections go on.
#[track_caller]
fn back_within_a_second(setup: Setup, outage: Outage) {
    with_edge(setup, |world, edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        // The gateway can't know where the LAN end behind NAT is but from what it wrote down: every two seconds.
        let endpoints = world.vps.dir().join("state/endpoints.json");
        eventually(SOON, "the endpoint of the LAN end on disk", || {
            Ok(std::fs::metadata(&endpoints)?)
        })?;
        let end = match outage {
            Outage::GatewayKilled | Outage::GatewayStopped => &mut edge.gateway,
            Outage::LanServerKilled | Outage::LanServerStopped => &mut edge.lan_server,
        };
        match outage {
            Outage::GatewayKilled | Outage::LanServerKilled => end.daemon.kill(),
            Outage::GatewayStopped | Outage::LanServerStopped => {
                end.daemon.stop(Signal::SIGTERM, SOON)?;
            }
        }
        end.restart()?;
        end.daemon.wait_for_log(SOON, 0, &["ready"])?;
        let start = Instant::now();
        eventually(AFTER_CRASH, "an answer through the tunnel", || {
            answer_of_lan_end(world)
        })?;
        assert!(start.elapsed() < AFTER_CRASH, "{:?}", start.elapsed());
        conversation.set_patience(SOON)?;
        conversation.echo("the connection survived")?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn killed_gateway_is_back_within_a_second_of_its_start() {
    back_within_a_second(Setup::new().unwrap(), Outage::GatewayKilled);
}

#[test]
fn stopped_gateway_is_back_within_a_second_of_its_start() {
    back_within_a_second(Setup::new().unwrap(), Outage::GatewayStopped);
}

#[test]
fn killed_lan_server_is_back_within_a_second_of_its_start() {
    back_within_a_second(Setup::new().unwrap(), Outage::LanServerKilled);
}

#[test]
fn stopped_lan_server_is_back_within_a_second_of_its_start() {
    back_within_a_second(Setup::new().unwrap(), Outage::LanServerStopped);
}

#[test]
fn lan_end_that_starts_first_finds_the_gateway_when_it_comes() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let mut lan_server = Instance::start(
            &world.lan_host,
            "lan-server",
            setup.install_lan_server(&world.lan_host)?,
        )?;
        lan_server.daemon.wait_for_log(SOON, 0, &["ready"])?;
        let gateway = Instance::start(&world.vps, "gateway", setup.install_gateway(&world.vps)?)?;
        let mut edge = Edge {
            gateway,
            lan_server,
            setup,
        };
        edge.wait_for_tunnel(world, tests::edge::START_TIMEOUT)?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn second_daemon_is_told_who_is_there() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let error = edge.gateway.command(&["run"]).expect_err("one is enough");
        let pid = edge.gateway.daemon.pid().to_string();
        assert!(error.to_string().contains(&pid), "{error}");
        edge.gateway.daemon.alive()?;
        edge.gateway.status().map(drop)
    });
}

#[test]
fn start_that_fails_leaves_the_kernel_as_it_was() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let config = setup.install_gateway(&world.vps)?;
        let before = kernel_state(&world.vps)?;
        // Somebody has the UDP port.
        let _taken = tests::servers::Server::udp(&world.vps, "0.0.0.0:51820".parse()?)?;
        let mut gateway = Instance::start(&world.vps, "gateway", config)?;
        let status = gateway.daemon.wait(SOON)?;
        assert_eq!(status.code(), Some(4), "{}", gateway.daemon.log());
        assert!(
            gateway.daemon.log().contains("51820"),
            "{}",
            gateway.daemon.log()
        );
        assert_same_state(&kernel_state(&world.vps)?, &before);
        Ok(())
    });
}

#[test]
fn foreign_link_of_the_tunnels_name_is_not_touched() {
    in_light_world(|world| {
        let config = Setup::new()?.install_gateway(&world.vps)?;
        world.vps.ip("link add edge0 type bridge\n")?;
        let before = kernel_state(&world.vps)?;
        let mut gateway = Instance::start(&world.vps, "gateway", config)?;
        let status = gateway.daemon.wait(SOON)?;
        assert_eq!(status.code(), Some(4), "{}", gateway.daemon.log());
        assert!(
            gateway.daemon.log().contains("edge0"),
            "{}",
            gateway.daemon.log()
        );
        assert_same_state(&kernel_state(&world.vps)?, &before);
        Ok(())
    });
}

#[test]
fn start_that_fails_late_leaves_the_kernel_as_it_was() {
    in_light_world(|world| {
        let config = Setup::new()?.install_gateway(&world.vps)?;
        // Nothing can be bound where a directory is.
        std::fs::create_dir_all(world.vps.dir().join("run/wg-edge/gateway.sock"))?;
        let before = kernel_state(&world.vps)?;
        let mut gateway = Instance::start(&world.vps, "gateway", config)?;
        let status = gateway.daemon.wait(SOON)?;
        assert_eq!(status.code(), Some(4), "{}", gateway.daemon.log());
        assert_same_state(&kernel_state(&world.vps)?, &before);
        Ok(())
    });
}

#[test]
fn start_that_finds_the_port_of_the_api_taken_leaves_the_kernel_as_it_was() {
    in_light_world(|world| {
        let mut setup = Setup::new()?;
        setup.more_gateway = "\n[admin]\nlisten = \"10.17.0.1:8443\"\n".to_owned();
        let config = setup.install_gateway(&world.vps)?;
        let before = kernel_state(&world.vps)?;
        // Somebody has the port on every address that there will ever be.
        let _taken = tests::servers::Server::tcp(&world.vps, "0.0.0.0:8443".parse()?)?;
        let mut gateway = Instance::start(&world.vps, "gateway", config)?;
        let status = gateway.daemon.wait(SOON)?;
        let log = gateway.daemon.log();
        assert_eq!(status.code(), Some(4), "{log}");
        assert!(
            log.contains("10.17.0.1:8443") && log.contains("[admin] listen"),
            "{log}"
        );
        assert_same_state(&kernel_state(&world.vps)?, &before);
        Ok(())
    });
}
