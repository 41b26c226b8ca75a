//! The API inside of the tunnel: who reaches it, and who gets in.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tests::api::{Api, secret_of, text};
use tests::daemon::Daemon;
use tests::edge::{Edge, Setup};
use tests::node::Node;
use tests::wireguard_go::WireguardGo;
use tests::world::World;
use tests::world::addresses::{GATEWAY, GUEST, LAN_SERVER, OPERATOR, VPS};

use crate::support::{SOON, with_edge};

const PORT: u16 = 8443;
const API: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY), PORT);

/// With the listener, which the role of the operator reaches.
fn setup() -> Setup {
    let mut setup = Setup::new().expect("random keys");
    setup.more_gateway = format!(
        "\n[admin]\nlisten = \"{API}\"\n\n[[role]]\nname = \"api\"\nallow = [\"{API}/tcp\"]\n"
    );
    setup
}

fn operator(world: &World, edge: &mut Edge) -> Result<WireguardGo> {
    edge.gateway.reload(|text| {
        // The first peer that has a role.
        text.replacen("role       = \"kube-admin\"", "role       = \"api\"", 1)
    })?;
    let setup = &edge.setup;
    let tunnel = setup.dial_in(&world.road_warrior, &setup.operator, OPERATOR.into())?;
    world.road_warrior.pings(&GATEWAY.to_string())?;
    Ok(tunnel)
}

fn token(edge: &Edge, scopes: &[&str]) -> Result<String> {
    let mut command = vec!["token", "add", "ci", "--expires", "1h"];
    for scope in scopes {
        command.extend(["--scope", scope]);
    }
    Ok(edge.gateway.command(&command)?.trim().to_owned())
}

fn status(node: &Node, token: Option<&str>, path: &str) -> Result<u16> {
    Ok(Api::tcp(node, API, token)?
        .call("GET", path, &[], &Value::Null)?
        .status)
}

#[test]
fn listener_is_for_the_role_that_names_it_and_for_tokens() {
    with_edge(setup(), |world, edge| {
        let _tunnel = operator(world, edge)?;
        let laptop = &world.road_warrior;
        assert_eq!(status(laptop, None, "/v1/peers")?, 401);
        assert_eq!(status(laptop, None, "/healthz")?, 200);
        let read = token(edge, &["read"])?;
        assert_eq!(status(laptop, Some(&read), "/v1/peers")?, 200);
        assert_eq!(status(laptop, Some(&read), "/v1/tokens")?, 403);
        assert_eq!(status(laptop, Some(&read), "/v1/audit")?, 403);
        let wish = json!({"name": "bob", "generate_key": true});
        let refused = Api::tcp(laptop, API, Some(&read))?.call("POST", "/v1/peers", &[], &wish)?;
        refused.expect_problem(403, "missing_scope")?;
        let write = token(edge, &["read", "peers:write"])?;
        let made = Api::tcp(laptop, API, Some(&write))?.create(&wish)?;
        let id = text(&made["peer"], "id")?.to_owned();
        let log = Api::of(&edge.gateway, "gateway")?.get("/v1/audit")?;
        let entry = log["items"]
            .as_array()
            .and_then(|items| items.last())
            .cloned()
            .unwrap_or_default();
        assert_eq!(entry["resource"], format!("peers/{id}"));
        assert!(text(&entry, "actor")?.starts_with("token:"), "{entry}");
        assert!(
            text(&entry["request"], "remote")?.starts_with(&OPERATOR.to_string()),
            "{entry}"
        );
        let secret = made["secrets"]["private_key"].as_str().unwrap_or_default();
        assert!(!log.to_string().contains(secret) && !secret.is_empty());
        assert!(
            !edge.gateway.daemon.log().contains(secret),
            "a secret in the log"
        );
        let bearer = secret_of(&write)?;
        assert!(
            !edge.gateway.daemon.log().contains(bearer),
            "a token in the log"
        );

        let id = read.split('_').nth(1).unwrap_or_default();
        edge.gateway.command(&["token", "revoke", id])?;
        assert_eq!(status(laptop, Some(&read), "/v1/peers")?, 401, "revoked");
        Ok(())
    });
}

#[test]
fn nobody_else_reaches_the_listener() {
    with_edge(setup(), |world, edge| {
        // Known to the kernel of everyone who asks: the address is not what keeps them out.
        for node in [&world.client, &world.stranger] {
            for host in [IpAddr::V4(VPS), IpAddr::V4(GATEWAY)] {
                let to = SocketAddr::new(host, PORT);
                assert!(Api::tcp(node, to, None).is_err(), "{} → {to}", node.name());
            }
        }
        let guest = &edge.setup.guest;
        let _tunnel = edge
            .setup
            .dial_in(&world.road_warrior, guest, GUEST.into())?;
        world.road_warrior.pings(&GATEWAY.to_string())?;
        assert!(
            Api::tcp(&world.road_warrior, API, None).is_err(),
            "a peer without the role"
        );
        assert!(
            Api::tcp(&world.lan_host, API, None).is_err(),
            "the LAN end {LAN_SERVER}"
        );
        let listening = world.vps.run(&["ss", "-Hltn"])?;
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT).to_string();
        assert!(
            listening.contains(&API.to_string()) && !listening.contains(&any),
            "{listening}"
        );
        Ok(())
    });
}

#[test]
fn wrong_hosts_origins_and_tokens_are_refused_and_guessing_is_locked_out() {
    with_edge(setup(), |world, edge| {
        let _tunnel = operator(world, edge)?;
        let laptop = &world.road_warrior;
        let good = token(edge, &["read"])?;
        let ask = |host: &str, more: &str| {
            let url = format!("http://{API}/v1/peers");
            let host = format!("Host: {host}");
            let bearer = format!("Authorization: Bearer {good}");
            let command = [
                "curl",
                "--silent",
                "--max-time",
                "5",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--header",
                &host,
                "--header",
                &bearer,
                "--header",
                more,
                &url,
            ];
            laptop.run(&command)
        };
        let own = API.to_string();
        assert_eq!(ask(&own, "X-Nothing: 1")?, "200");
        assert_eq!(ask("evil.example", "X-Nothing: 1")?, "421");
        assert_eq!(ask(&own, "Origin: https://evil.example")?, "403");
        let mut last = 0;
        for number in 0..100 {
            last = status(
                laptop,
                Some(&format!("edge_guess{number}_secret")),
                "/v1/peers",
            )?;
            if last == 429 {
                break;
            }
            assert_eq!(last, 401, "guess {number}");
        }
        assert_eq!(last, 429, "guessing goes on");
        // The unix socket does not care.
        Api::of(&edge.gateway, "gateway")?
            .get("/v1/peers")
            .map(drop)
    });
}

/// `curl` that listens to events with this token, until the stream ends.
fn follow(laptop: &Node, name: &str, token: &str) -> Result<Daemon> {
    let url = format!("http://{API}/v1/events");
    let bearer = format!("Authorization: Bearer {token}");
    let command = [
        "curl",
        "--silent",
        "--show-error",
        "--no-buffer",
        "--fail",
        "--dump-header",
        "/dev/stderr",
        "--header",
        &bearer,
        &url,
    ];
    let mut stream = Daemon::start(laptop, name, &command)?;
    stream.wait_for_log(SOON, 0, &["text/event-stream"])?;
    Ok(stream)
}

#[test]
fn a_stream_of_events_ends_with_its_token() {
    with_edge(setup(), |world, edge| {
        let _tunnel = operator(world, edge)?;
        let laptop = &world.road_warrior;
        let revoked = token(edge, &["read"])?;
        let mut stream = follow(laptop, "revoked", &revoked)?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        api.create(&json!({"name": "bob", "generate_key": true}))?;
        stream.wait_for_log(SOON, 0, &["peer.created"])?;
        let id = revoked.split('_').nth(1).unwrap_or_default();
        edge.gateway.command(&["token", "revoke", id])?;
        let ended = stream.wait(Duration::from_secs(1))?;
        assert!(ended.success(), "{ended}: {}", stream.log());
        // Its own end is nothing that it may hear any more.
        assert!(!stream.log().contains("token.revoked"), "{}", stream.log());

        let wish = json!({"name": "short", "scopes": ["read"], "expires_in_seconds": 3});
        let made = api.call("POST", "/v1/tokens", &[], &wish)?.expect(201)?;
        let began = Instant::now();
        let mut stream = follow(laptop, "expired", text(&made, "secret")?)?;
        let ended = stream.wait(SOON)?;
        assert!(ended.success(), "{ended}: {}", stream.log());
        assert!(
            began.elapsed() >= Duration::from_millis(1500),
            "{:?}",
            began.elapsed()
        );
        Ok(())
    });
}

#[test]
fn a_token_has_so_many_streams_and_no_more() {
    with_edge(setup(), |_world, edge| {
        let listen = || -> Result<(u16, Api)> {
            let mut api = Api::of(&edge.gateway, "gateway")?;
            let reply = api.call("GET", "/v1/events", &[], &Value::Null)?;
            Ok((reply.status, api))
        };
        let mut streams = Vec::new();
        for number in 0..16 {
            let (status, stream) = listen()?;
            assert_eq!(status, 200, "stream {number}");
            streams.push(stream);
        }
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let refused = api.call("GET", "/v1/events", &[], &Value::Null)?;
        refused.expect_problem(429, "too_many_streams")?;
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        streams.pop();
        tests::expect::eventually(SOON, "a stream in place of one that ended", || {
            let (status, _) = listen()?;
            tests::expect::holds(status == 200, || status.to_string())
        })
    });
}
