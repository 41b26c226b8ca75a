//! A run: every test of every implementation in turn, round after round.
//!
//! What disturbs the machine for a while then disturbs them all. Before each measurement others are waited for; how much
//! of the processors they used during it is written down, and what they disturbed is measured again.
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::Timestamp;
use tests::privilege::namespaces_allowed;

use crate::case::Case;
use crate::implementation::{self, Implementation};
use crate::measure::measure;
use crate::meter;
use crate::options::{Options, Pace};
use crate::product::Keys;
use crate::record::{Failure, Record, Run, Sample, append};
use crate::table::Results;
use crate::worlds::Worlds;
use crate::{preference, row};

/// How often a measurement is made until it is neither disturbed nor broken off.
const ATTEMPTS: usize = 3;
/// Longest reason of a failure, in characters: logs stand in it.
const REASON: usize = 1000;

/// Measure what the command line asks for.
pub(crate) fn run(options: &Options) -> Result<Results> {
    ensure!(
        namespaces_allowed()?,
        "there is nothing to measure without namespaces"
    );
    let cases = options.cases()?;
    let (implementations, missing) = implementation::chosen(options)?;
    let product = implementation::product(options)
        .context("without our own programs there is no ruleset to be measured with")?;
    preference::prefer_own()?;
    let peers = cases.iter().map(|case| case.variant.peers).max();
    let keys = Keys::generate(peers.unwrap_or(0))?;
    let mut log = Log {
        options,
        records: Vec::new(),
    };
    log.note(Record::Run(describe(options, &implementations)?))?;
    for missing in missing {
        log.fail(&missing.name, None, &missing.reason)?;
    }
    let mut worlds = Worlds::new(keys, product);
    if options.hold {
        hold(&mut worlds, &implementations, &cases)?;
        return Ok(Results::new(log.records));
    }
    for round in 0..options.rounds() {
        for &case in &cases {
            for implementation in &implementations {
                sample(
                    &mut worlds,
                    implementation,
                    case,
                    round,
                    options.pace(),
                    &mut log,
                )?;
            }
        }
    }
    Ok(Results::new(log.records))
}

/// One measurement, repeated while it is disturbed.
fn sample(
    worlds: &mut Worlds,
    implementation: &Implementation,
    case: Case,
    round: u32,
    pace: Pace,
    log: &mut Log<'_>,
) -> Result<()> {
    let name = &implementation.name;
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        let (site, keys) = match worlds.enter(implementation, case.variant) {
            Ok(entered) => entered,
            Err(error) => {
                failure = Some(format!("{error:#}"));
                continue;
            }
        };
        meter::wait_until_idle()?;
        let measured = measure(case, site, keys, pace);
        // A daemon that has ended explains what was measured, if anything was.
        let measured = site.alive().and(measured);
        match measured {
            Ok(mut sample) => {
                sample.implementation.clone_from(name);
                sample.test = case.to_string();
                sample.round = round;
                sample.time = Timestamp::now().as_second();
                let noisy = sample.noisy;
                log.note(Record::Sample(sample))?;
                if !noisy {
                    return Ok(());
                }
                failure = None;
            }
            Err(error) => {
                failure = Some(format!("{error:#}"));
                let healthy = site.alive().and_then(|()| site.restart_iperf());
                if healthy.is_err() {
                    worlds.leave(implementation, case.variant);
                }
            }
        }
    }
    match failure {
        Some(reason) => log.fail(name, Some(case), &reason),
        None => Ok(()),
    }
}

/// Build the worlds of the first test and leave them to the user.
fn hold(worlds: &mut Worlds, implementations: &[Implementation], cases: &[Case]) -> Result<()> {
    let variant = cases.first().context("no test")?.variant;
    for implementation in implementations {
        let (site, _) = worlds.enter(implementation, variant)?;
        let nodes = [&site.client, &site.gw, &site.lan, &site.server];
        let nodes = nodes.map(|node| node.netns().to_owned()).join(" ");
        eprintln!(
            "{}: {nodes}; daemons {:?}",
            implementation.name,
            site.sessions()
        );
    }
    eprint!("`ip netns exec NAME COMMAND` enters; Enter ends: ");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Everything so far, on disk where that was asked for, and in short on the terminal.
struct Log<'a> {
    options: &'a Options,
    records: Vec<Record>,
}

impl Log<'_> {
    fn note(&mut self, record: Record) -> Result<()> {
        if let Some(path) = &self.options.out {
            append(path, &record)?;
        }
        match &record {
            Record::Sample(sample) => eprintln!("{}", summary(sample)),
            Record::Failure(failure) => eprintln!(
                "{} {}: {}",
                failure.implementation,
                failure.test.as_deref().unwrap_or("everything"),
                failure.reason
            ),
            Record::Run(_) => {}
        }
        self.records.push(record);
        Ok(())
    }

    /// Note a failure, once.
    fn fail(&mut self, implementation: &str, case: Option<Case>, reason: &str) -> Result<()> {
        let failure = Failure {
            implementation: implementation.to_owned(),
            test: case.map(|case| case.to_string()),
            reason: reason.chars().take(REASON).collect(),
        };
        let known = self.records.iter().any(|record| {
            matches!(record, Record::Failure(known) if known.implementation == failure.implementation
                && known.test == failure.test)
        });
        if known {
            return Ok(());
        }
        self.note(Record::Failure(failure))
    }
}

fn summary(sample: &Sample) -> String {
    let case: Result<Case> = sample.test.parse();
    let figures = case.map(row::of).unwrap_or_default();
    let figures = figures.iter().filter_map(|row| {
        let value = sample.figures.get(row.figure)?;
        Some(format!("{} {}", row.title, row.cell(*value, true)))
    });
    format!(
        "round {} {:10} {:16}{}{}",
        sample.round + 1,
        sample.test,
        sample.implementation,
        figures.collect::<Vec<_>>().join(", ").trim_end(),
        if sample.noisy { "  (disturbed)" } else { "" }
    )
}

fn describe(options: &Options, implementations: &[Implementation]) -> Result<Run> {
    let line = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim_start_matches([':', ' ', '\t']).to_owned())
    };
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = line(&memory, "MemTotal").and_then(|rest| {
        let kibibytes = rest.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(kibibytes * 1024)
    });
    let versions: BTreeMap<String, String> = implementations
        .iter()
        .map(|one| (one.name.clone(), one.version.clone()))
        .collect();
    Ok(Run {
        date: Timestamp::now().to_string(),
        processor: line(&processors, "model name").unwrap_or_default(),
        cores: thread::available_parallelism()?.get(),
        memory: memory.ok_or_else(|| anyhow!("unexpected /proc/meminfo"))?,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        commit: commit(),
        versions,
        arguments: std::env::args().skip(1).collect(),
        seconds: options.pace().seconds,
    })
}

/// What is measured. Results do not count as changes of it: a run that is added to them would mark itself.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        let said = String::from_utf8_lossy(&output.stdout);
        Some(said.trim().to_owned())
    };
    let commit = git(&["describe", "--always"])?;
    let changes = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        ":/",
        ":(exclude,top)docs/benchmarks",
    ])?;
    Some(if changes.is_empty() {
        commit
    } else {
        format!("{commit}-dirty")
    })
}
