//! Facts about when lists are asked for, and about files.
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::*;

fn file(path: &Path) -> Source {
    Source::at_once(Some(&Refresh::File(path.to_owned())), "gateway")
}

/// What comes within two looks.
async fn soon(source: &mut Source) -> Option<Result<Offered, String>> {
    timeout(2 * LOOK_INTERVAL, source.next()).await.ok()
}

async fn text(source: &mut Source) -> String {
    soon(source).await.unwrap().unwrap().text
}

#[tokio::test]
async fn a_file_is_told_when_it_is_there_and_each_time_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    let mut source = file(&path);
    let missing = soon(&mut source).await.unwrap().unwrap_err();
    assert!(missing.contains("No such file"), "{missing}");
    assert!(soon(&mut source).await.is_none(), "told once");
    std::fs::write(&path, "one").unwrap();
    assert_eq!(text(&mut source).await, "one");
    assert!(soon(&mut source).await.is_none());
    // Written in place, replaced, gone, something else.
    std::fs::write(&path, "two!").unwrap();
    assert_eq!(text(&mut source).await, "two!");
    std::fs::write(dir.path().join("new"), "3rd.").unwrap();
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    assert_eq!(text(&mut source).await, "3rd.");
    std::fs::remove_file(&path).unwrap();
    assert!(soon(&mut source).await.unwrap().is_err());
    std::fs::create_dir(&path).unwrap();
    let dir = soon(&mut source).await.unwrap().unwrap_err();
    assert!(dir.contains("no file"), "{dir}");
}

#[tokio::test]
async fn who_stops_waiting_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    std::fs::write(&path, "one").unwrap();
    let mut source = file(&path);
    let unfinished = timeout(Duration::ZERO, source.next()).await;
    if unfinished.is_err() {
        assert_eq!(text(&mut source).await, "one");
    }
}

#[tokio::test]
async fn the_list_of_a_file_is_as_old_as_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    std::fs::write(&path, "one").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let opened = std::fs::File::options().write(true).open(&path).unwrap();
    opened.set_modified(old).unwrap();
    let offered = soon(&mut file(&path)).await.unwrap().unwrap();
    assert_eq!(offered.as_of.as_second(), 1_780_000_000);
}

#[tokio::test]
async fn no_more_is_read_than_shows_that_it_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
    assert_eq!(text(&mut file(&path)).await.len(), LONGEST_TEXT + 1);
    std::fs::write(&path, [0xff; 100]).unwrap();
    assert!(soon(&mut file(&path)).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_once_a_day_and_sooner_after_a_failure() {
    let url = Refresh::Url("https://a.example/".parse().unwrap());
    let due = |source: &Source| match source {
        Source::Web(web) => web.due.duration_since(Instant::now()),
        Source::Nowhere | Source::File(_) => panic!("{source:?}"),
    };
    let mut source = Source::at_start(Some(&url), "gateway", None);
    assert!(due(&source) <= FIRST);
    source = Source::at_start(Some(&url), "gateway", Some(now()));
    let wait = due(&source);
    assert!(
        wait + Duration::from_secs(5) > DAY && wait <= DAY + JITTER,
        "{wait:?}"
    );
    source = Source::at_once(Some(&url), "gateway");
    assert_eq!(due(&source), Duration::ZERO);
    for (is_taken, least, most) in [
        (true, DAY, DAY + JITTER),
        (false, RETRY, 2 * RETRY),
        (false, 2 * RETRY, 4 * RETRY),
        (true, DAY, DAY + JITTER),
    ] {
        source.ended(is_taken);
        let wait = due(&source);
        assert!((least..=most).contains(&wait), "{wait:?}");
    }
    for _ in 0..100 {
        source.ended(false);
    }
    assert!(due(&source) <= LONGEST_RETRY + JITTER);
    // The clock was ahead when the list was taken.
    let later = now() + Duration::from_secs(1_000_000);
    assert!(due(&Source::at_start(Some(&url), "gateway", Some(later))) <= FIRST);
}
