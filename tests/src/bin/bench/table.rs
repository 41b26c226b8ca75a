//! Results and their table in Markdown.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Variant};
use crate::figure;
use crate::implementation::{BASE, ORDER};
use crate::record::{Failure, Record, Run, Sample};
use crate::row::{self, Row};

/// Everything that was measured, in the order in which it came.
#[derive(Debug)]
pub(crate) struct Results {
    runs: Vec<Run>,
    samples: Vec<Sample>,
    failures: Vec<Failure>,
    /// Names: the known ones in their order, then those that were added.
    implementations: Vec<String>,
    /// Names in the order in which they came first.
    tests: Vec<String>,
}

impl Results {
    pub(crate) fn new(records: Vec<Record>) -> Self {
        let mut results = Self {
            runs: Vec::new(),
            samples: Vec::new(),
            failures: Vec::new(),
            implementations: Vec::new(),
            tests: Vec::new(),
        };
        for record in records {
            match record {
                Record::Run(run) => results.runs.push(run),
                Record::Sample(sample) => {
                    let (who, test) = (&sample.implementation, &sample.test);
                    note(&mut results.implementations, who);
                    note(&mut results.tests, test);
                    results.samples.push(sample);
                }
                Record::Failure(failure) => {
                    note(&mut results.implementations, &failure.implementation);
                    if !results.failures.contains(&failure) {
                        results.failures.push(failure);
                    }
                }
            }
        }
        let place = |name: &String| ORDER.iter().position(|known| known == name);
        results
            .implementations
            .sort_by_key(|name| place(name).unwrap_or(ORDER.len()));
        results
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Tests by name.
    pub(crate) fn cases(&self) -> impl Iterator<Item = (&str, Case)> {
        let cases = self.tests.iter();
        cases.filter_map(|test| Some((test.as_str(), test.parse().ok()?)))
    }

    /// Median over the undisturbed measurements; over all where none was undisturbed.
    pub(crate) fn median(&self, implementation: &str, test: &str, figure: &str) -> Option<f64> {
        let all = self.samples.iter();
        let all =
            all.filter(|sample| sample.implementation == implementation && sample.test == test);
        let clean = all.clone().any(|sample| !sample.noisy);
        let values: Vec<f64> = all
            .filter(|sample| !clean || !sample.noisy)
            .filter_map(|sample| sample.figures.get(figure).copied())
            .collect();
        figure::median(&values)
    }

    /// Greatest memory in any test of this world.
    pub(crate) fn memory(&self, implementation: &str, variant: Variant) -> Option<f64> {
        let samples = self.samples.iter();
        let samples = samples.filter(|sample| {
            let case: Option<Case> = sample.test.parse().ok();
            sample.implementation == implementation
                && case.is_some_and(|case| case.variant == variant)
        });
        samples
            .filter_map(|sample| sample.figures.get(figure::PEAK_MEMORY).copied())
            .filter(|&bytes| bytes > 0.0)
            .max_by(f64::total_cmp)
    }

    /// Where and of what.
    pub(crate) fn heading(&self) -> String {
        let mut text = String::new();
        for run in &self.runs {
            let _ = writeln!(
                text,
                "{} ({}): {} × {}, {:.1} GB, Linux {}; {} s a measurement; `script/bench {}`",
                run.date,
                run.commit.as_deref().unwrap_or("no commit"),
                run.cores,
                run.processor,
                figure::count(run.memory) / 1e9,
                run.kernel,
                run.seconds,
                run.arguments.join(" ")
            );
            let versions: BTreeMap<&String, &String> = run
                .versions
                .iter()
                .filter(|(_, version)| !version.is_empty())
                .collect();
            for (name, version) in versions {
                let _ = writeln!(text, "- {name}: {version}");
            }
        }
        text
    }

    /// Rows are tests, columns are implementations; in brackets the ratio to [`BASE`].
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| test |");
        for implementation in &self.implementations {
            let _ = write!(text, " {implementation} |");
        }
        text.push_str("\n|---|");
        text.extend(self.implementations.iter().map(|_| "---|"));
        text.push('\n');
        for (test, case) in self.cases() {
            for row in row::of(case) {
                let title = format!("{test} {}", row.title);
                let value = |who: &str| self.median(who, test, row.figure);
                self.write_row(&mut text, title.trim(), &row, value);
            }
        }
        let mut variants: Vec<Variant> = self.cases().map(|(_, case)| case.variant).collect();
        variants.retain(|variant| !variant.without_offloads);
        variants.sort_unstable();
        variants.dedup();
        for variant in variants {
            let mut title = row::MEMORY.title.to_owned();
            if variant.peers > 0 {
                let _ = write!(title, ", {} peers", variant.peers);
            }
            let value = |who: &str| self.memory(who, variant);
            self.write_row(&mut text, &title, &row::MEMORY, value);
        }
        text
    }

    fn write_row(
        &self,
        text: &mut String,
        title: &str,
        row: &Row,
        value: impl Fn(&str) -> Option<f64>,
    ) {
        let unit = if row.unit.is_empty() { "" } else { ", " };
        let _ = write!(text, "| {title}{unit}{} |", row.unit);
        let base = value(BASE).filter(|&base| base != 0.0);
        for implementation in &self.implementations {
            let cell = value(implementation).map_or_else(
                || "–".to_owned(),
                |value| {
                    let ratio = base.map(|base| format!(" ({:.2})", value / base));
                    row.cell(value, false) + &ratio.unwrap_or_default()
                },
            );
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }

    /// What was disturbed, and why a figure is missing.
    pub(crate) fn remarks(&self) -> String {
        let noisy = self.samples.iter().filter(|sample| sample.noisy).count();
        let mut text = format!(
            "Medians; in brackets the ratio to {BASE}. {} measurements, {noisy} of them disturbed by other work and left out \
             where there is an undisturbed one.\n",
            self.samples.len()
        );
        for Failure {
            implementation,
            test,
            reason,
        } in &self.failures
        {
            let test = test.as_deref().unwrap_or("all tests");
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "– {implementation}, {test}: {reason}");
        }
        text
    }
}

fn note(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(who: &str, rate: f64, noisy: bool) -> Record {
        Record::Sample(Sample {
            implementation: who.to_owned(),
            test: "tcp1".to_owned(),
            noisy,
            figures: BTreeMap::from([(figure::THROUGHPUT.to_owned(), rate)]),
            ..Sample::default()
        })
    }

    #[test]
    fn disturbed_measurements_count_only_where_there_are_no_others() {
        let results = Results::new(vec![
            sample("ours", 9.0, true),
            sample("ours", 4.0, false),
            sample("ours", 2.0, false),
            sample(BASE, 1.0, true),
            sample(BASE, 2.0, true),
        ]);
        let median = |who| results.median(who, "tcp1", figure::THROUGHPUT);
        assert_eq!(median("ours"), Some(3.0));
        assert_eq!(median(BASE), Some(1.5));
        assert_eq!(median("floor"), None);
    }

    #[test]
    fn what_is_missing_is_a_dash_with_its_reason() {
        let results = Results::new(vec![
            sample(BASE, 2.0, false),
            Record::Failure(Failure {
                implementation: "kernel".to_owned(),
                test: None,
                reason: "the kernel\n has none".to_owned(),
            }),
            sample("ours", 5.0, false),
        ]);
        let table = results.table();
        let row = "| tcp1, Gbit/s | – | 2.00 (1.00) | 5.00 (2.50) |";
        assert!(table.contains(row), "{table}");
        let remarks = results.remarks();
        let reason = "– kernel, all tests: the kernel has none";
        assert!(remarks.contains(reason), "{remarks}");
    }
}
