//! Addresses change under a running tunnel.
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use tests::edge::{Edge, INTERFACE, Setup, answer_of_lan_end, binary};
use tests::expect::eventually;
use tests::servers::{Conversation, ask_tcp};
use tests::world::World;
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, GATEWAY, HOME_AFTER_CHANGE, OPERATOR, at, public,
};

use crate::support::with_edge;

/// An own change of address is over after this (P11 of the promises).
const OWN_CHANGE: Duration = Duration::from_secs(1);
/// So is one behind NAT, once the inner side has sent something.
const BEHIND_NAT: Duration = Duration::from_secs(5);

/// Where the gateway last heard from the LAN end.
fn endpoint(edge: &Edge) -> Result<Option<SocketAddr>> {
    let status = edge.gateway.status()?;
    let lan_server = status.peers.iter().find(|peer| peer.kind == "lan_server");
    Ok(lan_server.and_then(|peer| peer.endpoint))
}

/// Wait until the tunnel carries packets again, the LAN end sending something all the while: behind NAT nobody can reach it
/// before.
fn wait_while_lan_end_sends(world: &World, within: Duration) -> Result<Duration> {
    let start = Instant::now();
    eventually(within, "an answer through the tunnel", || {
        // The gateway's answer is not wanted, so neither is the exit code.
        world
            .lan_host
            .output(&["ping", "-n", "-c", "1", "-W", "0.01", &GATEWAY.to_string()])?;
        answer_of_lan_end(world)
    })?;
    Ok(start.elapsed())
}

#[test]
fn connections_survive_a_new_public_address_of_the_home_network() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        conversation.echo("before")?;
        world.masquerade_home_as(HOME_AFTER_CHANGE)?;
        wait_while_lan_end_sends(world, BEHIND_NAT)?;
        conversation.set_patience(BEHIND_NAT)?;
        conversation.echo("after")?;
        let address = endpoint(edge)?.map(|endpoint| endpoint.ip());
        assert_eq!(address, Some(HOME_AFTER_CHANGE.into()));
        Ok(())
    });
}

#[test]
fn connections_survive_a_new_port_of_the_nat() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        conversation.echo("before")?;
        let old = endpoint(edge)?;
        world.rebind_home_ports("40000-40010")?;
        wait_while_lan_end_sends(world, BEHIND_NAT)?;
        conversation.set_patience(BEHIND_NAT)?;
        conversation.echo("after")?;
        assert_ne!(endpoint(edge)?, old);
        Ok(())
    });
}

#[test]
fn connections_survive_a_new_address_of_the_lan_host() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        conversation.echo("before")?;
        world.lan_host.ip("
            addr del 192.168.0.15/24 dev eth0
            addr add 192.168.0.16/24 dev eth0
            route replace default via 192.168.0.1
        ")?;
        let elapsed = wait_while_lan_end_sends(world, OWN_CHANGE)?;
        assert!(elapsed < OWN_CHANGE, "{elapsed:?}");
        conversation.set_patience(BEHIND_NAT)?;
        conversation.echo("after")?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        Ok(())
    });
}

#[test]
fn laptop_changes_networks_without_losing_its_connection() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        // Not by wireguard-go, which on recent kernels never gets rid of the address that it sent from.
        let program = [&binary("gateway")?, "wg", INTERFACE];
        let setup = &edge.setup;
        let _laptop = setup.dial_in_by(
            &program,
            &world.road_warrior,
            &setup.operator,
            OPERATOR.into(),
        )?;
        let mut conversation = Conversation::open(&world.road_warrior, at(API_VIP, API_PORT))?;
        conversation.echo("before")?;
        world.road_warrior.ip("
            addr del 192.0.2.50/24 dev eth0
            addr add 192.0.2.51/24 dev eth0
            route replace default via 192.0.2.1
        ")?;
        conversation.set_patience(BEHIND_NAT)?;
        conversation.echo("after")?;
        Ok(())
    });
}
