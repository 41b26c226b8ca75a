//! Ours now and then. Ratios to [`BASE`] of the same run are compared, since another machine, or this one on another day,
//! is faster or slower for both.
use std::fmt::Write as _;

use crate::implementation::{BASE, OURS};
use crate::row::{self, Better};
use crate::table::Results;

/// A change for the worse that is marked, in percent.
const MARKED: f64 = 10.0;

/// A table in Markdown; empty where the two have nothing in common.
pub(crate) fn table(now: &Results, then: &Results) -> String {
    let mut text = String::new();
    for (test, case) in now.cases() {
        for row in row::of(case).into_iter().filter(|row| row.compared) {
            let ratio = |results: &Results| {
                let of = |who| results.median(who, test, row.figure);
                Some(of(OURS)? / of(BASE).filter(|&base| base > 0.0)?)
            };
            let (Some(now), Some(then)) = (ratio(now), ratio(then)) else {
                continue;
            };
            let change = (now / then - 1.0) * 100.0;
            let mark = if is_worse(row.better, change) {
                "**worse**"
            } else {
                ""
            };
            let title = format!("{test} {}", row.title);
            let _ = writeln!(
                text,
                "| {}, {} | {now:.2} | {then:.2} | {change:+.1} % | {mark} |",
                title.trim(),
                row.unit
            );
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("| ours, of {BASE}'s | now | baseline | change | |\n|---|---|---|---|---|\n{text}")
}

fn is_worse(better: Better, change: f64) -> bool {
    match better {
        Better::Higher => change < -MARKED,
        Better::Lower => change > MARKED,
    }
}
