//! Lists: pages that nothing falls between, and filters that mean what they say.
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use tests::api::{Api, items, next_cursor, text};
use tests::edge::Setup;
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::world::addresses::GATEWAY;

use crate::support::{SOON, with_edge};

fn names_of(page: &Value) -> Result<Vec<String>> {
    let items = items(page)?;
    items
        .iter()
        .map(|item| Ok(text(item, "name")?.to_owned()))
        .collect()
}

fn names(api: &mut Api, query: &str) -> Result<Vec<String>> {
    let page = api.get(&format!("/v1/peers?{query}"))?;
    assert_eq!(next_cursor(&page), None, "{query}");
    names_of(&page)
}

/// A value of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        // Writing to a string does not fail.
        let _written = write!(encoded, "%{byte:02x}");
    }
    encoded
}

#[test]
fn pages_leave_none_out_and_tell_none_twice_while_others_come_and_go() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let mut ids = Vec::new();
        for number in 0..9 {
            let wish = json!({"name": format!("p{number}"), "generate_key": true});
            ids.push(api.create_id(&wish)?);
        }
        let query = "/v1/peers?managed_by=api&limit=3";
        let first = api.get(query)?;
        assert_eq!(names_of(&first)?, ["p0", "p1", "p2"]);
        // One of the page that was told, the very one that the cursor names, and one that is to come.
        for gone in [1, 2, 4] {
            api.delete(&ids[gone])?;
        }
        // One before the cursor and two behind it.
        for name in ["p00", "p31", "p99"] {
            api.create(&json!({"name": name, "generate_key": true}))?;
        }
        let mut cursor = text(&first, "next_cursor")?.to_owned();
        let mut pages = Vec::new();
        loop {
            let page = api.get(&format!("{query}&cursor={}", encoded(&cursor)))?;
            pages.push(names_of(&page)?);
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        assert_eq!(
            pages,
            [vec!["p3", "p31", "p5"], vec!["p6", "p7", "p8"], vec!["p99"]]
        );
        for wrong in [
            "limit=0",
            "limit=1001",
            "cursor=x",
            "limit=-1",
            "colour=red",
        ] {
            let refused = api.call("GET", &format!("/v1/peers?{wrong}"), &[], &Value::Null)?;
            refused.expect_problem(422, "invalid")?;
        }

        let first = api.get("/v1/audit?limit=5")?;
        let next = text(&first, "next_cursor")?;
        api.create(&json!({"name": "later", "generate_key": true}))?;
        let second = api.get(&format!("/v1/audit?limit=1000&cursor={next}"))?;
        let numbers: Vec<u64> = [&first, &second]
            .into_iter()
            .flat_map(|page| page["items"].as_array().into_iter().flatten())
            .filter_map(|entry| entry["sequence"].as_u64())
            .collect();
        // 9 and 3 and 1 that came, 3 that went.
        assert_eq!(numbers, (1..=16).collect::<Vec<u64>>());
        Ok(())
    });
}

#[test]
fn filters_are_all_to_be_met() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let keys = KeyPair::generate()?;
        for wish in [
            json!({"name": "alice", "public_key": keys.public.to_string(), "preshared_key": "none",
                "addresses": ["10.17.0.77"], "role": "kube-admin", "labels": {"team": "ops", "place": "Bern"}}),
            json!({"name": "bob", "generate_key": true, "role": "kube-admin", "labels": {"team": "dev"}}),
            json!({"name": "carol", "generate_key": true, "enabled": false, "labels": {"team": "ops"}}),
            json!({"name": "dave", "generate_key": true, "expires_in_seconds": 1}),
            json!({"name": "Alice", "generate_key": true, "labels": {"note": "a=b"}}),
        ] {
            api.create(&wish)?;
        }
        let _laptop = edge
            .setup
            .dial_in(&world.road_warrior, &keys, "10.17.0.77".parse()?)?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        eventually(SOON, "dave's time is up", || {
            let expired = names(&mut api, "state=expired")?;
            holds(expired == ["dave"], || format!("{expired:?}"))
        })?;
        let by_key = format!("public_key={}", encoded(&keys.public.to_string()));
        for (query, expected) in [
            (
                "",
                &[
                    "Alice", "alice", "bob", "carol", "dave", "guest", "operator",
                ][..],
            ),
            ("name=alice", &["alice"]),
            ("name=ali", &[]),
            ("role=kube-admin", &["alice", "bob", "operator"]),
            ("role=kube-admin&managed_by=api", &["alice", "bob"]),
            ("role=nobody", &[]),
            ("managed_by=file", &["guest", "operator"]),
            ("state=active&managed_by=api", &["Alice", "alice", "bob"]),
            ("state=disabled", &["carol"]),
            ("state=shadowed", &[]),
            ("state=over_quota", &[]),
            ("online=true", &["alice"]),
            (
                "online=false&managed_by=api",
                &["Alice", "bob", "carol", "dave"],
            ),
            ("label=team", &["alice", "bob", "carol"]),
            ("label=team%3Dops", &["alice", "carol"]),
            ("label=team%3Dop", &[]),
            ("label=note%3Da%3Db", &["Alice"]),
            ("label=team%3Dops&online=true", &["alice"]),
            ("label=team%3Dops&role=kube-admin&name=carol", &[]),
            (by_key.as_str(), &["alice"]),
        ] {
            assert_eq!(names(&mut api, query)?, expected, "{query}");
        }
        for wrong in ["state=gone", "managed_by=me", "online=maybe"] {
            let refused = api.call("GET", &format!("/v1/peers?{wrong}"), &[], &Value::Null)?;
            refused.expect_problem(422, "invalid")?;
        }
        Ok(())
    });
}
