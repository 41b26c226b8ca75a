//! Our netlink code and the real kernel, in a fresh network namespace per test. What we did is asserted on the kernel's
//! own listing, not on our reading of it.
//!
//! ```text
//!   edge0 (TUN, ours)     eth0 ──── peer0 (veth, foreign)     lo
//! ```
mod world;

use std::time::Duration;

use shared::plan::{Change, Changes, Conflict, LinkKind, difference, removal};
use shared_os::netlink::{ApplyError, Event, Netlink};
use shared_os::netns;
use shared_os::sysctl::{self, Remembered, Restored};
use world::{
    ALIAS, TABLE, add_tun, address, desired, everything, foreign, in_namespace, ip, reconcile,
    route, rule, switch,
};

fn value(path: &[&str]) -> Option<String> {
    let path: Vec<_> = path.iter().map(ToString::to_string).collect();
    sysctl::read(&path).unwrap().value
}

#[test]
fn everything_desired_stands_in_the_kernels_listing() {
    in_namespace(|| async {
        let before = foreign();
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;

        let link: serde_json::Value =
            serde_json::from_str(&ip("-j -d link show dev edge0")).unwrap();
        let link = &link[0];
        assert_eq!(link["ifalias"], ALIAS);
        assert_eq!(link["mtu"], 1420);
        assert_eq!(link["txqlen"], 64);
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()));

        let addresses = ip("-o address show dev edge0");
        assert!(addresses.contains("10.17.0.1/16"), "{addresses}");
        assert!(addresses.contains("fd17::1/64"), "{addresses}");
        assert!(!addresses.contains("tentative"), "{addresses}");

        // A TUN device that no process has open has no carrier: hence `linkdown`.
        let main = ip("-4 route show dev edge0 table main");
        assert_eq!(
            main.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "10.17.0.0/16 proto kernel scope link src 10.17.0.1 linkdown",
                "10.17.5.0/24 proto 175 scope link src 10.17.0.1 linkdown",
                "10.17.5.30 proto 175 scope link linkdown",
            ]
        );
        let default4 = ip("-4 route show table 51820");
        assert!(
            default4.starts_with("default dev edge0 proto 175 scope link"),
            "{default4}"
        );
        let default6 = ip("-6 route show table 51820");
        assert!(
            default6.starts_with("default dev edge0 proto 175 metric 1024"),
            "{default6}"
        );
        let main6 = ip("-6 route show table main");
        let line = "fd17:5::/64 dev edge0 proto 175 src fd17::1 metric 1024";
        assert!(main6.contains(line), "{main6}");
        let line = "5182:\tfrom all fwmark 0x1000000/0x3f000000 lookup 51820 proto 175";
        for rules in [ip("-4 rule show"), ip("-6 rule show")] {
            assert!(rules.contains(line), "{rules}");
        }
        assert_eq!(
            value(&["net", "ipv4", "conf", "edge0", "rp_filter"]).unwrap(),
            "2"
        );
        assert_eq!(value(&["net", "ipv4", "ip_forward"]).unwrap(), "1");
        assert_eq!(
            value(&["net", "ipv6", "conf", "all", "forwarding"]).unwrap(),
            "1"
        );
        assert_eq!(foreign(), before);
    });
}

#[test]
fn removal_leaves_nothing_of_ours_and_all_of_theirs() {
    in_namespace(|| async {
        let before = everything();
        let netlink = Netlink::open().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::open(dir.path()).unwrap();
        for change in difference(&desired(), &netlink.read(&desired()).await.unwrap()).iter() {
            if let Change::SetSysctl { sysctl, was } = change {
                remembered.note(sysctl, was.as_deref()).unwrap();
            }
        }
        reconcile(&netlink, &desired()).await;
        assert_ne!(everything(), before);
        netlink.remove_all(&desired()).await.unwrap();
        let restored = remembered.restore().unwrap();
        assert!(
            matches!(
                restored.as_slice(),
                [Restored::Back { .. }, Restored::Back { .. }]
            ),
            "{restored:?}"
        );
        assert_eq!(everything(), before);
        netlink.remove_all(&desired()).await.unwrap();
        assert_eq!(everything(), before);
    });
}

/// P10: each thing of ours that is deleted or changed comes back by one difference.
#[test]
fn any_single_drift_is_healed() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        let stands = everything();
        for drift in [
            "link set dev edge0 mtu 1300",
            "link set dev edge0 txqueuelen 500",
            "link set dev edge0 alias foo", // see below: foreign, so it is set back by hand
            "address delete 10.17.0.1/16 dev edge0",
            "address delete fd17::1/64 dev edge0",
            "address add 10.66.0.1/24 dev edge0",
            "address add fd66::1/64 dev edge0",
            "route delete 10.17.0.0/16 dev edge0",
            "route delete 10.17.5.0/24 dev edge0",
            "route delete default dev edge0 table 51820",
            "-6 route delete fd17:5::/64 dev edge0",
            "route add 10.67.0.0/24 dev edge0",
            "-6 route add fd67::/64 dev edge0",
            "route add blackhole 10.68.0.0/24 table 51820",
            "-6 route add unreachable fd68::/64 table 51820",
            "route add 10.69.0.0/24 tos 0x10 dev edge0 metric 50",
            "route change 10.17.5.0/24 dev edge0 proto 175",
            "rule delete pref 5182",
            "-6 rule delete pref 5182",
            "rule add pref 5000 fwmark 0x2/0xff lookup 51820",
            "rule add pref 5182 from 10.17.0.0/16 lookup 51820",
            "-6 rule add pref 5001 iif eth0 lookup 51820",
            "link set dev edge0 down",
            "link delete dev edge0",
        ] {
            ip(drift);
            if drift.ends_with("alias foo") {
                let changes = difference(&desired(), &netlink.read(&desired()).await.unwrap());
                assert!(matches!(
                    changes.conflicts.as_slice(),
                    [Conflict::LinkTaken(_)]
                ));
                ip(&format!(
                    "link set dev edge0 alias {}",
                    ALIAS.replace(' ', "_")
                ));
                set_alias(&netlink).await;
                continue;
            }
            let lines = reconcile(&netlink, &desired()).await;
            assert!(!lines.is_empty(), "{drift} was not noticed");
        }
        // The network's own route came back as ours; all else as it was.
        netlink.remove_all(&desired()).await.unwrap();
        reconcile(&netlink, &desired()).await;
        let numbered = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| !line.contains("edge0:") && !line.contains("fe80"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let without_index: Vec<_> = numbered(&everything())
            .into_iter()
            .filter(|line| !line.contains("inet"))
            .collect();
        let expected: Vec<_> = numbered(&stands)
            .into_iter()
            .filter(|line| !line.contains("inet"))
            .collect();
        assert_eq!(without_index, expected);
    });
}

async fn set_alias(netlink: &Netlink) {
    let change = Change::SetLinkAlias {
        name: "edge0".parse().unwrap(),
        alias: ALIAS.to_owned(),
    };
    netlink.apply(&change).await.unwrap();
}

#[test]
fn changed_configuration_leads_to_the_new_state_whatever_the_kernel_drops_by_itself() {
    in_namespace(|| async {
        let before = foreign();
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;

        // Another address in the same network: the last IPv4 address goes, and all IPv4 routes with it.
        let mut moved = desired();
        moved.addresses[0] = address("10.17.0.9/16");
        moved.routes[0].source = Some("10.17.0.9".parse().unwrap());
        moved.routes[1].source = Some("10.17.0.9".parse().unwrap());
        reconcile(&netlink, &moved).await;

        // A second one beside it is secondary; then the primary goes and would take it along.
        let mut both = moved.clone();
        both.addresses.push(address("10.17.0.10/16"));
        both.routes
            .push(route("10.18.0.0/16", 254, Some("10.17.0.10")));
        reconcile(&netlink, &both).await;
        let mut second = both.clone();
        second.addresses.remove(0);
        for route in &mut second.routes {
            if route.source.is_some_and(|source| source.is_ipv4()) {
                route.source = Some("10.17.0.10".parse().unwrap());
            }
        }
        reconcile(&netlink, &second).await;
        assert!(!ip("address show dev edge0").contains("10.17.0.9/"));

        // Another source for the same IPv6 route: the old one has to make room.
        second.addresses.push(address("fd17::2/64"));
        second.routes[4].source = Some("fd17::2".parse().unwrap());
        reconcile(&netlink, &second).await;

        // Nothing but the link.
        let mut bare = desired();
        bare.addresses.clear();
        bare.routes.clear();
        bare.rules.clear();
        reconcile(&netlink, &bare).await;
        let left = everything();
        for gone in ["10.17.", "10.18.", "fd17:", "51820"] {
            assert!(!left.contains(gone), "{gone} is left in\n{left}");
        }
        assert_eq!(foreign(), before);
    });
}

#[test]
fn renamed_interface_leaves_no_old_link_behind() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        let mut renamed = desired();
        let name: shared::model::InterfaceName = "edge0.100".parse().unwrap();
        renamed.links[0].name = name.clone();
        for address in &mut renamed.addresses {
            address.link = name.clone();
        }
        for route in &mut renamed.routes {
            route.link = name.clone();
        }
        renamed.sysctls[2] = switch(
            &["net", "ipv4", "conf", "edge0.100", "rp_filter"],
            "2",
            true,
        );
        let lines = reconcile(&netlink, &renamed).await;
        assert!(
            lines.contains(&"ip link delete dev edge0".to_owned()),
            "{lines:#?}"
        );
        let line = "sysctl -w net/ipv4/conf/edge0.100/rp_filter=2  # was 0";
        assert!(
            lines
                .iter()
                .any(|found| found == line || found == line.trim_end_matches("  # was 0")),
            "{lines:#?}"
        );
        assert!(!ip("-o link show").contains("edge0:"));
        netlink.remove_all(&renamed).await.unwrap();
    });
}

#[test]
fn two_links_have_each_their_own() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let mut two = desired();
        two.links.push(shared::plan::Link {
            name: "edge1".parse().unwrap(),
            ..two.links[0].clone()
        });
        two.addresses.push(shared::plan::Address {
            link: "edge1".parse().unwrap(),
            ..address("10.27.0.1/16")
        });
        two.routes.push(shared::plan::Route {
            link: "edge1".parse().unwrap(),
            ..route("0.0.0.0/0", TABLE + 1, None)
        });
        two.rules.push(shared::plan::RoutingRule {
            mark: 0x0200_0000,
            table: TABLE + 1,
            ..rule(false, 5183)
        });
        reconcile(&netlink, &two).await;
        assert!(ip("route show table 51821").starts_with("default dev edge1 proto 175"));
        // One of them is no longer wanted.
        reconcile(&netlink, &desired()).await;
        assert!(!everything().contains("edge1"));
        assert!(!ip("rule show").contains("5183:"));
    });
}

#[test]
fn both_daemons_live_on_one_machine() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let mut lan = desired();
        lan.protocol = shared::plan::desired::protocol::LAN_SERVER;
        lan.links[0].name = "edge9".parse().unwrap();
        lan.links[0].alias = "wg-edge lan-server".to_owned();
        lan.addresses = Vec::new();
        lan.routes = vec![shared::plan::Route {
            link: "edge9".parse().unwrap(),
            ..route("10.17.0.0/24", 254, None)
        }];
        lan.rules = vec![shared::plan::RoutingRule {
            table: 51_999,
            ..rule(false, 5190)
        }];
        lan.sysctls = Vec::new();
        reconcile(&netlink, &lan).await;
        let only_lan = everything();
        let mut gateway = desired();
        gateway.sysctls = Vec::new();
        reconcile(&netlink, &gateway).await;
        netlink.remove_all(&gateway).await.unwrap();
        assert_eq!(everything(), only_lan);
    });
}

#[test]
fn foreign_link_of_our_name_is_a_conflict_and_stays_as_it_is() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        ip("link add edge0 type veth peer name edge0-peer");
        ip("address add 10.55.0.1/24 dev edge0");
        ip("link set edge0 up");
        let before = ip("-d address show dev edge0");
        let mut wanted = desired();
        wanted.rules.clear();
        wanted.sysctls.retain(|sysctl| sysctl.of_our_link);
        let changes = difference(&wanted, &netlink.read(&wanted).await.unwrap());
        let [conflict @ Conflict::LinkTaken(link)] = changes.conflicts.as_slice() else {
            panic!("{changes:?}");
        };
        assert_eq!(link.kind, LinkKind::Other("veth".to_owned()));
        assert_eq!(
            conflict.to_string(),
            "the interface name edge0 is taken by a link that is not ours (kind veth, no alias): choose another \
             `interface` in [tunnel]"
        );
        assert!(changes.is_empty(), "{changes:?}");
        netlink.remove_all(&wanted).await.unwrap();
        let name = "edge0".parse().unwrap();
        let error = netlink.delete_link(&name, ALIAS).await.unwrap_err();
        assert!(matches!(error, ApplyError::NotOurLink { .. }), "{error}");
        assert_eq!(ip("-d address show dev edge0"), before);
    });
}

#[test]
fn tun_without_our_alias_is_not_removed() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        add_tun("edge0");
        netlink.remove_all(&desired()).await.unwrap();
        let name = "edge0".parse().unwrap();
        let error = netlink.delete_link(&name, ALIAS).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("it is not ours (kind tun, alias \"\")"),
            "{error}"
        );
        let info = netlink.link(&name).await.unwrap().unwrap();
        assert_eq!((info.link.kind, info.link.up), (LinkKind::Tun, false));
        ip("link delete edge0");
        ip("tuntap add dev edge0 mode tap");
        let info = netlink.link(&name).await.unwrap().unwrap();
        assert_eq!(info.link.kind, LinkKind::Other("tap".to_owned()));
        ip("link delete edge0");
        assert_eq!(netlink.link(&name).await.unwrap(), None);
        assert!(!netlink.delete_link(&name, ALIAS).await.unwrap());
    });
}

#[test]
fn foreign_route_to_our_destination_is_a_conflict_and_stays() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        ip("route delete 10.17.5.0/24 dev edge0");
        ip("route add 10.17.5.0/24 dev eth0 proto static");
        let changes = difference(&desired(), &netlink.read(&desired()).await.unwrap());
        assert!(changes.is_empty(), "{changes:?}");
        let [conflict] = changes.conflicts.as_slice() else {
            panic!("{changes:?}");
        };
        assert_eq!(
            conflict.to_string(),
            "10.17.5.0/24 can't be routed over edge0: there is already a route that is not ours, `10.17.5.0/24 dev eth0 \
             table 254 proto 4`; remove it with `ip route delete 10.17.5.0/24 dev eth0 table 254 proto 4`, or give it \
             another metric"
        );
        // Someone was faster than our reading.
        let late = Change::AddRoute {
            route: route("10.17.5.0/24", 254, Some("10.17.0.1")),
            protocol: 175,
        };
        let error = netlink.apply(&late).await.unwrap_err();
        assert!(matches!(error, ApplyError::RouteTaken { .. }), "{error}");
        assert!(ip("route show 10.17.5.0/24").contains("dev eth0 proto static"));
    });
}

#[test]
fn every_change_can_be_made_twice() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let changes = difference(&desired(), &netlink.read(&desired()).await.unwrap());
        add_tun("edge0");
        for change in changes
            .iter()
            .filter(|change| !matches!(change, Change::AddLink(_)))
        {
            netlink.apply(change).await.unwrap();
            netlink.apply(change).await.unwrap();
        }
        for change in removal(&desired(), &netlink.read(&desired()).await.unwrap()) {
            netlink.apply(&change).await.unwrap();
            netlink.apply(&change).await.unwrap();
        }
    });
}

#[test]
fn errors_name_the_change_and_the_kernels_reason() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let missing = netlink
            .apply(&Change::AddAddress(address("10.17.0.1/16")))
            .await
            .unwrap_err();
        assert_eq!(
            missing.to_string(),
            "`ip address add 10.17.0.1/16 dev edge0` failed: there is no link edge0; it is made when the tunnel starts"
        );
        add_tun("edge0");
        let route_while_down = Change::AddRoute {
            route: route("10.17.5.0/24", 254, None),
            protocol: 175,
        };
        let error = netlink.apply(&route_while_down).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ip route add 10.17.5.0/24 dev edge0 table 254 proto 175` failed: Network is down (os error 100): Device for \
             nexthop is not up; the link is down"
        );
        let mtu = Change::SetLinkMtu {
            name: "edge0".parse().unwrap(),
            mtu: 10,
            was: None,
        };
        let error = netlink.apply(&mtu).await.unwrap_err();
        assert!(
            error.to_string().contains("mtu less than device minimum"),
            "{error}"
        );
    });
}

#[test]
fn default_route_names_the_link_by_family_and_metric() {
    netns::run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            assert_eq!(netlink.default_route_link().await.unwrap(), None);
            for name in ["a0", "b0", "c0"] {
                ip(&format!("link add {name} type veth peer name {name}p"));
                ip(&format!("link set {name} up"));
                ip(&format!("link set {name}p up"));
            }
            ip("-6 route add default dev c0");
            let link = netlink.default_route_link().await.unwrap();
            assert_eq!(link, Some("c0".parse().unwrap()));
            ip("route add default dev a0 metric 200");
            ip("route add default dev b0 metric 100");
            ip("route add default dev c0 table 99");
            let link = netlink.default_route_link().await.unwrap();
            assert_eq!(link, Some("b0".parse().unwrap()));
            let local = netlink.local_addresses().await.unwrap();
            assert!(
                local
                    .iter()
                    .any(|local| local.address.is_loopback() && local.link == "lo")
            );
        });
    });
}

#[test]
fn watch_tells_of_changes_by_others() {
    in_namespace(|| async {
        let mut watch = Netlink::watch().unwrap();
        for (command, expected) in [
            ("link set eth0 mtu 1400", Event::Link),
            ("address add 192.0.2.11/24 dev eth0", Event::Address),
            ("route add 10.97.0.0/16 dev eth0", Event::Route),
            ("-6 route add 2001:db8:97::/48 dev eth0", Event::Route),
            ("rule add pref 2000 lookup 77", Event::Rule),
            ("-6 rule add pref 2000 lookup 77", Event::Rule),
        ] {
            ip(command);
            let found = tokio::time::timeout(Duration::from_secs(2), async {
                while watch.next().await != Some(expected) {}
            });
            assert!(found.await.is_ok(), "{command}: no {expected:?}");
        }
    });
}

#[test]
fn ten_thousand_routes_are_read_in_full() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        let batch: String = (0..10_000)
            .map(|n| {
                format!(
                    "route add 10.{}.{}.{}/32 dev edge0\n",
                    100 + n / 65_536,
                    n / 256 % 256,
                    n % 256
                )
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("batch");
        std::fs::write(&file, batch).unwrap();
        ip(&format!("-batch {}", file.display()));
        let actual = netlink.read(&desired()).await.unwrap();
        let foreign = actual.routes.iter().filter(|route| route.protocol == 3);
        assert_eq!(foreign.count(), 10_000);
        let changes = difference(&desired(), &actual);
        assert_eq!(changes.before_ruleset.len(), 10_000);
        assert_eq!(changes.after_ruleset, Changes::default().after_ruleset);
    });
}
