//! Packets through it.
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::uapi::tests::is_unprivileged_run;

use super::world::{Device, Engine, Namespace, Pair, eventually, run};

/// Every combination of which A, the initiator, comes first.
const COMBINATIONS: [(Engine, Engine); 3] = [
    (Engine::Ours, Engine::Ours),
    (Engine::Ours, Engine::WireguardGo),
    (Engine::WireguardGo, Engine::Ours),
];

#[test]
fn pings_cross_between_ours_and_wireguard_go_whoever_begins() {
    if is_unprivileged_run() {
        return;
    }
    for (a, b) in COMBINATIONS {
        let pair = Pair::new(a, b);
        pair.introduce();
        pair.at_a.must_ping("10.9.0.2");
        pair.at_b.must_ping("10.9.0.1");
        for device in [&pair.a, &pair.b] {
            assert!(device.number("latest-handshakes") > 0, "{a:?} → {b:?}");
        }
        // The responder learned where the initiator is.
        assert!(pair.b.show("endpoints").contains("192.0.2.1:1001"));
        // Both count the same bytes: handshakes, padding and all.
        eventually("counters agree", || {
            pair.a.number("transfer") == pair.b.number("transfer")
        });
    }
}

#[test]
fn a_preshared_key_must_be_on_both_sides() {
    if is_unprivileged_run() {
        return;
    }
    for (a, b) in COMBINATIONS {
        let pair = Pair::new(a, b);
        pair.introduce();
        let key = pair.a.file(&run(&["wg", "genpsk"]));
        pair.a
            .set(&format!("peer {} preshared-key {key}", pair.b.public_key));
        assert!(!pair.at_a.pings("10.9.0.2", 3), "{a:?} → {b:?}");
        pair.b
            .set(&format!("peer {} preshared-key {key}", pair.a.public_key));
        pair.at_a.must_ping("10.9.0.2");
    }
}

#[test]
fn a_new_private_key_is_a_new_identity() {
    if is_unprivileged_run() {
        return;
    }
    for (a, b) in COMBINATIONS {
        let mut pair = Pair::new(a, b);
        pair.introduce();
        pair.at_a.must_ping("10.9.0.2");
        let old = pair.b.public_key.clone();
        pair.b.set_new_key();
        assert_ne!(pair.b.public_key, old);
        pair.a.set(&format!("peer {old} remove"));
        assert!(!pair.at_a.pings("10.9.0.2", 2), "{a:?} → {b:?}");
        pair.introduce();
        pair.at_a.must_ping("10.9.0.2");
    }
}

#[test]
fn a_removed_peer_is_cut_off_and_can_come_back() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    pair.at_a.must_ping("10.9.0.2");
    pair.b.set(&format!("peer {} remove", pair.a.public_key));
    assert_eq!(pair.b.show("peers"), "");
    assert!(!pair.at_a.pings("10.9.0.2", 3));
    // A holds a session that B has forgotten: begin anew.
    pair.a.set(&format!("peer {} remove", pair.b.public_key));
    pair.introduce();
    pair.at_a.must_ping("10.9.0.2");
}

#[test]
fn setting_what_is_set_keeps_the_session() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    pair.at_a.must_ping("10.9.0.2");
    let before = pair.a.number("latest-handshakes");
    std::thread::sleep(Duration::from_millis(1_100)); // a new handshake would have another second
    let configuration = run(&["wg", "showconf", &pair.a.interface]);
    let file = pair.a.file(&configuration);
    for verb in ["syncconf", "setconf"] {
        run(&["wg", verb, &pair.a.interface, &file]);
        assert!(pair.at_a.pings("10.9.0.2", 2), "{verb}");
        let after = pair.a.number("latest-handshakes");
        assert!(after.abs_diff(before) <= 1, "{verb}: {before} and {after}");
    }
}

#[test]
fn another_listen_port_keeps_the_session() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    pair.at_a.must_ping("10.9.0.2");
    pair.a.set("listen-port 3000");
    pair.at_a.must_ping("10.9.0.2");
    eventually("B follows", || {
        pair.b.show("endpoints").contains("192.0.2.1:3000")
    });
}

/// ```text
///            ┌── wan  192.0.2.2 ── B 10.9.0.2
///   A ───────┤
///            └── wan2 192.0.2.3 ── C 10.9.0.2
/// ```
#[test]
fn an_allowed_ip_moves_from_peer_to_peer_and_takes_the_traffic_along() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    let at_c = Namespace::new();
    pair.at_a.join("wan2", 4, &at_c, 3);
    pair.at_a
        .ip("route add 192.0.2.3/32 dev wan2 src 192.0.2.4");
    let mut c = Device::start(Engine::Ours, &at_c);
    c.set_new_key();
    c.set(&format!(
        "listen-port 1003 peer {} allowed-ips 10.9.0.1/32",
        pair.a.public_key
    ));
    at_c.ip(&format!("address add 10.9.0.2/24 dev {}", c.interface));
    at_c.ip(&format!("link set {} up", c.interface));
    pair.at_a.must_ping("10.9.0.2");
    let at_b = pair.b.number("transfer");

    pair.a.set(&format!(
        "peer {} endpoint 192.0.2.3:1003 allowed-ips 10.9.0.2/32",
        c.public_key
    ));
    pair.at_a.must_ping("10.9.0.2");
    assert!(c.number("transfer") > 0);
    assert!(
        pair.b.number("transfer") - at_b < 100,
        "B still gets packets"
    );
    let shown = pair.a.show("allowed-ips");
    assert!(
        shown.contains(&format!("{}\t(none)", pair.b.public_key)),
        "{shown}"
    );
}

/// The sockets stay where the device was started (<https://www.wireguard.com/netns/>): A reaches B through the first
/// namespace, while its link is in one without any other.
#[test]
fn a_link_that_moves_to_another_namespace_leaves_its_sockets_behind() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    let inner = Namespace::new();
    let link = &pair.a.interface;
    pair.at_a
        .ip(&format!("link set {link} netns {}", inner.name));
    inner.ip(&format!("address add 10.9.0.1/24 dev {link}"));
    inner.ip(&format!("link set {link} up"));
    inner.must_ping("10.9.0.2");
    pair.at_b.must_ping("10.9.0.1");
}

#[test]
fn sixty_five_thousand_allowed_ips_are_taken_and_told_in_seconds() {
    if is_unprivileged_run() {
        return;
    }
    let pair = Pair::new(Engine::Ours, Engine::Ours);
    pair.introduce();
    let mut text = format!("[Peer]\nPublicKey = {}\n", pair.b.public_key);
    writeln!(text, "AllowedIPs = 10.9.0.2/32").unwrap();
    for n in 0..=u16::MAX {
        let [high, low] = n.to_be_bytes();
        writeln!(text, "AllowedIPs = 10.10.{high}.{low}/32").unwrap();
    }
    let file = pair.a.file(&text);
    let start = Instant::now();
    run(&["wg", "addconf", &pair.a.interface, &file]);
    let shown = pair.a.show("allowed-ips");
    assert_eq!(shown.split(' ').count(), 65_537);
    assert!(start.elapsed() < Duration::from_secs(10));
    pair.at_a.must_ping("10.9.0.2");
}
