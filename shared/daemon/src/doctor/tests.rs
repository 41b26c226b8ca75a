//! Which of the hops that failed are named.
use super::*;

fn hop(kind: HopKind, of: &str, verdict: Verdict) -> Hop {
    Hop {
        verdict,
        ..hop::ok(kind, of, "")
    }
}

fn far_end() -> FarEnd {
    FarEnd {
        name: "home".to_owned(),
        addresses: vec!["10.17.0.2".parse().unwrap()],
        endpoint: None,
        networks: vec!["10.17.5.0/24".parse().unwrap()],
    }
}

/// Of all hops these fail: `(kind, of)`.
fn faults(is_gateway: bool, failed: &[(HopKind, &str)]) -> Vec<(HopKind, String)> {
    let far_end = far_end();
    let hops = |of: &str, kinds: &[HopKind]| -> Vec<Hop> {
        let verdict = |kind| {
            if failed.contains(&(kind, of)) {
                Verdict::Failed
            } else {
                Verdict::Warning
            }
        };
        kinds
            .iter()
            .map(|&kind| hop(kind, of, verdict(kind)))
            .collect()
    };
    let found = Found {
        is_gateway,
        host: hops("vps", &[HopKind::Daemon, HopKind::Uplink]),
        tunnels: vec![(&far_end, hops("home", &[HopKind::Session, HopKind::Ping]))],
        services: vec![Service {
            vip: "10.17.5.30".parse().unwrap(),
            hops: hops("ingress", &[HopKind::Firewall, HopKind::Route]),
            ports: vec![
                hops("ingress 80", &[HopKind::Connection, HopKind::Http]),
                hops("ingress 443", &[HopKind::Connection, HopKind::Tls]),
            ],
        }],
    };
    let diagnosis = found.diagnosis("gateway", Timestamp::UNIX_EPOCH, Duration::from_millis(7));
    assert_eq!(diagnosis.hops.len(), 10);
    assert_eq!(diagnosis.took_milliseconds, 7);
    let expected = if failed.is_empty() {
        Verdict::Warning
    } else {
        Verdict::Failed
    };
    assert_eq!(diagnosis.verdict, expected);
    let faults = diagnosis.faults.into_iter();
    faults.map(|fault| (fault.hop, fault.of)).collect()
}

#[test]
fn the_first_hop_that_fails_is_the_fault_of_all_behind_it() {
    let (uplink, session) = ((HopKind::Uplink, "vps"), (HopKind::Session, "home"));
    let (ping, firewall) = ((HopKind::Ping, "home"), (HopKind::Firewall, "ingress"));
    let connection = (HopKind::Connection, "ingress 80");
    let tls = (HopKind::Tls, "ingress 443");
    for (failed, of_gateway, of_lan_server) in [
        (vec![], vec![], vec![]),
        (vec![uplink, session, tls], vec![uplink], vec![uplink]),
        (vec![session, ping], vec![session], vec![session]),
        // What is behind the tunnel does not work for the gateway; the LAN end sees for itself.
        (vec![ping, firewall], vec![ping], vec![ping, firewall]),
        (vec![firewall, connection], vec![firewall], vec![firewall]),
        (
            vec![connection, tls],
            vec![connection, tls],
            vec![connection, tls],
        ),
    ] {
        let named = |hops: &[(HopKind, &str)]| -> Vec<(HopKind, String)> {
            hops.iter()
                .map(|&(kind, of)| (kind, of.to_owned()))
                .collect()
        };
        assert_eq!(faults(true, &failed), named(&of_gateway), "{failed:?}");
        assert_eq!(faults(false, &failed), named(&of_lan_server), "{failed:?}");
    }
}

#[test]
fn a_diagnosis_ends_with_what_is_broken_and_what_puts_it_right() {
    let text = render(&not_running("gateway", "nobody listens"), false);
    assert!(
        text.ends_with(
            "\nbroken: daemon of gateway\n  nobody listens\n  -> start it (`systemctl start wg-edge-gateway`); why it ended is \
             in its log (`journalctl -u wg-edge-gateway`)\n"
        ),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");
    let coloured = render(&not_running("gateway", "nobody listens"), true);
    assert!(coloured.contains("\x1b[31mfailed"), "{coloured}");
}
