//! A process that commits batch after batch and says so, for others to kill and to watch.
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use gateway::store::sqlite::SqliteStore;
use gateway::store::{Change, Store};
use uuid::Uuid;

use crate::{entry, put};

/// Where the child finds the directory to work in.
const DIR: &str = "WG_EDGE_TEST_STORE_DIR";
/// After how many batches it ends by itself; without it never.
const BATCHES: &str = "WG_EDGE_TEST_STORE_BATCHES";
/// Peers of one batch: they are there together or not at all.
pub(crate) const BATCH: u32 = 3;
/// What stands before the number of an acknowledged batch.
const ACKNOWLEDGED: &str = "acknowledged ";

/// Name and arguments of the child, for a program that starts others.
pub(crate) fn command_line() -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let arguments = ["--exact", "child::child", "--ignored", "--nocapture"];
    let arguments = arguments.into_iter().map(str::to_owned);
    std::iter::once(program).chain(arguments).collect()
}

/// The same, told where to work and when to end.
pub(crate) fn with_work(mut command: Command, dir: &Path, batches: Option<u32>) -> Command {
    command.env(DIR, dir);
    if let Some(batches) = batches {
        command.env(BATCHES, batches.to_string());
    }
    command
}

/// The number of the batch that a line of its output acknowledges.
pub(crate) fn acknowledged(line: &str) -> Option<u32> {
    let (_, number) = line.rsplit_once(ACKNOWLEDGED)?;
    let end = number.find(|c: char| !c.is_ascii_digit());
    number.get(..end.unwrap_or(number.len()))?.parse().ok()
}

/// The child's part: batch after batch, each acknowledged by its number on standard output once the store says that it is
/// durable.
#[test]
#[ignore = "a process of its own, which other tests start"]
fn child() {
    let dir = std::env::var(DIR).expect("the parent starts it");
    let batches = std::env::var(BATCHES).map_or(u32::MAX, |count| count.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(Path::new(&dir)).unwrap();
        let held = store.load().await.unwrap();
        let first = held
            .audit_head
            .as_ref()
            .map_or(0, |head| u32::try_from(head.sequence).unwrap());
        let mut head = held.audit_head;
        let mut out = std::io::stdout();
        for batch in first..first.saturating_add(batches) {
            let next = entry(head.as_ref());
            let first = batch * BATCH;
            let mut changes: Vec<Change> = (first..first + BATCH).map(put).collect();
            // Keeps the database small, and deletes as much as it puts.
            changes.extend(
                (first.saturating_sub(60)..first.saturating_sub(57))
                    .filter(|_| first >= 60)
                    .map(|old| Change::DeletePeer(Uuid::from_u128(u128::from(old)))),
            );
            changes.push(Change::Audit(next.clone()));
            store.commit(changes).await.unwrap();
            head = Some(next);
            writeln!(out, "{ACKNOWLEDGED}{}", batch + 1).unwrap();
            out.flush().unwrap();
        }
    });
}
