//! Facts about backups.
use shared::api::audit::AuditEntry;

use super::*;
use crate::audit::{Draft, seal};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, Store as _};

/// A state directory whose audit log has this many entries.
async fn state(entries: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut last: Option<AuditEntry> = None;
    for _ in 0..entries {
        let entry = seal(last.as_ref(), draft());
        store
            .commit(vec![Change::Audit(entry.clone())])
            .await
            .unwrap();
        last = Some(entry);
    }
    dir
}

fn draft() -> Draft {
    Draft {
        at: jiff::Timestamp::UNIX_EPOCH,
        actor: "daemon".to_owned(),
        action: "peer.create".to_owned(),
        resource: "peers/1".to_owned(),
        request: None,
        difference: serde_json::Map::new(),
    }
}

fn back_up(state_dir: &Path, file: &Path) -> Result<Held, Failure> {
    backup(state_dir, file, &mut Progress::new())
}

/// What is there now, and what was wrong with what was there before.
fn put_back(dir: &Path, runtime: &Path, file: &Path) -> Result<(Held, Option<String>), Failure> {
    let restored = restore(dir, runtime, file, false, &mut Progress::new())?;
    Ok((restored.held, restored.damage))
}

/// The state directory of a daemon that was killed: its last changes are in the write-ahead log alone.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["peers.db", "peers.db-wal"] {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// Change an entry of the audit log behind its back.
fn break_audit(database: &Path) {
    let sql = "UPDATE audit SET entry = replace(entry, 'daemon', 'nobody') WHERE sequence = 2";
    let changed = Connection::open(database).unwrap();
    assert_eq!(changed.execute(sql, []).unwrap(), 1);
}

fn entries(database: &Path) -> usize {
    let database = sqlite::open_to_read(database).unwrap();
    sqlite::audit_after(&database, 0, 99).unwrap().len()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_is_one_private_file_and_restores_what_it_holds() {
    use std::os::unix::fs::PermissionsExt as _;
    let full = state(3).await;
    // The daemon has it open.
    let _open = SqliteStore::open(full.path()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    let held = back_up(full.path(), &file).unwrap();
    assert_eq!(held.audit.sequence, 3);
    assert_eq!(names(place.path()), ["today.backup"]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = back_up(full.path(), &file).unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");

    let other = state(1).await;
    let runtime = tempfile::tempdir().unwrap();
    let restored = put_back(other.path(), runtime.path(), &file).unwrap();
    assert_eq!(restored, (held, None));
    let store = SqliteStore::open(other.path()).unwrap();
    assert_eq!(store.audit_after(0, 9).await.unwrap().len(), 3);
    let before = sqlite::open_to_read(&other.path().join(BEFORE)).unwrap();
    assert_eq!(sqlite::audit_after(&before, 0, 9).unwrap().len(), 1);
    // A backup is not used up.
    assert_eq!(
        super::held(&file, &mut Progress::new()).unwrap(),
        restored.0
    );
}

#[tokio::test]
async fn what_root_restores_belongs_to_the_owner_of_the_state_directory() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    const SERVICE: u32 = 64_123;
    if shared_os::process::effective_user() != 0 {
        return; // nobody else may give files away
    }
    let full = state(1).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    back_up(full.path(), &file).unwrap();
    let of_service = tempfile::tempdir().unwrap();
    chown(of_service.path(), Some(SERVICE), Some(SERVICE)).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    put_back(of_service.path(), runtime.path(), &file).unwrap();
    let database = of_service.path().join(sqlite::FILE_NAME);
    assert_eq!(fs::metadata(database).unwrap().uid(), SERVICE);
}

#[tokio::test]
async fn what_is_no_backup_or_was_changed_is_refused_and_changes_nothing() {
    let full = state(3).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    back_up(full.path(), &file).unwrap();
    break_audit(&file);
    let text = place.path().join("text");
    fs::write(&text, "this is no database, and not a short one").unwrap();
    let empty = place.path().join("empty");
    fs::write(&empty, "").unwrap();

    let other = state(1).await;
    let before = names(other.path());
    let runtime = tempfile::tempdir().unwrap();
    for (wrong, why) in [
        (&file, "entry 2"),
        (&text, "text"),
        (&empty, "empty"),
        (&place.path().join("missing"), "missing"),
    ] {
        let refused = put_back(other.path(), runtime.path(), wrong).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        let store = SqliteStore::open(other.path()).unwrap();
        assert_eq!(store.audit_after(0, 9).await.unwrap().len(), 1);
        drop(store);
        assert_eq!(names(other.path()), before);
    }
}

#[tokio::test]
async fn under_a_running_daemon_nothing_is_restored() {
    let full = state(1).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    back_up(full.path(), &file).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let _daemon = Instance::acquire(runtime.path(), "gateway").unwrap();
    let refused = put_back(full.path(), runtime.path(), &file).unwrap_err();
    assert!(refused.to_string().contains("stop the daemon"), "{refused}");
}

#[tokio::test]
async fn what_is_replaced_is_kept_with_what_only_its_log_holds() {
    let backed_up = state(1).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    back_up(backed_up.path(), &file).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    for broken in [false, true] {
        let full = state(5).await;
        if broken {
            break_audit(&full.path().join("peers.db"));
        }
        // Opened after that, so that the log holds the next entries and nothing else.
        let store = SqliteStore::open(full.path()).unwrap();
        let last = store.load().await.unwrap().audit_head;
        let entry = seal(last.as_ref(), draft());
        store.commit(vec![Change::Audit(entry)]).await.unwrap();
        let dead = killed(full.path());
        let (held, damage) = put_back(dead.path(), runtime.path(), &file).unwrap();
        assert_eq!((held.audit.sequence, damage), (1, None));
        assert_eq!(names(dead.path()), ["peers.db", BEFORE]);
        assert_eq!(entries(&dead.path().join(BEFORE)), 6, "broken: {broken}");
        assert_eq!(entries(&dead.path().join("peers.db")), 1);
    }
}

#[tokio::test]
async fn until_it_is_replaced_a_crash_takes_nothing_of_it_away() {
    let full = state(2).await;
    let store = SqliteStore::open(full.path()).unwrap();
    let last = store.load().await.unwrap().audit_head;
    let entry = seal(last.as_ref(), draft());
    store.commit(vec![Change::Audit(entry)]).await.unwrap();
    let dead = killed(full.path());
    let target = dead.path().join("peers.db");
    // All that `restore` does but for the last step.
    assert_eq!(
        keep::keep(&target, &dead.path().join(BEFORE)).unwrap(),
        None
    );
    assert_eq!(entries(&target), 3);
}

#[tokio::test]
async fn a_damaged_database_is_kept_as_it_is_with_its_log() {
    let full = state(2).await;
    let _open = SqliteStore::open(full.path()).unwrap();
    let file = full.path().join("today.backup");
    back_up(full.path(), &file).unwrap();
    let dead = killed(full.path());
    let target = dead.path().join("peers.db");
    fs::write(&target, "this is no database any more").unwrap();
    let log = fs::read(dead.path().join("peers.db-wal")).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let (held, damage) = put_back(dead.path(), runtime.path(), &file).unwrap();
    assert_eq!(held.audit.sequence, 2);
    assert!(damage.is_some());
    let kept = |name: &str| fs::read(dead.path().join(name)).unwrap();
    assert_eq!(kept(BEFORE), b"this is no database any more");
    assert_eq!(kept("peers.db.before-restore-wal"), log);
    assert!(!dead.path().join("peers.db-wal").exists());
    assert_eq!(entries(&target), 2);
    // The next time the database is whole: nothing of the damaged one may be taken for its log.
    let (_, damage) = put_back(dead.path(), runtime.path(), &file).unwrap();
    assert_eq!(damage, None);
    assert_eq!(names(dead.path()), ["peers.db", BEFORE]);
    assert_eq!(entries(&dead.path().join(BEFORE)), 2);
}

#[tokio::test]
async fn a_broken_audit_log_is_told_and_backed_up_and_restored_only_when_accepted() {
    let full = state(3).await;
    break_audit(&full.path().join("peers.db"));
    let file = full.path().join("today.backup");
    let held = back_up(full.path(), &file).unwrap();
    assert_eq!(held.broken.as_ref().map(|broken| broken.sequence), Some(2));
    assert!(held.to_string().contains("entry 2"), "{held}");
    let other = state(1).await;
    let runtime = tempfile::tempdir().unwrap();
    let refused = put_back(other.path(), runtime.path(), &file).unwrap_err();
    assert!(
        refused.to_string().contains("--accept-broken-audit"),
        "{refused}"
    );
    let mut progress = Progress::new();
    let restored = restore(other.path(), runtime.path(), &file, true, &mut progress).unwrap();
    assert_eq!(restored.held, held);
    assert_eq!(entries(&other.path().join("peers.db")), 3);

    // An entry that is no entry at all any more.
    let database = Connection::open(full.path().join("peers.db")).unwrap();
    let sql = "UPDATE audit SET entry = 'x' WHERE sequence = 1";
    assert_eq!(database.execute(sql, []).unwrap(), 1);
    let held = back_up(full.path(), &full.path().join("later.backup")).unwrap();
    assert_eq!(held.broken.map(|broken| broken.sequence), Some(1));
}

#[tokio::test]
async fn a_backup_ends_while_the_daemon_writes_all_the_time() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let full = state(1).await;
    let ballast = Connection::open(full.path().join("peers.db")).unwrap();
    // 16 MiB: several steps, with time between them for commits.
    let sql = "CREATE TABLE ballast (x BLOB); INSERT INTO ballast VALUES (zeroblob(16 << 20));
        CREATE TABLE ticks (n INTEGER);";
    ballast.execute_batch(sql).unwrap();
    let stop = AtomicBool::new(false);
    let (ended, backed_up) = std::sync::mpsc::channel();
    let file = full.path().join("today.backup");
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let sql = "INSERT INTO ticks VALUES (1)";
                ballast.execute(sql, []).unwrap();
            }
        });
        scope.spawn(|| ended.send(back_up(full.path(), &file)));
        let held = backed_up.recv_timeout(std::time::Duration::from_secs(30));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(held.expect("it ends").unwrap().audit.sequence, 1);
    });
}
