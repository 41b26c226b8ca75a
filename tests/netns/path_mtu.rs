//! Paths that carry less than 1500 bytes, with every ICMP message about it lost: what hangs elsewhere must not hang here.
use anyhow::Result;
use tests::edge::Setup;
use tests::servers::Conversation;
use tests::world::World;
use tests::world::addresses::public;

use crate::support::with_edge;

/// Enough for many full segments.
const BYTES: u64 = 3_000_000;
/// Outer IPv4 and UDP headers and WireGuard's own around an inner packet (whitepaper §5.4.6).
const OVERHEAD: u16 = 20 + 8 + 32;

/// The path between the ends of the tunnel carries `mtu` bytes, and nobody says so.
fn narrow_path(world: &World, mtu: u16) -> Result<()> {
    world.internet.ip(&format!("link set home mtu {mtu}\n"))?;
    world.home_router.ip(&format!("link set wan mtu {mtu}\n"))?;
    for node in [&world.internet, &world.home_router] {
        node.nft(
            r"table inet silence {
                chain output {
                    type filter hook output priority filter;
                    icmp type { destination-unreachable, time-exceeded } drop
                    icmpv6 type packet-too-big drop
                }
            }",
        )?;
    }
    Ok(())
}

#[test]
fn tcp_is_clamped_to_a_tunnel_of_1280_bytes() {
    let setup = Setup {
        mtu: 1280,
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, _edge| {
        narrow_path(world, 1280 + OVERHEAD)?;
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}

#[test]
fn tunnel_fits_a_path_of_1280_bytes() {
    let setup = Setup {
        mtu: 1280 - OVERHEAD,
        ipv4_only: true,
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, _edge| {
        narrow_path(world, 1280)?;
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}

#[test]
fn tcp_over_ipv6_is_clamped_to_a_tunnel_of_1280_bytes() {
    let setup = Setup {
        mtu: 1280,
        ..Setup::new().unwrap()
    };
    with_edge(setup, |world, _edge| {
        narrow_path(world, 1280 + OVERHEAD)?;
        let mut transfer = Conversation::open(&world.client, tests::world::addresses::public6(80))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}

#[test]
fn default_tunnel_fits_a_path_of_1480_bytes() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        narrow_path(world, 1420 + OVERHEAD)?;
        let mut transfer = Conversation::open(&world.client, public(443))?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}
