//! `[[test]]` of both files.
use super::*;
use crate::config::common::{AddressSet, Protocol};
use crate::config::policy_test::{Caller, Expectation, PolicyTest, Target};

/// The example with a test whose keys are these.
fn with_test(base: &str, keys: &str) -> String {
    format!("{}\n[[test]]\n{keys}\n", edited(base, &[]))
}

fn gateway_tests(keys: &str) -> Vec<PolicyTest> {
    let parsed = Gateway::parse(&with_test(GATEWAY, keys), "F");
    parsed
        .unwrap_or_else(|errors| panic!("{errors}"))
        .config
        .tests
}

/// Errors without their places.
fn errors<T: std::fmt::Debug>(parsed: Result<Parsed<T>, ConfigErrors>) -> Vec<String> {
    let errors = parsed.unwrap_err();
    let messages = errors.iter().map(|error| error.message.clone());
    messages.collect()
}

fn gateway_errors(keys: &str) -> Vec<String> {
    errors(Gateway::parse(&with_test(GATEWAY, keys), "F"))
}

fn lan_server_errors(keys: &str) -> Vec<String> {
    errors(LanServer::parse(&with_test(LAN_SERVER, keys), "F"))
}

#[test]
fn a_test_knows_its_name_and_its_place() {
    let text = with_test(
        GATEWAY,
        "name = \"alice reaches the API\"\nfrom = \"peer:alice\"\nto = \"10.17.5.10:6443\"\nexpect = \"allow\"",
    );
    let line = text.lines().position(|line| line == "[[test]]").unwrap() + 1;
    let parsed = Gateway::parse(&text, "F").unwrap();
    let [test] = &parsed.config.tests[..] else {
        panic!("{:?}", parsed.config.tests);
    };
    assert_eq!(test.from, Caller::Peer("alice".to_owned()));
    assert_eq!(
        test.to,
        Target {
            address: "10.17.5.10".parse().unwrap(),
            port: 6443,
            protocol: Protocol::Tcp
        }
    );
    assert_eq!(test.expect, Expectation::Allow);
    assert_eq!(
        test.finding("no").to_string(),
        format!("F:{line}:1: test \"alice reaches the API\": no")
    );
}

#[test]
fn callers_are_peers_addresses_sets_and_everybody_else() {
    let caller = |from: &str, to: &str| {
        let keys = format!("from = \"{from}\"\nto = \"{to}\"\nexpect = \"deny\"");
        gateway_tests(&keys).remove(0).from
    };
    let office = AddressSet {
        name: "office".to_owned(),
        networks: vec!["198.51.100.0/24".parse().unwrap()],
    };
    assert_eq!(caller("office", "203.0.113.10:443"), Caller::Set(office));
    assert_eq!(caller("internet", "[fd17::1]:53/udp"), Caller::Internet);
    let address = Caller::Address("fd17::7".parse().unwrap());
    assert_eq!(caller("fd17::7", "[fd17::1]:53/udp"), address);
    assert_eq!(
        caller("peer:whoever", "10.17.0.1:1"),
        Caller::Peer("whoever".to_owned()),
        "the API may have made it"
    );
    let Caller::Set(set) = caller("cloudflare", "203.0.113.10:443") else {
        panic!("a set");
    };
    assert_eq!(set.networks, cloudflare::networks());
}

#[test]
fn a_set_that_only_a_test_names_is_none_of_the_configuration() {
    let keys = "from = \"office\"\nto = \"203.0.113.10:443\"\nexpect = \"deny\"";
    let parsed = Gateway::parse(&with_test(GATEWAY, keys), "F").unwrap();
    let names: Vec<&str> = parsed
        .config
        .sets
        .iter()
        .map(|set| set.name.as_str())
        .collect();
    assert_eq!(names, ["cloudflare"]);
}

#[test]
fn what_is_wrong_with_a_test_is_said() {
    for (keys, message) in [
        (
            "form = \"internet\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test number 1: unknown key `form`; did you mean `from`?",
        ),
        (
            "from = \"internet\"\nto = \"10.17.0.1:1\"",
            "test number 1: the key `expect` is missing; write for example expect = \"allow\"",
        ),
        (
            "from = \"internet\"\nto = \"10.17.0.1:1\"\nexpect = \"drop\"",
            "test number 1: \"drop\" is not what a test can expect; write \"allow\" or \"deny\"",
        ),
        (
            "from = \"internet\"\nto = \"10.17.5.0/24:443/tcp\"\nexpect = \"deny\"",
            "test number 1: \"10.17.5.0/24:443/tcp\" is more than one address or port; a call goes to one, e.g. \
             \"10.17.5.10:6443\"",
        ),
        (
            "from = \"internet\"\nto = \"10.17.5.1:80-90\"\nexpect = \"deny\"",
            "test number 1: \"10.17.5.1:80-90\" is more than one address or port; a call goes to one, e.g. \
             \"10.17.5.10:6443\"",
        ),
        (
            "from = \"internet\"\nto = \"ingress\"\nexpect = \"deny\"",
            "test number 1: \"ingress/tcp\" is not a service; write address:port/protocol, e.g. \"10.17.5.10:6443/tcp\"",
        ),
        (
            "from = \"cloudfare\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test number 1: there is no set \"cloudfare\"; did you mean \"cloudflare\"?",
        ),
        (
            "from = \"alice\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test number 1: there is no set \"alice\"; did you mean \"peer:alice\"?",
        ),
        (
            "from = \"somebody\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test number 1: there is no set \"somebody\"; write \"peer:NAME\", an address, or one of: office, cloudflare, \
             internet",
        ),
        (
            "from = \"office\"\nto = \"[fd17::1]:1\"\nexpect = \"deny\"",
            "test number 1: the set \"office\" has no IPv6 network, but what is called has an IPv6 address",
        ),
        (
            "from = \"10.17.0.10\"\nto = \"[fd17::1]:1\"\nexpect = \"deny\"",
            "test number 1: the caller has an IPv4 address, and what it calls an IPv6 one; write two of one family",
        ),
        (
            "from = \"10.17.0.0/16\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test number 1: \"10.17.0.0/16\" is not an IP address; write the address without a prefix length",
        ),
        (
            "name = \"\"\nfrom = \"internet\"\nto = \"10.17.0.1:1\"\nexpect = \"deny\"",
            "test \"\": \"\" is not the name of a test; write 1 to 100 characters in one line",
        ),
    ] {
        assert_eq!(gateway_errors(keys), [message], "{keys}");
    }
}

#[test]
fn a_lan_server_knows_no_peers() {
    assert_eq!(
        lan_server_errors("from = \"peer:alice\"\nto = \"10.17.5.10:6443\"\nexpect = \"allow\""),
        [
            "test number 1: only the gateway knows names of peers; write the address that this one has in the tunnel"
        ]
    );
    assert_eq!(
        lan_server_errors("from = \"alice\"\nto = \"10.17.5.10:6443\"\nexpect = \"allow\""),
        [
            "test number 1: there is no set \"alice\"; write an address, or one of: cloudflare, internet"
        ]
    );
}

#[test]
fn one_set_of_brackets_is_explained() {
    let text = edited(LAN_SERVER, &[]) + "[test]\nfrom = \"internet\"\n";
    assert_eq!(
        errors(LanServer::parse(&text, "F")),
        ["`test` can occur several times; write [[test]] with double brackets above each"]
    );
}
