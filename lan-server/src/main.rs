//! `lan-server`: the end on the LAN host.
use std::process::ExitCode;

fn main() -> ExitCode {
    shared_daemon::cli::main::<lan_server::LanServer>()
}
