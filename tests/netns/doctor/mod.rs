//! `doctor` and `POST /v1/probes`: in a world that is well there is no fault, and wherever the path is cut, that place is named
//! ([`tunnel`], [`service`]), in time, by a command that changes nothing.
mod judge;
mod rounds;
mod scene;
mod service;
mod tunnel;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shared::api::diagnosis::{Diagnosis, Hop, HopKind, Verdict};
use tests::api::Api;
use tests::edge::Setup;
use tests::expect::{differing, lasting_state};
use tests::web::Answer;
use tests::world::addresses::GATEWAY;

use scene::{End, SITE, lines, published, with_scene};

#[test]
fn a_world_that_is_well_has_no_fault_and_is_not_changed_by_asking() {
    with_scene(Setup::new().unwrap(), |scene| {
        for end in End::BOTH {
            let node = scene.node(end);
            let before = lasting_state(node)?;
            let diagnosis = scene.ask(end)?;
            let after = lasting_state(node)?;
            ensure!(before == after, "{}", differing(&before, &after));
            let hops = &diagnosis.hops;
            ensure!(diagnosis.faults.is_empty(), "{}", lines(&diagnosis.faults));
            // Nobody vouches for the certificate but itself.
            for hop in hops.iter().filter(|hop| hop.verdict == Verdict::Warning) {
                ensure!(hop.hop == HopKind::Tls, "{}", lines(hops));
            }
            for hop in hops {
                ensure!(!hop.evidence.is_empty(), "{}", lines(hops));
            }
            for address in published([80, 443]) {
                for kind in [HopKind::Connection, HopKind::Http] {
                    let of = address.to_string();
                    let mut found = hops.iter().filter(|hop| hop.hop == kind);
                    ensure!(
                        found.any(|hop| hop.of.ends_with(&of) && hop.verdict == Verdict::Ok),
                        "{kind:?} of {of}: {}",
                        lines(hops)
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn people_read_the_fault_and_its_remedy_last() {
    with_scene(Setup::new().unwrap(), |scene| {
        let address = published([80])[0];
        scene.web[&address].answer(Answer::Status(503));
        for end in End::BOTH {
            let [fault] = only_fault(scene.ask(end)?)?;
            let output = scene.instance(end).output(&["doctor"])?;
            ensure!(output.status.code() == Some(5), "{output:?}");
            let screen = String::from_utf8(output.stdout)?;
            let screen: Vec<&str> = screen.lines().filter(|line| !line.is_empty()).collect();
            let last = screen[screen.len().saturating_sub(6)..].join(" ");
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let remedy = fault.remedy.context("a remedy")?;
            for part in [&fault.of, &fault.evidence, &remedy] {
                ensure!(words(&last).contains(&words(part)), "{part}: {screen:#?}");
            }
        }
        Ok(())
    });
}

fn only_fault(diagnosis: Diagnosis) -> Result<[Hop; 1]> {
    let faults = diagnosis.faults.try_into();
    faults.map_err(|faults: Vec<Hop>| anyhow::anyhow!("not one fault: {}", lines(&faults)))
}

/// What says the same at another time.
fn facts(hops: &[Hop]) -> Vec<(HopKind, &str, Verdict)> {
    let hops = hops.iter();
    hops.map(|hop| (hop.hop, hop.of.as_str(), hop.verdict))
        .collect()
}

#[test]
fn the_api_says_what_the_command_says() {
    with_scene(Setup::new().unwrap(), |scene| {
        let address = published([443])[0];
        scene.web.remove(&address);
        for end in End::BOTH {
            let mut api = Api::of(scene.instance(end), end.name())?;
            let mut probe = |body: &Value| api.call("POST", "/v1/probes", &[], body);
            let by_command = scene.ask_with(end, &[])?;
            let by_api: Diagnosis = serde_json::from_value(probe(&json!({}))?.expect(200)?)?;
            ensure!(
                facts(&by_api.hops) == facts(&by_command.hops)
                    && facts(&by_api.faults) == facts(&by_command.faults),
                "{} {}",
                lines(&by_api.hops),
                lines(&by_command.hops)
            );

            let body = json!({"publish": "ingress6", "server_name": SITE});
            let one: Diagnosis = serde_json::from_value(probe(&body)?.expect(200)?)?;
            let same = scene.ask_with(end, &["--publish", "ingress6", "--server-name", SITE])?;
            ensure!(
                facts(&one.hops) == facts(&same.hops),
                "{}",
                lines(&one.hops)
            );
            ensure!(one.faults.is_empty(), "{}", lines(&one.faults));
            let strange = |hop: &Hop| {
                ["ingress ", "iperf", "stun"]
                    .iter()
                    .any(|n| hop.of.starts_with(n))
            };
            ensure!(!one.hops.iter().any(strange), "{}", lines(&one.hops));

            let refused = probe(&json!({"publish": "nobody"}))?;
            ensure!(
                refused.status == 422 && refused.body["errors"][0]["pointer"] == "/publish",
                "{refused:?}"
            );
            let command = ["doctor", "--json", "--publish", "nobody"];
            let refused = scene.instance(end).output(&command)?;
            let why = String::from_utf8_lossy(&refused.stderr);
            ensure!(
                ![Some(0), Some(5)].contains(&refused.status.code()) && why.contains("nobody"),
                "{refused:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_token_that_may_read_may_ask() {
    const API: SocketAddr = SocketAddr::new(IpAddr::V4(GATEWAY), 8443);
    let mut setup = Setup::new().unwrap();
    setup.more_gateway = format!("\n[admin]\nlisten = \"{API}\"\n");
    with_scene(setup, |scene| {
        let gateway = scene.instance(End::Gateway);
        let add = ["token", "add", "ci", "--expires", "1h", "--scope"];
        let ask = |scope: &str| {
            let token = gateway.command(&[&add[..], &[scope]].concat())?;
            let mut api = Api::tcp(&scene.world.vps, API, Some(token.trim()))?;
            api.call("POST", "/v1/probes", &[], &json!({}))
        };
        let diagnosis: Diagnosis = serde_json::from_value(ask("read")?.expect(200)?)?;
        ensure!(
            diagnosis.faults.is_empty() && !diagnosis.hops.is_empty(),
            "{}",
            lines(&diagnosis.faults)
        );
        ask("peers:write")?.expect_problem(403, "missing_scope")
    });
}
