//! Facts about walking the audit log, from a file.
use jiff::Timestamp;

use super::*;
use crate::audit::{Draft, seal};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, Store as _};

/// A database with this many entries, and its heads.
async fn log(count: usize) -> (tempfile::TempDir, Vec<Head>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut entries: Vec<AuditEntry> = Vec::new();
    for _ in 0..count {
        let draft = Draft {
            at: Timestamp::UNIX_EPOCH,
            actor: "unix:uid=0,gid=0,pid=1".to_owned(),
            action: "peer.create".to_owned(),
            resource: "peers/1".to_owned(),
            request: None,
            difference: serde_json::from_str(r#"{"name": {"from": null, "to": "alice"}}"#).unwrap(),
        };
        entries.push(seal(entries.last(), draft));
    }
    let changes = entries.iter().cloned().map(Change::Audit).collect();
    store.commit(changes).await.unwrap();
    let heads = entries.into_iter().map(|entry| Head {
        sequence: entry.sequence,
        hash: entry.hash,
    });
    (dir, heads.collect())
}

async fn walked(source: &Source, expect: Option<&Head>) -> Result<Head, Failure> {
    walk(source, expect, &mut Progress::new()).await
}

#[tokio::test]
async fn a_log_is_walked_to_its_end_over_all_pages() {
    let (dir, heads) = log(PAGE * 2 + 1).await;
    let source = Source::File(dir.path().join("peers.db"));
    let last = heads.last().unwrap();
    assert_eq!(&walked(&source, None).await.unwrap(), last);
    for known in [&heads[0], &heads[PAGE], last, &Head::default()] {
        assert_eq!(&walked(&source, Some(known)).await.unwrap(), last);
    }
}

#[tokio::test]
async fn a_log_that_lost_its_end_or_is_another_one_is_told() {
    let (dir, heads) = log(5).await;
    let source = Source::File(dir.path().join("peers.db"));
    let other = Head {
        sequence: 3,
        hash: heads[3].hash.clone(),
    };
    let refused = walked(&source, Some(&other)).await.unwrap_err();
    assert!(refused.to_string().contains("cut off"), "{refused}");
    let database = rusqlite::Connection::open(dir.path().join("peers.db")).unwrap();
    database
        .execute("DELETE FROM audit WHERE sequence = 5", [])
        .unwrap();
    assert!(
        walked(&source, None).await.is_ok(),
        "by itself it can't be seen"
    );
    let refused = walked(&source, Some(&heads[4])).await.unwrap_err();
    assert!(refused.to_string().contains("ends at 4:"), "{refused}");
    database
        .execute("DELETE FROM audit WHERE sequence = 2", [])
        .unwrap();
    let refused = walked(&source, None).await.unwrap_err();
    assert!(refused.to_string().contains("entry 2"), "{refused}");
}

#[tokio::test]
async fn a_row_says_who_did_what_to_whom_in_80_columns() {
    let (dir, _) = log(1).await;
    let source = Source::File(dir.path().join("peers.db"));
    let mut entries = source.after(0).await.unwrap();
    let text = listed(&entries, 80, false);
    let row = text.lines().nth(1).unwrap();
    assert!(
        row.contains("peer.create") && row.contains("alice"),
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    // The longest of everything.
    let mut long = entries[0].clone();
    long.sequence = 99_999_999;
    long.actor = "unix:uid=4294967294,gid=4294967294,pid=4194304".to_owned();
    long.action = "peer.reset_usage".to_owned();
    let name = serde_json::json!({"from": null, "to": "x".repeat(64)});
    long.difference.insert("name".to_owned(), name);
    for field in [
        "addresses",
        "expires_at",
        "labels",
        "networks",
        "public_key",
    ] {
        long.difference
            .insert(field.to_owned(), serde_json::Value::Null);
    }
    entries.push(long);
    let text = listed(&entries, 80, false);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.contains("99999999") && text.contains("xxx…"), "{text}");
}
