//! Facts about a look and what follows, with the real kernel.
use std::process::Command;

use shared::api::drift::Outcome;
use shared::plan::ruleset::{Family, Ruleset, Set};
use shared::plan::{Desired, DriftKind, Heals, Link, Route, Sysctl};
use shared_datapath::{Config, Datapath, Limits};
use shared_os::netns;

use super::heal::Found;
use crate::reconcile::Kernel;

const LINK: &str = "wg0";

/// A kernel that holds what is desired, with a device.
struct Held {
    kernel: Kernel,
    datapath: Datapath,
    heals: Heals,
    desired: Desired,
    _state: tempfile::TempDir,
}

impl Held {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let datapath = Datapath::start(&Config {
            interface: LINK.parse().unwrap(),
            mtu: 1420,
            persist: false,
            closed: true,
            outlives_link: true,
            listen_port: 0,
            fwmark: 0,
            limits: Limits::default(),
        })
        .unwrap();
        let mut held = Self {
            kernel: Kernel::open(state.path()).unwrap(),
            datapath,
            heals: Heals::default(),
            desired: desired(),
            _state: state,
        };
        held.kernel.nftables().assume_unprotected();
        held.kernel.reconcile(&held.desired).await.unwrap();
        held
    }

    fn differs_silently(&mut self) -> bool {
        self.kernel.differs_silently(&self.desired)
    }

    async fn heal(&mut self) -> Vec<Found> {
        let Self {
            kernel,
            datapath,
            heals,
            desired,
            ..
        } = self;
        let control = datapath.control();
        let healed = kernel.heal(desired, true, &control, heals).await;
        healed.unwrap()
    }
}

fn desired() -> Desired {
    let set = Set {
        name: "some".to_owned(),
        family: Family::Ipv4,
        elements: vec!["192.0.2.0/24".parse().unwrap()],
    };
    Desired {
        protocol: 87,
        links: vec![Link {
            name: LINK.parse().unwrap(),
            alias: "test".to_owned(),
            mtu: 1420,
            txqueuelen: 500,
        }],
        addresses: Vec::new(),
        routes: vec![Route {
            destination: "198.51.100.0/24".parse().unwrap(),
            link: LINK.parse().unwrap(),
            table: 254,
            source: None,
        }],
        rules: Vec::new(),
        sysctls: vec![switch("ip_forward", "1")],
        ruleset: Ruleset {
            table: "drift".to_owned(),
            sets: vec![set],
            maps: Vec::new(),
            chains: Vec::new(),
        },
    }
}

fn switch(name: &str, value: &str) -> Sysctl {
    Sysctl {
        path: ["net", "ipv4", name].map(str::to_owned).to_vec(),
        value: value.to_owned(),
        of_our_link: false,
    }
}

fn sh(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

fn in_namespace(test: impl AsyncFnOnce(Held) + Send) {
    netns::run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { test(Held::new().await).await });
    });
}

#[test]
fn an_unprotected_table_is_missed_and_put_back() {
    in_namespace(async |mut held| {
        assert!(!held.differs_silently());
        assert!(held.heal().await.is_empty());
        for (broken, named) in [
            ("nft flush ruleset", "is gone"),
            (
                "nft delete element inet drift some '{ 192.0.2.0/24 }'",
                "some",
            ),
            (
                "nft add set inet drift other '{ type ipv4_addr; }'",
                "other",
            ),
        ] {
            sh(broken);
            assert!(held.differs_silently(), "{broken}");
            let found = held.heal().await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].drift.kind, DriftKind::Nftables);
            assert_eq!(found[0].outcome, Outcome::Healed, "{found:?}");
            assert!(found[0].remedy.contains(named), "{found:?}");
            assert!(!held.differs_silently(), "{broken}");
            assert!(held.heal().await.is_empty(), "{broken}");
        }
    });
}

#[test]
fn several_things_at_once_are_put_right_each_by_its_name() {
    in_namespace(async |mut held| {
        sh("ip link delete wg0 && sysctl -qw net.ipv4.ip_forward=0 && nft flush ruleset");
        let found = held.heal().await;
        let named: Vec<(&str, Outcome)> = found
            .iter()
            .map(|found| (found.drift.subject.as_str(), found.outcome))
            .collect();
        let healed = Outcome::Healed;
        assert_eq!(
            named,
            [
                ("link wg0", healed),
                ("sysctl net/ipv4/ip_forward", healed),
                ("table inet drift", healed)
            ]
        );
        assert!(held.heal().await.is_empty());
    });
}

#[test]
fn what_can_not_be_put_right_is_said_and_is_no_reason_to_leave_the_rest() {
    in_namespace(async |mut held| {
        held.desired
            .sysctls
            .insert(0, switch("no_such_switch", "1"));
        for round in 0..6 {
            sh("ip route delete 198.51.100.0/24 && ip link set wg0 mtu 1300");
            let found = held.heal().await;
            let of = |subject: &str| {
                let mut found = found.iter();
                let found = found.find(|found| found.drift.subject == subject);
                found.map(|found| (found.outcome, found.error.is_some()))
            };
            let switch = of("sysctl net/ipv4/no_such_switch").unwrap();
            let route = of("route 198.51.100.0/24 table 254").unwrap();
            if round < 5 {
                assert_eq!(switch, (Outcome::Failed, true), "{round}");
                assert_eq!(route, (Outcome::Healed, false), "{round}");
            } else {
                assert_eq!(switch, (Outcome::Fought, false));
                assert_eq!(route, (Outcome::Fought, false));
                sh("test -z \"$(ip route show 198.51.100.0/24)\"");
                sh("ip route add 198.51.100.0/24 dev wg0");
            }
        }
    });
}
