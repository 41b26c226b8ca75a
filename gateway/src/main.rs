//! `gateway`: the public end.
use std::process::ExitCode;

fn main() -> ExitCode {
    shared_daemon::cli::main::<gateway::Gateway>()
}
