//! `Idempotency-Key`: what may have been lost on the way is done once, however often it is sent.
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::api::{Api, Reply, id_of, items, text};
use tests::edge::{START_TIMEOUT, Setup};
use tests::expect::eventually;
use tests::world::addresses::{GATEWAY, at};

use crate::support::with_edge;

const PORT: u16 = 8443;

fn setup() -> Setup {
    let mut setup = Setup::new().expect("random keys");
    setup.more_gateway = format!("\n[admin]\nlisten = \"{GATEWAY}:{PORT}\"\n");
    setup
}

fn post(api: &mut Api, path: &str, key: &str, body: &Value) -> Result<Reply> {
    api.call("POST", path, &[&format!("idempotency-key: {key}")], body)
}

fn names(api: &mut Api) -> Result<Vec<String>> {
    let page = api.get("/v1/peers?managed_by=api")?;
    let items = items(&page)?;
    items
        .iter()
        .map(|peer| Ok(text(peer, "name")?.to_owned()))
        .collect()
}

#[test]
fn request_is_done_once_also_across_a_crash_and_another_one_is_refused() {
    with_edge(setup(), |_world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let wish = json!({"name": "alice", "generate_key": true});
        let first = post(&mut api, "/v1/peers", "one", &wish)?.expect(201)?;
        assert!(first["secrets"]["private_key"].is_string(), "{first}");
        let repeated = |api: &mut Api| -> Result<()> {
            let again = post(api, "/v1/peers", "one", &wish)?;
            assert_eq!(
                again.header("location"),
                Some(&*format!("/v1/peers/{}", id_of(&first)?))
            );
            let again = again.expect(201)?;
            assert_eq!(
                (&again["peer"]["id"], &again["secrets"]),
                (&first["peer"]["id"], &Value::Null)
            );
            assert!(text(&again, "config")?.contains("REPLACE"), "{again}");
            let other = json!({"name": "bob", "generate_key": true});
            post(api, "/v1/peers", "one", &other)?.expect_problem(422, "idempotency_key_reused")?;
            let token = json!({"name": "alice", "scopes": ["read"]});
            post(api, "/v1/tokens", "one", &token)?
                .expect_problem(422, "idempotency_key_reused")?;
            assert_eq!(names(api)?, ["alice"]);
            Ok(())
        };
        repeated(&mut api)?;
        edge.gateway.daemon.kill();
        edge.gateway.restart()?;
        let mut api = eventually(START_TIMEOUT, "the API", || {
            Api::of(&edge.gateway, "gateway")
        })?;
        repeated(&mut api)?;

        // What was refused was not done: the same key may be used for it again.
        let clash = json!({"name": "alice", "generate_key": true});
        post(&mut api, "/v1/peers", "two", &clash)?.expect_problem(409, "name_taken")?;
        post(
            &mut api,
            "/v1/peers",
            "two",
            &json!({"name": "bob", "generate_key": true}),
        )?
        .expect(201)?;

        api.delete(&id_of(&first)?)?;
        post(&mut api, "/v1/peers", "one", &wish)?.expect_problem(409, "already_done")
    });
}

#[test]
fn rotations_tokens_and_resets_are_done_once_too() {
    with_edge(setup(), |_world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let id =
            api.create_id(&json!({"name": "alice", "generate_key": true, "quota_bytes": 1000}))?;
        let path = format!("/v1/peers/{id}");
        let rotate = format!("{path}/rotate");
        let body = json!({"generate_key": true});
        let first = post(&mut api, &rotate, "r", &body)?.expect(200)?;
        let second = post(&mut api, &rotate, "r", &body)?.expect(200)?;
        assert_eq!(first["peer"]["rotation"], second["peer"]["rotation"]);
        assert_eq!(second["secrets"], Value::Null);

        let reset = format!("{path}/reset-usage");
        let first = post(&mut api, &reset, "u", &Value::Null)?;
        let etag = first.header("etag").context("no ETag")?.to_owned();
        let second = post(&mut api, &reset, "u", &Value::Null)?;
        assert_eq!((second.status, second.header("etag")), (200, Some(&*etag)));
        assert_eq!(second.body["usage"], first.body["usage"]);
        let third = post(&mut api, &reset, "v", &Value::Null)?;
        assert_ne!(
            third.header("etag"),
            Some(&*etag),
            "another key does it again"
        );
        post(&mut api, &rotate, "u", &body)?.expect_problem(422, "idempotency_key_reused")?;

        let token = json!({"name": "ci", "scopes": ["read"]});
        let first = post(&mut api, "/v1/tokens", "t", &token)?.expect(201)?;
        let second = post(&mut api, "/v1/tokens", "t", &token)?.expect(201)?;
        assert_eq!(first["token"]["id"], second["token"]["id"]);
        assert!(
            first["secret"].is_string() && second["secret"].is_null(),
            "{second}"
        );
        Ok(())
    });
}

#[test]
fn key_belongs_to_who_sends_it() {
    with_edge(setup(), |world, edge| {
        let vps = &world.vps;
        let mut root = Api::of(&edge.gateway, "gateway")?;
        let mut callers = Vec::new();
        for name in ["one", "two"] {
            let wish = json!({"name": name, "scopes": ["read", "peers:write"]});
            let made = root.call("POST", "/v1/tokens", &[], &wish)?.expect(201)?;
            callers.push(Api::tcp(
                vps,
                at(GATEWAY, PORT),
                Some(text(&made, "secret")?),
            )?);
        }
        callers.push(root);
        for (number, caller) in callers.iter_mut().enumerate() {
            let wish = json!({"name": format!("peer-{number}"), "generate_key": true});
            let first = post(caller, "/v1/peers", "same", &wish)?.expect(201)?;
            let second = post(caller, "/v1/peers", "same", &wish)?.expect(201)?;
            assert_eq!(first["peer"]["id"], second["peer"]["id"]);
        }
        let root = callers.last_mut().context("it was pushed")?;
        assert_eq!(names(root)?, ["peer-0", "peer-1", "peer-2"]);
        Ok(())
    });
}
