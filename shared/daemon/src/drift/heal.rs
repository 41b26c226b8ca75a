//! Puts right what others have changed, step by step, in the order that fails closed.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nft::Ownership;
use shared::api::drift::Outcome;
use shared::plan::{Change, Changes, Desired, Drift, DriftKind, Heals, difference, same_value};
use shared_datapath::Control;
use shared_os::sysctl;

use crate::error::{Failure, chain};
use crate::fd_store;
use crate::reconcile::Kernel;

/// A thing that was not as it was left, and what became of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) drift: Drift,
    /// As a command, or what differs in the table.
    pub(super) remedy: String,
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
}

impl Found {
    fn new(drift: Drift, remedy: String, heals: &mut Heals, now: Instant) -> Self {
        let outcome = if heals.allow(&drift.subject, now) {
            Outcome::Healed
        } else {
            Outcome::Fought
        };
        Self {
            drift,
            remedy,
            outcome,
            error: None,
        }
    }
}

impl Kernel {
    /// Whether something differs of which the kernel tells nobody: a switch, or the table where others may change it.
    pub(super) fn differs_silently(&mut self, desired: &Desired) -> bool {
        let is_wrong = |wanted: &shared::plan::Sysctl| match sysctl::read(&wanted.path) {
            Ok(live) => live
                .value
                .is_some_and(|live| !same_value(&live, &wanted.value)),
            Err(_) => false, // what can't be read, the sweep tells
        };
        desired.sysctls.iter().any(is_wrong)
            || (self.nftables().ownership() == Ownership::None
                && !self.table_deviations(desired).is_empty())
    }

    /// Look at everything, and put right what may be put right. A table that the kernel protects is read only if that is asked
    /// for: it may have thousands of elements.
    ///
    /// # Errors
    /// The kernel can't be read; nothing was changed then.
    pub(super) async fn heal(
        &mut self,
        desired: &Desired,
        also_protected: bool,
        control: &Control,
        heals: &mut Heals,
    ) -> Result<Vec<Found>, Failure> {
        let changes = self.changes(desired).await?;
        let now = Instant::now();
        let mut found: Vec<Found> = changes
            .drifts()
            .map(|(change, drift)| Found::new(drift, change.to_string(), heals, now))
            .collect();
        let table = if also_protected || self.nftables().ownership() == Ownership::None {
            self.table_deviations(desired)
        } else {
            Vec::new()
        };
        if !table.is_empty() {
            let drift = Drift {
                kind: DriftKind::Nftables,
                subject: table_subject(desired),
            };
            found.push(Found::new(drift, told(&table), heals, now));
        }
        let (left, right): (Vec<&Found>, Vec<&Found>) = found
            .iter()
            .partition(|found| found.outcome == Outcome::Fought);
        let left: BTreeSet<String> = left
            .iter()
            .map(|found| found.drift.subject.clone())
            .collect();
        let heals_table = right
            .iter()
            .any(|found| found.drift.kind == DriftKind::Nftables);
        let failures = self
            .put_right(desired, changes.without(&left), &left, heals_table, control)
            .await;
        for (subject, error) in failures {
            // What went along with something else is not named, so its failure is that of what is.
            let named = found
                .iter()
                .position(|found| found.drift.subject == subject);
            let of = found.get_mut(named.unwrap_or_default());
            if let Some(found) = of.filter(|found| found.outcome != Outcome::Fought) {
                found.outcome = Outcome::Failed;
                found.error = Some(error);
            }
        }
        Ok(found)
    }

    async fn changes(&mut self, desired: &Desired) -> Result<Changes, Failure> {
        let actual = self.netlink().read(desired).await;
        let actual = actual.map_err(|error| Failure::other(&error))?;
        Ok(difference(desired, &actual))
    }

    /// What failed, by subject; goes on after a failure.
    async fn put_right(
        &mut self,
        desired: &Desired,
        mut changes: Changes,
        left: &BTreeSet<String>,
        heals_table: bool,
        control: &Control,
    ) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        let is_new_link = |change: &&Change| matches!(change, Change::AddLink(_));
        let new_link = changes.iter().find(is_new_link).map(Change::drift);
        if let Some(Drift { subject, .. }) = new_link {
            match self.replace_link(desired, control).await {
                Ok(rest) => changes = rest.without(left),
                Err(error) => {
                    failures.insert(subject, error);
                    return failures;
                }
            }
        }
        self.put_each_right(&changes.before_ruleset, &mut failures)
            .await;
        if heals_table {
            if let Err(error) = self.nftables().replace(&desired.ruleset) {
                failures.insert(table_subject(desired), chain(&error));
            }
        }
        self.put_each_right(&changes.after_ruleset, &mut failures)
            .await;
        failures
    }

    async fn put_each_right(
        &mut self,
        changes: &[Change],
        failures: &mut BTreeMap<String, String>,
    ) {
        for change in changes {
            if let Err(failure) = self.apply(std::slice::from_ref(change)).await {
                failures.insert(change.drift().subject, failure.to_string());
            }
        }
    }

    /// Returns what the new link lacks.
    async fn replace_link(
        &mut self,
        desired: &Desired,
        control: &Control,
    ) -> Result<Changes, String> {
        let queue = control.replace_link().await;
        let queue = queue.map_err(|error| chain(&error))?;
        fd_store::leave_instead(&queue);
        self.changes(desired)
            .await
            .map_err(|failure| failure.to_string())
    }
}

fn table_subject(desired: &Desired) -> String {
    format!("table inet {}", desired.ruleset.table)
}

/// One of the differences, and how many more there are.
fn told(differences: &[String]) -> String {
    match differences {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    }
}
