//! What the data plane has to reach, held against what was measured in the same run.
use std::fmt::Write as _;

use crate::case::Variant;
use crate::figure;
use crate::implementation::{BASE, BASE_1P, BORINGTUN, FLOOR, GOTATUN, OURS};
use crate::table::Results;

/// A bound on a figure.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
        }
    }
}

/// A requirement, what was measured of it, and the bound that is aimed at beyond it.
struct Requirement {
    title: String,
    value: Option<f64>,
    unit: &'static str,
    required: Option<Bound>,
    aim: Option<Bound>,
}

/// A table in Markdown, empty where nothing of ours was measured.
pub(crate) fn table(results: &Results) -> String {
    let mut all = all(results);
    let before = all.len();
    all.retain(|requirement| requirement.value.is_some());
    if all.is_empty() {
        return String::new();
    }
    let left_out = before - all.len();
    let mut text = String::from(
        "| requirement | measured | required | | aim | |\n|---|---|---|---|---|---|\n",
    );
    for Requirement {
        title,
        value,
        unit,
        required,
        aim,
    } in all
    {
        let measured = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}{unit}"));
        let verdict = |bound: Option<Bound>, yes, no| match (bound, value) {
            (Some(bound), Some(value)) if bound.is_met_by(value) => yes,
            (Some(_), Some(_)) => no,
            _ => "",
        };
        let shown = |bound: Option<Bound>| bound.map(|bound| bound.text(unit)).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {title} | {measured} | {} | {} | {} | {} |",
            shown(required),
            verdict(required, "met", "**not met**"),
            shown(aim),
            verdict(aim, "reached", "not reached"),
        );
    }
    if left_out > 0 {
        let _ = writeln!(text, "\n{left_out} more were not measured.");
    }
    text
}

fn all(results: &Results) -> Vec<Requirement> {
    let ours = |test: &str, figure: &str| results.median(OURS, test, figure);
    let ratio = |test: &str, figure: &str, other: &str| {
        Some(ours(test, figure)? / results.median(other, test, figure)?)
    };
    let versus = |test: &str, what: &str, figure: &str, other: &str, required, aim| Requirement {
        title: format!("{test}{what}, of {other}'s"),
        value: ratio(test, figure, other),
        unit: " ×",
        required,
        aim,
    };
    let at_least = |bound| Some(Bound::AtLeast(bound));
    let at_most = |bound| Some(Bound::AtMost(bound));
    let mut all = Vec::new();
    for test in ["tcp1", "tcp4", "tcp1r", "bidir"] {
        for (other, required, aim) in [
            (BASE, at_least(2.0), None),
            (BASE_1P, at_least(1.6), None),
            (FLOOR, None, at_least(0.85)),
        ] {
            all.push(versus(test, "", figure::THROUGHPUT, other, required, aim));
        }
        let cost = figure::DAEMON_SECONDS_PER_GB;
        all.push(versus(
            test,
            " daemons' CPU/GB",
            cost,
            BASE,
            at_most(0.45),
            at_most(0.38),
        ));
    }
    for test in ["udp64", "udp1200"] {
        all.push(versus(
            test,
            "",
            figure::DATAGRAMS,
            GOTATUN,
            at_least(1.2),
            at_least(1.6),
        ));
    }
    all.push(versus(
        "ping",
        " p50",
        figure::PING_P50,
        BORINGTUN,
        at_most(1.0),
        None,
    ));
    all.push(versus(
        "ping",
        " p50",
        figure::PING_P50,
        FLOOR,
        None,
        at_most(1.0),
    ));
    all.push(Requirement {
        title: "pingload p50".to_owned(),
        value: ours("pingload", figure::PING_P50).map(|us| us / 1e3),
        unit: " ms",
        required: at_most(3.0),
        aim: at_most(1.5),
    });
    all.push(Requirement {
        title: "peak memory, both ends".to_owned(),
        value: results
            .memory(OURS, Variant::default())
            .map(|bytes| bytes / 1e6),
        unit: " MB",
        required: at_most(30.0),
        aim: at_most(20.0),
    });
    all.push(Requirement {
        title: "tcp1 with 2,000 peers, of that with one".to_owned(),
        value: ours("tcp1p2000", figure::THROUGHPUT)
            .zip(ours("tcp1", figure::THROUGHPUT))
            .map(|(many, one)| many / one),
        unit: " ×",
        required: at_least(0.95),
        aim: None,
    });
    for test in ["tcp1off", "tcp4off"] {
        all.push(versus(
            test,
            "",
            figure::THROUGHPUT,
            BASE,
            at_least(1.5),
            at_least(2.0),
        ));
    }
    all
}
