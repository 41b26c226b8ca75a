//! Debian's `wireguard-go` on the other side.
use tests::edge::{Instance, START_TIMEOUT, Setup, answer_of_lan_end};
use tests::expect::eventually;
use tests::servers::{Conversation, ask_tcp};
use tests::standin;
use tests::world::addresses::{CLIENT, CLIENT6, public, public6};

use crate::support::in_light_world;

const BYTES: u64 = 10_000_000;

#[test]
fn gateway_serves_a_lan_end_of_wireguard_go() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let config = setup.install_gateway(&world.vps)?;
        let mut gateway = Instance::start(&world.vps, "gateway", config)?;
        let _lan_server = standin::lan_server(world, &setup)?;
        gateway
            .daemon
            .wait_until(START_TIMEOUT, "an answer through the tunnel", || {
                answer_of_lan_end(world)
            })?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public6(80))?.ip(), CLIENT6);
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}

#[test]
fn lan_server_dials_a_gateway_of_wireguard_go() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let _gateway = standin::gateway(world, &setup)?;
        let config = setup.install_lan_server(&world.lan_host)?;
        let mut lan_server = Instance::start(&world.lan_host, "lan-server", config)?;
        lan_server
            .daemon
            .wait_until(START_TIMEOUT, "an answer through the tunnel", || {
                answer_of_lan_end(world)
            })?;
        eventually(START_TIMEOUT, "a visitor is served", || {
            ask_tcp(&world.client, public(80))
        })?;
        assert_eq!(ask_tcp(&world.client, public(80))?.ip(), CLIENT);
        assert_eq!(ask_tcp(&world.client, public6(80))?.ip(), CLIENT6);
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}
