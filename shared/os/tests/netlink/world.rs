//! A fresh network namespace with foreign things in it, and what we want there.
use std::process::Command;
use std::thread;
use std::time::Duration;

use shared::plan::desired::protocol;
use shared::plan::{
    Address, Change, Changes, Desired, Link, Route, RoutingRule, Ruleset, Sysctl, difference,
};
use shared_os::netlink::Netlink;
use shared_os::netns;

pub(crate) const ALIAS: &str = "wg-edge gateway";
pub(crate) const TABLE: u32 = 51_820;

/// Runs an async test in a namespace of its own.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    netns::run(|| {
        // So that the foreign links don't change by themselves while duplicate address detection goes on.
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        for line in [
            "link add eth0 type veth peer name peer0",
            "link set eth0 up",
            "link set peer0 up",
            "address add 192.0.2.10/24 dev eth0",
            "address add 2001:db8::10/64 dev eth0 nodad",
            "route add default via 192.0.2.1 dev eth0",
            "route add 10.99.0.0/16 via 192.0.2.1 dev eth0",
            "route add 10.98.0.0/16 dev eth0 table 77 proto static",
            "-6 route add 2001:db8:99::/48 dev eth0",
            "rule add pref 1000 fwmark 0x1/0xff lookup 77",
            "-6 rule add pref 1001 from 2001:db8::/64 lookup 77",
        ] {
            ip(line);
        }
        settle();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
}

/// Waits until the foreign links no longer change by themselves: both have carrier and their link-local address.
fn settle() {
    for _ in 0..500 {
        let addresses = ip("-6 -o address show scope link");
        let links_are_up = !ip("-o link show type veth").contains("LOWERLAYERDOWN");
        if links_are_up && addresses.lines().count() == 2 && !addresses.contains("tentative") {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the foreign links don't come up:\n{}", everything());
}

/// `ip ARGUMENTS`, which must succeed; what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Everything there is, as the kernel lists it.
pub(crate) fn everything() -> String {
    [
        "-o link show",
        "-o address show",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
    ]
    .map(ip)
    .concat()
}

/// Everything foreign: what names neither our link nor our table. Switching forwarding on gives every link anycast
/// addresses (RFC 4291 §2.6.1), which go when it is switched off.
pub(crate) fn foreign() -> String {
    let ours = |line: &&str| {
        let words = ["edge", "51820", "anycast"];
        words.iter().any(|word| line.contains(word))
    };
    let everything = everything();
    let lines: Vec<_> = everything.lines().filter(|line| !ours(line)).collect();
    lines.join(
        "
",
    )
}

/// What the data path does.
pub(crate) fn add_tun(name: &str) {
    ip(&format!("tuntap add dev {name} mode tun"));
}

pub(crate) fn address(address: &str) -> Address {
    let (address, prefix_len) = address.split_once('/').unwrap();
    Address {
        link: "edge0".parse().unwrap(),
        address: address.parse().unwrap(),
        prefix_len: prefix_len.parse().unwrap(),
    }
}

pub(crate) fn route(destination: &str, table: u32, source: Option<&str>) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        link: "edge0".parse().unwrap(),
        table,
        source: source.map(|source| source.parse().unwrap()),
    }
}

pub(crate) fn rule(ipv6: bool, priority: u32) -> RoutingRule {
    RoutingRule {
        ipv6,
        priority,
        mark: 0x0100_0000,
        mask: 0x3f00_0000,
        table: TABLE,
    }
}

pub(crate) fn switch(path: &[&str], value: &str, of_our_link: bool) -> Sysctl {
    Sysctl {
        path: path.iter().map(ToString::to_string).collect(),
        value: value.to_owned(),
        of_our_link,
    }
}

/// One of everything, both families.
pub(crate) fn desired() -> Desired {
    Desired {
        protocol: protocol::GATEWAY,
        links: vec![Link {
            name: "edge0".parse().unwrap(),
            alias: ALIAS.to_owned(),
            mtu: 1420,
            txqueuelen: 64,
        }],
        addresses: vec![address("10.17.0.1/16"), address("fd17::1/64")],
        routes: vec![
            route("10.17.0.0/16", 254, Some("10.17.0.1")),
            route("10.17.5.0/24", 254, Some("10.17.0.1")),
            route("10.17.5.30/32", 254, None),
            route("0.0.0.0/0", TABLE, None),
            route("fd17:5::/64", 254, Some("fd17::1")),
            route("::/0", TABLE, None),
        ],
        rules: vec![rule(false, 5182), rule(true, 5182)],
        sysctls: vec![
            switch(&["net", "ipv4", "ip_forward"], "1", false),
            switch(&["net", "ipv6", "conf", "all", "forwarding"], "1", false),
            switch(&["net", "ipv4", "conf", "edge0", "rp_filter"], "2", true),
        ],
        ruleset: Ruleset {
            table: "wg_edge".to_owned(),
            sets: Vec::new(),
            maps: Vec::new(),
            chains: Vec::new(),
        },
    }
}

/// Applies the difference and asserts that nothing is left to do. Returns what was applied as lines.
pub(crate) async fn reconcile(netlink: &Netlink, desired: &Desired) -> Vec<String> {
    let changes = difference(desired, &netlink.read(desired).await.unwrap());
    assert_eq!(changes.conflicts, []);
    let mut lines = Vec::new();
    for change in changes.iter() {
        lines.push(change.to_string());
        if let Change::AddLink(link) = change {
            add_tun(link.name.as_str());
        } else {
            netlink.apply(change).await.unwrap();
        }
    }
    let again = difference(desired, &netlink.read(desired).await.unwrap());
    assert_eq!(again, Changes::default(), "after {lines:#?}");
    lines
}
