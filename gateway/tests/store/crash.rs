//! A process that is killed at any moment has lost nothing that it acknowledged, and made nothing that it did not.
//!
//! SIGKILL takes the process and leaves the kernel's page cache, so what this proves is that a batch is there as a whole or
//! not at all, and that recovery works at every point. That acknowledged data is on the disk itself a test can't take the
//! power away to prove; that each commit waits for it is what [`disk`](crate::disk) shows.
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::store::Store;
use gateway::store::sqlite::SqliteStore;

use crate::child::{self, BATCH};

const KILLS: usize = 1000;

/// When the child is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after its start: while the program starts, the database is opened, recovered, or written.
    AfterStart(Duration),
    /// So long after its first acknowledgement.
    AfterFirst(Duration),
}

/// Runs the child and kills it. Returns the last batch that it acknowledged, if any, and when it acknowledged the first.
fn run_and_kill(dir: &Path, moment: Moment) -> (Option<u32>, Option<Duration>) {
    let line = child::command_line();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    let start = Instant::now();
    let mut child = child::with_work(command, dir, None)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = None;
    let mut first_after = None;
    match moment {
        Moment::AfterStart(delay) => std::thread::sleep(delay),
        Moment::AfterFirst(delay) => {
            for line in lines.by_ref() {
                last = child::acknowledged(&line.unwrap());
                if last.is_some() {
                    first_after = Some(start.elapsed());
                    break;
                }
            }
            std::thread::sleep(delay);
        }
    }
    child.kill().unwrap();
    for line in lines {
        // What was acknowledged before the kill stands in the pipe; the last line may be cut.
        let batch = line.ok().and_then(|line| child::acknowledged(&line));
        last = last.max(batch);
    }
    child.wait().unwrap();
    (last, first_after)
}

/// Fails unless exactly the acknowledged batches are there, or one more, which was on its way. Returns how many there are.
fn check(dir: &Path, acknowledged: u32) -> u32 {
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
    let batches = log
        .last()
        .map_or(0, |last| u32::try_from(last.sequence).unwrap());
    assert!(
        batches == acknowledged || batches == acknowledged + 1,
        "{acknowledged} batches were acknowledged, {batches} are there"
    );
    let last = batches * BATCH;
    let first = last.saturating_sub(BATCH).saturating_sub(57);
    let expected: Vec<_> = (first..last).map(crate::peer).collect();
    let names = |peers: &[gateway::store::PeerRecord]| -> Vec<String> {
        let mut names: Vec<String> = peers.iter().map(|p| p.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&peers), names(&expected));
    batches
}

/// Numbers without an order (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[test]
fn killed_1000_times_it_has_every_acknowledged_change_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    let mut random = Random(seed);
    // How long it takes to the first acknowledgement, as it was the last time.
    let mut usual = Duration::from_millis(20);
    let mut before = 0;
    let mut early = 0;
    for kill in 0..KILLS {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap();
        let moment = if kill % 2 == 0 {
            Moment::AfterFirst(Duration::from_micros(random.below(6000)))
        } else {
            let delay = random.below(micros(usual) * 5 / 4 + 1);
            Moment::AfterStart(Duration::from_micros(delay))
        };
        let (last, first_after) = run_and_kill(dir.path(), moment);
        usual = first_after.unwrap_or(usual);
        early += usize::from(last.is_none());
        let checked = std::panic::catch_unwind(|| check(dir.path(), last.unwrap_or(before)));
        before = checked.unwrap_or_else(|panic| {
            println!("seed {seed}, kill {kill}, {moment:?}");
            std::panic::resume_unwind(panic)
        });
    }
    assert!(early > KILLS / 20, "{early} kills before the first answer");
    assert!(before > 500, "{before} batches in all");
}
