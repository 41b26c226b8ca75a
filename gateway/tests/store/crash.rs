//! A process that is killed at any moment has lost nothing that it acknowledged, and made nothing that it did not.
//!
//! SIGKILL takes the process and leaves the kernel's page cache, so what this proves is that a batch is there as a whole or
//! not at all, and that recovery works at every point. That acknowledged data is on the disk itself follows from
//! `synchronous=FULL`, which a test can't take the power away to prove; that each commit does wait for it is tested.
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gateway::store::sqlite::SqliteStore;
use gateway::store::{Change, Store};
use uuid::Uuid;

use crate::{entry, put};

/// Where the child finds the directory to work in.
const DIR: &str = "WG_EDGE_TEST_STORE_DIR";
const KILLS: usize = 1000;
/// Peers of one batch: they are there together or not at all.
const BATCH: u32 = 3;

/// The child's part: batch after batch, each acknowledged by its number on standard output once the store says that it is
/// durable. Without the variable there is nothing to do: the parent starts it.
#[test]
#[ignore = "the child of killed_1000_times"]
fn child() {
    let dir = std::env::var(DIR).expect("the parent starts it");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(Path::new(&dir)).unwrap();
        let held = store.load().await.unwrap();
        let mut batch = held
            .audit_head
            .as_ref()
            .map_or(0, |head| u32::try_from(head.sequence).unwrap());
        let mut head = held.audit_head;
        let mut out = std::io::stdout();
        loop {
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
            batch += 1;
            writeln!(out, "acknowledged {batch}").unwrap();
            out.flush().unwrap();
        }
    });
}

/// Runs the child until `after` its first acknowledgement, kills it, and returns the last batch that it acknowledged.
fn run_and_kill(dir: &Path, after: Duration) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let batch_of = |line: &str| {
        let number = line
            .rsplit_once("acknowledged ")
            .map(|(_, number)| number.to_owned());
        number.and_then(|number| number.parse::<u32>().ok())
    };
    let mut last = 0;
    for line in lines.by_ref() {
        if let Some(batch) = batch_of(&line.unwrap()) {
            last = batch;
            break;
        }
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    for line in lines {
        // What was acknowledged before the kill stands in the pipe; the last line may be cut.
        last = line
            .ok()
            .and_then(|line| batch_of(&line))
            .unwrap_or(last)
            .max(last);
    }
    child.wait().unwrap();
    last
}

fn check(dir: &Path, acknowledged: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (peers, log) = runtime.block_on(async {
        let store = SqliteStore::open(dir).unwrap();
        let after = u64::from(acknowledged.saturating_sub(30));
        (
            store.load().await.unwrap().peers,
            store.audit_after(after, 100).await.unwrap(),
        )
    });
    let batches = u32::try_from(log.last().unwrap().sequence).unwrap();
    assert!(
        batches == acknowledged || batches == acknowledged + 1,
        "{acknowledged} batches were acknowledged, {batches} are there"
    );
    let last = batches * BATCH;
    let first = (last - BATCH).saturating_sub(57);
    let expected: Vec<_> = (first..last).map(crate::peer).collect();
    let names = |peers: &[gateway::store::PeerRecord]| -> Vec<String> {
        let mut names: Vec<String> = peers.iter().map(|p| p.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&peers), names(&expected));
}

#[test]
fn killed_1000_times_it_has_every_acknowledged_change_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        // From right after an acknowledgement to somewhere in the middle of later batches.
        let after = Duration::from_micros((kill as u64 * 7919) % 6000);
        let acknowledged = run_and_kill(dir.path(), after);
        assert!(acknowledged > 0);
        check(dir.path(), acknowledged);
    }
}
