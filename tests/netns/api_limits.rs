//! Peers that end by themselves: time, quota, keys that are replaced.
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Api, text};
use tests::daemon::Daemon;
use tests::edge::{Edge, INTERFACE, Setup};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::world::addresses::GATEWAY;

use crate::support::{SOON, with_edge};

const ADDRESS: &str = "10.17.0.77";

/// A peer of which the test has the keys.
fn create(api: &mut Api, keys: &KeyPair, more: &Value) -> Result<String> {
    let mut wish = json!({"name": "alice", "public_key": keys.public.to_string(),
        "preshared_key": "none", "addresses": [ADDRESS]});
    let fields = wish.as_object_mut().context("an object")?;
    fields.extend(more.as_object().cloned().unwrap_or_default());
    api.create_id(&wish)
}

fn state(api: &mut Api, id: &str) -> Result<String> {
    let peer = api.get(&format!("/v1/peers/{id}"))?;
    Ok(text(&peer, "state")?.to_owned())
}

fn reaches(api: &mut Api, id: &str, wanted: &str) -> Result<()> {
    eventually(SOON, wanted, || {
        let state = state(api, id)?;
        holds(state == wanted, || format!("it is {state}"))
    })
}

/// `gateway events --json`, into a log.
fn events(edge: &Edge) -> Result<Daemon> {
    let program = tests::edge::binary("gateway")?;
    let config = edge.gateway.config.display().to_string();
    let command = [program.as_str(), "events", "--json", "--config", &config];
    let mut daemon = Daemon::start(edge.gateway.daemon.node(), "events", &command)?;
    // It is connected when it hears of something.
    let mut api = Api::of(&edge.gateway, "gateway")?;
    let mut number = 0;
    daemon.wait_until(SOON, "the first event", || {
        number += 1;
        let wish = json!({"name": format!("probe-{number}"), "generate_key": true});
        let id = api.create_id(&wish)?;
        api.delete(&id)?;
        let log = std::fs::read_to_string(edge.gateway.daemon.node().dir().join("events.log"))?;
        holds(log.contains("peer.created"), || "nothing yet".to_owned())
    })?;
    Ok(daemon)
}

#[test]
fn time_that_is_up_cuts_off_and_may_be_given_again() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut events = events(edge)?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let id = create(&mut api, &keys, &json!({"expires_in_seconds": 3}))?;
        let dial = || {
            edge.setup
                .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)
        };
        let mut laptop = dial()?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        reaches(&mut api, &id, "expired")?;
        eventually(SOON, "the peer is cut off", || {
            let answered = world.road_warrior.pings(&GATEWAY.to_string()).is_ok();
            holds(!answered, || "it still gets answers".to_owned())
        })?;
        events.wait_for_log(SOON, 0, &[r#""kind":"peer.expired""#])?;
        let again = api.patch(&id, &json!({"expires_at": null}))?;
        assert_eq!(again["state"], "active");
        laptop.daemon.stop(Signal::SIGTERM, SOON)?;
        let _laptop = dial()?;
        world.road_warrior.pings(&GATEWAY.to_string())
    });
}

#[test]
fn quota_that_is_moved_cuts_off_until_counting_begins_anew() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut events = events(edge)?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        let id = create(&mut api, &keys, &json!({"quota_bytes": 20_000}))?;
        let dial = || {
            edge.setup
                .dial_in(&world.road_warrior, &keys, ADDRESS.parse()?)
        };
        let mut laptop = dial()?;
        let gateway = GATEWAY.to_string();
        let large = [
            "ping", "-n", "-c", "20", "-i", "0.01", "-s", "1200", &gateway,
        ];
        world.road_warrior.output(&large)?;
        reaches(&mut api, &id, "over_quota")?;
        assert!(
            world.road_warrior.pings(&gateway).is_err(),
            "over its quota"
        );
        events.wait_for_log(SOON, 0, &[r#""kind":"peer.over_quota""#])?;
        let used = api.get(&format!("/v1/peers/{id}"))?["usage"]["quota_used_bytes"].as_u64();
        assert!(used >= Some(20_000), "{used:?}");
        let path = format!("/v1/peers/{id}/reset-usage");
        let reset = api.call("POST", &path, &[], &Value::Null)?.expect(200)?;
        assert_eq!(
            (&reset["state"], &reset["usage"]["quota_used_bytes"]),
            (&json!("active"), &json!(0))
        );
        assert!(
            reset["usage"]["rx_bytes"].as_u64() >= Some(10_000),
            "{reset}"
        );
        let log = api.get("/v1/audit?limit=1000")?;
        let entries = log["items"].as_array().context("no items")?;
        let difference = |action: &str| {
            let entry = entries.iter().find(|entry| entry["action"] == action);
            entry.map_or(Value::Null, |entry| entry["difference"].clone())
        };
        let end = difference("peer.over_quota");
        assert_eq!(end["state"], json!({"from": "active", "to": "over_quota"}));
        let begun = difference("peer.reset_usage");
        assert_eq!(begun["quota_used_bytes"]["to"], 0, "{begun}");
        assert!(
            begun["quota_used_bytes"]["from"].as_u64() >= Some(20_000),
            "{begun}"
        );
        laptop.daemon.stop(Signal::SIGTERM, SOON)?;
        let _laptop = dial()?;
        world.road_warrior.pings(&gateway)
    });
}

#[test]
fn key_is_replaced_without_the_loss_of_a_packet() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let (old, new) = (KeyPair::generate()?, KeyPair::generate()?);
        let id = create(&mut api, &old, &Value::Null)?;
        let laptop = edge
            .setup
            .dial_in(&world.road_warrior, &old, ADDRESS.parse()?)?;
        let gateway = GATEWAY.to_string();
        world.road_warrior.pings(&gateway)?;
        let command = ["ping", "-n", "-i", "0.05", &gateway];
        let mut ping = Daemon::start(&world.road_warrior, "ping", &command)?;
        ping.wait_for_log(SOON, 0, &["icmp_seq=10 "])?;

        let wish = json!({"public_key": new.public.to_string(), "preshared_key": "none"});
        let path = format!("/v1/peers/{id}/rotate");
        let told = api.call("POST", &path, &[], &wish)?.expect(200)?;
        assert_eq!(
            told["peer"]["rotation"]["public_key"],
            new.public.to_string()
        );
        ping.wait_for_log(SOON, 0, &["icmp_seq=30 "])?;

        // wireguard-go queues what comes while it shakes hands with its new key.
        let key = world
            .road_warrior
            .write("new.key", new.private.to_base64().as_str())?;
        laptop.set(&["private-key", &key.display().to_string()])?;
        eventually(SOON, "the new key is the key", || {
            let peer = api.get(&format!("/v1/peers/{id}"))?;
            let is_new = peer["public_key"] == new.public.to_string() && peer["rotation"].is_null();
            holds(is_new, || peer.to_string())
        })?;
        ping.wait_for_log(SOON, 0, &["icmp_seq=60 "])?;
        ping.stop(Signal::SIGINT, SOON)?;
        let log = ping.log();
        let missing: Vec<u32> = (1..=60)
            .filter(|number| !log.contains(&format!("icmp_seq={number} ")))
            .collect();
        assert_eq!(missing, [0; 0], "{log}");

        let key = world
            .road_warrior
            .write("old.key", old.private.to_base64().as_str())?;
        laptop.set(&["private-key", &key.display().to_string()])?;
        let shown = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        assert!(!shown.contains(&old.public.to_string()), "{shown}");
        eventually(
            Duration::from_secs(10),
            "the old key does not work any more",
            || {
                let answered = world.road_warrior.pings(&gateway).is_ok();
                holds(!answered, || "it still gets answers".to_owned())
            },
        )
    });
}
