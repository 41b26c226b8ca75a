//! What was found since the start.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared::api::drift::{Drift, DriftSummary, Outcome};
use shared::plan::DriftKind;

/// Drifts that are remembered one by one.
const REMEMBERED: usize = 100;

/// Written by the one who watches, read by status, metrics and API.
#[derive(Debug, Default)]
pub struct Record(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    found: BTreeMap<String, u64>,
    healed: u64,
    fought: Vec<String>,
    /// Somebody has looked, and means what is configured.
    is_peace: bool,
    latest: VecDeque<Drift>,
}

impl Record {
    /// Counters, and what is fought over now.
    pub fn summary(&self) -> DriftSummary {
        let state = self.lock();
        let kinds = DriftKind::ALL.into_iter().map(|kind| {
            let found = state.found.get(kind.name()).copied();
            (kind.name().to_owned(), found.unwrap_or_default())
        });
        DriftSummary {
            found: kinds.collect(),
            healed: state.healed,
            fought: state.fought.clone(),
        }
    }

    /// The latest ones, newest first.
    pub fn latest(&self) -> Vec<Drift> {
        self.lock().latest.iter().rev().cloned().collect()
    }

    /// What is fought over, in sentences.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let fought = state.fought.iter();
        fought
            .map(|subject| {
                let suspects = state.suspects_of(subject);
                format!(
                    "{subject} does not stay as it is configured: it was put right five times within a minute and is left for \
                     now; find what changes it{suspects}, or have the configuration want the same"
                )
            })
            .collect()
    }

    /// A configuration was taken: whoever did that has looked, so nothing of before counts as a fight.
    pub fn make_peace(&self) {
        let mut state = self.lock();
        state.is_peace = true;
        state.fought.clear();
    }

    /// Whether peace was made since this was last asked.
    pub(super) fn take_peace(&self) -> bool {
        std::mem::take(&mut self.lock().is_peace)
    }

    pub(super) fn note(&self, drift: Drift) {
        let mut state = self.lock();
        *state.found.entry(drift.kind.clone()).or_default() += 1;
        state.healed += u64::from(drift.outcome == Outcome::Healed);
        if state.latest.len() == REMEMBERED {
            state.latest.pop_front();
        }
        state.latest.push_back(drift);
    }

    /// Returns what is no longer fought over.
    pub(super) fn set_fought(&self, fought: &[String]) -> Vec<String> {
        let before = std::mem::replace(&mut self.lock().fought, fought.to_vec());
        let over = before.into_iter();
        over.filter(|subject| !fought.contains(subject)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn suspects_of(&self, subject: &str) -> String {
        let of = self.latest.iter().filter(|drift| drift.subject == subject);
        let mut names: Vec<&str> = of
            .flat_map(|drift| &drift.suspects)
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            String::new()
        } else {
            format!(" (perhaps {})", names.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::api::drift::FoundBy;

    use super::*;

    fn drift(subject: &str, outcome: Outcome, suspects: &[&str]) -> Drift {
        Drift {
            at: "2026-11-26T00:00:00Z".to_owned(),
            kind: DriftKind::Route.name().to_owned(),
            subject: subject.to_owned(),
            remedy: "ip route add".to_owned(),
            found_by: FoundBy::Notification,
            suspects: suspects.iter().map(|&name| name.to_owned()).collect(),
            outcome,
            error: None,
        }
    }

    #[test]
    fn every_kind_is_counted_from_zero() {
        let record = Record::default();
        record.note(drift("a", Outcome::Healed, &[]));
        record.note(drift("a", Outcome::Failed, &[]));
        let summary = record.summary();
        assert_eq!(summary.found.len(), DriftKind::ALL.len());
        assert_eq!((summary.found["route"], summary.found["rule"]), (2, 0));
        assert_eq!(summary.healed, 1);
    }

    #[test]
    fn only_the_latest_are_remembered_and_the_newest_is_first() {
        let record = Record::default();
        for number in 0..=REMEMBERED {
            record.note(drift(&number.to_string(), Outcome::Healed, &[]));
        }
        let latest = record.latest();
        assert_eq!(latest.len(), REMEMBERED);
        assert_eq!(latest[0].subject, REMEMBERED.to_string());
        assert_eq!(latest[REMEMBERED - 1].subject, "1");
    }

    #[test]
    fn a_fight_names_who_may_be_the_other_side() {
        let record = Record::default();
        record.note(drift("route x", Outcome::Healed, &["bird (pid 7)"]));
        record.note(drift("route x", Outcome::Healed, &["bird (pid 7)"]));
        record.note(drift("route y", Outcome::Healed, &["frr (pid 8)"]));
        assert!(record.problems().is_empty());
        let fought = ["route x".to_owned()];
        assert!(record.set_fought(&fought).is_empty());
        let problems = record.problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("route x"), "{problems:?}");
        assert!(problems[0].contains("perhaps bird (pid 7)"), "{problems:?}");
        assert!(!problems[0].contains("frr"), "{problems:?}");
        assert_eq!(record.set_fought(&[]), fought);
        assert!(record.problems().is_empty());
        record.set_fought(&fought);
        record.make_peace();
        assert!(record.problems().is_empty());
        assert!(record.take_peace() && !record.take_peace());
    }
}
