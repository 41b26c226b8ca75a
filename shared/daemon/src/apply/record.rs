//! What must be known of an apply after a crash: the file that says which configuration is not confirmed, and which was.
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::api::apply::{Apply, ApplyState};
use shared_os::atomic_file;
use tracing::warn;
use uuid::Uuid;

/// Why a configuration was rolled back that was on trial when the daemon ended.
pub const DIED: &str = "the daemon ended before it was confirmed";

/// The latest apply that is not confirmed.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    entry: Option<Entry>,
}

/// As it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Identifier.
    pub id: Uuid,
    /// When the configuration was put in place.
    pub applied_at: Timestamp,
    /// When it is rolled back.
    pub confirm_by: Timestamp,
    /// The text that was applied.
    pub applied: String,
    /// The text that ran before.
    pub before: String,
    /// That it was rolled back; nothing while it is on trial.
    pub rolled_back: Option<RolledBack>,
}

/// The end of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolledBack {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Entry {
    /// A trial that begins now.
    pub fn new(applied: String, before: String, within: Duration, now: Timestamp) -> Self {
        Self {
            id: Uuid::now_v7(),
            applied_at: now,
            confirm_by: now.saturating_add(within).unwrap_or(now),
            applied,
            before,
            rolled_back: None,
        }
    }

    /// As the API shows it, as far as the file tells.
    pub fn shown(&self) -> Apply {
        let rolled_back = self.rolled_back.as_ref();
        Apply {
            id: self.id.to_string(),
            state: match rolled_back {
                None => ApplyState::Pending,
                Some(_) => ApplyState::RolledBack,
            },
            applied_at: self.applied_at,
            confirm_by: self.confirm_by,
            ended_at: rolled_back.map(|end| end.at),
            reason: rolled_back.map(|end| end.reason.clone()),
            checked: false,
            problems: Vec::new(),
        }
    }

    fn roll_back(&mut self, reason: &str, now: Timestamp) {
        self.rolled_back = Some(RolledBack {
            at: now,
            reason: reason.to_owned(),
        });
    }
}

impl Record {
    /// Where a product keeps it.
    pub fn path(state_dir: &Path, product: &str) -> PathBuf {
        state_dir.join(format!("{product}-apply.json"))
    }

    /// As it was left.
    pub fn open(path: PathBuf) -> Self {
        let entry = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .inspect_err(|error| {
                    warn!(file = %path.display(), %error, "not the record of an apply; it is not used");
                })
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(file = %path.display(), %error, "can't read the record of the latest apply");
                None
            }
        };
        Self { path, entry }
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// The configuration to start with in the place of this text, which is not confirmed.
    pub fn instead_of(&self, text: &str) -> Option<&str> {
        let entry = self.entry.as_ref()?;
        let is_refused = entry.rolled_back.is_none() || entry.applied == text;
        is_refused.then_some(&entry.before)
    }

    /// A trial begins, which is on the disk when this returns.
    ///
    /// # Errors
    /// It can't be written: nothing must be tried then.
    pub fn begin(&mut self, entry: Entry) -> io::Result<()> {
        self.write(&entry)?;
        self.entry = Some(entry);
        Ok(())
    }

    /// The trial ends: what was applied does not run any more.
    ///
    /// # Errors
    /// It can't be written. The file says then that the trial goes on, which a start takes for the same.
    pub fn roll_back(&mut self, reason: &str, now: Timestamp) -> io::Result<()> {
        let Some(mut entry) = self.entry.clone() else {
            return Ok(());
        };
        entry.roll_back(reason, now);
        self.entry = Some(entry.clone());
        self.write(&entry)
    }

    /// The file of the configuration may be started with again.
    ///
    /// # Errors
    /// It can't be removed, and nothing has changed.
    pub fn clear(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => atomic_file::sync_dir_of(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.entry = None;
        Ok(())
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        let text = serde_json::to_vec(entry).map_err(io::Error::from)?;
        atomic_file::write(&self.path, &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn record(dir: &tempfile::TempDir) -> Record {
        Record::open(Record::path(dir.path(), "gateway"))
    }

    fn entry() -> Entry {
        Entry::new(
            "new".to_owned(),
            "old".to_owned(),
            Duration::from_secs(60),
            now(),
        )
    }

    #[test]
    fn what_is_on_trial_is_not_started_with_whatever_the_file_says_by_then() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(record(&dir).instead_of("new"), None);
        record(&dir).begin(entry()).unwrap();
        let left = record(&dir);
        assert_eq!(left.instead_of("new"), Some("old"));
        assert_eq!(left.instead_of("edited since"), Some("old"));
        let shown = left.entry().unwrap().shown();
        assert_eq!(shown.state, ApplyState::Pending);
        assert_eq!(shown.confirm_by, "2026-11-27T12:01:00Z".parse().unwrap());
    }

    #[test]
    fn what_was_rolled_back_is_not_started_with_until_the_file_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = record(&dir);
        first.begin(entry()).unwrap();
        first.roll_back(DIED, now()).unwrap();
        let left = record(&dir);
        assert_eq!(left.instead_of("new"), Some("old"));
        assert_eq!(left.instead_of("edited since"), None);
        let shown = left.entry().unwrap().shown();
        assert_eq!(shown.state, ApplyState::RolledBack);
        assert_eq!(shown.reason.as_deref(), Some(DIED));
    }

    #[test]
    fn what_is_confirmed_is_started_with() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = record(&dir);
        first.begin(entry()).unwrap();
        first.clear().unwrap();
        first.clear().unwrap();
        assert_eq!(record(&dir).instead_of("new"), None);
        assert!(!first.file().exists());
    }

    #[test]
    fn a_damaged_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(Record::path(dir.path(), "gateway"), "{").unwrap();
        assert!(record(&dir).entry().is_none());
    }

    #[test]
    fn a_trial_that_can_not_be_written_down_does_not_begin() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path().join("missing/gateway-apply.json"));
        record.begin(entry()).unwrap_err();
        assert!(record.entry().is_none());
    }
}
