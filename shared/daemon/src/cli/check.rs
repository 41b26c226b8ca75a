//! `check`: what is wrong with a file, and which of its tests fail.
use std::path::{Path, PathBuf};

use shared::config::Parsed;
use shared::simulate::Results;

use super::load;
use super::output::{print, print_json};
use crate::error::Failure;
use crate::product::Product;
use crate::simulation::{self, not_looked_at, try_files};

pub(super) fn run<P: Product>(path: &Path, files: &[PathBuf], json: bool) -> Result<(), Failure> {
    let file = path.display();
    match (checked::<P>(path, files), json) {
        (Ok((loaded, tests)), false) => {
            let passed = match tests.passed {
                0 => String::new(),
                1 => ", and its test passes".to_owned(),
                several => format!(", and its {several} tests pass"),
            };
            let mut lines = notes(&loaded, &tests);
            lines.push(format!("{file}: the configuration is valid{passed}\n"));
            print(&lines.join("\n"))
        }
        (Ok((loaded, tests)), true) => print_json(&serde_json::json!({
            "valid": true, "errors": [], "warnings": notes(&loaded, &tests), "tests_passed": tests.passed,
        })),
        (Err(failure), false) => Err(failure),
        (Err(failure), true) => {
            let errors: Vec<String> = failure.to_string().lines().map(str::to_owned).collect();
            print_json(&serde_json::json!({
                "valid": false, "errors": errors, "warnings": [], "tests_passed": 0,
            }))?;
            Err(Failure::Configuration(format!(
                "{file}: the configuration is wrong"
            )))
        }
    }
}

fn checked<P: Product>(
    path: &Path,
    files: &[PathBuf],
) -> Result<(Parsed<P::Config>, Results), Failure> {
    let loaded = load::<P>(path)?;
    let other_end = P::read_other_end(&loaded.config, files)?;
    let tests = try_files::<P>(&loaded.config, &other_end);
    if tests.failed.is_empty() {
        Ok((loaded, tests))
    } else {
        Err(simulation::failure(&tests))
    }
}

/// What is doubtful, and what was not found out.
fn notes<C>(loaded: &Parsed<C>, tests: &Results) -> Vec<String> {
    let warnings = loaded.warnings.iter().chain(&tests.undecided);
    let warnings = warnings.map(ToString::to_string);
    let not_looked_at = tests.not_looked_at.iter().map(|name| not_looked_at(name));
    warnings.chain(not_looked_at).collect()
}
