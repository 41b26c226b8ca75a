//! What systemd keeps for the next process: packets for the tunnel wait while nobody runs, instead of being lost.
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::daemon::Daemon;
use tests::edge::{Edge, Instance, Setup, Start};
use tests::expect::{eventually, holds};
use tests::world::LightWorld;

use crate::service_manager::Manager;
use crate::support::{SOON, with_edge};

/// The LAN end's address in the tunnel.
const LAN_SERVER: &str = "10.17.0.2";
/// How long nobody runs.
const AWAY: Duration = Duration::from_millis(700);

/// Put a gateway that this manager starts in the place of the one that runs, and wait until it is ready.
fn replace(edge: &mut Edge, manager: &mut Manager, start: Start) -> Result<()> {
    let before = manager.count("READY=1")?;
    edge.gateway.daemon.kill();
    let node = edge.gateway.daemon.node().clone();
    let config = edge.gateway.config.clone();
    edge.gateway = Instance::start_with(&node, "gateway", config, start)?;
    edge.gateway.daemon.wait_until(SOON, "READY=1", || {
        let now = manager.count("READY=1")?;
        holds(now == before + 1, || format!("{before}, then {now}"))
    })
}

/// The one queue that it has left.
fn left(manager: &mut Manager) -> Result<OwnedFd> {
    let mut kept = manager.take_kept()?;
    let queue = kept.pop().context("nothing was left")?;
    ensure!(kept.is_empty(), "{} more were left", kept.len());
    let heard = manager.heard()?;
    let last = heard.iter().rposition(|line| line == "FDSTORE=1");
    let name = last.and_then(|at| heard.get(at + 1));
    ensure!(name.is_some_and(|name| name == "FDNAME=tun"), "{heard:?}");
    Ok(queue)
}

fn wait_for_tunnel(world: &LightWorld) -> Result<()> {
    eventually(SOON, "an answer through the tunnel", || {
        world.vps.run(&["ping", "-c1", "-W1", LAN_SERVER])
    })
    .map(drop)
}

/// The gateway can't know where the LAN end behind NAT is but from what it wrote down.
fn wait_for_notes(world: &LightWorld) -> Result<()> {
    let endpoints = world.vps.dir().join("state/endpoints.json");
    eventually(SOON, "the endpoint of the LAN end on disk", || {
        Ok(std::fs::metadata(&endpoints)?)
    })
    .map(drop)
}

/// The gateway under a manager, and the queue that it has left there.
fn managed(world: &LightWorld, edge: &mut Edge) -> Result<(Manager, OwnedFd)> {
    let mut manager = Manager::listen(&world.vps.dir().join("notify.sock"))?;
    wait_for_notes(world)?;
    let start = manager.start("true");
    replace(edge, &mut manager, start)?;
    let queue = left(&mut manager)?;
    Ok((manager, queue))
}

#[test]
fn packets_wait_for_the_next_process() {
    with_edge(Setup::new().expect("random numbers"), |world, edge| {
        let (mut manager, queue) = managed(world, edge)?;
        wait_for_tunnel(world)?;

        edge.gateway.daemon.kill();
        let carrier = world.vps.run(&["cat", "/sys/class/net/edge0/carrier"])?;
        ensure!(carrier.trim() == "1", "the link has lost its queue");
        let ping = ["ping", "-c1", "-W10", LAN_SERVER];
        let mut ping = Daemon::start(&world.vps, "ping", &ping)?;
        std::thread::sleep(AWAY);
        let start = manager.start_with_kept("tun", &queue)?;
        replace(edge, &mut manager, start)?;
        let status = ping.wait(SOON)?;
        ensure!(status.success(), "the packet was lost: {}", ping.log());
        ensure!(
            manager.take_kept()?.is_empty(),
            "what is kept already was left again"
        );
        Ok(())
    });
}

#[test]
fn queue_of_a_link_that_is_gone_is_given_up() {
    with_edge(Setup::new().expect("random numbers"), |world, edge| {
        let (mut manager, queue) = managed(world, edge)?;
        edge.gateway.daemon.kill();
        world.vps.run(&["ip", "link", "delete", "edge0"])?;
        let start = manager.start_with_kept("tun", &queue)?;
        replace(edge, &mut manager, start)?;
        ensure!(
            manager.count("FDSTOREREMOVE=1")? == 1,
            "{:?}",
            manager.heard()?
        );
        left(&mut manager)?;
        wait_for_tunnel(world)
    });
}
