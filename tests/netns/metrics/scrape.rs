//! The rules in promtool, and the real Prometheus on a laptop in the tunnel, configured as documented: it gets in with a token
//! and no otherwise, takes the rules, and answers every query of the dashboard.
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::daemon::Daemon;
use tests::edge::{Edge, Setup};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::node::Node;
use tests::web::{Answer, Certificate, WebServer};
use tests::world::LightWorld;
use tests::world::addresses::{INGRESS_VIP, INGRESS_VIP6, IPERF_PORT, at};

use super::dashboard::Dashboard;
use super::{packaging, text_of};
use crate::support::with_edge;

/// Where the gateway listens for Prometheus, as in `scrape.yml`.
const ADMIN: &str = "10.17.0.1:8443";
/// The host of Prometheus in the tunnel.
const MONITOR: &str = "10.17.0.20";
/// Where the token is, in `scrape.yml`.
const TOKEN_FILE: &str = "/etc/prometheus/wg-edge.token";
/// Scrapes and evaluations come every second here, and rates need two of them.
const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn rules_are_right_and_fire_when_they_should() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    let file = |path| packaging(path).unwrap().display().to_string();
    let rules = file("prometheus/alerts.yml");
    promtool(&["check", "rules", "--lint-fatal", &rules]);
    promtool(&["test", "rules", &file("prometheus/alerts.test.yml")]);
}

#[test]
fn every_alert_has_a_test() {
    let rules = text_of("prometheus/alerts.yml").unwrap();
    let tests = text_of("prometheus/alerts.test.yml").unwrap();
    let alerts = rules.lines().filter_map(|line| {
        let (_, name) = line.split_once("- alert: ")?;
        Some(name)
    });
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        let fires = tests
            .split("- alertname: ")
            .any(|test| test.starts_with(alert) && test.contains("exp_labels"));
        assert!(fires, "no test lets {alert} fire");
    }
}

#[test]
fn prometheus_reads_the_metrics_through_the_tunnel_with_a_token() {
    let mut setup = Setup::new().unwrap();
    let monitor = KeyPair::generate().unwrap();
    setup.more_gateway = format!(
        r#"
[admin]
listen = "{ADMIN}"

[[role]]
name  = "monitoring"
allow = ["{ADMIN}/tcp"]

[[peer]]
name       = "prometheus"
public_key = "{}"
address    = "{MONITOR}"
role       = "monitoring"
"#,
        monitor.public
    );
    with_edge(setup, |world, edge| {
        // All is well when all that is published is there, and is what its port says.
        world.end_servers();
        let _web = serve_web(&world.backend)?;
        world.serve_tcp(at(INGRESS_VIP, IPERF_PORT))?;
        let laptop = &world.road_warrior;
        let _tunnel = edge.setup.dial_in(laptop, &monitor, MONITOR.parse()?)?;
        let stranger = laptop.run(&["curl", "--fail", &format!("http://{ADMIN}/metrics")]);
        assert!(format!("{:#}", stranger.unwrap_err()).contains("401"));
        let mut prometheus = start(laptop, &read_token(world, edge)?)?;
        prometheus.wait_until(WITHIN, "a scrape", || {
            let up = one_value(laptop, "up{job=\"wg-edge\"}")?;
            holds(up == "1", || "up is not 1".to_owned())
        })?;
        every_query_is_answered(laptop)?;
        rules_are_evaluated(laptop)
    });
}

fn serve_web(backend: &Node) -> Result<Vec<WebServer>> {
    let well = || Answer::Page("well".to_owned());
    let vips = [IpAddr::from(INGRESS_VIP), IpAddr::from(INGRESS_VIP6)];
    let servers = vips.into_iter().flat_map(|vip| {
        let http = WebServer::http(backend, SocketAddr::new(vip, 80), well());
        let certificate = Certificate::of(&["www.example.com"]);
        let https = certificate.and_then(|certificate| {
            WebServer::https(backend, SocketAddr::new(vip, 443), certificate, well())
        });
        [http, https]
    });
    servers.collect()
}

/// A token that may read.
fn read_token(world: &LightWorld, edge: &Edge) -> Result<String> {
    let socket = edge.gateway.daemon.node().dir();
    let socket = socket.join("run/wg-edge/gateway.sock");
    let answer = world.vps.run(&[
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--unix-socket",
        socket.to_str().context("not UTF-8")?,
        "--json",
        r#"{"name": "prometheus", "scopes": ["read"]}"#,
        "http://localhost/v1/tokens",
    ])?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer
        .get("secret")
        .and_then(Value::as_str)
        .context("no secret")?
        .to_owned())
}

/// With the documented configuration, but faster, and with its files in the node's directory.
fn start(node: &Node, token: &str) -> Result<Daemon> {
    let token_file = node.write("token", token)?.display().to_string();
    let rules = packaging("prometheus/alerts.yml")?.display().to_string();
    let mut text = text_of("prometheus/scrape.yml")?;
    for (documented, here) in [
        (TOKEN_FILE, token_file.as_str()),
        ("- alerts.yml", &format!("- {rules}")),
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ] {
        ensure!(text.contains(documented), "no `{documented}` in scrape.yml");
        text = text.replace(documented, here);
    }
    let config = node.write("prometheus.yml", &text)?.display().to_string();
    node.run(&["promtool", "check", "config", &config])?;
    Daemon::start(
        node,
        "prometheus",
        &[
            "prometheus",
            &format!("--config.file={config}"),
            &format!("--storage.tsdb.path={}/tsdb", node.dir().display()),
            "--web.listen-address=127.0.0.1:9090",
        ],
    )
}

/// Evaluates an expression; fails as Prometheus does when it is none.
fn query(node: &Node, expression: &str) -> Result<Vec<Value>> {
    let answer = ask(
        node,
        &[
            "--get",
            "--data-urlencode",
            &format!("query={expression}"),
            "http://127.0.0.1:9090/api/v1/query",
        ],
    )
    .with_context(|| expression.to_owned())?;
    match answer.pointer("/data/result") {
        Some(Value::Array(samples)) => Ok(samples.clone()),
        other => bail!("{expression}: {other:?}"),
    }
}

fn ask(node: &Node, arguments: &[&str]) -> Result<Value> {
    let command = [&["curl", "--silent", "--show-error"], arguments].concat();
    let answer: Value = serde_json::from_str(&node.run(&command)?)?;
    let succeeded = answer
        .get("status")
        .is_some_and(|status| status == "success");
    ensure!(succeeded, "{answer}");
    Ok(answer)
}

fn one_value(node: &Node, expression: &str) -> Result<String> {
    let samples = query(node, expression)?;
    let [sample] = samples.as_slice() else {
        bail!("{expression}: {samples:?}");
    };
    let value = sample.pointer("/value/1").and_then(Value::as_str);
    Ok(value.context("no value")?.to_owned())
}

/// Those that leave nothing out have an answer, too: with a label that does not match, a join is empty without a word.
fn every_query_is_answered(node: &Node) -> Result<()> {
    for expression in Dashboard::read()?.expressions()? {
        if expression.contains(" > 0") && !expression.starts_with("(time()") {
            query(node, &expression)?;
            continue;
        }
        eventually(WITHIN, "an answer to a query of the dashboard", || {
            let samples = query(node, &expression)?;
            holds(!samples.is_empty(), || format!("nothing for {expression}"))
        })?;
    }
    Ok(())
}

/// None has an error, and none fires while all is well.
fn rules_are_evaluated(node: &Node) -> Result<()> {
    eventually(WITHIN, "every rule was evaluated", || {
        let answer = ask(node, &["http://127.0.0.1:9090/api/v1/rules"])?;
        let rules = answer.pointer("/data/groups/0/rules");
        let rules = rules.and_then(Value::as_array).context("no rules")?;
        ensure!(rules.len() > 5);
        for rule in rules {
            for (field, expected) in [("health", "ok"), ("state", "inactive")] {
                let is_so = rule.get(field).is_some_and(|found| found == expected);
                ensure!(is_so, "{rule}");
            }
        }
        Ok(())
    })
}
