//! The doctor comes by himself when something on a published path stops working, again until all of it works, and now and then
//! while it does: whoever is called at night finds the hop that is broken in the log, in the status and in the metrics.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::api::diagnosis::Hop;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use crate::product::Product;
use crate::report::Report;

/// How long a start may take, with the first session and the first attempts at services.
const START: Duration = Duration::from_secs(5);
/// How often it is seen whether anything is down.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon he comes again while something is broken: by then it may have another reason.
const AGAIN: Duration = Duration::from_secs(60);
/// How often he comes while nothing is: certificates expire, and a service that takes connections may answer with errors.
const ROUTINE: Duration = Duration::from_secs(300);

/// Where paths are broken, as was found last.
#[derive(Debug, Default)]
pub struct Rounds {
    faults: Mutex<Vec<Hop>>,
}

impl Rounds {
    /// The first hop that fails of each path that is broken.
    pub fn faults(&self) -> Vec<Hop> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Hop>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of those that were not there before, by the log.
    fn note(&self, found: Vec<Hop>) {
        let mut faults = self.lock();
        let is_new = |fault: &&Hop| {
            let mut known = faults.iter();
            !known.any(|known| (known.hop, &known.of) == (fault.hop, &fault.of))
        };
        for fault in found.iter().filter(is_new) {
            let hop = fault.hop.name();
            let (of, evidence) = (&fault.of, &fault.evidence);
            let remedy = fault.remedy.as_deref().unwrap_or("none is known");
            warn!(hop, of, evidence, remedy, "a published path is broken");
        }
        if found.is_empty() && !faults.is_empty() {
            info!("published paths work again");
        }
        *faults = found;
    }
}

/// Until the task is aborted.
pub async fn run<P: Product>(report: Arc<Report<P>>) {
    let start = Instant::now() + START;
    let mut look = interval_at(start, LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Look {
        at: start,
        down: BTreeSet::new(),
        is_broken: false,
    };
    loop {
        look.tick().await;
        let down = report.what_is_down().await;
        if !last.is_over(&down, last.at.elapsed()) {
            continue;
        }
        // Somebody else has asked: then it is his turn, and ours with the next look.
        if let Some(found) = report.diagnose_unless_asked().await {
            last = Look {
                at: Instant::now(),
                down,
                is_broken: !found.faults.is_empty(),
            };
            report.rounds().note(found.faults);
        }
    }
}

/// When he was there last, and what was down then.
struct Look {
    at: Instant,
    down: BTreeSet<String>,
    is_broken: bool,
}

impl Look {
    /// Whether it says nothing any more of a host on which this is down.
    fn is_over(&self, down: &BTreeSet<String>, age: Duration) -> bool {
        let good_for = if self.is_broken { AGAIN } else { ROUTINE };
        *down != self.down || age >= good_for
    }
}

#[cfg(test)]
mod tests {
    use shared::api::diagnosis::{HopKind, Verdict};

    use super::*;

    fn fault(of: &str) -> Hop {
        Hop {
            hop: HopKind::Connection,
            of: of.to_owned(),
            verdict: Verdict::Failed,
            milliseconds: None,
            evidence: "connection refused".to_owned(),
            remedy: None,
            cloudflare_error: None,
        }
    }

    #[test]
    fn he_comes_when_something_changes_and_now_and_then() {
        let down = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let at = Instant::now();
        for (before, is_broken, now, seconds, is_over) in [
            (&[][..], false, &[][..], 299, false),
            (&[], false, &[], 300, true),
            (&[], false, &["a"], 0, true),
            (&["a"], true, &["a"], 59, false),
            (&["a"], true, &["a"], 60, true),
            (&["a"], true, &["a", "b"], 1, true),
            (&["a"], true, &[], 1, true),
            // Takes connections, and answers with errors.
            (&[], true, &[], 59, false),
            (&[], true, &[], 60, true),
        ] {
            let last = Look {
                at,
                down: down(before),
                is_broken,
            };
            let said = last.is_over(&down(now), Duration::from_secs(seconds));
            assert_eq!(said, is_over, "{before:?}, {now:?}, {seconds}");
        }
    }

    #[test]
    fn what_was_found_last_counts() {
        let rounds = Rounds::default();
        assert_eq!(rounds.faults(), []);
        for found in [vec![fault("a"), fault("b")], vec![fault("b")], vec![]] {
            rounds.note(found.clone());
            assert_eq!(rounds.faults(), found);
        }
    }
}
