//! What an error of Cloudflare's most likely comes from: what the doctor finds now, what was seen lately, and what can't be seen from
//! here. Pure.
mod elsewhere;
mod render;

#[cfg(test)]
mod tests;

use shared::api::diagnosis::{Diagnosis, Hop, HopKind, Verdict};
use shared::api::explanation::{Cause, Explanation, Likelihood, OriginError};

use crate::history::{Outage, Window};

pub use render::render;

/// Packets that the tunnel drops because of others' noise: no visitor's.
const NOISE: [&str; 7] = [
    "not_wireguard",
    "malformed_packet",
    "invalid_mac1",
    "unknown_peer",
    "replayed_initiation",
    "unexpected_answer",
    "unknown_receiver",
];

/// Causes, the likeliest first.
pub fn explain(error: OriginError, diagnosis: &Diagnosis, window: &Window) -> Explanation {
    let number = error.number();
    let mut causes: Vec<Cause> = diagnosis
        .faults
        .iter()
        .map(|hop| of_hop(hop, number))
        .collect();
    let warnings = diagnosis
        .hops
        .iter()
        .filter(|hop| hop.verdict == Verdict::Warning && hop.cloudflare_error == Some(number));
    causes.extend(warnings.map(of_warning));
    causes.extend(
        window
            .outages
            .iter()
            .map(|outage| of_outage(outage, number)),
    );
    causes.extend(silence(diagnosis, window, number));
    causes.extend(refusals(window, number));
    causes.extend(drops(window));
    causes.extend(elsewhere::causes(number));
    // Stable: what was found first in each class stays first.
    causes.sort_by_key(|cause| cause.likelihood);
    Explanation {
        error,
        means: elsewhere::meaning(number).to_owned(),
        end: diagnosis.end.clone(),
        minutes: window.minutes,
        causes,
    }
}

fn of_hop(hop: &Hop, number: u16) -> Cause {
    let likelihood = if hop.cloudflare_error == Some(number) {
        Likelihood::Now
    } else {
        Likelihood::Possible
    };
    Cause {
        likelihood,
        what: format!("{} of {} does not work", hop.hop.name(), hop.of),
        evidence: hop.evidence.clone(),
        remedy: hop.remedy.clone(),
    }
}

fn of_warning(hop: &Hop) -> Cause {
    // Who sees this error has a zone that is strict about certificates; of other hops it is not known whom they concern.
    let likelihood = if hop.hop == HopKind::Tls {
        Likelihood::Now
    } else {
        Likelihood::Possible
    };
    Cause {
        likelihood,
        what: format!(
            "{} of {} does not work for everybody",
            hop.hop.name(),
            hop.of
        ),
        evidence: hop.evidence.clone(),
        remedy: hop.remedy.clone(),
    }
}

fn of_outage(outage: &Outage, number: u16) -> Cause {
    // A service that refused is a 521; one that did not answer, and whatever cut the way, a 522. What cuts connections that are open
    // is any of those that come after the connection.
    let shown = if outage.why.contains("refused") {
        521
    } else {
        522
    };
    let cuts_open_ones = matches!(number, 520 | 524) && shown == 522;
    let likelihood = if shown == number || cuts_open_ones {
        Likelihood::Lately
    } else {
        Likelihood::Possible
    };
    let time = |at: jiff::Timestamp| at.strftime("%H:%M:%S").to_string();
    Cause {
        likelihood,
        what: format!("{} did not work", outage.of),
        evidence: format!(
            "from {} to {} UTC: {}",
            time(outage.from),
            time(outage.until),
            outage.why
        ),
        remedy: None,
    }
}

/// Where nobody of Cloudflare's has come at all, the fault lies before this host.
fn silence(diagnosis: &Diagnosis, window: &Window, number: u16) -> Option<Cause> {
    if !matches!(number, 521..=523) || window.minutes == 0 {
        return None;
    }
    let came: u64 = window
        .counted
        .iter()
        .filter(|(name, _)| name.starts_with("connections "))
        .map(|(_, count)| count)
        .sum();
    let lately = lately(window.minutes);
    if came > 0 {
        return Some(Cause {
            likelihood: Likelihood::Elsewhere,
            what: "the way from Cloudflare to this host".to_owned(),
            evidence: format!("is open: {came} connections have come {lately}"),
            remedy: None,
        });
    }
    let remedy = if diagnosis.end == "gateway" {
        "is the A or AAAA record the address of this VPS, and does the firewall of its provider let 80 and 443 in? \
         `tcpdump -n -i any 'tcp port 443'` shows whether anything comes"
    } else {
        "`gateway explain` on the VPS knows whether they came as far as that"
    };
    Some(Cause {
        likelihood: Likelihood::Lately,
        what: "Cloudflare's connections do not come as far as this host".to_owned(),
        evidence: format!("not one was let through to a published service {lately}"),
        remedy: Some(remedy.to_owned()),
    })
}

/// Whom the guard has refused may have been of Cloudflare's.
fn refusals(window: &Window, number: u16) -> Option<Cause> {
    if number != 522 {
        return None;
    }
    let refused: u64 = window
        .counted
        .iter()
        .filter(|(name, _)| name.starts_with("refused guard_"))
        .map(|(_, count)| count)
        .sum();
    (refused > 0).then(|| Cause {
        likelihood: Likelihood::Possible,
        what: "the guard refuses addresses of Cloudflare's that it does not know".to_owned(),
        evidence: format!(
            "{refused} packets were refused {}; strangers' are, too",
            lately(window.minutes)
        ),
        remedy: Some("`GET /v1/cloudflare/ranges` says of which day the list is".to_owned()),
    })
}

/// What the tunnel has dropped, but for noise.
fn drops(window: &Window) -> Option<Cause> {
    let drops = window.counted.iter();
    let drops = drops.filter_map(|(name, count)| {
        let reason = name.strip_prefix("dropped ")?;
        (!NOISE.contains(&reason)).then(|| format!("{reason}: {count}"))
    });
    let drops: Vec<String> = drops.collect();
    (!drops.is_empty()).then(|| Cause {
        likelihood: Likelihood::Possible,
        what: "the tunnel drops packets".to_owned(),
        evidence: format!(
            "{}, by reason: {}",
            lately(window.minutes),
            drops.join(", ")
        ),
        remedy: Some("docs/troubleshooting.md says what each reason means".to_owned()),
    })
}

/// `in the last 5 minutes`.
fn lately(minutes: u64) -> String {
    if minutes == 1 {
        "in the last minute".to_owned()
    } else {
        format!("in the last {minutes} minutes")
    }
}
