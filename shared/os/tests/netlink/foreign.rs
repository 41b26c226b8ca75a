//! What is not ours stays as it is.
use shared::plan::desired::protocol;
use shared::plan::{Change, Conflict, LinkKind, Route, RoutingRule, difference};
use shared_os::netlink::{ApplyError, Netlink};
use shared_os::sysctl::{Remembered, Restored};

use crate::world::{ALIAS, add_tun, desired, everything, in_namespace, ip, reconcile, route, rule};

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

#[test]
fn both_daemons_live_on_one_machine() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let mut lan = desired();
        lan.protocol = protocol::LAN_SERVER;
        lan.links[0].name = "edge9".parse().unwrap();
        lan.links[0].alias = "wg-edge lan-server".to_owned();
        lan.addresses = Vec::new();
        lan.routes = vec![Route {
            link: "edge9".parse().unwrap(),
            ..route("10.17.0.0/24", 254, None)
        }];
        lan.rules = vec![RoutingRule {
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
fn link_with_anothers_alias_is_foreign() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        reconcile(&netlink, &desired()).await;
        ip("link set dev edge0 alias theirs");
        let changes = difference(&desired(), &netlink.read(&desired()).await.unwrap());
        let [conflict] = changes.conflicts.as_slice() else {
            panic!("{changes:?}");
        };
        assert_eq!(
            conflict.to_string(),
            "the interface name edge0 is taken by a link that is not ours (kind tun, alias \"theirs\"): choose another \
             `interface` in [tunnel], or remove it with `ip link delete dev edge0`"
        );
    });
}
