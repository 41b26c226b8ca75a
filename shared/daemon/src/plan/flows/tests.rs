//! What is told of connections, without a kernel.
use std::net::SocketAddr;
use std::sync::Arc;

use shared::config::common::{PortMap, PortRange, Protocol, SourceIp};
use shared::model::PublicKey;
use shared::plan::desired::{Link, protocol};
use shared::plan::ruleset::{Chain, ChainKind, Hook, Side, priority};
use shared::plan::{Address, Desired, Host, Ruleset};
use shared_os::netlink::conntrack::{Entry, Tuple};

use super::*;
use crate::model::{PeerKind, PeerModel, PresharedKeyFrom, PublishModel};
use crate::policy::{base_chain, from_link, network, ports, rule};

/// The time in these tests.
const NOW: Duration = Duration::from_secs(2_000);

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn peer(name: &str, number: u8, network: &str) -> Arc<PeerModel> {
    Arc::new(PeerModel {
        name: name.to_owned(),
        kind: PeerKind::Peer,
        public_key: key(number),
        preshared_key: PresharedKeyFrom::Nowhere,
        endpoint: None,
        allowed_ips: vec![network.parse().unwrap()],
        persistent_keepalive_secs: 0,
        succeeds: None,
    })
}

/// A gateway that lets everything pass: `home` with 10.17.5.0/24, alice, and bob.
fn model(chains: Vec<Chain>) -> Model {
    let ports = PortRange::from(443);
    Model {
        interface: "edge0".parse().unwrap(),
        desired: Desired {
            protocol: protocol::GATEWAY,
            links: vec![Link {
                name: "edge0".parse().unwrap(),
                alias: String::new(),
                mtu: 1420,
                txqueuelen: 500,
            }],
            addresses: vec![Address {
                link: "edge0".parse().unwrap(),
                address: "10.17.0.1".parse().unwrap(),
                prefix_len: 16,
            }],
            routes: Vec::new(),
            rules: Vec::new(),
            sysctls: Vec::new(),
            ruleset: Ruleset {
                table: "wg_edge".to_owned(),
                sets: Vec::new(),
                maps: Vec::new(),
                chains,
            },
        },
        peers: vec![
            peer("home", 1, "10.17.5.0/24"),
            peer("alice", 2, "10.17.0.10/32"),
            peer("bob", 3, "10.17.0.11/32"),
        ],
        publishes: vec![PublishModel {
            name: "ingress".to_owned(),
            vip: "10.17.5.30".parse().unwrap(),
            protocol: Protocol::Tcp,
            ports: vec![PortMap {
                listen: ports,
                target: ports,
            }],
            source_ip: SourceIp::Preserve,
        }],
    }
}

/// The same with a rule that drops what alice sends to the API.
fn without_the_api() -> Model {
    let drops = rule([
        from_link(&"edge0".parse().unwrap()),
        network(Side::Source, "10.17.0.10/32".parse().unwrap()),
        ports(Protocol::Tcp, Side::Destination, 6443),
        shared::plan::ruleset::Part::Drop,
    ]);
    let forward = base_chain(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        priority::FILTER,
        vec![drops],
    );
    model(vec![forward])
}

/// An open connection that nothing translates.
fn open(from: &str, to: &str) -> Entry {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let tuple = |from: &str, to: &str| Tuple {
        source: address(from),
        destination: address(to),
    };
    let mut entry = Entry::new(Protocol::Tcp, tuple(from, to), tuple(to, from));
    entry.status = status::SEEN_REPLY | status::ASSURED;
    entry.tcp_state = Some(3);
    entry
}

fn judged(planned: &Model, entries: &[Entry]) -> Vec<(String, String)> {
    let mut judge = Judge::new(&model(Vec::new()), planned, &Host::default());
    for entry in entries {
        judge.look_at(entry, || true);
    }
    told(&judge.into_found())
}

fn told(found: &Found) -> Vec<(String, String)> {
    let warnings = words::warnings(found, NOW).into_iter();
    warnings
        .map(|warning| {
            assert_eq!((warning.name.as_str(), warning.remedy), ("flows_cut", None));
            (warning.subject, warning.text)
        })
        .collect()
}

#[test]
fn all_are_counted_and_the_first_are_named() {
    let api = "10.17.5.10:6443";
    let mut entries: Vec<Entry> = (0..5)
        .map(|number| open(&format!("10.17.0.10:4000{number}"), api))
        .collect();
    entries[1].began = Some(Duration::from_secs(1_000));
    // These stay.
    entries.push(open("10.17.0.11:40000", api));
    entries.push(open("10.17.0.10:40000", "10.17.5.10:22"));
    // This one has ended.
    let mut ended = open("10.17.0.10:50000", api);
    ended.tcp_state = Some(7);
    entries.push(ended);
    assert_eq!(
        judged(&without_the_api(), &entries),
        [(
            "peer alice".to_owned(),
            "5 open connections of peer alice would be cut, since `iifname \"edge0\" ip saddr 10.17.0.10 tcp dport 6443 drop` \
             of chain forward drops their packets: 10.17.0.10:40000 to 10.17.5.10:6443/tcp, \
             10.17.0.10:40001 to 10.17.5.10:6443/tcp (since 16m 40s), 10.17.0.10:40002 to 10.17.5.10:6443/tcp and 2 more"
                .to_owned()
        )]
    );
    assert_eq!(judged(&model(Vec::new()), &entries), []);
}

#[test]
fn a_peer_with_another_key_is_another_one_and_with_another_name_the_same() {
    let entries = [
        open("10.17.0.10:40000", "10.17.5.30:443"),
        open("10.17.0.11:40000", "10.17.5.10:22"),
    ];
    let mut planned = model(Vec::new());
    planned.peers[1] = peer("alicia", 2, "10.17.0.10/32");
    planned.peers[2] = peer("bob", 4, "10.17.0.11/32");
    let told = judged(&planned, &entries);
    let subjects: Vec<&str> = told.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["peer bob"], "{told:?}");
    // A published service is named in the place of who calls it.
    planned.peers.remove(1);
    let told = judged(&planned, &entries);
    let subjects: Vec<&str> = told.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["publish ingress", "peer bob"]);
}

#[test]
fn of_very_many_peers_those_with_most_connections_are_told() {
    let mut found = Found::default();
    for number in 1..=20_u64 {
        let group = judge::Group {
            count: number,
            first: vec![open("10.17.0.10:40000", "10.17.5.10:6443")],
        };
        let subject = judge::Subject::Peer(format!("peer-{number}"));
        found
            .cut
            .insert((subject, shared::simulate::Cause::Peer), group);
    }
    let told = told(&found);
    assert_eq!(told.len(), 9);
    assert_eq!(told[0].0, "peer peer-20");
    assert_eq!(
        told[8],
        (
            "others".to_owned(),
            "78 open connections of 12 other services and peers would be cut as well".to_owned()
        )
    );
}

#[test]
fn what_there_was_no_time_for_is_told() {
    let mut judge = Judge::new(&model(Vec::new()), &without_the_api(), &Host::default());
    let api = "10.17.5.10:6443";
    judge.look_at(&open("10.17.0.10:40000", api), || true);
    // Of a kind that is known.
    judge.look_at(&open("10.17.0.10:40001", api), || false);
    judge.look_at(&open("10.17.0.11:40001", api), || false);
    let told = told(&judge.into_found());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].1.starts_with("2 open connections of peer alice"));
    assert!(
        told[1]
            .1
            .ends_with("whether 1 of them would be cut is not known")
    );
}
