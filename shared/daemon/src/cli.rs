//! Arguments of both programs.
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use shared::config::Parsed;
use shared::model::InterfaceName;

use crate::error::{EXIT_CODES, Failure};
use crate::product::{Product, default_config_path};
use crate::{admin, app, bare, down, logging, status};

#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    /// Configuration file [default: /etc/wg-edge/NAME.toml, NAME being that of the program]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground; logs go to standard error
    ///
    /// SIGHUP takes a changed configuration, SIGTERM stops and leaves the kernel state for the next start.
    Run,
    /// Parse and validate the configuration
    ///
    /// Every error is one line with file, line and column, what is wrong and what to do.
    Check {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show tunnel, peers, published services and what was dropped
    Status {
        /// Print the status as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove everything that is ours from the kernel; a running daemon is stopped first
    Down,
    /// Run a bare userspace WireGuard device, configured only by `wg`
    ///
    /// What `wireguard-go -f INTERFACE` is: the device exists until SIGTERM or until its link is deleted.
    Wg {
        /// Name of the interface to make
        interface: InterfaceName,
    },
}

/// The whole program: arguments → exit code.
pub fn main<P: Product>() -> ExitCode {
    let command = Arguments::command().name(P::NAME).about(P::ABOUT);
    let matches = command.get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match dispatch::<P>(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain::<P>(&failure);
            failure.exit_code()
        }
    }
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

fn dispatch<P: Product>(arguments: &Arguments) -> Result<(), Failure> {
    let config_path = arguments
        .config
        .clone()
        .unwrap_or_else(|| default_config_path(P::NAME));
    match &arguments.command {
        Command::Run => {
            logging::init();
            block_on(app::run::<P>(&config_path))
        }
        Command::Check { json } => check::<P>(&config_path, *json),
        Command::Status { json } => block_on(show_status::<P>(&config_path, *json)),
        Command::Down => {
            logging::init();
            block_on(down::run::<P>(&config_path))
        }
        Command::Wg { interface } => {
            logging::init();
            block_on(async {
                bare::run(interface.clone())
                    .await
                    .map_err(|error| Failure::environment(&error))
            })
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(&error))?
        .block_on(command)
}

/// Read and check the configuration; errors come back as one line each.
pub fn load<P: Product>(path: &Path) -> Result<Parsed<P::Config>, Failure> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::Configuration(format!(
            "{file}: can't be read: {error}; name the file with --config PATH"
        ))
    })?;
    P::parse(&text, &file).map_err(|errors| Failure::Configuration(errors.to_string()))
}

fn check<P: Product>(path: &Path, json: bool) -> Result<(), Failure> {
    if !json {
        let loaded = load::<P>(path)?;
        for warning in &loaded.warnings {
            print(&format!("{warning}\n"))?;
        }
        return print(&format!("{}: the configuration is valid\n", path.display()));
    }
    match load::<P>(path) {
        Ok(loaded) => print_json(&serde_json::json!({
            "valid": true,
            "errors": [],
            "warnings": loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        Err(failure) => {
            let errors: Vec<String> = failure.to_string().lines().map(str::to_owned).collect();
            print_json(&serde_json::json!({
                "valid": false, "errors": errors, "warnings": [],
            }))?;
            Err(Failure::Configuration(format!(
                "{}: the configuration is wrong",
                path.display()
            )))
        }
    }
}

async fn show_status<P: Product>(path: &Path, json: bool) -> Result<(), Failure> {
    let settings = P::settings(&load::<P>(path)?.config);
    let socket = admin::socket_path(&settings.runtime_dir, P::NAME);
    let body = admin::client::get(&socket, "/v1/status").await?;
    if json {
        return print(&body);
    }
    let status = serde_json::from_str(&body).map_err(|error| Failure::other(&error))?;
    print(&status::render(&status, io::stdout().is_terminal()))
}

fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `status | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::other(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
