//! Changes of many peers and the traffic of others.
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::api::Api;
use tests::daemon::Daemon;
use tests::edge::Setup;
use tests::expect::holds;
use tests::servers::Conversation;
use tests::world::addresses::{API_PORT, API_VIP, GATEWAY, OPERATOR, at, public};

use crate::support::{SOON, with_edge};

/// Peers that come and go.
const PEERS: usize = 2000;
/// Connections that change them at the same time.
const CALLERS: usize = 8;

/// Each caller adds its share, changes every peer, and removes all of them.
fn churn(mut api: Api, caller: usize) -> Result<()> {
    let mut ids = Vec::new();
    for number in 0..PEERS / CALLERS {
        let wish = json!({"name": format!("crowd-{caller}-{number}"), "generate_key": true,
            "role": "kube-admin"});
        ids.push(api.create_id(&wish)?);
    }
    for id in &ids {
        api.patch(id, &json!({"role": null}))?;
    }
    ids.iter().try_for_each(|id| api.delete(id))
}

/// `20 packets transmitted, 20 received, …`
fn lost(summary: &str) -> Result<(u64, u64)> {
    let line = summary
        .lines()
        .find(|line| line.contains(" packets transmitted, "));
    let line = line.with_context(|| format!("no summary of ping in\n{summary}"))?;
    let number = |part: Option<&str>| -> Result<u64> {
        let text = part.and_then(|part| part.split_whitespace().next());
        Ok(text.context("no number")?.parse()?)
    };
    let mut parts = line.split(", ");
    let (sent, received) = (number(parts.next())?, number(parts.next())?);
    Ok((sent, sent - received))
}

#[test]
fn thousands_of_changes_cost_a_neighbour_not_one_packet() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let laptop = &world.road_warrior;
        let _tunnel = edge
            .setup
            .dial_in(laptop, &edge.setup.operator, OPERATOR.into())?;
        laptop.pings(&GATEWAY.to_string())?;
        let mut kept = Conversation::open(laptop, at(API_VIP, API_PORT))?;
        let command = ["ping", "-n", "-i", "0.05", &GATEWAY.to_string()];
        let mut ping = Daemon::start(laptop, "ping", &command)?;
        let done = AtomicBool::new(false);
        let socket = edge
            .gateway
            .daemon
            .node()
            .dir()
            .join("run/wg-edge/gateway.sock");
        let moved = thread::scope(|scope| -> Result<u64> {
            let transfer = scope.spawn(|| -> Result<u64> {
                let mut download = Conversation::open(&world.client, public(80))?;
                download.set_patience(Duration::from_secs(10))?;
                let mut moved = 0;
                while !done.load(Ordering::Relaxed) {
                    download.download(1_000_000)?;
                    moved += 1;
                }
                Ok(moved)
            });
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let api = Api::unix(&socket);
                    scope.spawn(move || churn(api?, caller))
                })
                .collect();
            let changed: Result<()> = callers
                .into_iter()
                .try_for_each(|caller| caller.join().expect("no panic"));
            done.store(true, Ordering::Relaxed);
            let moved = transfer.join().expect("no panic");
            changed?;
            moved
        })?;
        ping.stop(Signal::SIGINT, SOON)?;
        let (sent, lost) = lost(&ping.log())?;
        holds(lost <= 1 && sent > 20, || {
            // The one that was on its way when ping was stopped.
            format!("{lost} of {sent} pings were lost")
        })?;
        assert!(!ping.log().contains("DUP"), "{}", ping.log());
        assert!(moved > 0, "the transfer went on");
        kept.echo("still here")?;
        let page = Api::of(&edge.gateway, "gateway")?.get("/v1/peers?managed_by=api")?;
        assert_eq!(page["items"], json!([]));
        edge.gateway.command(&["audit", "verify"])?;
        Ok(())
    });
}
