//! Changes that can't be made, and what happens to those who asked for nothing.
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Api, text};
use tests::edge::{INTERFACE, Setup};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::node::Node;
use tests::world::World;
use tests::world::addresses::GATEWAY;

use crate::support::{SOON, with_edge};

const ADDRESS: &str = "10.17.0.77";

fn alice(keys: &KeyPair) -> Value {
    json!({"name": "alice", "public_key": keys.public.to_string(), "preshared_key": "none",
        "addresses": [ADDRESS]})
}

/// Replace the state directory by a small file system and fill it. Only in the mount namespace of this host.
fn fill_disk(vps: &Node) -> Result<()> {
    let state = vps.dir().join("state");
    let state = state.to_str().context("its path is not UTF-8")?;
    // `dd` fills what there is and fails.
    let ballast = format!("of={state}/ballast");
    vps.output(&["dd", "if=/dev/zero", &ballast, "bs=4096"])?;
    Ok(())
}

fn on_small_disk(world: &World, edge: &mut tests::edge::Edge) -> Result<Api> {
    edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
    let vps = &world.vps;
    let state = vps.dir().join("state");
    let state = state.to_str().context("its path is not UTF-8")?;
    let small = "cp -a \"$0\" \"$0.kept\" && mount -t tmpfs -o size=1m,mode=0700 tmpfs \"$0\" && \
        cp -a \"$0.kept/.\" \"$0\"";
    vps.run(&["sh", "-c", small, state])?;
    edge.gateway.restart()?;
    edge.wait_for_tunnel(world, 3 * tests::edge::START_TIMEOUT)?;
    Api::of(&edge.gateway, "gateway")
}

/// Until a change is refused for want of space: what a file system keeps for itself is gone, too.
fn use_up(api: &mut Api) -> Result<()> {
    for number in 0..500 {
        let wish = json!({"name": format!("more-{number}"), "generate_key": true});
        if api.call("POST", "/v1/peers", &[], &wish)?.status == 507 {
            return Ok(());
        }
    }
    anyhow::bail!("the disk never was full")
}

#[test]
fn peer_whose_removal_is_refused_goes_on() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = on_small_disk(world, edge)?;
        let keys = KeyPair::generate()?;
        let id = text(&api.create(&alice(&keys))?["peer"], "id")?.to_owned();
        let laptop = &world.road_warrior;
        let _laptop = edge.setup.dial_in(laptop, &keys, ADDRESS.parse()?)?;
        laptop.pings(&GATEWAY.to_string())?;
        fill_disk(&world.vps)?;
        use_up(&mut api)?;
        let path = format!("/v1/peers/{id}");
        let refused = api.call("DELETE", &path, &["if-match: *"], &Value::Null)?;
        refused.expect_problem(507, "disk_full")?;
        // It had a session, which went with the attempt; by itself it would notice after 15 seconds (whitepaper §6.2).
        eventually(
            Duration::from_secs(3),
            "the laptop has a session again",
            || laptop.pings(&GATEWAY.to_string()),
        )?;
        assert_eq!(api.get(&path)?["state"], "active");
        Ok(())
    });
}

#[test]
fn full_disk_prolongs_nothing() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = on_small_disk(world, edge)?;
        let keys = KeyPair::generate()?;
        let mut wish = alice(&keys);
        wish["expires_in_seconds"] = json!(12);
        api.create(&wish)?;
        let laptop = &world.road_warrior;
        let _laptop = edge.setup.dial_in(laptop, &keys, ADDRESS.parse()?)?;
        laptop.pings(&GATEWAY.to_string())?;
        fill_disk(&world.vps)?;
        use_up(&mut api)?;
        let shown = || world.vps.run(&["wg", "show", INTERFACE, "peers"]);
        let key = keys.public.to_string();
        eventually(Duration::from_secs(20), "the peer is cut off", || {
            let shown = shown()?;
            holds(!shown.contains(&key), || format!("it is there: {shown}"))
        })?;
        // Each second it is looked at, and each time its end can't be written down.
        let mut seen = 0;
        for _ in 0..40 {
            seen += usize::from(shown()?.contains(&key));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(seen, 0, "it came back");
        assert!(laptop.pings(&GATEWAY.to_string()).is_err());
        let state = world.vps.dir().join("state/ballast");
        std::fs::remove_file(state).or_else(|_| {
            let state = world.vps.dir().join("state/ballast");
            world
                .vps
                .run(&["rm", &state.display().to_string()])
                .map(drop)
        })?;
        // The old connection was idle for too long.
        let mut api = Api::of(&edge.gateway, "gateway")?;
        eventually(SOON, "its end is in the audit log", || {
            let log = api.get("/v1/audit?limit=1000")?;
            let entries = log["items"].as_array().context("no items")?;
            let end = entries
                .iter()
                .find(|entry| entry["action"] == "peer.expire");
            let state = end.map(|entry| &entry["difference"]["state"]);
            let wanted = json!({"from": "active", "to": "expired"});
            holds(state == Some(&wanted), || format!("{state:?}"))
        })?;
        edge.gateway.command(&["audit", "verify"]).map(drop)
    });
}

#[test]
fn another_rotation_right_after_the_first_leaves_nobody_outside() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let laptop = &world.road_warrior;
        let (first, second, third) = (
            KeyPair::generate()?,
            KeyPair::generate()?,
            KeyPair::generate()?,
        );
        let id = text(&api.create(&alice(&first))?["peer"], "id")?.to_owned();
        let rotate = format!("/v1/peers/{id}/rotate");
        let to = |keys: &KeyPair| json!({"public_key": keys.public.to_string(), "preshared_key": "none"});
        api.call("POST", &rotate, &[], &to(&second))?.expect(200)?;
        let gateway = GATEWAY.to_string();
        let mut session = edge.setup.dial_in(laptop, &second, ADDRESS.parse()?)?;
        laptop.pings(&gateway)?;
        // Within the second in which the daemon has not looked yet.
        api.call("POST", &rotate, &[], &to(&third))?.expect(200)?;
        laptop.pings(&gateway)?;
        api.patch(&id, &json!({"networks": ["192.168.50.0/24"]}))?;
        laptop.pings(&gateway)?;
        session.daemon.stop(Signal::SIGTERM, SOON)?;
        let _session = edge.setup.dial_in(laptop, &third, ADDRESS.parse()?)?;
        laptop.pings(&gateway)?;
        // The networks moved to the third key with its first message, and stay there when the peer is changed now.
        api.patch(&id, &json!({"networks": ["192.168.51.0/24"]}))?;
        laptop.pings(&gateway)?;
        let peer = api.get(&format!("/v1/peers/{id}"))?;
        assert_eq!(peer["public_key"], third.public.to_string(), "{peer}");
        Ok(())
    });
}

#[test]
fn neighbours_and_the_public_are_not_behind_a_peer() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        world
            .vps
            .ip("link add side type veth peer name side-peer\n")?;
        world
            .vps
            .ip("addr add 172.31.0.2/20 dev side\nlink set side up\nlink set side-peer up\n")?;
        let mut ask = |networks: Value| {
            let wish = json!({"name": "carol", "generate_key": true, "networks": networks});
            api.call("POST", "/v1/peers", &[], &wish)
        };
        for public in ["8.8.8.8/32", "173.245.48.0/20", "203.0.113.1/32"] {
            ask(json!([public]))?.expect_problem(422, "invalid")?;
        }
        // The provider's router, say.
        for neighbours in ["172.31.0.1/32", "172.31.0.0/20"] {
            let refused = ask(json!([neighbours]))?;
            refused.expect_problem(503, "not_applied")?;
        }
        ask(json!(["172.31.16.0/20"]))?.expect(201)?;
        let gone = world.vps.run(&["ip", "route", "show", "172.31.0.0/20"])?;
        assert!(gone.contains("dev side"), "{gone}");
        Ok(())
    });
}

#[test]
fn configuration_of_a_peer_is_whole_right_after_a_restart() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let id = text(&api.create(&alice(&keys))?["peer"], "id")?.to_owned();
        let path = format!("/v1/peers/{id}/config");
        let told = api.get(&path)?;
        assert!(text(&told, "config")?.contains("PublicKey"), "{told}");
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        edge.gateway.restart()?;
        eventually(SOON, "the first answer", || {
            let again = Api::of(&edge.gateway, "gateway")?.get(&path)?;
            assert_eq!(again, told);
            Ok(())
        })
    });
}
