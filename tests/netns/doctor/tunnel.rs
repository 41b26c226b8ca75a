//! The path cut between the daemons, one place after the other.
use nix::sys::signal::Signal;
use shared::api::diagnosis::HopKind::{Daemon, Datagrams, PathMtu, Ping, Session, Uplink};

use super::judge::{
    Cut, HOST, each_is_named, foreign_table, remedied, silence, told, without_foreign_table,
};
use crate::support::SOON;

/// The LAN end, as the gateway names it.
const HOME: &[&str] = &["home"];
/// The gateway, as the LAN end names it.
const VPS: &[&str] = &["vps"];

#[test]
fn daemons_that_do_not_run_are_named() {
    each_is_named(&[
        Cut {
            name: "lan-server is stopped",
            sever: |scene| {
                let daemon = &mut scene.edge.lan_server.daemon;
                daemon.stop(Signal::SIGTERM, SOON).map(drop)
            },
            mend: |scene| scene.edge.lan_server.restart(),
            gateway: silence(HOME),
            lan_server: told(&[Daemon], &["lan-server"], &[]),
        },
        Cut {
            name: "lan-server is killed",
            sever: |scene| {
                scene.edge.lan_server.daemon.kill();
                Ok(())
            },
            mend: |scene| scene.edge.lan_server.restart(),
            gateway: silence(HOME),
            lan_server: told(&[Daemon], &["lan-server"], &[]),
        },
        Cut {
            name: "gateway is stopped",
            sever: |scene| {
                let daemon = &mut scene.edge.gateway.daemon;
                daemon.stop(Signal::SIGTERM, SOON).map(drop)
            },
            mend: |scene| scene.edge.gateway.restart(),
            gateway: told(&[Daemon], &["gateway"], &[]),
            lan_server: told(
                &[Session, Ping],
                VPS,
                &["nobody listens", "203.0.113.10:51820"],
            ),
        },
    ]);
}

#[test]
fn an_uplink_of_the_vps_that_is_down_is_named() {
    each_is_named(&[
        Cut {
            name: "the VPS's link is down",
            sever: |scene| scene.world.vps.ip("link set eth0 down\n"),
            mend: |scene| {
                scene.world.vps.ip("
                    link set eth0 up
                    addr add 2001:db8:113::10/64 dev eth0 nodad
                    route add default via 203.0.113.1
                    route add default via 2001:db8:113::1
                ")
            },
            gateway: told(&[Uplink], &["eth0"], &["eth0 is down"]),
            lan_server: silence(VPS),
        },
        Cut {
            name: "the VPS's cable is pulled",
            sever: |scene| scene.world.internet.ip("link set vps down\n"),
            mend: |scene| {
                scene.world.internet.ip("
                    link set vps up
                    addr add 2001:db8:113::1/64 dev vps nodad
                ")
            },
            gateway: told(&[Uplink], &["eth0"], &["eth0 is down"]),
            lan_server: silence(VPS),
        },
    ]);
}

#[test]
fn an_uplink_of_the_lan_host_that_is_down_is_named() {
    each_is_named(&[
        Cut {
            name: "the LAN host has no default route",
            sever: |scene| scene.world.lan_host.ip("route del default\n"),
            mend: |scene| {
                let lan_host = &scene.world.lan_host;
                lan_host.ip("route add default via 192.168.0.1\n")
            },
            gateway: silence(HOME),
            lan_server: told(&[Uplink], HOST, &["203.0.113.10"]),
        },
        Cut {
            name: "the LAN host's cable is pulled",
            sever: |scene| scene.world.home_router.ip("link set lan down\n"),
            mend: |scene| {
                scene.world.home_router.ip("
                    link set lan up
                    addr add 2001:db8:c0::1/64 dev lan nodad
                ")
            },
            gateway: silence(HOME),
            lan_server: told(&[Uplink], &["eth0"], &["eth0 is down"]),
        },
        Cut {
            name: "the LAN host's link is down",
            sever: |scene| scene.world.lan_host.ip("link set eth0 down\n"),
            mend: |scene| {
                scene.world.lan_host.ip("
                    link set eth0 up
                    addr add 2001:db8:c0::15/64 dev eth0 nodad
                    route add default via 192.168.0.1
                    route add default via 2001:db8:c0::1
                ")
            },
            gateway: silence(HOME),
            lan_server: told(&[Uplink], HOST, &["203.0.113.10"]),
        },
    ]);
}

#[test]
fn what_stops_the_tunnels_datagrams_is_named() {
    each_is_named(&[
        Cut {
            name: "a firewall of the VPS drops them",
            sever: |scene| {
                scene.world.vps.nft(&foreign_table(
                    "chain early { type filter hook input priority filter; udp dport 51820 counter drop; }",
                ))
            },
            mend: |scene| without_foreign_table(&scene.world.vps),
            gateway: remedied(&[Datagrams], &["udp 51820"], &["inet strangers", "early"]),
            lan_server: silence(VPS),
        },
        Cut {
            name: "the provider drops them",
            sever: |scene| {
                scene.world.internet.nft(&foreign_table(
                    "chain way { type filter hook forward priority filter; udp dport 51820 drop; }",
                ))
            },
            mend: |scene| without_foreign_table(&scene.world.internet),
            gateway: silence(HOME),
            lan_server: told(&[Session, Ping], VPS, &["203.0.113.10:51820"]),
        },
        Cut {
            name: "the home router drops what comes back",
            sever: |scene| {
                scene.world.home_router.nft(&foreign_table(
                    "chain way { type filter hook forward priority filter; iifname wan udp sport 51820 drop; }",
                ))
            },
            mend: |scene| without_foreign_table(&scene.world.home_router),
            gateway: silence(HOME),
            lan_server: told(&[Session, Ping], VPS, &["203.0.113.10:51820"]),
        },
    ]);
}

/// 1400 bytes hold a packet of at most 1340 (IPv4 20, UDP 8, WireGuard 32), which is padded to a multiple of 16: 1328. The doctor
/// looks in steps of 20 below the tunnel's 1420.
#[test]
fn a_path_that_swallows_large_packets_is_named() {
    const LARGEST: &str = "1320 bytes come through";
    each_is_named(&[Cut {
        name: "more than 1400 bytes are dropped on the way",
        sever: |scene| {
            scene.world.internet.nft(&foreign_table(
                "chain way { type filter hook forward priority filter; meta length > 1400 drop; }",
            ))
        },
        mend: |scene| without_foreign_table(&scene.world.internet),
        gateway: told(&[PathMtu], HOME, &[LARGEST]),
        lan_server: told(&[PathMtu], VPS, &[LARGEST]),
    }]);
}
