//! The store on disk: one `SQLite` database under `state_dir`.
//!
//! A write-ahead log with `synchronous=FULL`: a commit returns when its frames are on disk (`fsync`), and a crash or power
//! failure at any moment leaves all of a batch or nothing of it. Readers of other processes (a backup) are not disturbed.
mod rows;
mod schema;

use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, Transaction, TransactionBehavior,
};
use shared::api::audit::AuditEntry;
use shared_os::atomic_file;

use super::{Change, Snapshot, Store, StoreError};

/// Name of the database in `state_dir`.
pub const FILE_NAME: &str = "peers.db";

/// To look only, on one thread at a time.
const READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Pages of the write-ahead log after which it is written back: 4 MiB.
const CHECKPOINT_PAGES: u32 = 1000;
/// Another process holds the database for as long as a page of a backup takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store on disk.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    file: String,
}

impl SqliteStore {
    /// Open the database of `state_dir`, or make it; bring it to the newest version.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] and [`StoreError::Damaged`] before anything is changed.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE_NAME);
        let file = path.display().to_string();
        create_private(&path).map_err(|error| StoreError::Failed {
            what: file.clone(),
            detail: error.to_string(),
        })?;
        let mut connection = Connection::open(&path).map_err(failed(&file))?;
        configure(&connection).map_err(failed(&file))?;
        check(&connection, &file)?;
        schema::migrate(&mut connection, &file)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            file,
        })
    }

    /// The database of `state_dir` for who only loads it; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::TooNew`], [`StoreError::Damaged`], and what keeps it from being read.
    pub fn open_to_read(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = state_dir.join(FILE_NAME);
        if !path.exists() {
            return Ok(None);
        }
        // Of a write-ahead log SQLite would make files that stay; without one the database is complete and nobody's.
        let connection = if path.with_extension("db-wal").exists() {
            open_to_read(&path)?
        } else {
            let flags = READ | OpenFlags::SQLITE_OPEN_URI;
            open_with(&immutable(&path), flags, path.display().to_string())?
        };
        Ok(Some(Self {
            connection: Arc::new(Mutex::new(connection)),
            file: path.display().to_string(),
        }))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        });
        match done.await {
            Ok(done) => done.map_err(failed(&self.file)),
            Err(error) => Err(StoreError::Failed {
                what: self.file.clone(),
                detail: error.to_string(),
            }),
        }
    }
}

impl Store for SqliteStore {
    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.with(load).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.with(move |connection| {
            let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
            for change in &changes {
                rows::write(&transaction, change)?;
            }
            transaction.commit()
        })
        .await
    }

    async fn audit_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.with(move |connection| audit_after(connection, sequence, limit))
            .await
    }
}

/// Entries of a database, for who verifies it without a daemon.
pub fn audit_after(
    connection: &Connection,
    sequence: u64,
    limit: usize,
) -> rusqlite::Result<Vec<AuditEntry>> {
    let sql = "SELECT entry FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let entries = statement.query_map([sequence, limit], audit_entry)?;
    entries.collect()
}

/// As a URI that has `SQLite` make no file (<https://sqlite.org/uri.html>).
fn immutable(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes().iter();
    let escaped: String = bytes
        .map(|&byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect();
    PathBuf::from(format!("file:{escaped}?immutable=1"))
}

/// Open a database that is not to be changed: a backup, or that of another process.
pub fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    open_with(path, READ, path.display().to_string())
}

fn open_with(place: &Path, flags: OpenFlags, file: String) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(place, flags).map_err(failed(&file))?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .map_err(failed(&file))?;
    check(&connection, &file)?;
    let found = schema::version(&connection).map_err(failed(&file))?;
    let known = schema::newest();
    if found > known {
        return Err(StoreError::TooNew {
            what: file,
            found,
            known,
        });
    }
    if found == 0 {
        return Err(StoreError::Damaged {
            what: file,
            detail: "it is not a database of this program".to_owned(),
        });
    }
    Ok(connection)
}

fn load(connection: &mut Connection) -> rusqlite::Result<Snapshot> {
    let transaction = connection.transaction()?;
    let head = "SELECT entry FROM audit ORDER BY sequence DESC LIMIT 1";
    Ok(Snapshot {
        peers: all(&transaction, rows::PEERS, rows::peer)?,
        usage: all(&transaction, rows::USAGE, rows::usage)?,
        tokens: all(&transaction, rows::TOKENS, rows::token)?,
        invites: all(&transaction, rows::INVITES, rows::invite)?,
        lan_servers: all(&transaction, rows::LAN_SERVERS, rows::lan_server)?,
        released_addresses: all(&transaction, rows::RELEASED, rows::released)?,
        idempotent_answers: all(&transaction, rows::ANSWERS, rows::answer)?,
        audit_head: transaction.query_row(head, [], audit_entry).optional()?,
    })
}

fn all<T, C: FromIterator<T>>(
    transaction: &Transaction<'_>,
    sql: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<C> {
    let mut statement = transaction.prepare(sql)?;
    let rows = statement.query_map([], read)?;
    rows.collect()
}

fn audit_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let text: String = row.get(0)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

/// The file holds preshared keys: it is made private before it is a database.
fn create_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    // Its write-ahead log follows it: SQLite sees to that when root runs it (`findCreateFileMode` in os_unix.c).
    if let Some(dir) = path.parent() {
        atomic_file::give_to_owner_of(dir, &file)?;
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // What was large once does not stay large.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    // A preshared key that was deleted is overwritten.
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Whether the pages of the database fit together.
fn check(connection: &Connection, file: &str) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed(file))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        what: file.to_owned(),
        detail: verdict,
    })
}

/// What `SQLite`'s error means for us.
fn failed(file: &str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
    move |error| {
        let what = file.to_owned();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { what },
            // A write that found no room on some file systems (quota, thin volumes) is an I/O error to SQLite.
            Some(ErrorCode::SystemIoFailure) if is_full(file) => StoreError::Full { what },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Damaged { what, detail }
            }
            Some(_) => StoreError::Failed { what, detail },
            None if matches!(
                error,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::InvalidColumnType(..)
            ) =>
            {
                StoreError::Damaged { what, detail }
            }
            None => StoreError::Failed { what, detail },
        }
    }
}

/// Whether the file system of this file has no room left for us.
fn is_full(file: &str) -> bool {
    let dir = PathBuf::from(file);
    let dir = dir.parent().unwrap_or(Path::new("/"));
    rustix::fs::statvfs(dir).is_ok_and(|room| room.f_bavail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What durability rests on, as the connection that commits has it: another one would have settings of its own.
    #[tokio::test]
    async fn each_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        // Made, and opened again.
        for _ in 0..2 {
            let store = SqliteStore::open(dir.path()).unwrap();
            let read = store.with(|connection| {
                let number = |pragma: &str| {
                    connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
                };
                let mode = connection
                    .pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?;
                Ok((mode, number("synchronous")?, number("secure_delete")?))
            });
            // 2 is FULL: the log is on disk when a commit returns.
            assert_eq!(read.await.unwrap(), ("wal".to_owned(), 2, 1));
        }
    }
}
