//! Cloudflare's networks change, and what does not come from Cloudflare changes nothing.
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::config::cloudflare;
use tests::api::{Api, text};
use tests::edge::{Edge, Instance, START_TIMEOUT, Setup, Start};
use tests::expect::{eventually, holds};
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::web::{Answer, Certificate, WebServer};
use tests::world::LightWorld;
use tests::world::addresses::{CLIENT, STRANGER, STRANGER6, at, public, public6};

use crate::support::{SOON, in_light_world};

/// A list that changed lets callers in, on both ends, within this.
const LET_IN: Duration = Duration::from_secs(1);

/// When a request that is not answered is given up, and a bit.
const GIVEN_UP: Duration = Duration::from_secs(25);

/// Networks of the stranger.
const NEW: [&str; 2] = ["198.51.100.0/24", "2001:db8:51::/48"];

/// The bundled list with more networks, as text.
fn lines(more: &[&str]) -> String {
    let bundled = cloudflare::networks().into_iter();
    let bundled = bundled.map(|network| network.to_string());
    let lines: Vec<String> = bundled
        .chain(more.iter().map(ToString::to_string))
        .collect();
    lines.join("\n")
}

/// The same as Cloudflare's API says it.
fn json(more: &[&str]) -> String {
    let lines = lines(more);
    let (v6, v4): (Vec<&str>, Vec<&str>) = lines.lines().partition(|line| line.contains(':'));
    serde_json::json!({
        "result": {"ipv4_cidrs": v4, "ipv6_cidrs": v6, "etag": "1"},
        "success": true, "errors": [], "messages": [],
    })
    .to_string()
}

/// What a mirror that lost its list, a broken download or somebody who means harm puts in its place; and what is said.
fn hostile() -> Vec<(&'static str, String, &'static str)> {
    let whole = json(&NEW);
    let page = "<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>\n";
    vec![
        ("a web page", page.to_owned(), "web page"),
        ("nothing", String::new(), "empty"),
        ("everybody", lines(&["0.0.0.0/0"]), "0.0.0.0/0 is wider"),
        ("everybody in IPv6", json(&["::/0"]), "::/0 is wider"),
        ("half of it", whole[..whole.len() / 2].to_owned(), "JSON"),
        ("private networks", lines(&["10.17.5.0/24"]), "10.0.0.0/8"),
        ("our own network", lines(&["203.0.113.0/24"]), "ours"),
        ("one network", "104.16.0.0/13\n".to_owned(), "at least 10"),
    ]
}

/// As a program does that replaces a file which others read.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, path)?)
}

/// A connection from `node`, tried for so short that the next try finds what has changed meanwhile.
fn connects(node: &Node, to: SocketAddr) -> Result<()> {
    let patience = Duration::from_millis(150);
    node.enter(|| Ok(TcpStream::connect_timeout(&to, patience).map(drop)?))
}

fn ends(edge: &Edge) -> [(&Instance, &'static str); 2] {
    [(&edge.gateway, "gateway"), (&edge.lan_server, "lan-server")]
}

fn ranges((instance, name): (&Instance, &str)) -> Result<Value> {
    Api::of(instance, name)?.get("/v1/cloudflare/ranges")
}

/// The value of a metric without labels.
fn metric((instance, name): (&Instance, &str), metric: &str) -> Result<f64> {
    let reply = Api::of(instance, name)?.call("GET", "/metrics", &[], &Value::Null)?;
    let page = reply.body.as_str().context("no text")?.to_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(metric));
    Ok(line
        .with_context(|| format!("no {metric}"))?
        .trim()
        .parse()?)
}

/// Whether an end says that the latest list was refused for this reason, and the metric with it.
fn says_failed(end: (&Instance, &str), why: &str) -> Result<()> {
    let ranges = ranges(end)?;
    let error = ranges.pointer("/refresh/error").and_then(Value::as_str);
    holds(error.is_some_and(|error| error.contains(why)), || {
        format!("{}: {ranges}", end.1)
    })?;
    let failed = metric(end, "edge_cloudflare_refresh_failed")?;
    holds(failed > 0.5, || format!("{}: {failed}", end.1))
}

fn says_well(end: (&Instance, &str)) -> Result<()> {
    let ranges = ranges(end)?;
    let is_well = ranges.pointer("/refresh/error") == Some(&Value::Null)
        && text(&ranges, "source")? == "refreshed";
    holds(is_well, || format!("{}: {ranges}", end.1))?;
    let failed = metric(end, "edge_cloudflare_refresh_failed")?;
    let age = metric(end, "edge_cloudflare_ranges_age_seconds")?;
    holds(failed < 0.5 && age < 60.0, || {
        format!("{}: failed {failed}, age {age}", end.1)
    })
}

/// The sets of a node's table, and whom the device takes packets from.
fn in_place(world: &LightWorld) -> Result<String> {
    let mut state = String::new();
    for (node, table) in [(&world.vps, "wg_edge"), (&world.lan_host, "wg_edge_lan")] {
        for set in ["cf4", "cf6"] {
            state += &node.run(&["nft", "list", "set", "inet", table, set])?;
        }
        state += &node.run(&["wg", "show", "edge0", "allowed-ips"])?;
    }
    Ok(state)
}

fn completed(edge: &Edge) -> Result<Option<u64>> {
    Ok(edge.gateway.status()?.handshakes.get("completed").copied())
}

/// Both ends read the list from this file.
fn start_with_file(world: &LightWorld, list: &str) -> Result<(Edge, PathBuf)> {
    let path = world.topology.dir().join("cloudflare.txt");
    replace(&path, list)?;
    let mut setup = Setup::new()?;
    setup.refresh = path.display().to_string();
    let edge = Edge::start(world, setup)?;
    for end in ends(&edge) {
        eventually(SOON, "the list is taken", || says_well(end))?;
    }
    Ok((edge, path))
}

#[test]
fn a_new_range_is_let_in_within_a_second_and_nobody_else_notices() {
    in_light_world(|world| {
        let (mut edge, path) = start_with_file(world, &lines(&[]))?;
        let mut open = Conversation::open(&world.client, public(80))?;
        open.echo("before")?;
        let handshakes = completed(&edge)?;
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        assert!(ask_tcp(&world.stranger, public6(80)).is_err());

        replace(&path, &json(&NEW))?;
        let changed = Instant::now();
        for to in [public(80), public6(80)] {
            let left = LET_IN.saturating_sub(changed.elapsed());
            eventually(left, "the new range is let in", || {
                connects(&world.stranger, to)
            })?;
        }
        ensure!(changed.elapsed() <= LET_IN, "{:?}", changed.elapsed());
        ensure!(ask_tcp(&world.stranger, public(443))?.ip() == STRANGER);
        ensure!(ask_tcp(&world.stranger, public6(443))?.ip() == STRANGER6);
        open.echo("after")?;
        ensure!(completed(&edge)? == handshakes, "a session was ended");
        let peers = edge.lan_server.status()?.peers;
        let allowed_ips = peers.into_iter().flat_map(|peer| peer.allowed_ips);
        let allowed_ips: Vec<String> = allowed_ips.collect();
        for network in NEW {
            ensure!(
                allowed_ips.iter().any(|allowed| allowed == network),
                "{allowed_ips:?}"
            );
        }

        // It is kept by a reload, and by a restart that finds no list.
        edge.gateway.reload(str::to_owned)?;
        edge.lan_server.reload(str::to_owned)?;
        open.echo("after a reload")?;
        ensure!(ask_tcp(&world.stranger, public(80))?.ip() == STRANGER);
        std::fs::remove_file(&path)?;
        edge.gateway.daemon.kill();
        edge.lan_server.daemon.kill();
        edge.gateway.restart()?;
        edge.lan_server.restart()?;
        edge.wait_for_tunnel(world, START_TIMEOUT)?;
        eventually(SOON, "the stranger is let in", || {
            ask_tcp(&world.stranger, public(80))
        })?;
        for end in ends(&edge) {
            eventually(SOON, "the missing file is told", || {
                says_failed(end, "can't be read")
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_range_that_a_list_lacks_stays_for_now() {
    in_light_world(|world| {
        let (edge, path) = start_with_file(world, &lines(&[]))?;
        replace(&path, &lines(&[]).replace("173.245.48.0/20\n", ""))?;
        for end in ends(&edge) {
            let leaving = eventually(SOON, "the network is missed", || {
                let ranges = ranges(end)?;
                let leaving = ranges.pointer("/leaving/0/network");
                Ok(leaving.context("none leaves")?.clone())
            })?;
            ensure!(leaving == "173.245.48.0/20", "{leaving}");
            says_well(end)?;
        }
        ensure!(ask_tcp(&world.client, public(80))?.ip() == CLIENT);
        Ok(())
    });
}

#[test]
fn a_file_that_is_no_list_changes_nothing_and_is_told() {
    in_light_world(|world| {
        let (edge, path) = start_with_file(world, &lines(&[]))?;
        let before = in_place(world)?;
        let mut open = Conversation::open(&world.client, public(80))?;
        for (what, list, why) in hostile() {
            replace(&path, &list)?;
            for end in ends(&edge) {
                eventually(SOON, what, || says_failed(end, why))?;
            }
            ensure!(in_place(world)? == before, "{what} changed something");
            open.echo(what)?;
            ensure!(ask_tcp(&world.client, public(80))?.ip() == CLIENT, "{what}");
            assert!(connects(&world.stranger, public(80)).is_err(), "{what}");
        }
        // The screen says it, too; and whoever puts the file right need do no more.
        let screen = edge.gateway.command(&["status"])?;
        ensure!(screen.contains("no newer list"), "{screen}");
        replace(&path, &lines(&NEW))?;
        for end in ends(&edge) {
            eventually(SOON, "all is well again", || says_well(end))?;
        }
        ensure!(ask_tcp(&world.stranger, public(80))?.ip() == STRANGER);
        Ok(())
    });
}

/// Both ends ask a web server, which plays Cloudflare's, and believe its certificate.
fn start_with_server(world: &LightWorld, answer: Answer) -> Result<(Edge, WebServer)> {
    const PORT: u16 = 8443;
    let certificate = Certificate::of(&[&CLIENT.to_string()])?;
    let trusted = certificate.write(world.topology.dir())?;
    let server = WebServer::https(&world.client, at(CLIENT, PORT), certificate, answer)?;
    let mut setup = Setup::new()?;
    setup.refresh = format!("https://{CLIENT}:{PORT}/client/v4/ips");
    let start = Start {
        by: vec![
            "env".to_owned(),
            format!("SSL_CERT_FILE={}", trusted.display()),
        ],
        program: None,
    };
    let config = setup.install_gateway(&world.vps)?;
    let gateway = Instance::start_with(&world.vps, "gateway", config, start.clone())?;
    let config = setup.install_lan_server(&world.lan_host)?;
    let lan_server = Instance::start_with(&world.lan_host, "lan-server", config, start)?;
    let mut edge = Edge {
        gateway,
        lan_server,
        setup,
    };
    edge.wait_for_tunnel(world, START_TIMEOUT)?;
    Ok((edge, server))
}

/// A reload asks at once.
fn ask_now(edge: &mut Edge) -> Result<()> {
    edge.gateway.reload(str::to_owned)?;
    edge.lan_server.reload(str::to_owned)
}

#[test]
fn a_list_is_fetched_by_https_and_whatever_else_comes_changes_nothing() {
    in_light_world(|world| {
        let (mut edge, server) = start_with_server(world, Answer::Page(json(&[])))?;
        ask_now(&mut edge)?;
        for end in ends(&edge) {
            eventually(SOON, "a list is taken", || says_well(end))?;
        }
        let before = in_place(world)?;
        let mut open = Conversation::open(&world.client, public(80))?;
        let pages = hostile().into_iter();
        let pages = pages.map(|(what, list, why)| (what, Answer::Page(list), why));
        let more = [
            (
                "a broken connection",
                Answer::Truncated(json(&NEW)),
                "broke off",
            ),
            ("a slow server", Answer::Nothing, "no answer within 20 s"),
        ];
        for (what, answer, why) in pages.chain(more) {
            server.answer(answer);
            ask_now(&mut edge)?;
            for end in ends(&edge) {
                eventually(GIVEN_UP, what, || says_failed(end, why))?;
            }
            ensure!(in_place(world)? == before, "{what} changed something");
            open.echo(what)?;
            assert!(connects(&world.stranger, public(80)).is_err(), "{what}");
        }
        server.answer(Answer::Page(json(&NEW)));
        ask_now(&mut edge)?;
        for end in ends(&edge) {
            eventually(SOON, "all is well again", || says_well(end))?;
        }
        ensure!(ask_tcp(&world.stranger, public(80))?.ip() == STRANGER);
        open.echo("after")
    });
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_believed() {
    in_light_world(|world| {
        let (mut edge, _server) = start_with_server(world, Answer::Page(json(&[])))?;
        let before = in_place(world)?;
        // Somebody else on that address: a certificate of its own making.
        let _impostor = WebServer::https(
            &world.client,
            at(CLIENT, 9443),
            Certificate::of(&[&CLIENT.to_string()])?,
            Answer::Page(json(&NEW)),
        )?;
        let elsewhere = |text: &str| text.replace(":8443/", ":9443/");
        edge.gateway.reload(elsewhere)?;
        edge.lan_server.reload(elsewhere)?;
        for end in ends(&edge) {
            eventually(SOON, "the impostor is told", || {
                says_failed(end, "no TLS connection")
            })?;
        }
        ensure!(in_place(world)? == before, "something changed");
        assert!(connects(&world.stranger, public(80)).is_err());
        Ok(())
    });
}

#[test]
fn a_list_of_the_configuration_and_a_refresh_that_is_off_are_not_refreshed() {
    in_light_world(|world| {
        let (mut edge, _path) = start_with_file(world, &lines(&NEW))?;
        ensure!(ask_tcp(&world.stranger, public(80))?.ip() == STRANGER);
        let refresh = format!("refresh = \"{}\"", edge.setup.refresh);
        let off = |text: &str| text.replace(&refresh, "refresh = \"off\"");
        edge.gateway.reload(off)?;
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        let of_gateway = ranges(ends(&edge)[0])?;
        ensure!(text(&of_gateway, "source")? == "bundled", "{of_gateway}");
        ensure!(of_gateway["refresh"] == Value::Null, "{of_gateway}");
        let own = |text: &str| {
            text.replace(
                "[sets]\n",
                "[sets]\ncloudflare = [\"198.51.100.0/24\", \"2001:db8:51::/48\"]\n",
            )
        };
        edge.gateway.reload(own)?;
        let of_gateway = ranges(ends(&edge)[0])?;
        ensure!(text(&of_gateway, "source")? == "file", "{of_gateway}");
        assert!(connects(&world.client, public(80)).is_err());
        connects(&world.stranger, public(80))
    });
}
