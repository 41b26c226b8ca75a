//! A configuration on trial: kept when it is confirmed by a new connection, else taken back, whoever dies meanwhile.
use std::fs;
use std::hint;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::api::apply::{Apply, ApplyState};
use shared::api::probe::ProbeState;
use tests::api::{Api, id_of};
use tests::edge::{Edge, Instance, Setup, publish};
use tests::expect::{eventually, holds};
use tests::keys::KeyPair;
use tests::node::Node;
use tests::servers::{Conversation, ask_tcp};
use tests::world::LightWorld;
use tests::world::addresses::{CLIENT, INGRESS_VIP, at, public};

use crate::support::{SOON, with_edge};

/// As many as P7 of the design asks for.
const CONNECTIONS: usize = 100;
/// A trial that nobody confirms.
const TRIAL: Duration = Duration::from_secs(2);
/// It, and some time for the way back.
const OVER: Duration = Duration::from_secs(6);

/// One more service of the ingress VIP, for the file of an end that calls those who may call it so.
fn one_more(who: &str) -> String {
    let who = format!(r#"{who} = ["cloudflare"]"#);
    publish("more", "10.17.5.30", "tcp", "8443", &who, "preserve")
}

/// The same in both ends' files: there it is taken, here it is to be applied.
fn prepare(world: &mut LightWorld, edge: &mut Edge) -> Result<()> {
    world.serve_tcp(at(INGRESS_VIP, 8443))?;
    edge.lan_server
        .reload(|text| format!("{text}{}", one_more("from")))?;
    extend(&edge.gateway, &one_more("allow"))
}

/// Write the file with this behind it.
fn extend(instance: &Instance, more: &str) -> Result<()> {
    let text = fs::read_to_string(&instance.config)?;
    Ok(fs::write(&instance.config, format!("{text}{more}"))?)
}

fn apply(api: &mut Api, within: Duration) -> Result<Apply> {
    let body = json!({ "confirm_within_seconds": within.as_secs() });
    let answer = api.call("POST", "/v1/apply", &[], &body)?.expect(200)?;
    Ok(serde_json::from_value(answer)?)
}

fn latest(instance: &Instance, name: &str) -> Result<Apply> {
    let mut api = Api::of(instance, name)?;
    let answer = api.call("GET", "/v1/apply", &[], &Value::Null)?;
    Ok(serde_json::from_value(answer.expect(200)?)?)
}

fn confirm(api: &mut Api, id: &str) -> Result<tests::api::Reply> {
    let path = format!("/v1/apply/{id}/confirm");
    api.call("POST", &path, &[], &Value::Null)
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Whether the firewall of this node publishes that port.
fn firewall_knows(node: &Node, port: &str) -> Result<bool> {
    Ok(node
        .run(&["nft", "list", "table", "inet", "wg_edge"])?
        .contains(port))
}

fn guards(instance: &Instance) -> Result<Vec<String>> {
    let config = instance.config.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("guard-apply") && line.contains(&config) {
            found.push(line);
        }
    }
    Ok(found)
}

fn open(world: &LightWorld) -> Result<Vec<Conversation>> {
    let connections = (0..CONNECTIONS).map(|_| Conversation::open(&world.client, public(80)));
    connections.collect()
}

fn all_go_on(connections: &mut [Conversation]) -> Result<()> {
    for (number, connection) in connections.iter_mut().enumerate() {
        let echoed = connection.echo("after");
        echoed.with_context(|| format!("connection {number} of {CONNECTIONS} is lost"))?;
    }
    Ok(())
}

#[test]
fn whoever_is_told_what_runs_sees_nothing_of_what_ran_before() {
    const ROUNDS: usize = 20;
    const ADDRESS: &str = "10.17.0.77";
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let alice = json!({"name": "alice", "generate_key": true, "addresses": [ADDRESS]});
        let path = format!("/v1/peers/{}", id_of(&api.create(&alice)?)?);
        let bob = KeyPair::generate()?.public;
        extend(
            &edge.gateway,
            &format!(
                "\n[[peer]]\nname = \"bob\"\npublic_key = \"{bob}\"\naddress = \"{ADDRESS}\"\n"
            ),
        )?;
        let mut caller = Api::of(&edge.gateway, "gateway")?;
        let spinning = 4 * thread::available_parallelism()?.get();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Whoever shows peers gets no processor at once.
            for _ in 0..spinning {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        hint::spin_loop();
                    }
                });
            }
            let mut look = |round: usize, expected: &str| {
                let state = api.get(&path)?["state"].clone();
                ensure!(
                    state == expected,
                    "{state} in round {round}, not {expected}"
                );
                Ok(())
            };
            let looked = (0..ROUNDS).try_for_each(|round| {
                let pending = apply(&mut caller, Duration::from_secs(60))?;
                look(round, "shadowed")?;
                let back = format!("/v1/apply/{}/rollback", pending.id);
                caller.call("POST", &back, &[], &Value::Null)?.expect(200)?;
                look(round, "active")
            });
            is_over.store(true, Ordering::Relaxed);
            looked
        })
    });
}

#[test]
fn what_nobody_confirms_is_taken_back_and_what_was_open_goes_on() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        prepare(world, edge)?;
        let mut connections = open(world)?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let pending = apply(&mut api, TRIAL)?;
        ensure!(pending.state == ApplyState::Pending, "{pending:?}");
        ask_tcp(&world.client, public(8443)).context("what is on trial works")?;
        ensure!(guards(&edge.gateway)?.len() == 1);
        all_go_on(&mut connections)?;
        let ended = eventually(OVER, "the configuration of before", || {
            let latest = latest(&edge.gateway, "gateway")?;
            holds(latest.state == ApplyState::RolledBack, || {
                format!("{latest:?}")
            })?;
            Ok(latest)
        })?;
        ensure!(ended.id == pending.id);
        ensure!(
            ended.reason.as_deref() == Some("it was not confirmed in time"),
            "{ended:?}"
        );
        ensure!(ask_tcp(&world.client, public(8443)).is_err());
        ensure!(ask_tcp(&world.client, public(80))?.ip() == CLIENT);
        all_go_on(&mut connections)?;
        eventually(SOON, "no guard", || {
            let left = guards(&edge.gateway)?;
            holds(left.is_empty(), || format!("{left:?}"))
        })?;
        let status = edge.gateway.command(&["status"])?;
        ensure!(status.contains("was rolled back"), "{status}");
        ensure!(edge.gateway.status()?.applies.get("rolled_back") == Some(&1));
        // Not even by a restart does it come; who reloads wants it.
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        edge.gateway.restart()?;
        edge.gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        ensure!(
            edge.gateway
                .daemon
                .log()
                .contains("was applied and not confirmed")
        );
        ensure!(!firewall_knows(&world.vps, "8443")?);
        edge.gateway.reload(str::to_owned)?;
        ensure!(firewall_knows(&world.vps, "8443")?);
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        edge.gateway.restart()?;
        edge.gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        ensure!(firewall_knows(&world.vps, "8443")?);
        Ok(())
    });
}

#[test]
fn only_a_connection_that_was_opened_after_it_confirms() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        extend(&edge.gateway, &one_more("allow"))?;
        let mut old = Api::of(&edge.gateway, "gateway")?;
        let pending = apply(&mut old, TRIAL)?;
        confirm(&mut old, &pending.id)?.expect_problem(409, "connection_too_old")?;
        let again = old.call("POST", "/v1/apply", &[], &json!({}))?;
        again.expect_problem(409, "apply_pending")?;
        edge.gateway.reload(str::to_owned)?;
        ensure!(
            edge.gateway
                .daemon
                .log()
                .contains("is on trial: `apply confirm`"),
            "a reload is no confirmation"
        );
        let mut new = Api::of(&edge.gateway, "gateway")?;
        confirm(&mut new, "another")?.expect_problem(404, "not_found")?;
        let confirmed: Apply =
            serde_json::from_value(confirm(&mut new, &pending.id)?.expect(200)?)?;
        ensure!(confirmed.state == ApplyState::Confirmed, "{confirmed:?}");
        confirm(&mut new, &pending.id)?.expect_problem(409, "apply_over")?;
        thread::sleep(TRIAL * 2);
        ensure!(firewall_knows(&world.vps, "8443")?);
        ensure!(latest(&edge.gateway, "gateway")?.state == ApplyState::Confirmed);
        Ok(())
    });
}

#[test]
fn the_command_confirms_what_works_and_cuts_no_connection() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        prepare(world, edge)?;
        let mut connections = open(world)?;
        let said = edge.gateway.command(&["apply"])?;
        ensure!(
            said.contains("~ table inet wg_edge") && said.ends_with("confirmed\n"),
            "{said}"
        );
        ask_tcp(&world.client, public(8443))?;
        all_go_on(&mut connections)?;
        // The other end has the command too.
        let said = edge.lan_server.command(&["apply"])?;
        ensure!(said.ends_with("confirmed\n"), "{said}");
        all_go_on(&mut connections)?;
        let plan = edge.gateway.command(&["plan"])?;
        ensure!(plan.ends_with("nothing to change\n"), "{plan}");
        Ok(())
    });
}

/// What the audit log says of configurations: who, what, of which apply, and what became of the file.
fn configurations(api: &mut Api) -> Result<Vec<(String, String, String, Value)>> {
    let page = api.get("/v1/audit?limit=100")?;
    let entries = tests::api::items(&page)?.iter();
    let told = entries.map(|entry| {
        let field = |name| tests::api::text(entry, name).map(str::to_owned);
        Ok((
            field("actor")?,
            field("action")?,
            field("resource")?,
            entry["difference"].clone(),
        ))
    });
    let told: Vec<_> = told.collect::<Result<_>>()?;
    let of_configurations = told.into_iter();
    Ok(of_configurations
        .filter(|(_, action, ..)| action.starts_with("configuration."))
        .collect())
}

#[test]
fn the_audit_log_has_who_took_which_configuration() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let path = edge.gateway.config.display().to_string();
        let sum = || -> Result<String> {
            let line = world.vps.run(&["sha256sum", &path])?;
            Ok(line.split(' ').next().unwrap_or_default().to_owned())
        };
        let first = sum()?;
        edge.gateway.reload(str::to_owned)?;
        extend(&edge.gateway, &one_more("allow"))?;
        let second = sum()?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let kept = apply(&mut api, TRIAL * 10)?.id;
        let mut new = Api::of(&edge.gateway, "gateway")?;
        confirm(&mut new, &kept)?.expect(200)?;
        extend(&edge.gateway, "# third\n")?;
        let third = sum()?;
        let late = apply(&mut new, TRIAL)?.id;
        let all = eventually(OVER, "the way back in the log", || {
            let all = configurations(&mut new)?;
            holds(all.len() == 5, || format!("{all:?}"))?;
            Ok(all)
        })?;
        let change = |from: &str, to: &str| json!({ "from": from, "to": to });
        let wanted = [
            ("signal", "reload", "configuration".to_owned(), json!({})),
            (
                "unix",
                "apply",
                format!("applies/{kept}"),
                json!({ "sha256": change(&first, &second) }),
            ),
            ("unix", "confirm", format!("applies/{kept}"), json!({})),
            (
                "unix",
                "apply",
                format!("applies/{late}"),
                json!({ "sha256": change(&second, &third) }),
            ),
            (
                "daemon",
                "rollback",
                format!("applies/{late}"),
                json!({
                    "sha256": change(&third, &second),
                    "reason": { "from": null, "to": "it was not confirmed in time" },
                }),
            ),
        ];
        for ((actor, action, resource, difference), wanted) in all.iter().zip(&wanted) {
            let kind = actor.split(':').next().unwrap_or_default();
            let action = action.trim_start_matches("configuration.");
            ensure!(
                (kind, action, resource, difference) == (wanted.0, wanted.1, &wanted.2, &wanted.3),
                "{all:#?}"
            );
        }
        // And the chain holds.
        edge.gateway.command(&["audit", "verify"])?;
        Ok(())
    });
}

#[test]
fn the_command_goes_back_when_a_service_does_not_answer_any_more() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut conversation = Conversation::open(&world.client, public(80))?;
        conversation.set_patience(OVER)?;
        eventually(SOON, "the services answer", || {
            let status = edge.gateway.status()?;
            let of_ingress = status.probes.iter().filter(|of| of.publish == "ingress");
            let up = of_ingress.filter(|probe| probe.state == ProbeState::Up);
            holds(up.count() == 2, || format!("{:?}", status.probes))
        })?;
        // A key that the LAN host does not have: the file is right, and nobody answers.
        let text = fs::read_to_string(&edge.gateway.config)?;
        let key = edge.setup.lan_server.public.to_string();
        ensure!(text.contains(&key), "{text}");
        let other = KeyPair::generate()?.public.to_string();
        fs::write(&edge.gateway.config, text.replace(&key, &other))?;
        let output = edge.gateway.output(&["apply", "--within", "8"])?;
        let said = said(&output);
        ensure!(
            output.status.code() == Some(1),
            "{:?} {said}",
            output.status
        );
        ensure!(
            said.contains("does not answer any more on 10.17.5.30:80")
                && said.contains("rolled back"),
            "{said}"
        );
        conversation.echo("still here")?;
        ensure!(ask_tcp(&world.client, public(80))?.ip() == CLIENT);
        Ok(())
    });
}

#[test]
fn a_wrong_file_changes_nothing() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        extend(&edge.gateway, "\n[[published]]\n")?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let reply = api.call("POST", "/v1/apply", &[], &json!({}))?;
        reply.expect_problem(422, "configuration_invalid")?;
        let none = api.call("GET", "/v1/apply", &[], &Value::Null)?;
        none.expect_problem(404, "not_found")?;
        let other = json!({ "file": "/etc/passwd" });
        let reply = api.call("POST", "/v1/apply", &[], &other)?;
        reply.expect_problem(409, "other_file")?;
        let never = json!({ "confirm_within_seconds": 0 });
        let reply = api.call("POST", "/v1/apply", &[], &never)?;
        reply.expect_problem(422, "invalid")?;
        let output = edge.gateway.output(&["apply"])?;
        let said = said(&output);
        ensure!(
            output.status.code() == Some(1) && said.contains("gateway.toml:"),
            "{said}"
        );
        ensure!(ask_tcp(&world.client, public(80))?.ip() == CLIENT);
        Ok(())
    });
}

#[test]
fn a_daemon_that_was_killed_starts_with_the_configuration_of_before() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        extend(&edge.lan_server, &one_more("from"))?;
        extend(&edge.gateway, &one_more("allow"))?;
        for (instance, name) in [
            (&mut edge.gateway, "gateway"),
            (&mut edge.lan_server, "lan-server"),
        ] {
            let mut api = Api::of(instance, name)?;
            let pending = apply(&mut api, Duration::from_secs(60))?;
            instance.daemon.kill();
            instance.restart()?;
            instance.daemon.wait_for_log(OVER * 2, 0, &["ready"])?;
            let ended = latest(instance, name)?;
            ensure!(
                (ended.state, &ended.id) == (ApplyState::RolledBack, &pending.id),
                "{ended:?}"
            );
            ensure!(
                ended.reason.as_deref() == Some("the daemon ended before it was confirmed"),
                "{ended:?}"
            );
        }
        ensure!(!firewall_knows(&world.vps, "8443")?);
        eventually(OVER * 2, "an answer", || ask_tcp(&world.client, public(80)))?;
        Ok(())
    });
}

#[test]
fn the_firewall_of_before_comes_back_even_when_nobody_starts_the_daemon_again() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        extend(&edge.gateway, &one_more("allow"))?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        apply(&mut api, TRIAL)?;
        edge.gateway.daemon.kill();
        ensure!(firewall_knows(&world.vps, "8443")?, "it is on trial still");
        eventually(OVER, "the firewall of before", || {
            holds(!firewall_knows(&world.vps, "8443")?, || {
                "still the one on trial".to_owned()
            })?;
            let left = guards(&edge.gateway)?;
            holds(left.is_empty(), || format!("{left:?}"))
        })?;
        edge.gateway.restart()?;
        edge.gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        ensure!(!firewall_knows(&world.vps, "8443")?);
        let ended = latest(&edge.gateway, "gateway")?;
        ensure!(ended.state == ApplyState::RolledBack, "{ended:?}");
        Ok(())
    });
}

#[test]
fn what_is_on_trial_does_not_outlive_an_orderly_end() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        extend(&edge.gateway, &one_more("allow"))?;
        let mut api = Api::of(&edge.gateway, "gateway")?;
        apply(&mut api, Duration::from_secs(60))?;
        ensure!(firewall_knows(&world.vps, "8443")?);
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        ensure!(!firewall_knows(&world.vps, "8443")?);
        ensure!(guards(&edge.gateway)?.is_empty(), "a guard is left");
        Ok(())
    });
}
