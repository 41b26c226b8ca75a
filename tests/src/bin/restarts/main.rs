//! What visitors notice of a daemon's end: how long nothing gets through, and which open connections are lost. Started by
//! `script/bench-restarts` and `script/test-upgrade`; prints a table in Markdown. Exit code 0: no connection was lost;
//! 1: one was; 2: it could not be tried. How long it took never fails.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its report"
)]
mod event;
mod row;
mod upgrade;
mod visitors;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::edge::{Edge, Setup};
use tests::expect::eventually;
use tests::privilege::namespaces_allowed;
use tests::world::LightWorld;

use event::{End, Event};
use row::Row;
use visitors::Visitors;

const USAGE: &str = "usage: restarts [--rounds NUMBER] [--wait MILLISECONDS] [--connections NUMBER] [--from DIRECTORY]";

/// Between two events: what an end writes down every two seconds is on the disk again.
const SETTLE: Duration = Duration::from_millis(2500);

/// What is tried.
struct Options {
    /// How often each end is killed.
    rounds: usize,
    /// How long nobody starts it again: `RestartSec=` of the units.
    wait: Duration,
    connections: usize,
    /// Programs of another version, to upgrade from.
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            eprintln!("restarts: {lost} connections were lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("restarts: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 20,
        wait: Duration::from_millis(500),
        connections: 100,
        from: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().context(USAGE)?;
        let number = || value.parse().with_context(|| format!("{word} {value}"));
        match word.as_str() {
            "--rounds" => options.rounds = number()?,
            "--wait" => options.wait = Duration::from_millis(u64::try_from(number()?)?),
            "--connections" => options.connections = number()?,
            "--from" => options.from = Some(value.into()),
            _ => bail!("{USAGE}"),
        }
    }
    Ok(options)
}

/// Returns how many connections were lost.
fn run(options: &Options) -> Result<usize> {
    ensure!(
        namespaces_allowed()?,
        "there is nothing to try without namespaces"
    );
    let rows = match &options.from {
        Some(directory) => upgrade::both_ways(directory, options.connections)?,
        None => restarts(options)?,
    };
    print!("{}", row::table(&rows));
    Ok(rows.iter().map(Row::lost).sum())
}

fn restarts(options: &Options) -> Result<Vec<Row>> {
    let world = LightWorld::new()?;
    let mut edge = Edge::start(&world, Setup::new()?)?;
    let mut visitors = Visitors::come(&world, options.connections)?;
    wait_for_notes(&world)?;
    let mut rows = Vec::new();
    for end in [End::Gateway, End::LanServer] {
        for (event, rounds) in [
            (Event::Kill(options.wait), options.rounds),
            (Event::Restart, options.rounds.div_ceil(4)),
            (Event::Reload, options.rounds.div_ceil(4)),
        ] {
            let mut row = Row::new(end, event.name());
            for round in 1..=rounds {
                eprintln!("{}, {}: {round} of {rounds}", end.name(), event.name());
                std::thread::sleep(SETTLE);
                let since = event.happens_to(end.of(&mut edge))?;
                row.add(visitors.longest_silence(since)?, visitors.lost());
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The gateway can't know where a LAN end behind NAT is but from what it wrote down.
fn wait_for_notes(world: &LightWorld) -> Result<()> {
    let endpoints = world.vps.dir().join("state/endpoints.json");
    eventually(SETTLE * 2, "the endpoint of the LAN end on disk", || {
        Ok(std::fs::metadata(&endpoints)?)
    })
    .map(drop)
}
