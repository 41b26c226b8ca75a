//! Measures peer management: the gateway's REST API, and beside it the configuration protocol of `wireguard-go`. Started by
//! `script/bench-api`; prints a table in Markdown. Exit code 0: measured; 2: could not be measured.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its report"
)]
mod client;
mod gateway;
mod measure;
mod uapi;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tests::edge::binary;
use tests::keys::KeyPair;
use tests::privilege::namespaces_allowed;

use measure::Samples;

const USAGE: &str = "usage: bench_api [--peers NUMBER] [--rounds NUMBER] [--repetitions NUMBER]";

/// How much is measured.
struct Options {
    peers: usize,
    rounds: usize,
    repetitions: usize,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench_api: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        peers: 2000,
        rounds: 3,
        repetitions: 50,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--peers" => &mut options.peers,
            "--rounds" => &mut options.rounds,
            "--repetitions" => &mut options.repetitions,
            _ => bail!("{USAGE}"),
        };
        let number = words.next().context(USAGE)?;
        *place = number.parse().with_context(|| format!("{word} {number}"))?;
    }
    Ok(options)
}

fn run(options: &Options) -> Result<String> {
    if !namespaces_allowed()? {
        bail!("there is nothing to measure without namespaces");
    }
    let keys = (0..options.peers).map(|_| KeyPair::generate());
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let ours = binary("gateway")?;
    let mut samples = Samples::default();
    // Side by side in each round: what disturbs one of them disturbs the other.
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        gateway::measure(&keys, options.repetitions, &mut samples)?;
        let world = gateway::World::new()?;
        let node = &world.client;
        uapi::measure(
            node,
            "wireguard-go",
            &["wireguard-go", "-f", "wg0"],
            &keys,
            &mut samples,
        )?;
        uapi::measure(
            node,
            "gateway wg",
            &[&ours, "wg", "wg0"],
            &keys,
            &mut samples,
        )?;
    }
    Ok(samples.table())
}
