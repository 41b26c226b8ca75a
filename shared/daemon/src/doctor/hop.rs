//! How a hop is told.
use std::time::Duration;

use jiff::Timestamp;
use shared::api::diagnosis::{Diagnosis, Hop, HopKind, Verdict};

/// It works.
pub(super) fn ok(hop: HopKind, of: &str, evidence: impl Into<String>) -> Hop {
    Hop {
        hop,
        of: of.to_owned(),
        verdict: Verdict::Ok,
        milliseconds: None,
        evidence: evidence.into(),
        remedy: None,
        cloudflare_error: None,
    }
}

/// It was not looked at, and why.
pub(super) fn skipped(hop: HopKind, of: &str, why: impl Into<String>) -> Hop {
    Hop {
        verdict: Verdict::Skipped,
        ..ok(hop, of, why)
    }
}

/// It works, but.
pub(super) fn warning(
    hop: HopKind,
    of: &str,
    evidence: impl Into<String>,
    remedy: impl Into<String>,
) -> Hop {
    Hop {
        verdict: Verdict::Warning,
        remedy: Some(remedy.into()),
        cloudflare_error: Some(error_of(hop)),
        ..ok(hop, of, evidence)
    }
}

/// It does not work.
pub(super) fn failed(
    hop: HopKind,
    of: &str,
    evidence: impl Into<String>,
    remedy: impl Into<String>,
) -> Hop {
    Hop {
        verdict: Verdict::Failed,
        ..warning(hop, of, evidence, remedy)
    }
}

/// What Cloudflare makes of it as a rule: nothing answers its SYN (522), TLS or HTTP fail.
const fn error_of(hop: HopKind) -> u16 {
    match hop {
        HopKind::Daemon
        | HopKind::Kernel
        | HopKind::Uplink
        | HopKind::Datagrams
        | HopKind::Session
        | HopKind::Ping
        | HopKind::PathMtu
        | HopKind::Guard
        | HopKind::Translation
        | HopKind::Firewall
        | HopKind::Route
        | HopKind::Connection
        | HopKind::Reply => 522,
        HopKind::Tls => 525,
        HopKind::Http => 520,
    }
}

/// The same hop, of which Cloudflare makes something else.
pub(super) fn shown_as(hop: Hop, cloudflare_error: Option<u16>) -> Hop {
    Hop {
        cloudflare_error,
        ..hop
    }
}

/// How long it took.
pub(super) fn timed(hop: Hop, took: Duration) -> Hop {
    Hop {
        milliseconds: Some(milliseconds(took)),
        ..hop
    }
}

pub(super) fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// What there is to say without a daemon: everything else depends on it.
pub fn not_running(end: &str, why: &str) -> Diagnosis {
    let remedy = format!(
        "start it (`systemctl start wg-edge-{end}`); why it ended is in its log (`journalctl -u wg-edge-{end}`)"
    );
    let fault = failed(HopKind::Daemon, end, why, remedy);
    Diagnosis {
        end: end.to_owned(),
        at: Timestamp::now(),
        took_milliseconds: 0,
        verdict: Verdict::Failed,
        faults: vec![fault.clone()],
        hops: vec![fault],
    }
}
