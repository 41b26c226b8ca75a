//! `gateway audit`.
use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use shared::api::Page;
use shared::api::audit::AuditEntry;
use shared_daemon::admin::client::Client;
use shared_daemon::cli::Context;
use shared_daemon::cli::output::{columns, is_coloured, print, print_json, table};
use shared_daemon::cli::progress::Progress;
use shared_daemon::error::Failure;

use crate::Gateway;
use crate::audit::{Broken, Head, verify};
use crate::store::sqlite;

/// Entries per page: the most that the API gives.
const PAGE: usize = 1000;

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show the log, oldest entry first
    List {
        /// Begin after the entry with this number
        #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
        after: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that every entry is what was written, and follows the one before
    ///
    /// Prints SEQUENCE:HASH of the last entry. Keep it elsewhere and give it to --expect the next time: only so it is seen
    /// when the newest entries were cut off, or the whole log was written anew.
    Verify {
        /// What an earlier `verify` printed; the log must still hold that entry
        #[arg(long, value_name = "SEQUENCE:HASH")]
        expect: Option<Head>,
        /// A database or a backup instead of the running daemon
        #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(command: Audit, context: &Context<Gateway>) -> Result<(), Failure> {
    match command {
        Audit::List { after, json } => {
            let source = Source::Daemon(context.client()?);
            let mut entries = Vec::new();
            loop {
                let last = entries
                    .last()
                    .map_or(after, |last: &AuditEntry| last.sequence);
                let page = source.after(last).await?;
                if page.is_empty() {
                    break;
                }
                entries.extend(page);
            }
            if json {
                return print_json(&Page {
                    items: entries,
                    next_cursor: None,
                });
            }
            print(&listed(&entries, columns(), is_coloured()))
        }
        Audit::Verify { expect, file, json } => {
            let source = match file {
                Some(path) => Source::File(path),
                None => Source::Daemon(context.client()?),
            };
            let head = walk(&source, expect.as_ref(), &mut Progress::new()).await?;
            if json {
                return print_json(&serde_json::json!({
                    "valid": true, "sequence": head.sequence, "hash": head.hash,
                }));
            }
            print(&format!("{head}\n"))
        }
    }
}

/// Where entries come from.
enum Source {
    Daemon(Client),
    File(PathBuf),
}

impl Source {
    async fn after(&self, sequence: u64) -> Result<Vec<AuditEntry>, Failure> {
        match self {
            Self::Daemon(client) => {
                let path = format!("/v1/audit?limit={PAGE}&cursor={sequence}");
                let page: Page<AuditEntry> = client.get(&path).await?.json()?;
                Ok(page.items)
            }
            Self::File(path) => {
                let database = sqlite::open_to_read(path).map_err(|e| Failure::other(&e))?;
                let entries = sqlite::audit_after(&database, sequence, PAGE);
                entries.map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
            }
        }
    }
}

async fn walk(
    source: &Source,
    expect: Option<&Head>,
    progress: &mut Progress,
) -> Result<Head, Failure> {
    let mut head = Head::default();
    let mut met = expect.is_none_or(|expected| *expected == head);
    loop {
        let entries = source.after(head.sequence).await?;
        if entries.is_empty() {
            break;
        }
        met |= expect.is_some_and(|expected| {
            entries
                .iter()
                .any(|e| e.sequence == expected.sequence && e.hash == expected.hash)
        });
        head = verify(head, &entries).map_err(|broken| changed(&broken))?;
        progress.tell("checked", head.sequence, None, "audit entries");
    }
    match expect {
        Some(expected) if !met => Err(Failure::Other(format!(
            "the audit log is not the one of {expected}: entries were cut off, or it was written anew; it ends at {head}"
        ))),
        Some(_) | None => Ok(head),
    }
}

fn changed(broken: &Broken) -> Failure {
    Failure::Other(format!("the audit log was changed: {broken}"))
}

fn listed(entries: &[AuditEntry], columns: u16, coloured: bool) -> String {
    let rows = entries.iter().map(|entry| {
        let fields: Vec<&str> = entry.difference.keys().map(String::as_str).collect();
        let name = entry.difference.get("name");
        let name = name.and_then(|name| name.get("to").or_else(|| name.get("from")));
        let name = name.and_then(|name| name.as_str());
        vec![
            entry.sequence.to_string(),
            entry.at.strftime("%F %T").to_string(),
            entry.actor.clone(),
            entry.action.clone(),
            name.map_or_else(|| entry.resource.clone(), str::to_owned),
            fields.join(","),
        ]
    });
    let head = ["#", "TIME (UTC)", "WHO", "WHAT", "ON", "FIELDS"];
    table(&head, &[2, 4, 5], rows.collect(), columns, coloured)
}

#[cfg(test)]
mod tests;
