//! `plan` says what a reload or a start would do, and does nothing.
use std::fs;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::api::plan::{Action, Plan};
use tests::api::Api;
use tests::edge::{Instance, Setup};
use tests::expect::{differing, eventually, holds, lasting_state};
use tests::node::Node;

use crate::support::{SOON, with_edge};

const NOTHING: &str = "nothing to change\n";

/// What `plan` prints, and with which code it ends.
fn plan(instance: &Instance) -> Result<(String, Option<i32>)> {
    let output = instance.output(&["plan"])?;
    Ok((said(&output), output.status.code()))
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn plan_json(instance: &Instance) -> Result<Plan> {
    let output = instance.output(&["plan", "--json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| said(&output))
}

fn ensure_nothing(instance: &Instance, when: &str) -> Result<()> {
    let (text, code) = plan(instance)?;
    ensure!(
        text.ends_with(NOTHING) && code == Some(0),
        "{when}: {code:?} {text}"
    );
    Ok(())
}

/// Everything that a command could have changed where no daemon runs: the kernel's state and the files of the daemon.
fn everything(node: &Node) -> Result<Vec<String>> {
    let mut found = lasting_state(node)?;
    for entry in fs::read_dir(node.dir().join("state"))? {
        found.push(entry?.path().display().to_string());
    }
    found.sort();
    Ok(found)
}

fn edit(instance: &Instance, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(&instance.config)?;
    ensure!(text.contains(from), "{from:?} is not in\n{text}");
    fs::write(&instance.config, text.replace(from, to))?;
    Ok(())
}

#[test]
fn both_ends_as_they_were_configured_have_nothing_to_change() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let both = || -> Result<[Vec<String>; 2]> {
            Ok([lasting_state(&world.vps)?, lasting_state(&world.lan_host)?])
        };
        let before = both()?;
        ensure_nothing(&edge.gateway, "gateway")?;
        ensure_nothing(&edge.lan_server, "lan-server")?;
        ensure!(plan_json(&edge.gateway)?.is_empty());
        let after = both()?;
        for (before, after) in before.iter().zip(&after) {
            ensure!(before == after, "{}", differing(before, after));
        }
        Ok(())
    });
}

#[test]
fn what_a_changed_file_would_do_is_told_kind_by_kind_and_then_done() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let gateway = &mut edge.gateway;
        for (from, to, told) in [
            // A network less: its route, and what the peer may send from.
            (
                r#""10.17.4.0/24", "#,
                "",
                &[
                    ("route", Action::Remove, "route 10.17.4.0/24 table 254"),
                    ("peer", Action::Change, "peer home"),
                ][..],
            ),
            (
                "mtu         = 1420",
                "mtu         = 1420\nfwmark      = 7",
                &[("socket", Action::Change, "socket mark")],
            ),
            (
                "listen_port = 51820",
                "listen_port = 51821",
                &[("socket", Action::Change, "socket UDP port")],
            ),
            (
                "ports     = [80, 443]",
                "ports     = [80]",
                &[("nftables", Action::Change, "table inet wg_edge")],
            ),
            ("name       = \"guest\"", "name       = \"visitor\"", &[]),
        ] {
            edit(gateway, from, to)?;
            let before = lasting_state(&world.vps)?;
            let (text, code) = plan(gateway)?;
            let plan = plan_json(gateway)?;
            let after = lasting_state(&world.vps)?;
            ensure!(after == before, "{to}: {}", differing(&before, &after));
            ensure!(
                code == Some(if told.is_empty() { 0 } else { 2 }),
                "{to}: {code:?} {text}"
            );
            ensure!(!text.contains("not ours"), "{to}: {text}");
            for &(kind, action, subject) in told {
                let mut changes = plan.changes.iter();
                ensure!(
                    changes.any(|change| (
                        change.kind.as_str(),
                        change.action,
                        change.subject.as_str()
                    ) == (kind, action, subject)),
                    "{to}: no {kind} {subject} in {plan:?}"
                );
                ensure!(text.contains(subject), "{subject}: {text}");
            }
            ensure!(told.is_empty() == plan.changes.is_empty(), "{to}: {plan:?}");
            gateway.reload(str::to_owned)?;
            ensure_nothing(gateway, to)?;
        }
        Ok(())
    });
}

#[test]
fn what_can_not_be_had_and_what_takes_a_restart_are_told() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let batch = "route delete 10.17.5.0/24 dev edge0\nroute add 10.17.5.0/24 dev eth0\n";
        world.vps.run_with_input(&["ip", "-batch", "-"], batch)?;
        edit(&edge.gateway, "mtu         = 1420", "mtu         = 1400")?;
        let (text, code) = plan(&edge.gateway)?;
        ensure!(code == Some(2), "{code:?} {text}");
        for part in [
            "is already a route that is not ours",
            "[tunnel] mtu",
            "takes a restart",
        ] {
            ensure!(text.contains(part), "no {part:?} in {text}");
        }
        edit(&edge.gateway, "[wan]", "[van]")?;
        let (text, code) = plan(&edge.gateway)?;
        ensure!(
            code == Some(1) && text.contains("gateway.toml:"),
            "{code:?} {text}"
        );
        Ok(())
    });
}

#[test]
fn peers_of_the_api_are_nothing_to_change_and_part_of_what_a_start_does() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let phone = json!({ "name": "phone", "role": "kube-admin", "generate_key": true });
        api.create(&phone)?;
        ensure_nothing(&edge.gateway, "with a peer of the API")?;
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        eventually(SOON, "the link has no carrier", || {
            let link = world.vps.run(&["ip", "link", "show", "dev", "edge0"])?;
            holds(link.contains("NO-CARRIER"), || link)
        })?;
        let before = everything(&world.vps)?;
        let plan = plan_json(&edge.gateway)?;
        let after = everything(&world.vps)?;
        ensure!(after == before, "{}", differing(&before, &after));
        // Link, routes and table are still there.
        ensure!(
            plan.changes.iter().all(|change| change.kind == "peer"),
            "{plan:?}"
        );
        for name in ["peer home", "peer operator", "peer phone"] {
            ensure!(
                plan.changes.iter().any(|change| change.subject == name),
                "{plan:?}"
            );
        }
        edge.gateway.command(&["down"])?;
        let plan = plan_json(&edge.gateway)?;
        for kind in ["link", "address", "route", "nftables", "peer"] {
            let mut of_kind = plan.changes.iter().filter(|change| change.kind == kind);
            ensure!(
                of_kind.any(|change| change.action == Action::Add),
                "{kind}: {plan:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn who_asks_by_the_tunnel_may_not_name_a_file() {
    const MORE: &str = "\n[admin]\nlisten = \"10.17.0.1:8443\"\ntokens = false\n";
    let mut setup = Setup::new().unwrap();
    setup.more_gateway.push_str(MORE);
    with_edge(setup, |world, _edge| {
        let mut api = Api::tcp(&world.vps, "10.17.0.1:8443".parse()?, None)?;
        let reply = api.call("POST", "/v1/plan", &[], &json!({}))?;
        ensure!(reply.expect(200)?["changes"] == json!([]));
        let file = json!({ "file": "/etc/passwd" });
        let reply = api.call("POST", "/v1/plan", &[], &file)?;
        reply.expect_problem(403, "file_not_allowed")?;
        let wrong = api.call("POST", "/v1/plan", &[], &Value::Null)?;
        ensure!(wrong.status == 400 || wrong.status == 415, "{wrong:?}");
        Ok(())
    });
}
