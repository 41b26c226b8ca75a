//! The command line.
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::case::{self, Case};
use crate::helper::Helper;

/// Measures the data plane of wg-edge beside other implementations of WireGuard, in network namespaces of its own.
///
/// Implementations: none (plain routing), wireguard-go, wireguard-go-1p (GOMAXPROCS=1), boringtun, gotatun, kernel (where
/// it has WireGuard), floor (the ceiling of our architecture), ours, ours-bare (`gateway wg`; only if named).
///
/// Tests: tcp1, tcp4, tcp1r, bidir (iperf3); udpSIZE and udpSIZEfFLOWS; ping, pingload; connects; handshakes. With the
/// suffix pNUMBER the gateway has as many further peers, with the suffix off the tunnel's cables have no offloads.
#[derive(Debug, Parser)]
#[command(name = "script/bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// What to measure beside what is added, comma-separated; everything but ours-bare if not given
    #[arg(long, value_name = "NAME,…")]
    pub(crate) only: Option<String>,
    /// Which tests, comma-separated, in this order
    #[arg(long, value_name = "TEST,…")]
    tests: Option<String>,
    /// How often each measurement is made, in turns
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<u32>,
    /// Length of a measurement of TCP, ping, connections and handshakes, in seconds
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<u32>,
    /// One round, short measurements and fewer tests: two minutes for two implementations
    #[arg(long)]
    quick: bool,
    /// Append results to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// One more implementation: NAME=COMMAND {if}, which `wg` configures; or NAME@self=COMMAND, which reads WGB_*
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) add: Vec<String>,
    /// One more pair of our programs: NAME=DIRECTORY, with environment variables NAME=DIRECTORY,KEY=VALUE,…
    #[arg(long, value_name = "NAME=DIRECTORY")]
    pub(crate) add_ours: Vec<String>,
    /// Another `gateway` for ours
    #[arg(long, value_name = "PATH")]
    pub(crate) ours_gateway: Option<PathBuf>,
    /// Another `lan-server` for ours
    #[arg(long, value_name = "PATH")]
    pub(crate) ours_lan_server: Option<PathBuf>,
    /// Measure nothing, print the table of these files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) table: Vec<PathBuf>,
    /// Results to compare with; docs/benchmarks/data-plane.jsonl where it exists
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Build the worlds, say how to enter them, wait for Enter
    #[arg(long)]
    pub(crate) hold: bool,
    #[command(subcommand)]
    pub(crate) helper: Option<Helper>,
}

/// How long measurements take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Of TCP, ping, connections and handshakes.
    pub(crate) seconds: u32,
    /// Of a rate of UDP datagrams.
    pub(crate) probe_seconds: f64,
    /// The search for a rate ends when what fails is less than this times what passes.
    pub(crate) precision: f64,
}

impl Options {
    pub(crate) fn cases(&self) -> Result<Vec<Case>> {
        let standard = if self.quick { case::QUICK } else { case::ALL };
        case::list(self.tests.as_deref().unwrap_or(standard))
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn pace(&self) -> Pace {
        let (seconds, probe_seconds, precision) = if self.quick {
            (2, 0.5, 1.15)
        } else {
            (5, 1.0, 1.06)
        };
        Pace {
            seconds: self.seconds.unwrap_or(seconds).max(1),
            probe_seconds,
            precision,
        }
    }
}
