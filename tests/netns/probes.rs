//! Published services are tried from both ends: status, `/v1/probes`, `/v1/publishes` and the metrics say what was found.
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::api::{Api, text};
use tests::edge::{Edge, Instance, Setup};
use tests::expect::{eventually, holds};
use tests::servers::Server;
use tests::world::addresses::{INGRESS_VIP, IPERF_PORT, at};

use crate::support::with_edge;

/// What has ended is noticed within this; what is back sooner.
const NOTICED: Duration = Duration::from_secs(15);

/// The entries of a list.
fn items(list: &Value) -> Result<&Vec<Value>> {
    let items = list.get("items").and_then(Value::as_array);
    items.with_context(|| format!("no items in {list}"))
}

/// The probe of this port, as one of the two ends sees it.
fn probe(instance: &Instance, name: &str, port: u16) -> Result<Value> {
    let list = Api::of(instance, name)?.get("/v1/probes")?;
    let vip = INGRESS_VIP.to_string();
    let mut probes = items(&list)?.iter();
    let found = probes.find(|probe| {
        probe.get("port").is_some_and(|is| *is == port)
            && probe.get("vip").is_some_and(|is| *is == vip)
    });
    Ok(found.with_context(|| list.to_string())?.clone())
}

/// Both ends say so, in the list and in the metrics.
fn both_say(edge: &Edge, port: u16, state: &str) -> Result<()> {
    for (instance, name) in [(&edge.gateway, "gateway"), (&edge.lan_server, "lan-server")] {
        eventually(NOTICED, &format!("{name}: {port} is {state}"), || {
            let probe = probe(instance, name, port)?;
            holds(text(&probe, "state")? == state, || probe.to_string())
        })?;
        let page = Api::of(instance, name)?.get("/metrics")?;
        let page = page.as_str().unwrap_or_default().to_owned();
        let of_port = format!("vip=\"{INGRESS_VIP}:{port}\"}} {}", u8::from(state == "up"));
        let mut lines = page
            .lines()
            .filter(|line| line.starts_with("edge_path_up{"));
        assert!(lines.any(|line| line.ends_with(&of_port)), "{name}: {page}");
    }
    Ok(())
}

#[test]
fn a_service_that_ends_and_comes_back_is_noticed_at_both_ends() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        both_say(edge, 443, "up")?;
        both_say(edge, IPERF_PORT, "down")?;
        // The first attempts may have come before the tunnel.
        eventually(NOTICED, "the gateway says why", || {
            let why = probe(&edge.gateway, "gateway", IPERF_PORT)?;
            holds(text(&why, "error")?.contains("refused"), || why.to_string())
        })?;

        let server = Server::tcp(&world.backend, at(INGRESS_VIP, IPERF_PORT))?;
        both_say(edge, IPERF_PORT, "up")?;
        let publish = |name: &str| -> Result<Value> {
            let list = Api::of(&edge.gateway, "gateway")?.get("/v1/publishes")?;
            let items = list["items"].as_array().context("no items")?;
            let found = items.iter().find(|publish| publish["name"] == name);
            Ok(found.with_context(|| list.to_string())?.clone())
        };
        let iperf = publish("iperf")?;
        assert_eq!(iperf["health"]["state"], "up", "{iperf}");
        assert_eq!(iperf["allow"], json!(["cloudflare"]), "{iperf}");
        assert_eq!(iperf["connections"], 0, "our own are no visitors'");
        let stun = publish("stun")?;
        assert!(
            stun["health"].is_null() && stun["probes"] == json!([]),
            "{stun}"
        );

        drop(server);
        both_say(edge, IPERF_PORT, "down")?;
        let screen = edge.gateway.command(&["status"])?;
        assert!(screen.contains("! down since"), "{screen}");
        Ok(())
    });
}

#[test]
fn a_gateway_whose_tunnel_is_down_says_that_services_are() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        both_say(edge, 80, "up")?;
        edge.lan_server.daemon.kill();
        eventually(NOTICED, "port 80 is down", || {
            let probe = probe(&edge.gateway, "gateway", 80)?;
            holds(probe["state"] == "down", || probe.to_string())
        })?;
        edge.lan_server.restart()?;
        both_say(edge, 80, "up")
    });
}

#[test]
fn what_the_lan_end_does_not_publish_is_down_on_the_gateway() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        edge.lan_server
            .reload(|text| text.replacen("ports     = [80, 443]", "ports     = [80]", 1))?;
        eventually(NOTICED, "port 443 is down", || {
            let probe = probe(&edge.gateway, "gateway", 443)?;
            holds(probe["state"] == "down", || probe.to_string())
        })?;
        let lan = Api::of(&edge.lan_server, "lan-server")?.get("/v1/probes")?;
        assert!(
            !lan.to_string()
                .contains("\"port\":443,\"publish\":\"ingress\""),
            "{lan}"
        );
        Ok(())
    });
}

#[test]
fn the_list_of_cloudflare_is_told_with_its_day() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        for (instance, name) in [(&edge.gateway, "gateway"), (&edge.lan_server, "lan-server")] {
            let ranges = Api::of(instance, name)?.get("/v1/cloudflare/ranges")?;
            assert_eq!(ranges["source"], "bundled", "{ranges}");
            assert_eq!(ranges["networks"].as_array().map(Vec::len), Some(22));
            assert_eq!(text(&ranges, "as_of")?.len(), "2026-02-11".len());
        }
        edge.gateway.reload(|text| {
            text.replacen(
                "[sets]\n",
                "[sets]\ncloudflare = [\"173.245.48.0/20\", \"2400:cb00::/32\"]\n",
                1,
            )
        })?;
        let ranges = Api::of(&edge.gateway, "gateway")?.get("/v1/cloudflare/ranges")?;
        assert_eq!(ranges["source"], "file", "{ranges}");
        assert_eq!(ranges["networks"].as_array().map(Vec::len), Some(2));
        let page = Api::of(&edge.gateway, "gateway")?.get("/metrics")?;
        let page = page.as_str().unwrap_or_default();
        assert!(
            !page.contains("\nedge_cloudflare_ranges_age_seconds "),
            "{page}"
        );
        Ok(())
    });
}
