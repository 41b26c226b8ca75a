//! What is wanted stands in the kernel, whatever was there before.
use std::process::Command;

use shared::plan::{Address, Change, Changes, Link, Route, RoutingRule, difference, removal};
use shared_os::netlink::Netlink;
use shared_os::sysctl;

use crate::world::{
    ALIAS, TABLE, address, desired, everything, foreign, in_namespace, ip, reconcile, route, rule,
    switch,
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

/// Each thing of ours that is deleted or changed comes back by one difference.
#[test]
fn any_single_drift_is_healed() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        for drift in [
            "link set dev edge0 mtu 1300",
            "link set dev edge0 txqueuelen 500",
            "link set dev edge0 down",
            "link delete dev edge0",
            "address delete 10.17.0.1/16 dev edge0",
            "address delete fd17::1/64 dev edge0",
            "address add 10.66.0.1/24 dev edge0",
            "address add 10.17.0.66/16 dev edge0",
            "address add fd66::1/64 dev edge0",
            "address flush dev edge0",
            "route delete 10.17.0.0/16 dev edge0",
            "route delete 10.17.5.0/24 dev edge0",
            "route delete default dev edge0 table 51820",
            "-6 route delete fd17:5::/64 dev edge0",
            "route change 10.17.5.0/24 dev edge0 proto 175", // without its source
            "route replace default dev eth0 table 51820",
            "route add 10.67.0.0/24 dev edge0",
            "-6 route add fd67::/64 dev edge0",
            "route add blackhole 10.68.0.0/24 table 51820",
            "-6 route add unreachable fd68::/64 table 51820",
            "route add 10.68.1.0/24 table 51820 nexthop dev edge0 nexthop dev eth0",
            "-6 route add fd69::/64 table 51820 nexthop via fd17::9 dev edge0 nexthop via 2001:db8::9 dev eth0",
            "route add 10.69.0.0/24 tos 0x10 dev edge0 metric 50",
            "route flush dev edge0",
            "rule delete pref 5182",
            "-6 rule delete pref 5182",
            "rule add pref 5000 fwmark 0x2/0xff lookup 51820",
            "rule add pref 5182 from 10.17.0.0/16 lookup 51820",
            "-6 rule add pref 5001 iif eth0 lookup 51820",
        ] {
            let before = foreign();
            ip(drift);
            let lines = reconcile(&netlink, &desired()).await;
            assert!(!lines.is_empty(), "`ip {drift}` was not noticed");
            assert_eq!(foreign(), before, "`ip {drift}`");
        }
    });
}

#[test]
fn switch_that_others_set_is_set_back() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let lines = reconcile(&netlink, &desired()).await;
        assert_eq!(lines, ["sysctl -w net.ipv4.ip_forward=1  # was 0"]);
    });
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
        // The kernel is late at times with the anycast address of a network that is gone.
        let everything = everything();
        let left: Vec<_> = everything
            .lines()
            .filter(|line| !line.contains("anycast"))
            .collect();
        let left = left.join("\n");
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
        let line = "sysctl -w net/ipv4/conf/edge0.100/rp_filter=2".to_owned();
        assert!(lines.contains(&line), "{lines:#?}");
        assert!(!ip("-o link show").contains("edge0:"));
        netlink.remove_all(&renamed).await.unwrap();
    });
}

#[test]
fn two_links_have_each_their_own() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let mut two = desired();
        two.links.push(Link {
            name: "edge1".parse().unwrap(),
            ..two.links[0].clone()
        });
        two.addresses.push(Address {
            link: "edge1".parse().unwrap(),
            ..address("10.27.0.1/16")
        });
        two.routes.push(Route {
            link: "edge1".parse().unwrap(),
            ..route("0.0.0.0/0", TABLE + 1, None)
        });
        two.rules.push(RoutingRule {
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
fn printed_commands_do_what_they_say() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let first = difference(&desired(), &netlink.read(&desired()).await.unwrap());
        first.iter().for_each(run);
        let mut other = desired();
        other.links[0].mtu = 1400;
        other.addresses[0] = address("10.17.0.9/24");
        other.routes = vec![route("10.17.5.0/24", 254, None), route("::/0", TABLE, None)];
        other.rules = vec![rule(true, 5190)];
        for wanted in [desired(), other] {
            let changes = difference(&wanted, &netlink.read(&wanted).await.unwrap());
            changes.iter().for_each(run);
            let again = difference(&wanted, &netlink.read(&wanted).await.unwrap());
            assert_eq!(again, Changes::default());
        }
        let all = removal(&desired(), &netlink.read(&desired()).await.unwrap());
        all.iter().for_each(run);
        assert_eq!(
            removal(&desired(), &netlink.read(&desired()).await.unwrap()),
            []
        );
    });
}

/// The line as an operator would paste it; sysctl(8) alone is not asked for, since small systems lack it.
fn run(change: &Change) {
    if let Change::SetSysctl { sysctl, .. } = change {
        return sysctl::write(&sysctl.path, &sysctl.value).unwrap();
    }
    let output = Command::new("sh")
        .args(["-c", &change.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{change}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
