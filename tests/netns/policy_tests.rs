//! `[[test]]` and `trace` with the real programs: what `check` says without a daemon, what a daemon does with a file whose tests
//! fail, and that the documentation shows what is printed.
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::api::plan::Plan;
use shared::api::trace::Trace;
use tests::api::Api;
use tests::docs;
use tests::edge::{Instance, Setup, binary};

use crate::support::{SOON, with_edge};

const PAGE: &str = "docs/operations.md";
const THIS_FILE: &str = "tests/netns/policy_tests.rs";
/// What the documentation's configuration expects, and what its `check` finds wrong.
const TESTS: &str = r#"
[[test]]
name   = "only Cloudflare reaches the ingress"
from   = "internet"
to     = "203.0.113.10:443"
expect = "deny"

[[test]]
name   = "alice reaches the workers by SSH"
from   = "peer:alice"
to     = "10.17.4.24:22"
expect = "allow"
"#;

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Run one of our programs in a directory, as nobody in particular: nothing of this needs a privilege.
fn in_dir(dir: &Path, program: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary(program)?);
    command.args(arguments).current_dir(dir);
    command.output().context(program.to_owned())
}

/// A directory with the examples of the documentation as `gateway.toml` and `lan-server.toml`.
fn examples(name: &str, more: &str) -> Result<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("wg-edge-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    for (file, more) in [("gateway.toml", more), ("lan-server.toml", "")] {
        let text = fs::read_to_string(docs::root().join("packaging/examples").join(file))?;
        fs::write(dir.join(file), text + more)?;
    }
    Ok(dir)
}

/// Runs the commands of a page's blocks that say so, and compares all that they print.
#[test]
fn the_documentation_shows_what_is_printed() -> Result<()> {
    let dir = examples("documented", TESTS)?;
    let page = docs::page(PAGE)?;
    let comment = format!("tested by: {THIS_FILE}");
    let blocks = page.blocks().into_iter();
    let mut count = 0;
    for block in blocks.filter(|block| block.comment.as_ref() == Some(&comment)) {
        count += 1;
        for line in block.script().lines() {
            let mut words = line.split(' ');
            let program = words.next().unwrap_or_default();
            let arguments: Vec<&str> = words.collect();
            let output = in_dir(&dir, program, &arguments)?;
            let printed = said(&output);
            let shown: String = block.shown().iter().flat_map(|line| [line, "\n"]).collect();
            ensure!(
                printed == shown,
                "{PAGE}:{}: {line} prints\n{printed}",
                block.line
            );
        }
    }
    ensure!(count == 2, "{count} blocks of {PAGE} are tested here");
    fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn check_and_trace_know_both_ends_where_both_files_are_given() -> Result<()> {
    let from_cloudflare = "[[test]]\nfrom = \"cloudflare\"\nto = \"203.0.113.10:443\"\nexpect = ";
    let deny = format!("\n{from_cloudflare}\"deny\"\n");
    let dir = examples("both-ends", &deny)?;
    let check = |more: &[&str]| {
        let arguments = [&["check", "--config", "gateway.toml"][..], more].concat();
        in_dir(&dir, "gateway", &arguments)
    };
    let both: &[&str] = &["--lan-server", "lan-server.toml"];

    let output = check(&[])?;
    let undecided = said(&output);
    ensure!(output.status.success(), "{undecided}");
    ensure!(
        undecided.contains("whether LAN server \"home\" does, its file says"),
        "{undecided}"
    );
    let output = check(both)?;
    ensure!(
        output.status.code() == Some(1),
        "both ends let it through: {}",
        said(&output)
    );
    ensure!(said(&output).contains("expected deny"), "{}", said(&output));

    let lan = dir.join("lan-server.toml");
    let text = fs::read_to_string(&lan)?;
    fs::write(
        &lan,
        text.replace("[\"cloudflare\"]", "[\"198.51.100.0/24\"]"),
    )?;
    let output = check(both)?;
    ensure!(
        output.status.success(),
        "the LAN end refuses it: {}",
        said(&output)
    );
    ensure!(said(&output).ends_with("the configuration is valid, and its 2 tests pass\n"));

    let call = ["--from", "173.245.48.10", "--to", "203.0.113.10:443"];
    let trace = |more: &[&str]| -> Result<(Trace, Option<i32>)> {
        let arguments = [
            &["trace", "--config", "gateway.toml", "--json"][..],
            &call,
            more,
        ]
        .concat();
        let output = in_dir(&dir, "gateway", &arguments)?;
        let trace = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
        Ok((trace, output.status.code()))
    };
    let (alone, code) = trace(&[])?;
    ensure!(alone.allowed && code == Some(0), "{alone:?}");
    ensure!(alone.not_looked_at.as_deref() == Some("home"), "{alone:?}");
    let (together, code) = trace(both)?;
    ensure!(!together.allowed && code == Some(5), "{together:?}");

    let output = check(&["--lan-server", "gateway.toml"])?;
    ensure!(output.status.code() == Some(1) && said(&output).contains("gateway.toml:"));
    let output = check(&["--json", "--lan-server", "nowhere.toml"])?;
    let json: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(json["valid"] == false, "{json}");
    fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn a_lan_server_has_tests_of_its_own() -> Result<()> {
    let dir = examples("lan-alone", "")?;
    let path = dir.join("lan-server.toml");
    let text = fs::read_to_string(&path)?;
    let test = |from: &str, expect: &str| {
        format!("\n[[test]]\nfrom = \"{from}\"\nto = \"10.17.5.30:443\"\nexpect = \"{expect}\"\n")
    };
    let good = [
        ("cloudflare", "allow"),
        ("10.17.0.10", "deny"),
        ("internet", "deny"),
        ("10.17.0.1", "allow"),
    ];
    let good: String = good
        .iter()
        .map(|(from, expect)| test(from, expect))
        .collect();
    fs::write(&path, format!("{text}{good}"))?;
    let check = || {
        in_dir(
            &dir,
            "lan-server",
            &["check", "--config", "lan-server.toml"],
        )
    };
    let output = check()?;
    ensure!(
        said(&output).ends_with("is valid, and its 5 tests pass\n"),
        "{}",
        said(&output)
    );
    fs::write(&path, format!("{text}{}", test("10.17.0.10", "allow")))?;
    let output = check()?;
    let refused = said(&output);
    ensure!(output.status.code() == Some(1), "{refused}");
    ensure!(
        refused.starts_with("lan-server.toml:") && refused.contains("expected allow"),
        "{refused}"
    );
    let arguments = [
        "trace",
        "--config",
        "lan-server.toml",
        "--from",
        "10.17.0.10",
        "--to",
        "10.17.5.10:6443",
    ];
    let output = in_dir(&dir, "lan-server", &arguments)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(
        said(&output).contains("the source is an address of this host now"),
        "{}",
        said(&output)
    );
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Append to the file of a daemon, have it read that, and return what it logs.
fn reload(instance: &mut Instance, text: &str, wait_for: &str) -> Result<()> {
    let log = instance.daemon.log().len();
    fs::write(&instance.config, text)?;
    instance.daemon.signal(Signal::SIGHUP)?;
    instance.daemon.wait_for_log(SOON, log, &[wait_for])
}

fn plan(instance: &Instance) -> Result<(Plan, Option<i32>)> {
    let output = instance.output(&["plan", "--json"])?;
    let plan = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    Ok((plan, output.status.code()))
}

#[test]
fn a_daemon_refuses_a_file_whose_test_fails_but_not_for_what_the_api_decides() {
    with_edge(Setup::new().unwrap(), |_, edge| {
        let gateway = &mut edge.gateway;
        let text = fs::read_to_string(&gateway.config)?;
        let test = |from: &str| {
            format!("\n[[test]]\nfrom = \"{from}\"\nto = \"10.17.5.10:6443\"\nexpect = \"allow\"\n")
        };

        let wrong = format!("{text}{}", test("peer:guest"));
        reload(gateway, &wrong, "the running configuration stays")?;
        ensure!(
            gateway
                .daemon
                .log()
                .contains("test number 1: expected allow")
        );
        let (planned, code) = plan(gateway)?;
        ensure!(
            planned.failed_tests.len() == 1 && code == Some(1),
            "{planned:?}"
        );
        let output = gateway.output(&["plan"])?;
        ensure!(
            said(&output).contains("\n! ") || said(&output).starts_with("! "),
            "{}",
            said(&output)
        );

        let of_api = format!("{text}{}", test("peer:bob"));
        reload(gateway, &of_api, "configuration taken")?;
        let (planned, code) = plan(gateway)?;
        ensure!(
            planned.failed_tests.len() == 1 && code == Some(1),
            "nobody: {planned:?}"
        );
        let mut api = Api::of(gateway, "gateway")?;
        let bob = json!({ "name": "bob", "generate_key": true, "role": "kube-admin" });
        let id = api.create_id(&bob)?;
        let (planned, code) = plan(gateway)?;
        ensure!(
            planned.failed_tests.is_empty() && code == Some(0),
            "{planned:?}"
        );
        let named: Vec<&str> = planned
            .warnings
            .iter()
            .map(|warning| warning.name.as_str())
            .collect();
        ensure!(named.contains(&"lan_server_not_looked_at"), "{named:?}");
        let output = gateway.output(&["check"])?;
        ensure!(
            said(&output).contains("the file has no peer \"bob\""),
            "{}",
            said(&output)
        );

        let call = ["trace", "--from", "peer:bob", "--to", "10.17.5.10:6443"];
        let output = gateway.output(&call)?;
        ensure!(
            output.status.success(),
            "the daemon knows bob: {}",
            said(&output)
        );
        let asked = json!({ "from": "peer:bob", "to": "10.17.5.10:22/udp" });
        let denied = api.call("POST", "/v1/trace", &[], &asked)?.expect(200)?;
        ensure!(denied["allowed"] == false, "{denied}");
        let asked = json!({ "from": "peer:carol", "to": "here" });
        let refused = api.call("POST", "/v1/trace", &[], &asked)?;
        refused.expect_problem(422, "invalid")?;
        api.delete(&id)?;
        let (planned, code) = plan(gateway)?;
        ensure!(
            planned.failed_tests.len() == 1 && code == Some(1),
            "{planned:?}"
        );
        gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        gateway.restart()
    });
}
