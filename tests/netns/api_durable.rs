//! What the API has acknowledged, and what becomes of it: restarts, crashes, the configuration file, a full disk.
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Api, id_of, items, next_cursor, text};
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
        let counted = api.get(&path)?["usage"].clone();
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        let log = edge.gateway.daemon.log();
        assert!(!log.contains("ERROR"), "{log}");
        api = restart(world, edge)?;
        let after = api.get(&path)?;
        for field in ["rx_bytes", "tx_bytes", "quota_used_bytes"] {
            let bytes = |usage: &Value| usage[field].as_u64();
            // What came between that look and the end is counted too.
            assert!(
                bytes(&counted) > Some(0) && bytes(&after["usage"]) >= bytes(&counted),
                "{field}: {counted} and then {after}"
            );
        }
        assert_eq!(after["usage"]["counted_since"], counted["counted_since"]);
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

/// Peers whose fate is known, and whether they are there.
type Known = BTreeMap<String, bool>;

/// Add and remove peers until the connection breaks. What was asked for and not acknowledged is not in what comes back.
fn churn(socket: &Path, prefix: &str) -> Known {
    let mut known = Known::new();
    let Ok(mut api) = Api::unix(socket) else {
        return known;
    };
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        let wish = json!({"name": name, "generate_key": true});
        let Ok(made) = api.create(&wish) else { break };
        if number % 3 != 0 {
            known.insert(name, true);
            continue;
        }
        let Ok(id) = id_of(&made) else { break };
        if api.delete(&id).is_err() {
            break;
        }
        known.insert(name, false);
    }
    known
}

/// Name and key of every peer of the API.
fn all_peers(api: &mut Api) -> Result<BTreeMap<String, String>> {
    let mut peers = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/v1/peers?managed_by=api&limit=1000{cursor}"))?;
        for peer in items(&page)? {
            peers.insert(
                text(peer, "name")?.to_owned(),
                text(peer, "public_key")?.to_owned(),
            );
        }
        match next_cursor(&page) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(peers),
        }
    }
}

#[test]
fn gateway_that_is_killed_again_and_again_has_every_acknowledged_peer_and_no_other() {
    const ROUNDS: usize = 10;
    const CALLERS: usize = 4;
    with_edge(Setup::new().unwrap(), |world, edge| {
        let socket = edge.gateway.daemon.node().dir();
        let socket = socket.join("run/wg-edge/gateway.sock");
        let mut known = Known::new();
        let mut acknowledged = 0;
        for round in 0..ROUNDS {
            let mut random = [0; 2];
            getrandom::fill(&mut random).map_err(|error| anyhow!("{error}"))?;
            // From the first request on to the middle of hundreds.
            let delay = Duration::from_millis(u64::from(u16::from_le_bytes(random)) % 500);
            let learned: Vec<Known> = thread::scope(|scope| {
                let callers: Vec<_> = (0..CALLERS)
                    .map(|caller| {
                        let prefix = format!("p{round}-{caller}");
                        let socket = &socket;
                        scope.spawn(move || churn(socket, &prefix))
                    })
                    .collect();
                thread::sleep(delay);
                edge.gateway.daemon.kill();
                let callers = callers.into_iter();
                callers.map(|c| c.join().expect("no panic")).collect()
            });
            for learned in learned {
                acknowledged += learned.len();
                known.extend(learned);
            }
            edge.gateway.restart()?;
            let mut api = eventually(START_TIMEOUT, "the API", || Api::unix(&socket))?;
            let there = all_peers(&mut api)?;
            let round = format!("round {round}, killed after {delay:?}");
            for (name, expected) in &known {
                assert_eq!(there.contains_key(name), *expected, "{name}, {round}");
            }
            // Of each caller one request was on its way, and may have been done or not; from now on that is known.
            let unknown = there.keys().filter(|name| !known.contains_key(*name));
            let unknown: Vec<String> = unknown.cloned().collect();
            assert!(unknown.len() <= CALLERS, "{unknown:?}, {round}");
            known.extend(unknown.into_iter().map(|name| (name, true)));
            let shown = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
            for (name, key) in &there {
                assert!(shown.contains(key), "{name} is not in the device, {round}");
            }
            // Two of the file, and the LAN server.
            assert_eq!(shown.lines().count(), there.len() + 3, "{round}");
            edge.gateway.command(&["audit", "verify"])?;
        }
        assert!(acknowledged > 20, "{acknowledged}");
        edge.wait_for_tunnel(world, 3 * START_TIMEOUT)
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
fn what_a_key_moves_is_counted_for_whom_the_file_gives_it_to() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let made = api.create(&alice(&keys))?;
        let path = format!("/v1/peers/{}", text(&made["peer"], "id")?);
        let taken = format!(
            "\n[[peer]]\nname = \"bob\"\npublic_key = \"{}\"\naddress = \"{ADDRESS}\"\n",
            keys.public
        );
        edge.gateway.reload(|text| text.to_owned() + &taken)?;
        assert_eq!(api.get(&path)?["state"], "shadowed");
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        eventually(SOON, "bob is online, with what he moved", || {
            let bob = api.get("/v1/peers?name=bob")?["items"][0].clone();
            let is =
                bob["connection"]["online"] == true && bob["usage"]["rx_bytes"].as_u64() > Some(0);
            holds(is, || bob.to_string())
        })?;
        let alice = api.get(&path)?;
        assert_eq!(alice["connection"]["online"], false, "{alice}");
        assert_eq!(alice["usage"]["rx_bytes"], 0, "{alice}");
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
