//! What is acknowledged is on the disk: the system calls of a process that commits, as `strace` sees them.
use std::process::{Command, Stdio};

use crate::child;

const BATCHES: u32 = 25;

#[test]
fn no_batch_is_acknowledged_before_its_log_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o"])
        .arg(&trace)
        .args(child::command_line());
    let ended = child::with_work(strace, &state, Some(BATCHES))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .expect("strace is needed (Debian package strace)");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}: {said}", ended.status);
    let trace = std::fs::read_to_string(&trace).unwrap();
    let mut acknowledged = 0;
    let mut is_on_disk = false;
    let mut is_of_log = false;
    for line in trace.lines() {
        // Another thread's call may stand between the two halves of one: the file in the first, the result in the second.
        if line.contains("sync(") {
            is_of_log = line.contains("peers.db-wal>");
        }
        if line.contains("sync(") || line.contains("sync resumed") {
            is_on_disk |= is_of_log && line.ends_with("= 0");
        } else if line.contains("write(1<") {
            if let Some(batch) = child::acknowledged(line) {
                assert!(is_on_disk, "batch {batch} was acknowledged before a sync");
                acknowledged += 1;
                is_on_disk = false;
            }
        }
    }
    assert_eq!(acknowledged, BATCHES, "{trace}");
}
