//! Backups: what the API has made, as one file.
//!
//! A backup is a database of its own, complete and consistent also when it is made while the daemon works (`SQLite`'s online
//! backup). Restoring puts it in the place of the database of a daemon that does not run.
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use shared_daemon::error::Failure;
use shared_os::process::Instance;

use crate::audit::{Head, verify};
use crate::store::sqlite;

/// Pages per step: writers wait no longer than copying 4 MiB takes.
const PAGES_PER_STEP: i32 = 1000;
/// What stood in the place of a restored database.
const BEFORE: &str = "peers.db.before-restore";

/// What a backup holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Peers of the API.
    pub peers: u64,
    /// Tokens.
    pub tokens: u64,
    /// The last entry of the audit log.
    pub audit: Head,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peers,
            tokens,
            audit,
        } = self;
        write!(f, "{peers} peers, {tokens} tokens, audit log {audit}")
    }
}

/// Copy the database of `state_dir` into `file`, which must not exist. It appears there complete or not at all.
///
/// # Errors
/// There is no database, it is damaged, or the file can't be written.
pub fn backup(state_dir: &Path, file: &Path) -> Result<Held, Failure> {
    let source = state_dir.join(sqlite::FILE_NAME);
    if !source.exists() {
        return Err(Failure::Other(format!(
            "{}: there is no database; has the daemon ever run?",
            source.display()
        )));
    }
    if file.exists() {
        return Err(Failure::Other(format!(
            "{}: exists already",
            file.display()
        )));
    }
    let unfinished = beside(file, "unfinished");
    let held = copy(&source, &unfinished).and_then(|held| {
        // Not `rename`: it would replace what another has made meanwhile.
        fs::hard_link(&unfinished, file).map_err(at(file))?;
        sync_directory(file).map_err(at(file))?;
        Ok(held)
    });
    // Gone or not: it is ours, and nothing depends on it.
    let _gone = fs::remove_file(&unfinished);
    held
}

/// Put `file` in the place of the database of `state_dir`. What was there is kept beside it.
///
/// # Errors
/// The daemon runs, `file` is no backup, or it can't be written. Nothing was changed then.
pub fn restore(state_dir: &Path, runtime_dir: &Path, file: &Path) -> Result<Held, Failure> {
    // Held to the end: no daemon starts meanwhile.
    let _instance = Instance::acquire(runtime_dir, "gateway").map_err(|error| {
        let text = shared_daemon::error::chain(&error);
        Failure::Environment(format!(
            "{text}; stop the daemon before a backup is restored"
        ))
    })?;
    let target = state_dir.join(sqlite::FILE_NAME);
    let unfinished = state_dir.join("peers.db.restoring");
    remove_if_there(&unfinished).map_err(at(&unfinished))?;
    let held = copy(file, &unfinished)?;
    if target.exists() {
        // With all that is still in its write-ahead log.
        let before = state_dir.join(BEFORE);
        remove_if_there(&before).map_err(at(&before))?;
        copy(&target, &before).or_else(|failure| keep_damaged(&target, &before, &failure))?;
    }
    for log in ["peers.db-wal", "peers.db-shm"] {
        let log = state_dir.join(log);
        remove_if_there(&log).map_err(at(&log))?;
    }
    fs::rename(&unfinished, &target).map_err(at(&target))?;
    sync_directory(&target).map_err(at(&target))?;
    Ok(held)
}

/// A database that can't be read any more is kept as it is: restoring is what helps against that.
fn keep_damaged(target: &Path, before: &Path, failure: &Failure) -> Result<Held, Failure> {
    tracing::warn!(%failure, "the database that is replaced is damaged; it is kept as it is");
    fs::copy(target, before).map_err(at(before))?;
    Ok(Held {
        peers: 0,
        tokens: 0,
        audit: Head::default(),
    })
}

/// Copy a database, and check what was copied before anyone relies on it.
fn copy(from: &Path, to: &Path) -> Result<Held, Failure> {
    let failed =
        |error: rusqlite::Error| Failure::Environment(format!("{}: {error}", to.display()));
    let source = sqlite::open_to_read(from).map_err(|error| Failure::other(&error))?;
    create_private(to).map_err(at(to))?;
    let copied = (|| {
        let mut target = Connection::open(to).map_err(failed)?;
        Backup::new(&source, &mut target)
            .and_then(|copy| copy.run_to_completion(PAGES_PER_STEP, Duration::from_millis(5), None))
            .map_err(failed)?;
        // One file: no write-ahead log beside it.
        let mode: String = target
            .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
            .map_err(failed)?;
        debug_assert_eq!(mode, "delete");
        drop(target);
        File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(at(to))?;
        held(to)
    })();
    if copied.is_err() {
        // Half a copy is worth nothing.
        let _gone = fs::remove_file(to);
    }
    copied
}

fn held(path: &Path) -> Result<Held, Failure> {
    let database = sqlite::open_to_read(path).map_err(|error| Failure::other(&error))?;
    let failed = |error: rusqlite::Error| Failure::Other(format!("{}: {error}", path.display()));
    let count = |sql: &str| {
        database
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let mut audit = Head::default();
    loop {
        let entries = sqlite::audit_after(&database, audit.sequence, 1000).map_err(failed)?;
        if entries.is_empty() {
            break;
        }
        audit = verify(audit, &entries).map_err(|broken| {
            Failure::Other(format!(
                "{}: the audit log was changed: {broken}",
                path.display()
            ))
        })?;
    }
    Ok(Held {
        peers: count("SELECT count(*) FROM peers")?.unsigned_abs(),
        tokens: count("SELECT count(*) FROM tokens")?.unsigned_abs(),
        audit,
    })
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map(drop)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A name that was made, moved or removed is so only once its directory is on disk.
fn sync_directory(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{suffix}-{}", std::process::id()));
    name.into()
}

fn at(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::Environment(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
