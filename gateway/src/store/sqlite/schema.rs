//! The tables, and the way from one version of them to the next.
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::super::StoreError;
use super::failed;

/// Step `n` leads from version `n` to `n + 1`. A step that was released never changes: a new one is added behind it.
const STEPS: [&str; 2] = [VERSION_1, VERSION_2];

/// Times are milliseconds since 1970, addresses and networks text, keys and hashes bytes.
const VERSION_1: &str = "
CREATE TABLE peers (
    id            BLOB PRIMARY KEY,
    revision      INTEGER NOT NULL,
    name          TEXT NOT NULL UNIQUE,
    public_key    BLOB NOT NULL UNIQUE,
    preshared_key BLOB,
    addresses     TEXT NOT NULL,
    networks      TEXT NOT NULL,
    role          TEXT,
    enabled       INTEGER NOT NULL,
    expires_at    INTEGER,
    quota_bytes   INTEGER,
    labels        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    next_public_key    BLOB UNIQUE,
    next_preshared_key BLOB,
    rotation_until     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE usage (
    id                  BLOB PRIMARY KEY,
    rx_bytes            INTEGER NOT NULL,
    tx_bytes            INTEGER NOT NULL,
    quota_base_bytes    INTEGER NOT NULL,
    counted_since       INTEGER,
    latest_handshake_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    revision    INTEGER NOT NULL,
    name        TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    scopes      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    expires_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE released_addresses (
    address TEXT PRIMARY KEY,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotent_answers (
    actor       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status      INTEGER NOT NULL,
    resource    TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    entry    TEXT NOT NULL
) STRICT;
";

/// LAN hosts that join by a token.
const VERSION_2: &str = "
CREATE TABLE invites (
    id            BLOB PRIMARY KEY,
    lan_server    TEXT NOT NULL,
    public_key    BLOB NOT NULL UNIQUE,
    preshared_key BLOB NOT NULL,
    address       TEXT NOT NULL UNIQUE,
    created_at    INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    expires_at    INTEGER NOT NULL,
    used_by       BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE lan_servers (
    name          TEXT PRIMARY KEY,
    public_key    BLOB NOT NULL UNIQUE,
    preshared_key BLOB NOT NULL,
    joined_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The version that this program writes.
pub(super) fn newest() -> u32 {
    u32::try_from(STEPS.len()).unwrap_or(u32::MAX)
}

/// The version of a database; 0 when it is empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Bring a database to the newest version, each step all or nothing.
pub(super) fn migrate(connection: &mut Connection, file: &str) -> Result<(), StoreError> {
    migrate_by(connection, file, &STEPS)
}

fn migrate_by(connection: &mut Connection, file: &str, steps: &[&str]) -> Result<(), StoreError> {
    loop {
        let transaction =
            Transaction::new(connection, TransactionBehavior::Immediate).map_err(failed(file))?;
        let found = version(&transaction).map_err(failed(file))?;
        let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        if found > known {
            return Err(StoreError::TooNew {
                what: file.to_owned(),
                found,
                known,
            });
        }
        let Some(step) = steps.get(found as usize) else {
            return Ok(());
        };
        transaction.execute_batch(step).map_err(failed(file))?;
        transaction
            .pragma_update(None, "user_version", found + 1)
            .map_err(failed(file))?;
        transaction.commit().map_err(failed(file))?;
        tracing::info!(
            file,
            version = found + 1,
            "database brought to this version"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_is_brought_forward_with_what_it_holds() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_by(&mut connection, "peers.db", &STEPS[..1]).unwrap();
        connection
            .execute("INSERT INTO released_addresses VALUES ('10.17.0.9', 7)", [])
            .unwrap();
        let next = "ALTER TABLE released_addresses ADD COLUMN why TEXT NOT NULL DEFAULT 'old';";
        let later = STEPS.into_iter().chain([next]).collect::<Vec<_>>();
        migrate_by(&mut connection, "peers.db", &later).unwrap();
        let found = newest() + 1;
        assert_eq!(version(&connection).unwrap(), found);
        let why: String = connection
            .query_row("SELECT why FROM released_addresses", [], |row| row.get(0))
            .unwrap();
        assert_eq!(why, "old");
        let refused = migrate(&mut connection, "peers.db").unwrap_err();
        assert!(
            matches!(refused, StoreError::TooNew { found: at, .. } if at == found),
            "{refused}"
        );
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = "CREATE TABLE half (a INTEGER); CREATE TABLE half (a INTEGER);";
        assert!(migrate_by(&mut connection, "peers.db", &[STEPS[0], broken]).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        let half = "SELECT count(*) FROM sqlite_master WHERE name = 'half'";
        let count: u32 = connection.query_row(half, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }
}
