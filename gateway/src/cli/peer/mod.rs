//! `gateway peer`.
mod add;
mod change;
mod list;
mod remove;
mod show;

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use form_urlencoded::byte_serialize;
use shared::api::Page;
use shared::api::peer;
use shared_daemon::admin::client::Client;
use shared_daemon::cli::output::print_json;
use shared_daemon::error::Failure;
use uuid::Uuid;

use super::kubeconfig;

/// What can be done with peers. PEER is a name or an identifier.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// Add a peer and print the configuration for its client
    ///
    /// The configuration (wg-quick format) goes to standard output and is told only this once. Without --public-key the
    /// gateway makes the client's keys; better is to make them on the client (`wg genkey`) and to tell only the public one.
    Add(Box<add::Add>),
    /// List peers, those of the configuration file too
    List(list::List),
    /// Show all that is known about a peer
    Show {
        /// Name or identifier
        peer: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a peer; what is not named stays
    Set(Box<change::Set>),
    /// Give a peer another key, and print the configuration for its client
    ///
    /// Both keys work until the new one is used for the first time, or the overlap is over.
    Rotate(add::Rotate),
    /// Remove peers; they are cut off at once
    Remove(remove::Remove),
    /// Print the configuration for the client of a peer
    ///
    /// The gateway does not keep the client's secrets: they are placeholders unless they are brought.
    Config {
        /// Name or identifier
        peer: String,
        /// File with the client's private key; `-` is standard input
        #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
        private_key_file: Option<PathBuf>,
        /// File with the preshared key
        #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
        preshared_key_file: Option<PathBuf>,
        #[command(flatten)]
        to: add::Destination,
    },
    /// Write a kubeconfig for the Kubernetes API that the role of a peer reaches
    Kubeconfig {
        /// Name or identifier
        peer: String,
        /// The file to write; `-` is standard output
        #[arg(long, short, value_name = "PATH", default_value = "-", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        options: kubeconfig::Options,
    },
    /// Begin to count for the quota of a peer anew
    ResetUsage {
        /// Name or identifier
        peer: String,
    },
}

pub(super) async fn run(command: Peer, client: Client) -> Result<(), Failure> {
    match command {
        Peer::Add(arguments) => add::add(&arguments, &client).await,
        Peer::List(arguments) => list::list(&arguments, &client).await,
        Peer::Show { peer, json } => {
            let (found, _) = find(&client, &peer).await?;
            if json {
                return print_json(&found);
            }
            show::print_peer(&found)
        }
        Peer::Set(arguments) => change::set(&arguments, &client).await,
        Peer::Rotate(arguments) => add::rotate(&arguments, &client).await,
        Peer::Remove(arguments) => remove::remove(&arguments, &client).await,
        Peer::Config {
            peer,
            private_key_file,
            preshared_key_file,
            to,
        } => {
            let secrets = [private_key_file.as_deref(), preshared_key_file.as_deref()];
            add::config(&client, &peer, secrets, &to).await
        }
        Peer::Kubeconfig {
            peer,
            output,
            force,
            options,
        } => {
            let (found, _) = find(&client, &peer).await?;
            kubeconfig::write(&client, &found, &options, &output, force).await
        }
        Peer::ResetUsage { peer } => change::reset_usage(&client, &peer).await,
    }
}

/// A value in a path or a query.
pub(super) fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// The peer of this name or identifier, and its `ETag`.
async fn find(client: &Client, wanted: &str) -> Result<(peer::Peer, String), Failure> {
    let id = if let Ok(id) = wanted.parse::<Uuid>() {
        id
    } else {
        let path = format!("/v1/peers?name={}", encoded(wanted));
        let page: Page<peer::Peer> = client.get(&path).await?.json()?;
        let first = page.items.first().ok_or_else(|| {
            Failure::Other(format!(
                "there is no peer {wanted:?}; `gateway peer list` shows all"
            ))
        })?;
        first.id
    };
    let answer = client.get(&format!("/v1/peers/{id}")).await?;
    let etag = answer.etag().unwrap_or("*").to_owned();
    Ok((answer.json()?, etag))
}

#[cfg(test)]
mod tests;
