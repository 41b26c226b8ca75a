//! The command line of both programs: arguments, and what all commands have in common. What only one of them does is its
//! [`Product::Commands`].
mod apply;
mod check;
pub mod config_file;
mod context;
mod doctor;
mod explain;
mod generate;
pub mod output;
mod plan;
pub mod progress;
pub mod service;
mod trace;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use shared::api::explanation::OriginError;
use shared::config::Parsed;
use shared::config::policy_test::{CallerName, Target};
use shared::model::InterfaceName;

use crate::apply::guard;
use crate::error::{EXIT_CODES, Failure};
use crate::product::{Product, default_config_path};
use crate::{app, bare, down, logging, status};

pub use context::Context;
use output::{is_coloured, print};

#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments<C: Subcommand, F: Args> {
    /// Configuration file [default: /etc/wg-edge/NAME.toml, NAME being that of the program]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Socket of the daemon to talk to [default: as the configuration says]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command<C, F>,
}

#[derive(Debug, Subcommand)]
enum Command<C: Subcommand, F: Args> {
    /// Run the daemon in the foreground; logs go to standard error
    ///
    /// SIGHUP takes a changed configuration, SIGTERM stops and leaves the kernel state for the next start.
    Run,
    /// Parse and validate the configuration, and try its tests
    ///
    /// Every error is one line with file, line and column, what is wrong and what to do. So is every `[[test]]` whose call does not
    /// fare as expected.
    Check {
        #[command(flatten)]
        other_end: F,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a reload would do, and change nothing
    ///
    /// How what is live differs from what the configuration file asks for: links, addresses, routes, rules, sysctls, the
    /// firewall table, sockets and peers. The running daemon is asked; where none runs, what a start would do.
    #[command(after_help = PLAN_EXIT_CODES)]
    Plan {
        #[command(flatten)]
        other_end: F,
        /// Print the plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the configuration file on trial, look whether everything still works, and keep it or go back
    ///
    /// The daemon goes back by itself unless the configuration is confirmed by a connection that was opened after it was in
    /// place. This command confirms it when what was well before is well by then, and goes back when it is not. A reload
    /// (SIGHUP) takes the file without a trial.
    #[command(args_conflicts_with_subcommands = true, after_help = apply::EXIT_CODES)]
    Apply(apply::Arguments),
    /// The process that goes back when the daemon has died during a trial
    #[command(hide = true)]
    GuardApply(guard::Orders),
    /// Show the way of a call through the rules, one by one, and of its answer
    ///
    /// The rules are simulated as the configuration file makes them: nothing is sent, and neither a daemon nor a privilege is
    /// needed.
    #[command(after_help = trace::EXIT_CODES)]
    Trace {
        /// Who calls: peer:NAME, an address, or internet
        #[arg(long, value_name = "CALLER")]
        from: CallerName,
        /// What is called; TCP unless another protocol is said
        #[arg(long, value_name = "ADDRESS:PORT[/PROTOCOL]")]
        to: Target,
        #[command(flatten)]
        other_end: F,
        /// Print the way as JSON
        #[arg(long)]
        json: bool,
    },
    /// Try every hop of every published path and name the place that is broken
    ///
    /// In the order in which a visitor's packets take them: the daemon and what it has in the kernel, the uplink, the tunnel and its
    /// MTU, firewalls of others, routes, then each service by a connection, TLS and HTTP. Nothing is changed.
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(doctor::Arguments),
    /// Say what an error of Cloudflare's (520 to 526) most likely comes from
    ///
    /// What is broken now, as `doctor` finds it, what was seen in the last minutes, and what can't be seen from this host.
    #[command(after_help = explain::EXIT_CODES)]
    Explain {
        /// The error that visitors see
        #[arg(value_name = "ERROR")]
        error: OriginError,
        /// Print the causes as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show tunnel, peers, published services and what was dropped
    Status {
        /// Print the status as JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Product(C),
    /// Remove everything that is ours from the kernel; a running daemon is stopped first
    Down,
    /// Run a bare userspace WireGuard device, configured only by `wg`
    ///
    /// What `wireguard-go -f INTERFACE` is: the device exists until SIGTERM or until its link is deleted.
    Wg {
        /// Name of the interface to make
        interface: InterfaceName,
    },
    /// Print what a shell needs to complete commands of this program
    ///
    /// For bash: `PROGRAM completions bash > /etc/bash_completion.d/PROGRAM`.
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual, one page per command
    Man {
        /// Where to: `/usr/local/share/man/man8`
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// As diff(1) does it.
const PLAN_EXIT_CODES: &str = "\
Exit codes:
  0  nothing to change
  1  the configuration is wrong, one of its tests fails, or the plan can't be made
  2  there is something to change, or wrong usage
  4  the machine lacks something: privilege, the link to the internet";

/// The whole program: arguments → exit code.
pub fn main<P: Product>() -> ExitCode {
    let matches = command::<P>().get_matches();
    let arguments = match Arguments::<P::Commands, P::OtherEndFiles>::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match dispatch::<P>(arguments) {
        Ok(code) => code,
        Err(failure) => {
            complain::<P>(&failure);
            failure.exit_code()
        }
    }
}

/// Everything that the program understands.
pub fn command<P: Product>() -> clap::Command {
    let command = Arguments::<P::Commands, P::OtherEndFiles>::command();
    command.name(P::NAME).about(P::ABOUT)
}

/// Errors in a file begin with its name, as editors like it; others with ours.
fn complain<P: Product>(failure: &Failure) {
    let mut stderr = io::stderr().lock();
    for line in failure.to_string().lines() {
        // Nothing is left to be done when even standard error is gone.
        let _closed = if matches!(failure, Failure::Configuration(_)) {
            writeln!(stderr, "{line}")
        } else {
            writeln!(stderr, "{}: {line}", P::NAME)
        };
    }
}

fn dispatch<P: Product>(
    arguments: Arguments<P::Commands, P::OtherEndFiles>,
) -> Result<ExitCode, Failure> {
    let config_path = arguments.config;
    let config_path = config_path.unwrap_or_else(|| default_config_path(P::NAME));
    let context = Context::<P>::new(config_path, arguments.socket);
    match arguments.command {
        Command::Plan { other_end, json } => {
            return block_on(plan::run(&context, other_end.as_ref(), json));
        }
        Command::Apply(arguments) => return block_on(apply::run(&context, arguments)),
        Command::GuardApply(orders) => {
            logging::init();
            block_on(guard::run::<P>(&context.config_path, &orders))
        }
        Command::Trace {
            from,
            to,
            other_end,
            json,
        } => return block_on(trace::run(&context, from, to, other_end.as_ref(), json)),
        Command::Doctor(arguments) => return block_on(doctor::run(&context, arguments)),
        Command::Explain { error, json } => block_on(explain::run(&context, error, json)),
        Command::Run => {
            logging::init();
            block_on(app::run::<P>(&context.config_path))
        }
        Command::Check { other_end, json } => {
            check::run::<P>(&context.config_path, other_end.as_ref(), json)
        }
        Command::Status { json } => block_on(show_status(&context, json)),
        Command::Product(command) => block_on(P::command(command, &context)),
        Command::Down => {
            logging::init();
            block_on(down::run::<P>(&context.config_path))
        }
        Command::Wg { interface } => {
            logging::init();
            block_on(async {
                bare::run(interface)
                    .await
                    .map_err(|error| Failure::environment(&error))
            })
        }
        Command::Completions { shell } => generate::completions::<P>(shell),
        Command::Man { directory } => generate::manual::<P>(&directory),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(&error))?
        .block_on(command)
}

/// Files as the daemon finds them, which works in another directory.
fn absolute(files: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let files = files.iter().map(std::path::absolute);
    let files: io::Result<Vec<PathBuf>> = files.collect();
    files.map_err(|error| Failure::other(&error))
}

/// Read and check the configuration; errors come back as one line each.
pub fn load<P: Product>(path: &Path) -> Result<Parsed<P::Config>, Failure> {
    parse::<P>(&read(path)?, path)
}

/// The text of the configuration.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::Configuration(format!(
            "{}: can't be read: {error}; name the file with --config PATH",
            path.display()
        ))
    })
}

/// Check the text of the configuration that stands in this file.
pub(crate) fn parse<P: Product>(text: &str, path: &Path) -> Result<Parsed<P::Config>, Failure> {
    let parsed = P::parse(text, &path.display().to_string());
    parsed.map_err(|errors| Failure::Configuration(errors.to_string()))
}

async fn show_status<P: Product>(context: &Context<P>, json: bool) -> Result<(), Failure> {
    let answer = context.client()?.get("/v1/status").await?;
    if json {
        return print(&answer.text());
    }
    print(&status::render(&answer.json()?, is_coloured()))
}

#[cfg(test)]
mod tests;
