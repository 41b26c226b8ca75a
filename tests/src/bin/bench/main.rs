//! Measures the data plane: the product beside other implementations of WireGuard, each between the same four hosts, with
//! the product's own rulesets and routes in every world. Started by `script/bench`; docs/benchmarks.md says what is measured
//! and how to read it.
//!
//! | module | what |
//! |---|---|
//! | [`options`], [`case`], [`implementation`] | what is asked for |
//! | [`site`], [`tunnel`], [`product`], [`likeness`], [`worlds`] | where it happens |
//! | [`measure`], [`helper`], [`meter`], [`preference`] | what is measured, by whom, and who used the processors meanwhile |
//! | [`run`], [`record`], [`figure`] | in which order, and how it is written down |
//! | [`table`], [`row`], [`requirement`], [`baseline`] | what it comes to |
//!
//! Exit code 0: measured, whatever came out; 2: could not be measured.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its report"
)]
mod baseline;
mod case;
mod figure;
mod helper;
mod implementation;
mod interrupt;
mod likeness;
mod measure;
mod meter;
mod options;
mod preference;
mod product;
mod record;
mod requirement;
mod row;
mod run;
mod site;
mod table;
mod tunnel;
mod worlds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use options::Options;
use table::Results;

/// The results that are committed.
const BASELINE: &str = "docs/benchmarks/data-plane.jsonl";

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = act(&options);
    interrupt::settle();
    preference::restore();
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn act(options: &Options) -> Result<String> {
    if let Some(helper) = &options.helper {
        return helper.run();
    }
    // Before anything is measured: the results may go to the same file.
    let baseline = read_baseline(options)?;
    let results = if options.table.is_empty() {
        interrupt::watch()?;
        run::run(options)?
    } else {
        read(&options.table)?
    };
    Ok(report(&results, baseline.as_ref()))
}

/// What to compare with, if there is anything but what is shown itself.
fn read_baseline(options: &Options) -> Result<Option<Results>> {
    let committed = Path::new(BASELINE);
    let path = match &options.baseline {
        Some(path) => path,
        None if committed.exists() => committed,
        None => return Ok(None),
    };
    if options.table.iter().any(|shown| shown == path) {
        return Ok(None);
    }
    read(&[path.to_owned()]).map(Some)
}

fn read(paths: &[PathBuf]) -> Result<Results> {
    let mut records = Vec::new();
    for path in paths {
        records.extend(record::read(path)?);
    }
    Ok(Results::new(records))
}

fn report(results: &Results, baseline: Option<&Results>) -> String {
    if results.is_empty() {
        return results.remarks();
    }
    let compared = baseline.map_or_else(String::new, |then| baseline::table(results, then));
    let parts = [
        results.heading(),
        results.table(),
        results.remarks(),
        requirement::table(results),
        compared,
    ];
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.map(String::as_str).collect::<Vec<_>>().join("\n")
}
