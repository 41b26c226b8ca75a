//! What others change of what this daemon keeps in the kernel is put right: links, addresses, routes and rules when the kernel
//! tells of it, switches and an unprotected table by a look each second, everything by a sweep each half minute.
//!
//! | file | what |
//! |---|---|
//! | this | when to look, and what to say |
//! | `heal` | what differs → the kernel |
//! | `record` | what was found, for status, metrics and API |
mod heal;
mod record;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::api::drift::{Drift, FoundBy, Outcome};
use shared::plan::Heals;
use shared_os::netlink::{Event, Netlink, Watch};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::{error, info, warn};

use crate::model::Model;
use crate::plane::Plane;
use crate::product::Product;
use crate::reconcile::Kernel;

pub use record::Record;

use heal::Found;

/// Changes come in crowds; one look for those of this long.
const SETTLE: Duration = Duration::from_millis(50);

/// How often it is looked at what the kernel tells nobody.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often everything is looked at, told or not.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Rest after a look, as a multiple of what it took: on a host whose thousands of routes never rest we take a twentieth of a
/// core, and not all of it.
const REST: u32 = 20;
/// But no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Processes that are named for one drift.
const SUSPECTS: usize = 4;

/// Watch and put right, for ever. Holds the lock on the plane for each look: at no moment is a change under way taken for one
/// by others.
pub async fn run<P: Product>(plane: Arc<Mutex<Plane<P>>>, record: Arc<Record>) {
    let held = plane.lock().await;
    let (kernel, model) = (Arc::clone(held.kernel()), held.subscribe());
    drop(held);
    let mut watcher = Watcher {
        plane,
        kernel,
        model,
        record,
        watch: None,
        heals: Heals::default(),
        suspects: Vec::new(),
        said: BTreeSet::new(),
        unreadable: None,
    };
    watcher.run().await;
}

struct Watcher<P: Product> {
    plane: Arc<Mutex<Plane<P>>>,
    kernel: Arc<Mutex<Kernel>>,
    model: watch::Receiver<Arc<Model>>,
    record: Arc<Record>,
    watch: Option<Watch>,
    heals: Heals,
    suspects: Vec<String>,
    /// What is left alone, and that is said.
    said: BTreeSet<String>,
    /// Why the kernel could not be read the last time.
    unreadable: Option<String>,
}

impl<P: Product> Watcher<P> {
    async fn run(&mut self) {
        let start = Instant::now();
        let mut look = interval_at(start + LOOK_INTERVAL, LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval_at(start + SWEEP_INTERVAL, SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rested = start;
        self.open_watch();
        // Between the daemon's own look at the kernel and this moment something may have happened.
        self.look(FoundBy::Look).await;
        loop {
            let found_by = tokio::select! {
                event = next(&mut self.watch) => {
                    self.take(event);
                    FoundBy::Notification
                }
                _ = look.tick() => {
                    if !self.differs_silently().await {
                        continue;
                    }
                    FoundBy::Look
                }
                _ = sweep.tick() => {
                    self.open_watch();
                    FoundBy::Sweep
                }
            };
            sleep_until(rested.max(Instant::now() + SETTLE)).await;
            while let Some(event) = self.watch.as_mut().and_then(Watch::try_next) {
                self.take(Some(event));
            }
            let began = Instant::now();
            self.look(found_by).await;
            self.suspects.clear();
            let rest = began.elapsed() * REST;
            rested = Instant::now() + rest.min(LONGEST_REST);
        }
    }

    /// Without notifications the sweep is still there, and it is tried again with it.
    fn open_watch(&mut self) {
        if self.watch.is_none() {
            let opened = Netlink::watch();
            let opened =
                opened.inspect_err(|error| warn!(%error, "the kernel's notifications are missed"));
            self.watch = opened.ok();
        }
    }

    /// `None` when the socket broke.
    fn take(&mut self, event: Option<Event>) {
        if let Some(event) = event {
            self.suspect(event.port);
        } else {
            self.watch = None;
            self.open_watch();
        }
    }

    /// A short-lived process, as `ip` is, is gone by now or soon: at once, or never.
    fn suspect(&mut self, port: u32) {
        if port == 0 || port == std::process::id() || self.suspects.len() == SUSPECTS {
            return;
        }
        if let Ok(name) = std::fs::read_to_string(format!("/proc/{port}/comm")) {
            let suspect = format!("{} (pid {port})", name.trim());
            if !self.suspects.contains(&suspect) {
                self.suspects.push(suspect);
            }
        }
    }

    async fn differs_silently(&mut self) -> bool {
        let model = Arc::clone(&self.model.borrow());
        self.kernel.lock().await.differs_silently(&model.desired)
    }

    async fn look(&mut self, found_by: FoundBy) {
        let plane = self.plane.lock().await;
        if self.record.take_peace() {
            self.heals = Heals::default();
            self.said.clear();
        }
        let healed = {
            let mut kernel = self.kernel.lock().await;
            let desired = &plane.model().desired;
            let is_sweep = found_by == FoundBy::Sweep;
            kernel
                .heal(desired, is_sweep, plane.control(), &mut self.heals)
                .await
        };
        drop(plane);
        match healed {
            Ok(found) => {
                self.unreadable = None;
                self.tell(found, found_by);
            }
            Err(failure) => {
                let why = failure.to_string();
                if self.unreadable.as_ref() != Some(&why) {
                    warn!(
                        error = why,
                        "can't look whether the kernel is as it was left"
                    );
                }
                self.unreadable = Some(why);
            }
        }
    }

    fn tell(&mut self, found: Vec<Found>, found_by: FoundBy) {
        let fought = self.heals.fights(std::time::Instant::now());
        for over in self.record.set_fought(&fought) {
            info!(subject = over, "no longer changed again and again");
            self.said.remove(&over);
        }
        for found in found {
            let subject = &found.drift.subject;
            if found.outcome == Outcome::Fought && !self.said.insert(subject.clone()) {
                continue;
            }
            let drift = Drift {
                at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
                kind: found.drift.kind.name().to_owned(),
                subject: found.drift.subject,
                remedy: found.remedy,
                found_by,
                suspects: self.suspects.clone(),
                outcome: found.outcome,
                error: found.error,
            };
            log(&drift);
            self.record.note(drift);
        }
    }
}

fn log(drift: &Drift) {
    let Drift {
        subject,
        remedy,
        found_by,
        suspects,
        ..
    } = drift;
    match drift.outcome {
        Outcome::Healed => {
            warn!(
                subject,
                remedy,
                ?found_by,
                ?suspects,
                "others changed it; put right"
            );
        }
        Outcome::Failed => {
            let error = drift.error.as_deref().unwrap_or_default();
            error!(
                subject,
                remedy,
                ?found_by,
                ?suspects,
                error,
                "others changed it; can't be put right"
            );
        }
        Outcome::Fought => {
            error!(
                subject,
                remedy,
                ?found_by,
                ?suspects,
                "others change it again and again; left for now"
            );
        }
    }
}

/// Without a watch it never comes.
async fn next(watch: &mut Option<Watch>) -> Option<Event> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
