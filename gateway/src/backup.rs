//! Backups: what the API has made, as one file.
//!
//! A backup is a database of its own, complete and consistent also when it is made while the daemon works (`SQLite`'s online
//! backup). Restoring puts it in the place of the database of a daemon that does not run.
//!
//! A broken audit log is told and does not keep a backup from being made: what is left is worth the more then.
mod keep;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use shared_daemon::cli::progress::Progress;
use shared_daemon::error::Failure;
use shared_os::atomic_file;
use shared_os::process::Instance;

use crate::audit::{Broken, Head, verify};
use crate::store::sqlite;

/// Pages between two looks at how far it is.
const PAGES_PER_STEP: i32 = 1000;
/// Entries of the audit log between two looks.
const ENTRIES_PER_STEP: usize = 1000;
/// What stood in the place of a restored database.
const BEFORE: &str = "peers.db.before-restore";

/// What a backup holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Peers of the API.
    pub peers: u64,
    /// Tokens.
    pub tokens: u64,
    /// The last entry of the audit log, or of that part of it which is what was written.
    pub audit: Head,
    /// Where the audit log stops to be what was written.
    pub broken: Option<Broken>,
}

/// What a restored backup holds, and what it replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// What is there now.
    pub held: Held,
    /// Why what was there before could not be read. It is kept all the same, with its write-ahead log.
    pub damage: Option<String>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peers,
            tokens,
            audit,
            broken,
        } = self;
        write!(f, "{peers} peers, {tokens} tokens, audit log {audit}")?;
        match broken {
            Some(broken) => write!(f, " and then broken ({broken})"),
            None => Ok(()),
        }
    }
}

/// Copy the database of `state_dir` into `file`, which must not exist. It appears there complete or not at all.
///
/// # Errors
/// There is no database, it is damaged, or the file can't be written. A broken audit log is none: see [`Held::broken`].
pub fn backup(state_dir: &Path, file: &Path, progress: &mut Progress) -> Result<Held, Failure> {
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
    let held = copy(&source, &unfinished, progress).and_then(|held| {
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
/// The daemon runs, `file` is no backup, its audit log is broken and `accept_broken_audit` is not set, or it can't be
/// written. Nothing was changed then.
pub fn restore(
    state_dir: &Path,
    runtime_dir: &Path,
    file: &Path,
    accept_broken_audit: bool,
    progress: &mut Progress,
) -> Result<Restored, Failure> {
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
    let held = copy(file, &unfinished, progress)?;
    if let Some(broken) = held.broken.as_ref().filter(|_| !accept_broken_audit) {
        remove_if_there(&unfinished).map_err(at(&unfinished))?;
        return Err(Failure::Other(format!(
            "{}: the audit log was changed: {broken}; take another backup, or this one with --accept-broken-audit",
            file.display()
        )));
    }
    // Root restores, but the daemon opens it as the user that owns the directory.
    File::open(&unfinished)
        .and_then(|file| atomic_file::give_to_owner_of(state_dir, &file))
        .map_err(at(&unfinished))?;
    let damage = if target.exists() {
        keep::keep(&target, &state_dir.join(BEFORE))?
    } else {
        None
    };
    fs::rename(&unfinished, &target).map_err(at(&target))?;
    sync_directory(&target).map_err(at(&target))?;
    Ok(Restored { held, damage })
}

/// Copy a database, and look at what was copied before anyone relies on it.
fn copy(from: &Path, to: &Path, progress: &mut Progress) -> Result<Held, Failure> {
    let failed =
        |error: rusqlite::Error| Failure::Environment(format!("{}: {error}", to.display()));
    let source = sqlite::open_to_read(from).map_err(|error| Failure::other(&error))?;
    create_private(to).map_err(at(to))?;
    let copied = (|| {
        let mut target = Connection::open(to).map_err(failed)?;
        copy_pages(&source, &mut target, progress).map_err(failed)?;
        // One file: no write-ahead log beside it.
        let mode: String = target
            .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
            .map_err(failed)?;
        debug_assert_eq!(mode, "delete");
        drop(target);
        File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(at(to))?;
        held(to, progress)
    })();
    if copied.is_err() {
        // Half a copy is worth nothing.
        let _gone = fs::remove_file(to);
    }
    copied
}

fn copy_pages(
    source: &Connection,
    target: &mut Connection,
    progress: &mut Progress,
) -> rusqlite::Result<()> {
    // One snapshot from the first page to the last. Without it every commit of the daemon would let the copy begin anew
    // (<https://www.sqlite.org/backup.html>), and under steady changes it would never end. The daemon does not wait for it.
    let snapshot = source.unchecked_transaction()?;
    snapshot.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let copy = Backup::new(source, target)?;
    loop {
        match copy.step(PAGES_PER_STEP)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {
                let pages = copy.progress();
                let [total, left] = [pages.pagecount, pages.remaining];
                let [total, left] = [total, left].map(|n| u64::from(n.unsigned_abs()));
                progress.tell("copied", total.saturating_sub(left), Some(total), "pages");
            }
            // Nobody else knows the target, and the snapshot is there: that it lasts is a failure like any other.
            StepResult::Busy | StepResult::Locked | _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
        }
    }
}

fn held(path: &Path, progress: &mut Progress) -> Result<Held, Failure> {
    let database = sqlite::open_to_read(path).map_err(|error| Failure::other(&error))?;
    let failed = |error: rusqlite::Error| Failure::Other(format!("{}: {error}", path.display()));
    let count = |sql: &str| {
        let rows = database.query_row(sql, [], |row| row.get::<_, i64>(0));
        rows.map(i64::unsigned_abs).map_err(failed)
    };
    let entries = count("SELECT count(*) FROM audit")?;
    let (audit, broken) = audit_log(&database, |checked| {
        progress.tell("checked", checked, Some(entries), "audit entries");
    })
    .map_err(failed)?;
    Ok(Held {
        peers: count("SELECT count(*) FROM peers")?,
        tokens: count("SELECT count(*) FROM tokens")?,
        audit,
        broken,
    })
}

/// How far the audit log is what was written, and where it stops to be.
fn audit_log(
    database: &Connection,
    mut watch: impl FnMut(u64),
) -> rusqlite::Result<(Head, Option<Broken>)> {
    let mut head = Head::default();
    loop {
        let entries = match sqlite::audit_after(database, head.sequence, ENTRIES_PER_STEP) {
            Ok(entries) if entries.is_empty() => return Ok((head, None)),
            Ok(entries) => entries,
            Err(rusqlite::Error::FromSqlConversionFailure(..)) => {
                let broken = Broken {
                    sequence: head.sequence + 1,
                    what: "or one of those behind it can't be read",
                };
                return Ok((head, Some(broken)));
            }
            Err(error) => return Err(error),
        };
        match verify(head.clone(), &entries) {
            Ok(next) => head = next,
            Err(broken) => return Ok((head, Some(broken))),
        }
        watch(head.sequence);
    }
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
