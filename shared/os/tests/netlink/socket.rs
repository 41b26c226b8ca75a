//! The socket itself: requests, answers, errors, notifications.
use std::process::Command;
use std::time::Duration;

use shared::plan::{Change, difference, removal};
use shared_os::netlink::{Netlink, Noun};
use shared_os::{netns, process};

use crate::world::{add_tun, address, desired, in_namespace, ip, reconcile, route};

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
            ("link set eth0 mtu 1400", Noun::Link),
            ("address add 192.0.2.11/24 dev eth0", Noun::Address),
            ("route add 10.97.0.0/16 dev eth0", Noun::Route),
            ("-6 route add 2001:db8:97::/48 dev eth0", Noun::Route),
            ("rule add pref 2000 lookup 77", Noun::Rule),
            ("-6 rule add pref 2000 lookup 77", Noun::Rule),
        ] {
            ip(command);
            let found = tokio::time::timeout(Duration::from_secs(2), async {
                while watch.next().await.map(|event| event.noun) != Some(expected) {}
            });
            assert!(found.await.is_ok(), "{command}: no {expected:?}");
        }
    });
}

#[test]
fn watch_tells_who_it_was_and_what_has_come_already() {
    in_namespace(|| async {
        let mut watch = Netlink::watch().unwrap();
        assert_eq!(watch.try_next(), None);
        let mut command = Command::new("ip");
        command.args(["address", "add", "192.0.2.11/24", "dev", "eth0"]);
        let mut process = command.spawn().unwrap();
        let port = process.id();
        assert!(process.wait().unwrap().success());
        let found = tokio::time::timeout(Duration::from_secs(2), watch.next());
        let found = found.await.unwrap().unwrap();
        assert_eq!(found.port, port);
        // The address and its routes have come with it, and then there is no more.
        let rest = std::iter::from_fn(|| watch.try_next()).count();
        assert!((1..10).contains(&rest), "{rest}");
    });
}

#[test]
fn ten_thousand_routes_are_read_in_full() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        let batch: Vec<String> = (0..10_000)
            .map(|n| {
                format!(
                    "route add 10.{}.{}.{}/32 dev edge0",
                    100 + n / 65_536,
                    n / 256 % 256,
                    n % 256
                )
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("batch");
        std::fs::write(&file, batch.join("\n")).unwrap();
        ip(&format!("-batch {}", file.display()));
        let actual = netlink.read(&desired()).await.unwrap();
        let foreign = actual.routes.iter().filter(|route| route.protocol == 3);
        assert_eq!(foreign.count(), 10_000);
        let changes = difference(&desired(), &actual);
        assert_eq!(changes.before_ruleset.len(), 10_000);
        assert_eq!(changes.after_ruleset, []);
    });
}

#[test]
fn ipv6_that_is_switched_off_is_named() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        add_tun("edge0");
        std::fs::write("/proc/sys/net/ipv6/conf/edge0/disable_ipv6", "1").unwrap();
        let add = Change::AddAddress(address("fd17::1/64"));
        let error = netlink.apply(&add).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("IPv6 is disabled on this device"), "{text}");
        assert!(text.contains("switch IPv6 on with `sysctl -w "), "{text}");
        assert!(!text.contains("privilege"), "{text}");
    });
}

/// Runs itself again in the same namespace, as root without `CAP_NET_ADMIN`.
#[test]
fn missing_privilege_is_named_and_reading_needs_none() {
    const INNER: &str = "WG_EDGE_TEST_WITHOUT_NET_ADMIN";
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(without_net_admin());
    }
    in_namespace(|| async {
        let output = Command::new("setpriv")
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "socket::missing_privilege_is_named_and_reading_needs_none",
            ])
            .env(INNER, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    });
}

async fn without_net_admin() {
    let missing = process::require_net_admin().unwrap_err();
    assert!(missing.to_string().contains("CAP_NET_ADMIN"), "{missing}");
    let netlink = Netlink::open().unwrap();
    let name = "eth0".parse().unwrap();
    assert!(netlink.link(&name).await.unwrap().is_some());
    let error = netlink
        .apply(&Change::SetLinkUp { name })
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`ip link set dev eth0 up` failed: Operation not permitted (os error 1); missing privilege: run as root or with \
         the capability CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
    );
}
