//! The list in use, how the latest attempt to refresh it ended, and the file that keeps the list for the next start.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use shared::api::policy::{CloudflareRanges, CloudflareRefresh, LeavingRange, RangesSource};
use shared::cloudflare::List;
use shared::config::cloudflare::{self, Ranges};
use shared_os::atomic_file;
use tracing::warn;

/// Written by the one who refreshes, read by status, metrics and API.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    list: List,
    checked_at: Option<Timestamp>,
    error: Option<String>,
}

impl Record {
    /// The list that was taken last, or the bundled one.
    pub fn open(state_dir: &Path, ranges: &Ranges) -> Self {
        let path = state_dir.join("cloudflare.json");
        let list = match std::fs::read_to_string(&path) {
            Ok(text) => List::from_text(&text, &ranges.ours).unwrap_or_else(|why| {
                warn!(
                    file = %path.display(), why,
                    "not the list of Cloudflare's networks that was kept; the one of the program is used"
                );
                List::bundled()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(file = %path.display(), %error, "can't read the last list of Cloudflare's networks");
                }
                List::bundled()
            }
        };
        let state = State {
            list,
            checked_at: None,
            error: None,
        };
        Self {
            path,
            state: Mutex::new(state),
        }
    }

    /// What the set `cloudflare` stands for.
    pub fn networks(&self, ranges: &Ranges) -> Vec<IpNetwork> {
        if ranges.refresh.is_some() {
            self.lock().list.networks()
        } else {
            ranges.networks.clone()
        }
    }

    /// The same with everything that is known of it.
    pub fn report(&self, ranges: &Ranges) -> CloudflareRanges {
        let networks = self.networks(ranges);
        let is_bundled = networks == cloudflare::networks();
        let state = self.lock();
        let refresh = ranges.refresh.as_ref().map(|from| CloudflareRefresh {
            from: from.to_string(),
            confirmed_at: state.list.confirmed_at(),
            checked_at: state.checked_at,
            error: state.error.clone(),
        });
        let confirmed_at = refresh.as_ref().and_then(|refresh| refresh.confirmed_at);
        let (source, as_of) = match confirmed_at {
            Some(at) => (
                RangesSource::Refreshed,
                Some(at.strftime("%Y-%m-%d").to_string()),
            ),
            None if is_bundled => (RangesSource::Bundled, Some(cloudflare::AS_OF.to_owned())),
            None => (RangesSource::File, None),
        };
        let leaving = refresh.iter().flat_map(|_| state.list.leaving());
        let leaving = leaving.map(|(network, absent_since)| LeavingRange {
            network: network.to_string(),
            absent_since,
        });
        CloudflareRanges {
            networks: networks.iter().map(ToString::to_string).collect(),
            source,
            as_of,
            leaving: leaving.collect(),
            refresh,
        }
    }

    /// As of when the list was that was taken last.
    pub fn confirmed_at(&self) -> Option<Timestamp> {
        self.lock().list.confirmed_at()
    }

    pub(super) fn list(&self) -> List {
        self.lock().list.clone()
    }

    /// It is in place: remember it, here and over a restart.
    pub(super) fn set_list(&self, list: List) {
        if self.lock().list == list {
            return;
        }
        let text = list.to_text();
        self.lock().list = list;
        if let Err(error) = atomic_file::write(&self.path, text.as_bytes(), 0o600) {
            warn!(
                file = %self.path.display(), %error,
                "can't write the list of Cloudflare's networks; the next start begins with the one before"
            );
        }
    }

    /// How the latest attempt ended; returns why the one before failed, if it did.
    pub(super) fn note(&self, outcome: Result<(), String>, now: Timestamp) -> Option<String> {
        let mut state = self.lock();
        state.checked_at = Some(now);
        std::mem::replace(&mut state.error, outcome.err())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(refresh: Option<&str>) -> Ranges {
        Ranges {
            networks: cloudflare::networks(),
            refresh: refresh.map(|file| shared::config::Refresh::File(file.into())),
            ours: Vec::new(),
        }
    }

    fn whole_list() -> String {
        let networks = cloudflare::networks().into_iter();
        let lines: Vec<String> = networks.map(|network| network.to_string()).collect();
        lines.join("\n")
    }

    /// A list that was taken, with one network more than the bundled one and one that leaves.
    fn taken() -> List {
        let mut list = List::bundled();
        let text = whole_list().replace("131.0.72.0/22", "198.51.100.0/24");
        let now = "2026-11-26T12:00:00Z".parse().unwrap();
        list.take(&text, now, &[], now).unwrap();
        list
    }

    #[test]
    fn the_list_that_was_taken_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = ranges(Some("/list"));
        Record::open(dir.path(), &wanted).set_list(taken());
        let record = Record::open(dir.path(), &wanted);
        assert_eq!(record.list(), taken());
        assert_eq!(record.networks(&wanted).len(), 23);
        assert_eq!(record.networks(&ranges(None)), cloudflare::networks());
    }

    #[test]
    fn a_damaged_file_is_replaced_and_the_bundled_list_used_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloudflare.json");
        let wanted = ranges(Some("/list"));
        for text in [
            "",
            "{",
            "<html>",
            "{\"confirmed_at\":null,\"networks\":{\"0.0.0.0/0\":null}}",
        ] {
            std::fs::write(&path, text).unwrap();
            let record = Record::open(dir.path(), &wanted);
            assert_eq!(record.list(), List::bundled(), "{text}");
            record.set_list(taken());
            assert_eq!(Record::open(dir.path(), &wanted).list(), taken(), "{text}");
        }
    }

    #[test]
    fn what_is_known_of_the_list_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = ranges(Some("/list"));
        let record = Record::open(dir.path(), &wanted);
        let report = record.report(&wanted);
        assert_eq!(report.source, RangesSource::Bundled);
        assert_eq!(report.as_of.as_deref(), Some(cloudflare::AS_OF));
        let refresh = report.refresh.unwrap();
        assert_eq!((refresh.from.as_str(), refresh.checked_at), ("/list", None));

        let now = "2026-11-27T00:00:00Z".parse().unwrap();
        assert_eq!(record.note(Err("it is empty".to_owned()), now), None);
        record.set_list(taken());
        let report = record.report(&wanted);
        assert_eq!(report.source, RangesSource::Refreshed);
        assert_eq!(report.as_of.as_deref(), Some("2026-11-26"));
        assert_eq!(report.leaving.len(), 1);
        assert_eq!(report.leaving[0].network, "131.0.72.0/22");
        let refresh = report.refresh.unwrap();
        assert_eq!(refresh.checked_at, Some(now));
        assert_eq!(refresh.error.as_deref(), Some("it is empty"));
        let before = record.note(Ok(()), now);
        assert_eq!(before.as_deref(), Some("it is empty"));

        // Switched off, or a list in the file itself.
        let report = record.report(&ranges(None));
        assert_eq!(report.source, RangesSource::Bundled);
        assert_eq!((report.refresh, report.leaving), (None, Vec::new()));
        let mut own = ranges(None);
        own.networks.truncate(3);
        let report = record.report(&own);
        assert_eq!((report.source, report.as_of), (RangesSource::File, None));
        assert_eq!(report.networks.len(), 3);
    }
}
