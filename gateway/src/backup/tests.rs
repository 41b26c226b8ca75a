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
        let draft = Draft {
            at: jiff::Timestamp::UNIX_EPOCH,
            actor: "daemon".to_owned(),
            action: "peer.create".to_owned(),
            resource: "peers/1".to_owned(),
            request: None,
            difference: serde_json::Map::new(),
        };
        let entry = seal(last.as_ref(), draft);
        store
            .commit(vec![Change::Audit(entry.clone())])
            .await
            .unwrap();
        last = Some(entry);
    }
    dir
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
    let held = backup(full.path(), &file).unwrap();
    assert_eq!(held.audit.sequence, 3);
    assert_eq!(names(place.path()), ["today.backup"]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = backup(full.path(), &file).unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");

    let other = state(1).await;
    let runtime = tempfile::tempdir().unwrap();
    assert_eq!(restore(other.path(), runtime.path(), &file).unwrap(), held);
    let store = SqliteStore::open(other.path()).unwrap();
    assert_eq!(store.audit_after(0, 9).await.unwrap().len(), 3);
    let before = sqlite::open_to_read(&other.path().join(BEFORE)).unwrap();
    assert_eq!(sqlite::audit_after(&before, 0, 9).unwrap().len(), 1);
    // A backup is not used up.
    assert_eq!(super::held(&file).unwrap(), held);
}

#[tokio::test]
async fn what_is_no_backup_or_was_changed_is_refused_and_changes_nothing() {
    let full = state(3).await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("today.backup");
    backup(full.path(), &file).unwrap();
    let changed = Connection::open(&file).unwrap();
    let sql = "UPDATE audit SET entry = replace(entry, 'daemon', 'nobody') WHERE sequence = 2";
    assert_eq!(changed.execute(sql, []).unwrap(), 1);
    drop(changed);
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
        let refused = restore(other.path(), runtime.path(), wrong).unwrap_err();
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
    backup(full.path(), &file).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let _daemon = Instance::acquire(runtime.path(), "gateway").unwrap();
    let refused = restore(full.path(), runtime.path(), &file).unwrap_err();
    assert!(refused.to_string().contains("stop the daemon"), "{refused}");
}
