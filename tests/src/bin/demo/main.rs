//! The demo: the documentation's deployment on one machine, both daemons, real traffic, a report. Started by `script/demo`.
//!
//! `demo run [--keep] [--stand-in]`, `demo remove`. Exit code 0: every claim held; 1: one failed; 2: it could not be tried.
mod claims;
mod measure;
mod report;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use tests::edge::{Edge, Setup};
use tests::privilege::namespaces_allowed;
use tests::standin::StandIn;
use tests::topology::{Topology, remove_world};
use tests::wireguard_go::WireguardGo;
use tests::world::ReferenceWorld;
use tests::world::addresses::OPERATOR;

use report::Report;

/// Name of the demo's world: its namespaces are `wg-edge-demo-vps` and so on.
const NAME: &str = "wg-edge-demo";

/// Lines of each log that are shown when a claim failed.
const LOG_LINES: usize = 15;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::new();
    let outcome = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["run", options @ ..] => {
            Options::parse(options).and_then(|options| run(&mut report, options))
        }
        ["remove"] => remove_world(NAME),
        _ => Err(anyhow::anyhow!(
            "usage: demo run [--keep] [--stand-in] | demo remove"
        )),
    };
    if let Err(error) = outcome {
        let reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
        Report::line(&format!("The demo could not go on: {}", reasons.join(": ")));
        return ExitCode::from(2);
    }
    if report.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What the demo does besides.
#[derive(Clone, Copy)]
struct Options {
    /// Leave everything up.
    keep: bool,
    /// `wireguard-go` and rules made by hand in place of our daemons: proves the world, gives figures to compare.
    stand_in: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self {
            keep: false,
            stand_in: false,
        };
        for word in words {
            match *word {
                "--keep" => options.keep = true,
                "--stand-in" => options.stand_in = true,
                other => bail!("unknown option `{other}`"),
            }
        }
        Ok(options)
    }
}

/// What carries the tunnel.
enum Ends {
    Ours(Box<Edge>),
    StandIn(Box<StandIn>),
}

fn run(report: &mut Report, options: Options) -> Result<()> {
    ensure!(
        namespaces_allowed()?,
        "an unprivileged run can't make network namespaces"
    );
    remove_world(NAME)?;
    Report::introduction();
    let mut world = ReferenceWorld::new(Topology::named(NAME)?)?;
    let setup = Setup::new()?;
    let laptop_setup = setup.clone();
    let mut ends = if options.stand_in {
        Ends::StandIn(Box::new(StandIn::start(&world, &setup)?))
    } else {
        Ends::Ours(Box::new(Edge::start(&world, setup)?))
    };
    let mut laptop =
        laptop_setup.dial_in(&world.road_warrior, &laptop_setup.operator, OPERATOR.into())?;

    claims::visitors(report, &world);
    claims::refusals(report, &world);
    claims::operators(report, &world);
    if let Ends::Ours(edge) = &ends {
        claims::daemons(report, edge);
    }
    measure::figures(report, &world);
    claims::fail_over(report, &mut world);

    if report.failed() > 0 {
        Report::line(&world.topology.logs(LOG_LINES));
    }
    report.verdict();
    if options.keep {
        keep(&mut world, &mut ends, &mut laptop);
    }
    Ok(())
}

/// The hosts, a few in a line.
fn in_lines(names: &[&str]) -> String {
    let lines: Vec<String> = names.chunks(8).map(|line| line.join(" ")).collect();
    format!("Hosts: {}", lines.join("\n       "))
}

fn keep(world: &mut ReferenceWorld, ends: &mut Ends, laptop: &mut WireguardGo) {
    world.keep();
    laptop.daemon.release();
    match ends {
        Ends::Ours(edge) => edge.release(),
        Ends::StandIn(stand_in) => {
            stand_in.gateway.daemon.release();
            stand_in.lan_server.daemon.release();
        }
    }
    let names: Vec<&str> = world
        .topology
        .nodes()
        .iter()
        .map(tests::node::Node::name)
        .collect();
    Report::line(&format!(
        "Left up. Logs and configuration: {}\n\
         {}\n\
         Look around:\n\
         \x20 script/demo --in vps wg show\n\
         \x20 script/demo --in lan-host nft list ruleset\n\
         \x20 script/demo --in client curl http://203.0.113.10/\n\
         \x20 ip netns exec {NAME}-lb2 ip -br addr\n\
         Remove it: script/demo --remove",
        world.topology.dir().display(),
        in_lines(&names),
    ));
}
