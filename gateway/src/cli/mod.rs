//! Commands that only the gateway has: a client of its own admin API, and what is done to the database as a file.
//!
//! What a program reads goes to standard output and nothing else does: the configuration of a peer, a token, JSON. What a
//! person should know beside goes to standard error. Secrets are never arguments, which every user of the machine can see.
mod audit;
mod certificate;
mod events;
mod files;
mod init;
mod invite;
mod kubeconfig;
mod peer;
mod qr;
mod token;
mod values;

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use shared_daemon::cli::Context;
use shared_daemon::cli::output::note;
use shared_daemon::cli::progress::Progress;
use shared_daemon::error::Failure;

use crate::backup::Held;
use crate::{Gateway, backup};

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Add, list, change, rotate and remove peers
    #[command(subcommand)]
    Peer(peer::Peer),
    /// Make, list and revoke tokens for the API inside of the tunnel
    #[command(subcommand)]
    Token(token::Token),
    /// Write a first configuration, and print a token for the LAN host
    ///
    /// Finds out what the arguments leave open and says why; asks before it writes. Running it again changes nothing, and
    /// prints another token until a LAN host has joined.
    Init(init::Init),
    /// Make a token that a LAN host joins with: `lan-server join TOKEN`
    ///
    /// It works once, for 15 minutes, and is printed alone on standard output. An earlier token for the same LAN server is
    /// worthless from now on; a host that has joined stays until another one joins in its place.
    Invite(invite::Invite),
    /// Show the audit log, and prove that nobody changed it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show what happens, as it happens, until interrupted
    Events {
        /// Print each event as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Write all that the API has made into one file; the daemon may run meanwhile
    ///
    /// The file holds preshared keys: keep it as you keep private keys. A broken audit log is a warning: the backup is made.
    Backup {
        /// The file to make; it must not exist yet
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Put a backup in the place of what the API has made; the daemon must not run
    ///
    /// What is there now is kept beside it as `peers.db.before-restore`.
    Restore {
        /// What `backup` wrote
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Restore it even if its audit log was changed
        #[arg(long)]
        accept_broken_audit: bool,
    },
}

/// Do it.
pub(crate) async fn run(command: Commands, context: &Context<Gateway>) -> Result<(), Failure> {
    match command {
        Commands::Peer(command) => peer::run(command, context.client()?).await,
        Commands::Token(command) => token::run(command, context.client()?).await,
        Commands::Init(arguments) => init::run(arguments, context).await,
        Commands::Invite(arguments) => invite::run(arguments, context).await,
        Commands::Audit(command) => audit::run(command, context).await,
        Commands::Events { json } => events::follow(&context.client()?, json).await,
        Commands::Backup { file } => {
            let settings = context.settings()?;
            let held = backup::backup(&settings.state_dir, &file, &mut Progress::new())?;
            note(&format!("{}: {held}", file.display()));
            warn_of_broken_audit(&held);
            Ok(())
        }
        Commands::Restore {
            file,
            accept_broken_audit,
        } => {
            let settings = context.settings()?;
            let restored = backup::restore(
                &settings.state_dir,
                &settings.runtime_dir,
                &file,
                accept_broken_audit,
                &mut Progress::new(),
            )?;
            if let Some(damage) = &restored.damage {
                note(&format!(
                    "warning: the database that was replaced is damaged ({damage}); it is kept as it was, with its \
                     write-ahead log"
                ));
            }
            let held = restored.held;
            note(&format!("restored {held}; start the daemon with `run`"));
            warn_of_broken_audit(&held);
            Ok(())
        }
    }
}

fn warn_of_broken_audit(held: &Held) {
    if let Some(broken) = &held.broken {
        note(&format!(
            "WARNING: the audit log was changed: {broken}. Somebody may hide what he did: compare with an older backup \
             (`gateway audit verify --file FILE`) before you trust what is in it"
        ));
    }
}

#[cfg(test)]
mod tests {
    use shared_daemon::cli::command;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent_and_every_command_is_explained() {
        fn explained(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {argument}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(explained);
        }
        let mut command = command::<Gateway>();
        command.build();
        explained(&command);
        command.debug_assert();
    }
}
