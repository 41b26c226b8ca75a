//! What stood in the place of a restored database is kept beside it.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use shared_daemon::error::Failure;

use super::{at, remove_if_there, sync_directory};

/// What belongs to a database beside its file: the write-ahead log, its index, and the journal of the other mode.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Keep `database` as `kept` too. Afterwards nothing but its one file is in its place, so that renaming another over it
/// replaces all of it at once: until then a crash leaves it as it was, with every change that was acknowledged.
///
/// Returns why, when it can't be read any more. Then it is kept as it is, with its write-ahead log: restoring is what helps
/// against that, and somebody may save more out of it later.
///
/// # Errors
/// A file can't be written. What was there is still in its place then.
pub(super) fn keep(database: &Path, kept: &Path) -> Result<Option<String>, Failure> {
    for suffix in std::iter::once("").chain(LOGS) {
        let old = with(kept, suffix);
        remove_if_there(&old).map_err(at(&old))?;
    }
    let damage = fold(database).err();
    // Links, not copies: there is nothing that could be written half.
    fs::hard_link(database, kept).map_err(at(kept))?;
    for suffix in LOGS {
        let to = with(kept, suffix);
        match fs::hard_link(with(database, suffix), &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&to)(error)),
            Ok(()) | Err(_) => {}
        }
    }
    sync_directory(kept).map_err(at(kept))?;
    // Another database in this place would take the log of this one for its own.
    for suffix in LOGS {
        let log = with(database, suffix);
        remove_if_there(&log).map_err(at(&log))?;
    }
    Ok(damage)
}

/// Bring what is still in the write-ahead log into the one file.
fn fold(database: &Path) -> Result<(), String> {
    let connection = Connection::open(database).map_err(|error| error.to_string())?;
    let mode = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| {
        row.get::<_, String>(0)
    });
    match mode.as_deref() {
        Ok("delete") => Ok(()),
        Ok(other) => Err(format!("its journal stays in mode {other}")),
        Err(error) => Err(error.to_string()),
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
