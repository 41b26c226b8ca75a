//! A metrics page, as far as tests look at it. That the format is right is promtool's to say.
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};

/// What names of metrics begin with: ours, the WireGuard exporter's, those of every program.
const PREFIXES: [&str; 3] = ["edge_", "wireguard_", "process_"];

/// Labels whose values are a fixed set, so that a value that is on no page is a slip of the pen.
const CLOSED_LABELS: [&str; 5] = ["reason", "kind", "result", "state", "family"];

/// The page and its samples by series.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    series: BTreeMap<String, String>,
}

impl Page {
    pub(super) fn parse(text: String) -> Result<Self> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let series = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').context("no value")?;
            Ok((series.to_owned(), value.to_owned()))
        });
        let series = series.collect::<Result<_>>()?;
        Ok(Self { text, series })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The number of a series, written as on the page.
    pub(super) fn value<N: FromStr<Err: Error + Send + Sync + 'static>>(
        &self,
        series: &str,
    ) -> Result<N> {
        let value = self.series.get(series);
        let value = value.with_context(|| format!("no {series}"))?;
        value.parse().with_context(|| format!("{series} {value}"))
    }

    /// Every series that may only go up.
    pub(super) fn counters(&self) -> impl Iterator<Item = &str> {
        let series = self.series.keys().map(String::as_str);
        series.filter(|series| name_of(series).ends_with("_total"))
    }

    /// Fails when a text names a metric that has no sample here, or a value of a label with fixed values that is not here.
    pub(super) fn has_all_of(&self, what: &str, text: &str) -> Result<()> {
        let known: BTreeSet<&str> = self.series.keys().map(|series| name_of(series)).collect();
        let named = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut any = false;
        for name in named.filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))) {
            ensure!(known.contains(name), "{what} names {name}");
            any = true;
        }
        ensure!(any, "{what} names no metric: {text}");
        for label in CLOSED_LABELS {
            for value in values_of(label, text) {
                let pair = format!("{label}=\"{value}\"");
                ensure!(self.text.contains(&pair), "{what} names {pair}");
            }
        }
        Ok(())
    }
}

fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// What a text compares a label with: `=`, `!=`, `=~` and `!~`, alternatives one by one.
fn values_of<'a>(label: &str, text: &'a str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for operator in ["=\"", "!=\"", "=~\"", "!~\""] {
        let begin = format!("{label}{operator}");
        for (place, _) in text.match_indices(&begin) {
            let value = text.get(place + begin.len()..).unwrap_or_default();
            let value = value.split('"').next().unwrap_or_default();
            found.extend(value.split('|').filter(|value| !value.starts_with('$')));
        }
    }
    found
}
