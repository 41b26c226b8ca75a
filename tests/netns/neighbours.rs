//! Living beside other people's firewalls.
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::edge::{Edge, GATEWAY_TABLE, LAN_TABLE, Setup};
use tests::expect::{foreign_ruleset, nft_tables, throughout};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::addresses::public;

use crate::support::{SOON, in_light_world, with_edge};

/// The tables of a host with its own firewall, Docker and libvirt, as they list; the operator has let our links pass.
const NEIGHBOURS: &str = r#"
table inet filter {
    set office { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 }; }
    counter refused { }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid drop
        ip saddr @office tcp dport 22 accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "edge0" accept
        oifname "edge0" accept
        counter name refused
    }
}
table ip nat {
    chain DOCKER {
        iifname "docker0" return
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
    }
}
table ip libvirt_network {
    chain forward {
        type filter hook forward priority filter; policy accept;
        oifname "virbr9" reject
        iifname "virbr9" reject
    }
}
"#;

fn foreign(nodes: [&Node; 2]) -> Result<[String; 2]> {
    let [vps, lan_host] = nodes;
    Ok([
        foreign_ruleset(vps, &[GATEWAY_TABLE])?,
        foreign_ruleset(lan_host, &[LAN_TABLE])?,
    ])
}

#[test]
fn other_tables_stay_as_they_are_through_the_whole_life_of_the_daemons() {
    in_light_world(|world| {
        let nodes = [&world.vps, &world.lan_host];
        for node in nodes {
            node.nft(NEIGHBOURS)?;
        }
        let before = foreign(nodes)?;
        let mut edge = Edge::start(world, Setup::new()?)?;
        assert_eq!(foreign(nodes)?, before, "after the start");
        ask_tcp(&world.client, public(80))?;
        assert_eq!(foreign(nodes)?, before, "with traffic");

        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        edge.lan_server.daemon.stop(Signal::SIGTERM, SOON)?;
        assert_eq!(foreign(nodes)?, before, "after SIGTERM");

        edge.gateway.restart()?;
        edge.lan_server.restart()?;
        // Both ends start at once: the first initiation may come before the other end has its key, and the next one
        // follows after Rekey-Timeout (5 s + jitter, whitepaper §6.1).
        edge.wait_for_tunnel(world, tests::edge::START_TIMEOUT)?;
        assert_eq!(foreign(nodes)?, before, "after the next start");

        edge.gateway.daemon.kill();
        edge.lan_server.daemon.kill();
        assert_eq!(foreign(nodes)?, before, "after SIGKILL");

        edge.gateway.command(&["down"])?;
        edge.lan_server.command(&["down"])?;
        assert_eq!(foreign(nodes)?, before, "after down");
        for node in nodes {
            let tables = nft_tables(node)?;
            assert!(
                !tables.iter().any(|table| table.contains("wg_edge")),
                "{tables:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn flush_ruleset_by_others_does_not_open_or_close_anything() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        throughout(
            Duration::from_secs(3),
            "traffic under `nft flush ruleset`",
            || {
                world.vps.nft("flush ruleset\n")?;
                world.lan_host.nft("flush ruleset\n")?;
                conversation.echo("still here")
            },
        )?;
        ask_tcp(&world.client, public(443))?;
        assert!(ask_tcp(&world.stranger, public(443)).is_err());
        Ok(())
    });
}

#[test]
fn others_cannot_delete_our_table() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        assert!(world.vps.nft("delete table inet wg_edge\n").is_err());
        assert!(
            world
                .lan_host
                .nft("delete table inet wg_edge_lan\n")
                .is_err()
        );
        ask_tcp(&world.client, public(80)).map(drop)
    });
}

/// What kube-proxy does on a node with a service's address.
#[test]
fn a_vip_that_the_lan_host_translates_itself_is_refused() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        ask_tcp(&world.client, public(443))?;
        world.lan_host.nft(
            "table ip kube { chain services { type nat hook prerouting priority dstnat;
                ip daddr 10.17.5.30 tcp dport 443 dnat to 10.17.4.21:6443; }; }\n",
        )?;
        let refused = |edge: &Edge| -> Result<u64> {
            let counters = edge.lan_server.status()?.refused_packets;
            Ok(counters
                .get("refused_from_tunnel")
                .copied()
                .unwrap_or_default())
        };
        let before = refused(edge)?;
        assert!(ask_tcp(&world.client, public(443)).is_err());
        assert!(refused(edge)? > before);
        Ok(())
    });
}
