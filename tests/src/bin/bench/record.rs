//! What is written to the file of results: one JSON object a line.
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first line of a run.
    Run(Run),
    /// One measurement.
    Sample(Sample),
    /// One that could not be made.
    Failure(Failure),
}

/// Where and of what the samples up to the next line of this kind are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When it began (RFC 3339, UTC).
    pub(crate) date: String,
    /// The processor, as the kernel names it.
    pub(crate) processor: String,
    /// How many of them.
    pub(crate) cores: usize,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Commit of the directory that it was started in, as `git describe` tells; `None` where there is none.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    /// What each implementation says of itself.
    pub(crate) versions: BTreeMap<String, String>,
    /// How the benchmark was started.
    pub(crate) arguments: Vec<String>,
    /// Seconds of one measurement.
    pub(crate) seconds: u32,
}

/// One measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Who was measured.
    pub(crate) implementation: String,
    /// By which test.
    pub(crate) test: String,
    /// In which round, from 0.
    pub(crate) round: u32,
    /// When it ended (seconds of Unix time).
    pub(crate) time: i64,
    /// Whether other work took more of the machine than a fair measurement allows.
    pub(crate) noisy: bool,
    /// The figures by name, in the units that the name says: see [`crate::figure`].
    pub(crate) figures: BTreeMap<String, f64>,
    /// Rates that were tried, in datagrams per second: wanted, sent, delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) probes: Vec<[f64; 3]>,
}

/// Why there is no measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Who should have been measured.
    pub(crate) implementation: String,
    /// By which test; `None` when there can be none at all.
    pub(crate) test: Option<String>,
    /// What was in the way.
    pub(crate) reason: String,
}

/// Append a line. Each is written at once, so that a run that is cut short leaves what it has.
pub(crate) fn append(path: &Path, record: &Record) -> Result<()> {
    let mut line = serde_json::to_string(record)?;
    line.push('\n');
    fs::File::options()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("can't write {}", path.display()))
}

/// All lines of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}:{}: not a record", path.display(), number + 1))
        })
        .collect()
}
