use jiff::Timestamp;
use shared::api::diagnosis::HopKind;

use super::*;

fn hop(kind: HopKind, verdict: Verdict, cloudflare_error: Option<u16>) -> Hop {
    Hop {
        hop: kind,
        of: "ingress".to_owned(),
        verdict,
        milliseconds: None,
        evidence: "seen".to_owned(),
        remedy: None,
        cloudflare_error,
    }
}

fn diagnosis(hops: &[Hop]) -> Diagnosis {
    let failed = |hop: &&Hop| hop.verdict == Verdict::Failed;
    Diagnosis {
        end: "gateway".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        took_milliseconds: 0,
        verdict: Verdict::Ok,
        faults: hops.iter().filter(failed).cloned().collect(),
        hops: hops.to_vec(),
    }
}

fn window(outages: &[(&str, &str)], counted: &[(&str, u64)]) -> Window {
    let outages = outages.iter().map(|&(of, why)| Outage {
        of: of.to_owned(),
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::from_second(70).unwrap(),
        why: why.to_owned(),
    });
    Window {
        minutes: 10,
        outages: outages.collect(),
        counted: counted
            .iter()
            .map(|&(name, count)| (name.to_owned(), count))
            .collect(),
    }
}

/// `likelihood what`, without what can't be seen from here.
fn causes(number: u16, hops: &[Hop], window: &Window) -> Vec<String> {
    let explanation = explain(number.try_into().unwrap(), &diagnosis(hops), window);
    assert_eq!(explanation.error.number(), number);
    let causes = explanation.causes.iter();
    assert!(causes.clone().is_sorted_by_key(|cause| cause.likelihood));
    let here = causes.filter(|cause| cause.likelihood != Likelihood::Elsewhere);
    here.map(|cause| format!("{} {}", cause.likelihood.name(), cause.what))
        .collect()
}

#[test]
fn what_leads_to_just_this_error_stands_before_what_else_is_wrong() {
    let refused = hop(HopKind::Connection, Verdict::Failed, Some(521));
    let expired = hop(HopKind::Tls, Verdict::Failed, Some(526));
    let nothing = window(&[], &[("connections ingress", 3)]);
    assert_eq!(
        causes(526, &[refused.clone(), expired.clone()], &nothing),
        [
            "now tls of ingress does not work",
            "possible connection of ingress does not work"
        ]
    );
    assert_eq!(
        causes(521, &[refused, expired], &nothing),
        [
            "now connection of ingress does not work",
            "possible tls of ingress does not work"
        ]
    );
    // Full takes it, Full (strict) does not.
    let untrusted = hop(HopKind::Tls, Verdict::Warning, Some(526));
    assert_eq!(
        causes(526, &[untrusted], &nothing),
        ["now tls of ingress does not work for everybody"]
    );
}

#[test]
fn what_is_over_was_seen_lately() {
    let down = (
        "ingress 10.17.5.30:443",
        "connection refused: nobody listens there",
    );
    let cut = ("the tunnel to home", "there was no session");
    let lately = window(&[cut, down], &[("connections ingress", 3)]);
    let (tunnel, service) = (
        "the tunnel to home did not work",
        "ingress 10.17.5.30:443 did not work",
    );
    for (number, tunnel_is, service_is) in [
        (520, "lately", "possible"),
        (521, "possible", "lately"),
        (522, "lately", "possible"),
        (526, "possible", "possible"),
    ] {
        let causes = causes(number, &[], &lately);
        assert_eq!(causes.len(), 2, "{causes:?}");
        assert!(
            causes.contains(&format!("{tunnel_is} {tunnel}")),
            "{number}: {causes:?}"
        );
        assert!(
            causes.contains(&format!("{service_is} {service}")),
            "{number}: {causes:?}"
        );
    }
}

#[test]
fn where_nobody_came_the_fault_lies_before_this_host() {
    let nobody = "lately Cloudflare's connections do not come as far as this host";
    assert_eq!(causes(523, &[], &window(&[], &[])), [nobody]);
    assert_eq!(causes(526, &[], &window(&[], &[])), [""; 0]);
    // A daemon that was just started knows of no last minutes.
    assert_eq!(causes(523, &[], &Window::default()), [""; 0]);
}

#[test]
fn what_was_refused_and_dropped_is_told_but_for_noise() {
    let counted = [
        ("connections ingress", 1),
        ("refused guard_ipv4", 7),
        ("dropped no_session", 2),
        ("dropped unknown_peer", 90),
    ];
    let window = window(&[], &counted);
    assert_eq!(
        causes(522, &[], &window),
        [
            "possible the guard refuses addresses of Cloudflare's that it does not know",
            "possible the tunnel drops packets"
        ]
    );
    assert_eq!(
        causes(524, &[], &window),
        ["possible the tunnel drops packets"]
    );
    let explanation = explain(524.try_into().unwrap(), &diagnosis(&[]), &window);
    let text = render(&explanation, false);
    assert!(
        text.starts_with("error 524: the origin took the request"),
        "{text}"
    );
    assert!(text.contains("\n\npossible\n  the tunnel drops packets\n    in the last 10 minutes, by reason: no_session: 2\n"), "{text}");
    assert!(
        text.contains("\n\nelsewhere\n  the application is slow\n"),
        "{text}"
    );
}
