//! Log lines on standard error, as journald and people like them.
use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Environment variable with the filter, in the syntax of `tracing_subscriber::EnvFilter`; `info` without it.
const FILTER_VARIABLE: &str = "WG_EDGE_LOG";

/// Log to standard error from now on: without time stamps where journald adds its own, in colour only on a terminal.
pub fn init() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        // The engine warns about every handshake that is due: our own lines say what matters.
        .unwrap_or_else(|_| EnvFilter::new("info,boringtun=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    // A second initialisation (tests in one process) keeps the first.
    let _already_set = if env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.with_timer(SystemTime).try_init()
    };
}
