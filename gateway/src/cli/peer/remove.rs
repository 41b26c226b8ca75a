//! `gateway peer remove`.
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use hyper::Method;
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::note;
use shared_daemon::cli::progress::Progress;
use shared_daemon::error::Failure;

use super::find;

/// From this many on they are not named one by one.
const MANY: usize = 20;

/// Arguments of `peer remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Names or identifiers
    #[arg(required = true, value_name = "PEER")]
    peers: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[cfg(test)]
impl Remove {
    pub(super) fn of(peer: &str) -> Self {
        Self {
            peers: vec![peer.to_owned()],
            yes: true,
        }
    }
}

pub(super) async fn remove(arguments: &Remove, client: &Client) -> Result<(), Failure> {
    // All are looked up before the first is removed: a typing error removes nothing.
    let mut found = Vec::new();
    let total = arguments.peers.len();
    let all = u64::try_from(total).ok();
    let mut progress = Progress::new();
    for (number, wanted) in (0..).zip(&arguments.peers) {
        progress.tell("found", number, all, "peers");
        found.push(find(client, wanted).await?);
    }
    drop(progress);
    if !arguments.yes {
        let names: Vec<&str> = found.iter().map(|(peer, _)| peer.name.as_str()).collect();
        confirm(&names.join(", "))?;
    }
    let mut progress = Progress::new();
    for (number, (peer, etag)) in (0..).zip(&found) {
        progress.tell("removed", number, all, "peers");
        let call = Call::new(Method::DELETE, format!("/v1/peers/{}", peer.id));
        if let Err(failure) = client.send(call.if_match(etag)).await {
            drop(progress);
            if number > 0 {
                note(&format!("{number} of {total} are removed"));
            }
            return Err(failure);
        }
    }
    drop(progress);
    if total >= MANY {
        note(&format!("{total} peers are removed"));
        return Ok(());
    }
    for (peer, _) in &found {
        note(&format!("{} is removed", peer.name));
    }
    Ok(())
}

fn confirm(names: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Other(
            "nobody is there to be asked; --yes removes without asking".to_owned(),
        ));
    }
    // Nothing is left to be done when even standard error is gone.
    let _closed = write!(io::stderr().lock(), "remove {names}? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::other(&error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Other("nothing was removed".to_owned())),
    }
}
