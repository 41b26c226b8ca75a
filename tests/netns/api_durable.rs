//! What the API has acknowledged, and what becomes of it: restarts, crashes, the configuration file, a full disk.
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Api, text};
use tests::edge::{Edge, INTERFACE, START_TIMEOUT, Setup};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::servers::{Conversation, ask_tcp};
use tests::world::World;
use tests::world::addresses::{API_PORT, API_VIP, GATEWAY, at, public};

use crate::support::{SOON, with_edge};

const ADDRESS: &str = "10.17.0.77";

fn alice(keys: &KeyPair) -> Value {
    json!({"name": "alice", "public_key": keys.public.to_string(), "preshared_key": "none",
        "addresses": [ADDRESS], "role": "kube-admin", "labels": {"team": "ops"}})
}

fn restart(world: &World, edge: &mut Edge) -> Result<Api> {
    edge.gateway.restart()?;
    // After a crash the gateway may not know where the LAN end is: that end finds out by itself (whitepaper §6.2).
    edge.wait_for_tunnel(world, 3 * START_TIMEOUT)?;
    Api::of(&edge.gateway, "gateway")
}

#[test]
fn peers_and_their_counters_survive_restarts() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let made = api.create(&alice(&keys))?;
        let path = format!("/v1/peers/{}", text(&made["peer"], "id")?);
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        eventually(SOON, "the handshake is counted", || {
            let rx = api.get(&path)?["usage"]["rx_bytes"].as_u64();
            holds(rx > Some(0), || format!("{rx:?}"))
        })?;
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        let log = edge.gateway.daemon.log();
        assert!(!log.contains("ERROR"), "{log}");
        api = restart(world, edge)?;
        let after = api.get(&path)?;
        for field in [
            "id",
            "name",
            "public_key",
            "addresses",
            "role",
            "labels",
            "created_at",
        ] {
            assert_eq!(after[field], made["peer"][field], "{field}");
        }
        let before = after["usage"]["rx_bytes"].as_u64().context("no bytes")?;
        assert!(before > 0, "{after}");
        // The laptop's session went with the process; it sees that after 15 seconds at the latest (whitepaper §6.2).
        eventually(Duration::from_secs(25), "the laptop is back", || {
            world.road_warrior.pings(&GATEWAY.to_string())
        })?;
        ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        eventually(SOON, "it is counted on", || {
            let rx = api.get(&path)?["usage"]["rx_bytes"].as_u64();
            holds(rx > Some(before), || format!("{rx:?}"))
        })
    });
}

#[test]
fn killed_gateway_has_every_acknowledged_peer_and_no_other() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let socket = edge
            .gateway
            .daemon
            .node()
            .dir()
            .join("run/wg-edge/gateway.sock");
        let stop = AtomicBool::new(false);
        let acknowledged: Vec<(String, bool)> = thread::scope(|scope| -> Result<_> {
            let callers: Vec<_> = (0..4)
                .map(|caller| {
                    let (socket, stop) = (&socket, &stop);
                    // Until the connection breaks: names whose fate is known, and whether they are there.
                    scope.spawn(move || {
                        let mut known = Vec::new();
                        let Ok(mut api) = Api::unix(socket) else {
                            return known;
                        };
                        for number in 0.. {
                            let name = format!("p{caller}-{number}");
                            let wish = json!({"name": name, "generate_key": true});
                            let Ok(made) = api.create(&wish) else { break };
                            known.push((name.clone(), true));
                            if number % 3 == 0 {
                                let id = made["peer"]["id"].as_str().unwrap_or_default();
                                // What was asked for and not acknowledged may be so or so.
                                known.pop();
                                if api.delete(id).is_err() {
                                    break;
                                }
                                known.push((name, false));
                            }
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                        }
                        known
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            edge.gateway.daemon.kill();
            stop.store(true, Ordering::Relaxed);
            Ok(callers
                .into_iter()
                .flat_map(|caller| caller.join().expect("no panic"))
                .collect())
        })?;
        assert!(acknowledged.len() > 20, "{acknowledged:?}");
        let mut api = restart(world, edge)?;
        let page = api.get("/v1/peers?managed_by=api&limit=1000")?;
        assert!(page["next_cursor"].is_null(), "more than a page");
        let items = page["items"].as_array().context("no items")?;
        let there = |name: &str| items.iter().any(|peer| peer["name"] == name);
        for (name, expected) in &acknowledged {
            assert_eq!(there(name), *expected, "{name}");
        }
        // Of each caller one request was on its way.
        let expected = acknowledged.iter().filter(|(_, there)| *there).count();
        let unknown = items.len() - expected;
        assert!(unknown <= 4, "{unknown} peers that nobody was told of");
        let shown = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        for peer in items {
            assert!(shown.contains(text(peer, "public_key")?), "{peer}");
        }
        edge.gateway.command(&["audit", "verify"]).map(drop)
    });
}

#[test]
fn file_wins_and_gives_back() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let operators = api.get("/v1/peers?name=operator")?;
        let operator = &operators["items"][0];
        assert_eq!(operator["managed_by"], "file", "{operator}");
        let path = format!("/v1/peers/{}", text(operator, "id")?);
        for (method, body) in [
            ("PATCH", json!({"enabled": false})),
            ("DELETE", Value::Null),
        ] {
            let refused = api.call(method, &path, &["if-match: *"], &body)?;
            refused.expect_problem(409, "managed_by_file")?;
        }
        let keys = KeyPair::generate()?;
        let made = api.create(&alice(&keys))?;
        let path = format!("/v1/peers/{}", text(&made["peer"], "id")?);
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        let other = KeyPair::generate()?;
        let taken = format!(
            "\n[[peer]]\nname = \"bob\"\npublic_key = \"{}\"\naddress = \"{ADDRESS}\"\n",
            other.public
        );
        edge.gateway.reload(|text| text.to_owned() + &taken)?;
        let shadowed = api.get(&path)?;
        assert_eq!(shadowed["state"], "shadowed", "{shadowed}");
        assert!(
            shadowed["problems"][0]
                .as_str()
                .is_some_and(|p| p.contains(ADDRESS)),
            "{shadowed}"
        );
        assert!(
            world.road_warrior.pings(&GATEWAY.to_string()).is_err(),
            "its address is bob's"
        );
        edge.gateway.reload(|text| text.replace(&taken, ""))?;
        assert_eq!(api.get(&path)?["state"], "active");
        eventually(Duration::from_secs(25), "alice is back", || {
            world.road_warrior.pings(&GATEWAY.to_string())
        })?;
        edge.gateway.reload(|text| {
            text.replace("name  = \"kube-admin\"", "name  = \"admins\"")
                .replace("role       = \"kube-admin\"", "role       = \"admins\"")
        })?;
        let orphan = Api::of(&edge.gateway, "gateway")?.get(&path)?;
        assert!(
            orphan["problems"][0]
                .as_str()
                .is_some_and(|p| p.contains("kube-admin")),
            "{orphan}"
        );
        assert!(ask_tcp(&world.road_warrior, at(API_VIP, API_PORT)).is_err());
        Ok(())
    });
}

#[test]
fn full_disk_refuses_changes_and_disturbs_nobody() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        let vps = world.vps.clone();
        let state = vps.dir().join("state");
        let state = state.to_str().context("its path is not UTF-8")?;
        // Only in the mount namespace of this host.
        let small = "cp -a \"$0\" \"$0.kept\" && mount -t tmpfs -o size=1m,mode=0700 tmpfs \"$0\" && \
            cp -a \"$0.kept/.\" \"$0\"";
        vps.run(&["sh", "-c", small, state])?;
        let mut api = restart(world, edge)?;
        let mut open = Conversation::open(&world.client, public(80))?;
        let keys = KeyPair::generate()?;
        let made = api.create(&alice(&keys))?;
        let path = format!("/v1/peers/{}", text(&made["peer"], "id")?);
        // `dd` fills what there is and fails.
        vps.output(&[
            "dd",
            "if=/dev/zero",
            &format!("of={state}/ballast"),
            "bs=4096",
        ])?;
        let mut last = None;
        for number in 0..500 {
            let wish = json!({"name": format!("more-{number}"), "generate_key": true});
            let reply = api.call("POST", "/v1/peers", &[], &wish)?;
            if reply.status != 201 {
                last = Some((number, reply));
                break;
            }
        }
        let (number, refused) = last.context("the disk never was full")?;
        refused.expect_problem(507, "disk_full")?;
        let page = api.get("/v1/peers?managed_by=api&limit=1000")?;
        assert_eq!(
            page["items"].as_array().map(Vec::len),
            Some(number + 1),
            "alice and those before"
        );
        let stale = api.call("PATCH", &path, &["if-match: *"], &json!({"role": null}))?;
        stale.expect_problem(507, "disk_full")?;
        assert_eq!(api.get(&path)?["role"], "kube-admin");
        let shown = vps.run(&["wg", "show", INTERFACE, "peers"])?;
        assert_eq!(shown.lines().count(), 3 + number + 1, "{shown}");
        open.echo("still here")?;
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)?;
        ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;

        vps.run(&["rm", &format!("{state}/ballast")])?;
        assert_eq!(
            api.patch(text(&made["peer"], "id")?, &json!({"role": null}))?["role"],
            Value::Null
        );
        edge.gateway.daemon.kill();
        let mut api = restart(world, edge)?;
        let page = api.get("/v1/peers?managed_by=api&limit=1000")?;
        assert_eq!(page["items"].as_array().map(Vec::len), Some(number + 1));
        assert_eq!(api.get(&path)?["role"], Value::Null);
        Ok(())
    });
}

#[test]
fn what_the_kernel_refuses_changes_nothing() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let vps = &world.vps;
        // Somebody else's route to what a peer wants to have behind it.
        vps.ip("route add 192.168.99.0/24 dev lo\n")?;
        let keys = KeyPair::generate()?;
        let mut wish = alice(&keys);
        wish["networks"] = json!(["192.168.99.0/24"]);
        let refused = api.call("POST", "/v1/peers", &[], &wish)?;
        refused.expect_problem(503, "not_applied")?;
        assert_eq!(api.get("/v1/peers?managed_by=api")?["items"], json!([]));
        assert_eq!(
            vps.run(&["wg", "show", INTERFACE, "peers"])?
                .lines()
                .count(),
            3
        );
        let ruleset = vps.run(&["nft", "list", "table", "inet", "wg_edge"])?;
        assert!(
            !ruleset.contains(ADDRESS) && !ruleset.contains("192.168.99.0"),
            "{ruleset}"
        );
        assert_eq!(
            vps.run(&["ip", "route", "show", "192.168.99.0/24"])?.trim(),
            "192.168.99.0/24 dev lo scope link"
        );

        vps.ip("route del 192.168.99.0/24 dev lo\n")?;
        let made = api.create(&wish)?;
        let id = text(&made["peer"], "id")?;
        vps.ip("route add 192.168.98.0/24 dev lo\n")?;
        let path = format!("/v1/peers/{id}");
        let body = json!({"networks": ["192.168.98.0/24"], "role": null});
        let refused = api.call("PATCH", &path, &["if-match: *"], &body)?;
        refused.expect_problem(503, "not_applied")?;
        let after = api.get(&path)?;
        assert_eq!(after["networks"], json!(["192.168.99.0/24"]));
        assert_eq!(after["role"], "kube-admin");
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)?;
        ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;
        edge.gateway.command(&["audit", "verify"]).map(drop)
    });
}

#[test]
fn what_the_kernel_refuses_of_one_is_not_refused_to_the_others() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        world.vps.ip("route add 192.168.99.0/24 dev lo\n")?;
        let socket = edge.gateway.daemon.node().dir();
        let socket = socket.join("run/wg-edge/gateway.sock");
        let behind = |name: String| json!({"name": name, "generate_key": true, "networks": ["192.168.99.0/24"]});
        // Requests of several connections wait while one is carried out, and then go together.
        thread::scope(|scope| -> Result<()> {
            let callers: Vec<_> = (0..6)
                .map(|caller| {
                    let (socket, behind) = (&socket, &behind);
                    scope.spawn(move || -> Result<()> {
                        let mut api = Api::unix(socket)?;
                        for number in 0..10 {
                            let name = format!("p{caller}-{number}");
                            if caller == 0 {
                                let wish = behind(name);
                                let refused = api.call("POST", "/v1/peers", &[], &wish)?;
                                refused.expect_problem(503, "not_applied")?;
                            } else {
                                api.create(&json!({"name": name, "generate_key": true}))?;
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            callers
                .into_iter()
                .try_for_each(|caller| caller.join().expect("no panic"))
        })?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let page = api.get("/v1/peers?managed_by=api&limit=1000")?;
        assert_eq!(page["items"].as_array().map(Vec::len), Some(50), "{page}");
        let shown = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        assert_eq!(shown.lines().count(), 3 + 50, "{shown}");
        edge.gateway.command(&["audit", "verify"]).map(drop)
    });
}
