//! Commands that only the LAN end has.
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use shared_daemon::cli::Context;
use shared_daemon::error::Failure;

use crate::{LanServer, join};

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Pair with a gateway, by the token that `gateway invite` prints there
    ///
    /// Shows what the gateway would like to reach through this host, asks, and writes the configuration and the keys. Nothing
    /// is changed before the gateway has taken the token, and running the command again does no harm.
    Join(Join),
}

/// `lan-server join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The token; `-` reads it from standard input, where no other user of this host can see it
    pub token: String,
    /// Show what would be written; the token stays unused
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    pub yes: bool,
    /// Put the new configuration in the place of one that differs, which is kept as PATH.before-join
    #[arg(long)]
    pub replace: bool,
    /// Run the daemon in the foreground when paired, in place of the installed service
    #[arg(long, conflicts_with = "no_start")]
    pub run: bool,
    /// Don't start the installed service
    #[arg(long)]
    pub no_start: bool,
    /// Where keys are kept [default: /var/lib/wg-edge]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Where sockets are made [default: /run/wg-edge]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub runtime_dir: Option<PathBuf>,
}

/// Do it.
pub(crate) async fn run(command: Commands, context: &Context<LanServer>) -> Result<(), Failure> {
    match command {
        Commands::Join(arguments) => join::run(arguments, context).await,
    }
}

#[cfg(test)]
mod tests {
    use shared_daemon::cli::command;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        command::<LanServer>().debug_assert();
    }
}
