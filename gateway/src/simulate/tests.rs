//! The examples of the documentation, called from everywhere.
use std::io::Write as _;

use shared::config::policy_test::Target;
use shared::simulate::NoCaller;
use shared_daemon::product::Product as _;
use shared_daemon::simulation::{of_files, try_files};

use super::*;

const GATEWAY: &str = include_str!("../../../packaging/examples/gateway.toml");
const LAN_SERVER: &str = include_str!("../../../packaging/examples/lan-server.toml");

fn gateway(more: &str) -> Gateway {
    let text = format!("{GATEWAY}{more}");
    let parsed = Gateway::parse(&text, "gateway.toml");
    parsed.unwrap_or_else(|errors| panic!("{errors}")).config
}

fn lan_server(old: &str, new: &str) -> LanServers {
    assert!(LAN_SERVER.contains(old), "{old}");
    let text = LAN_SERVER.replacen(old, new, 1);
    let parsed = LanServer::parse(&text, "lan-server.toml");
    let config = parsed.unwrap_or_else(|errors| panic!("{errors}")).config;
    [("home".to_owned(), config)].into()
}

fn as_documented() -> LanServers {
    lan_server("", "")
}

fn call(lan_servers: &LanServers, from: &str, to: &str) -> (bool, String) {
    let simulation = of_files::<crate::Gateway>(&gateway(""), lan_servers);
    let to: Target = to.parse().unwrap();
    let trace = simulation.site.trace(from.parse().unwrap(), to);
    (trace.allowed, trace.reason)
}

fn is_allowed(from: &str, to: &str) -> bool {
    let (allowed, _) = call(&as_documented(), from, to);
    allowed
}

#[test]
fn visitors_of_cloudflare_reach_the_ingress_and_others_do_not() {
    assert!(is_allowed("173.245.48.10", "203.0.113.10:443"));
    assert!(!is_allowed("198.51.100.7", "203.0.113.10:443"));
    let (_, reason) = call(&as_documented(), "198.51.100.7", "203.0.113.10:22");
    assert_eq!(
        reason, "no rule of ours stops it",
        "that is another's business"
    );
}

#[test]
fn who_has_a_role_reaches_what_it_names() {
    assert!(is_allowed("10.17.0.10", "10.17.5.10:6443"));
    assert!(is_allowed("10.17.0.10", "10.17.3.11:53/udp"));
    assert!(!is_allowed("10.17.0.10", "10.17.3.11:53/tcp"));
    assert!(!is_allowed("10.17.0.11", "10.17.5.10:6443"), "nobody");
    assert!(!is_allowed("10.17.0.10", "10.17.0.1:8443"));
}

#[test]
fn a_stolen_gateway_reaches_what_the_lan_end_publishes() {
    assert!(is_allowed("10.17.0.1", "10.17.5.30:443"));
    assert!(!is_allowed("10.17.0.1", "10.17.4.21:22"));
}

#[test]
fn both_ends_have_a_say() {
    let without_api = lan_server("\"10.17.5.10:6443/tcp\", ", "");
    let (allowed, reason) = call(&without_api, "10.17.0.10", "10.17.5.10:6443");
    assert!(!allowed);
    assert_eq!(
        reason,
        "dropped by rule `iifname \"edge0\" counter name \"refused_from_tunnel\" drop` of chain forward on lan-server home"
    );
    let for_others = lan_server("[\"cloudflare\"]", "[\"198.51.100.0/24\"]");
    let (allowed, reason) = call(&for_others, "173.245.48.10", "203.0.113.10:443");
    assert!(!allowed);
    assert!(
        reason.starts_with("lan-server home takes nothing from 173.245.48.10 out of the tunnel"),
        "{reason}"
    );
}

#[test]
fn the_way_of_a_visitor_and_of_the_answer() {
    let simulation = of_files::<crate::Gateway>(&gateway(""), &as_documented());
    let to = "203.0.113.10:443".parse().unwrap();
    let trace = simulation.site.trace("173.245.48.10".parse().unwrap(), to);
    let way: Vec<String> = trace
        .steps
        .iter()
        .map(|step| {
            let answer = if step.answer { "answer, " } else { "" };
            format!("{answer}{}, {}: {}", step.end, step.place, step.text)
        })
        .collect();
    assert_eq!(
        way.join("\n") + "\n",
        include_str!("visitor.txt"),
        "\n{}",
        way.join("\n")
    );
}

fn messages(tests: &str, lan_servers: &LanServers) -> (Vec<String>, Vec<String>) {
    let results = try_files::<crate::Gateway>(&gateway(tests), lan_servers);
    let [failed, undecided] = [results.failed, results.undecided].map(|findings| {
        let messages = findings.into_iter().map(|finding| finding.message);
        messages.collect()
    });
    (failed, undecided)
}

fn test(from: &str, to: &str, expect: &str) -> String {
    format!("\n[[test]]\nfrom = \"{from}\"\nto = \"{to}\"\nexpect = \"{expect}\"\n")
}

#[test]
fn tests_that_hold_say_nothing() {
    let tests = [
        test("peer:alice", "10.17.5.10:6443", "allow"),
        test("cloudflare", "203.0.113.10:443", "allow"),
        test("internet", "203.0.113.10:443", "deny"),
        test("office", "203.0.113.10:443", "deny"),
    ];
    let said = messages(&tests.concat(), &as_documented());
    assert_eq!(said, (Vec::new(), Vec::new()));
}

#[test]
fn a_test_that_fails_says_at_which_rule() {
    let (failed, _) = messages(
        &test("peer:alice", "10.17.4.21:22", "allow"),
        &as_documented(),
    );
    assert_eq!(
        failed,
        [
            "test number 2: expected allow, but 10.17.0.10 is denied: dropped by rule `iifname \"edge0\" counter name \
             \"refused_from_tunnel\" drop` of chain forward on gateway"
        ]
    );
    let (failed, _) = messages(
        &test("cloudflare", "203.0.113.10:80", "deny"),
        &as_documented(),
    );
    assert_eq!(failed.len(), 1);
    assert!(
        failed[0].starts_with(
            "test number 2: expected deny, but 103.21.244.1 is allowed: accepted by rule `"
        ),
        "{failed:?}"
    );
}

#[test]
fn what_another_file_or_the_api_decides_is_left_open() {
    let (failed, undecided) = messages(
        &test("cloudflare", "203.0.113.10:80", "deny"),
        &LanServers::new(),
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(undecided[0].ends_with("--lan-server PATH"), "{undecided:?}");
    let (failed, undecided) = messages(
        &test("peer:bob", "10.17.5.10:6443", "allow"),
        &LanServers::new(),
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(
        undecided,
        [
            "test number 2: the file has no peer \"bob\", and those that the API has made only the running daemon knows: \
             `plan` asks it"
        ]
    );
}

#[test]
fn where_members_are_known_a_peer_that_is_none_is_a_failure() {
    let config = gateway("");
    let environment = Environment {
        wan: "eth0".parse().unwrap(),
        wan_accepts_router_advertisements: false,
        cloudflare: cloudflare::networks(),
    };
    let members = Members::default();
    let simulation = simulation(&config, &environment, Some(&members), &LanServers::new());
    let family = shared::plan::ruleset::Family::Ipv4;
    let nobody = simulation.peer("bob", family);
    assert_eq!(nobody, Err(NoCaller::NoPeer("bob".to_owned())));
    let alice = simulation.peer("alice", shared::plan::ruleset::Family::Ipv6);
    assert!(matches!(alice, Err(NoCaller::NoAddress(..))));
}

#[test]
fn a_file_belongs_to_the_lan_server_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lan-server.toml");
    let write = |text: &str| {
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let read = |count| {
        let files = vec![path.clone(); count];
        crate::Gateway::read_other_end(&gateway(""), &files)
    };
    write(LAN_SERVER);
    assert_eq!(read(1).unwrap().keys().collect::<Vec<_>>(), ["home"]);
    let twice = read(2).unwrap_err().to_string();
    assert!(
        twice.ends_with("it is the second file of LAN server \"home\""),
        "{twice}"
    );
    write(&LAN_SERVER.replace("10.17.0.2/32", "10.17.0.3/32"));
    let other = read(1).unwrap_err().to_string();
    assert!(other.contains("is that of no [[lan_server]]"), "{other}");
    write("");
    assert!(
        read(1)
            .unwrap_err()
            .to_string()
            .contains("[tunnel] is missing")
    );
}
