//! A disk that is full, in a file system of 1 MiB that only this test sees.
use std::path::Path;

use gateway::store::sqlite::SqliteStore;
use gateway::store::{Store, StoreError};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::{peer, put};

/// In a thread of its own, whose mounts go with it; `None` in an unprivileged run.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn with_small_disk(work: impl FnOnce(&Path) + Send + 'static) {
    if std::env::var_os("WG_EDGE_UNPRIVILEGED").is_some_and(|value| value == "1") {
        eprintln!("unprivileged run: a small disk needs root");
        return;
    }
    let ended = std::thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("needs root");
        let none: Option<&str> = None;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(none, "/", none, private, none).unwrap();
        let size = Some("size=1m,mode=0700");
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .unwrap();
        work(dir.path());
        nix::mount::umount(dir.path()).unwrap();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_full_disk_refuses_changes_nothing_and_works_again_when_there_is_room() {
    with_small_disk(|dir| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open(dir).unwrap();
            store.commit(vec![put(0)]).await.unwrap();
            let ballast = dir.join("ballast");
            // Nothing is left at all.
            let written = std::fs::write(&ballast, vec![1; 1 << 20]);
            assert!(written.is_err(), "the file system was to be full");
            let mut acknowledged = 1;
            let error = loop {
                let batch = (acknowledged..acknowledged + 20).map(put).collect();
                match store.commit(batch).await {
                    Ok(()) => acknowledged += 20,
                    Err(error) => break error,
                }
                assert!(acknowledged < 10_000, "it never fills");
            };
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
            let expected: Vec<_> = (0..acknowledged).map(peer).collect();
            assert_eq!(store.load().await.unwrap().peers, expected);

            std::fs::remove_file(&ballast).unwrap();
            store.commit(vec![put(99_999)]).await.unwrap();
            drop(store);
            let again = SqliteStore::open(dir).unwrap();
            let count = again.load().await.unwrap().peers.len();
            assert_eq!(count, expected.len() + 1);
        });
    });
}
