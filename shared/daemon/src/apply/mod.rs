//! Configurations are taken here: by SIGHUP for good, by `apply` on trial.
//!
//! What is on trial is rolled back by itself unless it is confirmed by a connection that was opened after it was in place: an
//! operator whose way in the change has cut can't confirm it. The rollback does not depend on this process: a [`record`] on the
//! disk makes the next start take the configuration of before, and a [`guard`] puts its firewall in place should nobody start
//! anything.
//!
//! | file | what |
//! |---|---|
//! | this | the one who takes configurations |
//! | `request` | how the API asks |
//! | `trial` | what there is to go back to, and what was well |
//! | `record` | what a crash must not forget |
//! | `journal` | who has taken what, for a log of changes |
//! | `guard` | the process that goes back when there is no daemon |
//! | `first` | with which configuration a start begins |
mod first;
pub mod guard;
pub mod journal;
pub mod record;
pub mod request;
mod trial;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shared::api::apply::{Apply, ApplyState};
use shared::config::cloudflare::Ranges;
use tokio::sync::{self, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::endpoints::Endpoints;
use crate::error::Failure;
use crate::plane::{Next, Plane};
use crate::probe::Probes;
use crate::product::{Product, Settings};
use crate::reconcile::PresharedKeys;
use crate::report::Report;
use crate::{app, cli, cloudflare, resolve, simulation};

pub use first::{First, first};
use guard::Guard;
use journal::{Act, BY_DAEMON, BY_SIGNAL, Journal, Taken};
use record::{DIED, Entry, Record};
use request::{Ask, Refusal};
use trial::{Findings, Trial, Well};

/// Why a configuration was rolled back that nobody confirmed.
const LATE: &str = "it was not confirmed in time";

/// The latest apply, for status.
pub type Latest = Arc<Mutex<Option<Apply>>>;

/// What the one who applies works on.
#[derive(Debug)]
pub struct Parts<P: Product> {
    /// The file.
    pub config_path: PathBuf,
    /// Its text that runs.
    pub running: Arc<str>,
    /// Where it runs.
    pub plane: Arc<sync::Mutex<Plane<P>>>,
    /// What is known of how that goes.
    pub report: Arc<Report<P>>,
    /// Whether published services answer.
    pub probes: Arc<Probes>,
    /// Cloudflare's networks.
    pub ranges: Arc<cloudflare::Record>,
    /// Told of each configuration that is taken.
    pub wanted: watch::Sender<Ranges>,
    /// What a crash must not forget.
    pub record: Record,
    /// For status.
    pub latest: Latest,
    /// Where it is kept who has taken what.
    pub journal: Option<Journal>,
}

impl<P: Product> Parts<P> {
    fn note(&self, taken: Taken) {
        if let Some(journal) = &self.journal {
            // Gone only when the daemon ends.
            let _gone = journal.send(taken);
        }
    }
}

/// Takes configurations.
#[derive(Debug)]
pub struct Applier<P: Product> {
    parts: Parts<P>,
    resolve: JoinHandle<()>,
    trial: Option<Trial<P>>,
}

/// A configuration that is to run.
#[derive(Debug)]
struct Wanted<P: Product> {
    text: Arc<str>,
    settings: Settings,
    config: Arc<P::Config>,
    /// As they were, when they were read already.
    preshared_keys: Option<PresharedKeys>,
}

impl<P: Product> Drop for Applier<P> {
    fn drop(&mut self) {
        self.resolve.abort();
    }
}

impl<P: Product> Applier<P> {
    /// Everything is in place. What was on trial when the last process ended counts as rolled back.
    pub async fn new(mut parts: Parts<P>) -> Self {
        let is_pending = |entry: &Entry| entry.rolled_back.is_none();
        if let Some(entry) = parts.record.entry().filter(|entry| is_pending(entry)) {
            parts.note(Taken {
                at: Timestamp::now(),
                by: BY_DAEMON.to_owned(),
                act: Act::RollBack,
                apply: Some(entry.id.to_string()),
                from: entry.applied.as_str().into(),
                to: entry.before.as_str().into(),
                reason: Some(DIED.to_owned()),
            });
            note_end(
                parts.record.roll_back(DIED, Timestamp::now()),
                &parts.record,
            );
        }
        set(&parts.latest, parts.record.entry().map(Entry::shown));
        let plane = parts.plane.lock().await;
        let peers = plane.model().peers.clone();
        let resolve = tokio::spawn(resolve::run(peers, plane.control().clone()));
        drop(plane);
        Self {
            parts,
            resolve,
            trial: None,
        }
    }

    /// Take the configuration file as it is now, for good, and put the kernel right even when it has not changed: key files may
    /// have, and others may have removed something.
    ///
    /// # Errors
    /// The running configuration stays.
    pub async fn reload(&mut self, endpoints: &Endpoints) -> Result<(), Failure> {
        let outcome = self.try_reload(endpoints).await;
        self.done(outcome.is_ok()).await;
        outcome
    }

    async fn try_reload(&mut self, endpoints: &Endpoints) -> Result<(), Failure> {
        if self.trial.is_some() {
            return Err(Failure::Other(
                "a configuration is on trial: `apply confirm` keeps it, `apply rollback` goes back; then reload".to_owned(),
            ));
        }
        let wanted = self.read()?;
        let from = Arc::clone(&self.parts.running);
        self.take(wanted, endpoints).await?;
        self.note(BY_SIGNAL, Act::Reload, None, from, None);
        // Whoever reloads means this file, whatever became of it before.
        if let Err(error) = self.parts.record.clear() {
            let file = self.parts.record.file();
            warn!(file = %file.display(), %error, "can't remove; a restart would take the configuration of before");
        }
        Ok(())
    }

    /// What a request asks for.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn answer(
        &mut self,
        ask: Ask,
        by: &str,
        endpoints: &Endpoints,
    ) -> Result<Apply, Refusal> {
        match ask {
            Ask::Apply { file, within } => {
                self.check_file(file)?;
                self.apply(within, by, endpoints).await
            }
            Ask::Show => self.show().await.ok_or(Refusal::Nothing),
            Ask::Confirm { id, opened } => self.confirm(&id, opened, by),
            Ask::RollBack { id } => {
                self.on_trial(&id)?;
                let reason = format!("{by} asked for it");
                self.roll_back(&reason, by).await.map_err(Refusal::Failed)?;
                self.show().await.ok_or(Refusal::Nothing)
            }
        }
    }

    /// Whether a configuration is on trial.
    pub const fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// The trial is over, and nobody has confirmed. Never, while nothing is on trial.
    pub async fn due(&self) {
        match &self.trial {
            Some(trial) => tokio::time::sleep_until(trial.until.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Go back because nobody has confirmed; when that fails, again in a moment.
    pub async fn give_up(&mut self) {
        if let Err(failure) = self.roll_back(LATE, BY_DAEMON).await {
            error!(%failure, "can't go back to the configuration of before; it is tried again");
        }
    }

    /// The daemon ends. What is on trial must not stay in the kernel.
    pub async fn stop(&mut self) {
        if self.trial.is_some() {
            if let Err(failure) = self.roll_back(DIED, BY_DAEMON).await {
                error!(%failure, "can't go back to the configuration of before; the next start will");
            }
        }
    }

    /// A command names the file that it means.
    fn check_file(&self, file: Option<PathBuf>) -> Result<(), Refusal> {
        let ours = std::path::absolute(&self.parts.config_path);
        let ours = ours.unwrap_or_else(|_| self.parts.config_path.clone());
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match file {
            Some(file) if real(&file) != real(&ours) => Err(Refusal::OtherFile(ours)),
            Some(_) | None => Ok(()),
        }
    }

    async fn apply(
        &mut self,
        within: Duration,
        by: &str,
        endpoints: &Endpoints,
    ) -> Result<Apply, Refusal> {
        if self.trial.is_some() {
            let latest = self.latest().map(|apply| apply.id);
            return Err(Refusal::Pending(latest.unwrap_or_default()));
        }
        let from = Arc::clone(&self.parts.running);
        let outcome = self.try_apply(within, endpoints).await;
        self.done(outcome.is_ok()).await;
        let apply = outcome.map_err(Refusal::Failed)?;
        self.note(by, Act::Apply, Some(&apply.id), from, None);
        info!(id = apply.id, by, confirm_by = %apply.confirm_by, "configuration taken on trial");
        Ok(apply)
    }

    /// The record first, so that no crash can leave behind what nobody has confirmed.
    async fn try_apply(
        &mut self,
        within: Duration,
        endpoints: &Endpoints,
    ) -> Result<Apply, Failure> {
        let wanted = self.read()?;
        let problems = self.parts.report.problems_now().await;
        let well = Well::new(problems, &self.parts.report.probes_now());
        let before = self.running().await;
        let texts = (wanted.text.to_string(), before.text.to_string());
        let entry = Entry::new(texts.0, texts.1, within, Timestamp::now());
        let apply = entry.shown();
        let guard = Guard::start::<P>(
            &self.parts.config_path,
            self.parts.record.file(),
            entry.id,
            within,
        );
        let guard = guard.map_err(|error| {
            Failure::Environment(format!(
                "can't start the process that goes back should this one die: {error}; a reload does without it"
            ))
        })?;
        let began = self.parts.record.begin(entry).map_err(|error| {
            let file = self.parts.record.file().display();
            Failure::Environment(format!(
                "can't write {file}, which a crash needs to go back: {error}"
            ))
        });
        let taken = match began {
            Ok(()) => self.take(wanted, endpoints).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = taken {
            guard.dismiss();
            if let Err(error) = self.parts.record.clear() {
                let file = self.parts.record.file().display();
                warn!(%file, %error, "can't remove the record of an apply that failed");
            }
            return Err(failure);
        }
        let now = Instant::now();
        self.trial = Some(Trial {
            since: now,
            until: now + within,
            before,
            endpoints: endpoints.clone(),
            well,
            guard,
        });
        set(&self.parts.latest, Some(apply.clone()));
        self.parts.probes.try_again();
        Ok(apply)
    }

    fn confirm(&mut self, id: &str, opened: Instant, by: &str) -> Result<Apply, Refusal> {
        let trial = self.on_trial(id)?;
        if opened <= trial.since {
            return Err(Refusal::OldConnection);
        }
        self.parts.record.clear().map_err(|error| {
            let file = self.parts.record.file().display();
            Refusal::Failed(Failure::Environment(format!(
                "can't remove {file}: {error}; the configuration stays on trial"
            )))
        })?;
        let apply = self.end(ApplyState::Confirmed, None)?;
        let running = Arc::clone(&self.parts.running);
        self.note(by, Act::Confirm, Some(id), running, None);
        info!(id = apply.id, by, "configuration confirmed");
        Ok(apply)
    }

    async fn roll_back(&mut self, reason: &str, by: &str) -> Result<(), Failure> {
        let Some(trial) = &mut self.trial else {
            return Ok(());
        };
        trial.put_off(Instant::now());
        let (before, endpoints) = (trial.before.clone(), trial.endpoints.clone());
        let from = Arc::clone(&self.parts.running);
        self.take(before, &endpoints).await?;
        let latest = self.latest().map(|apply| apply.id);
        self.note(by, Act::RollBack, latest.as_deref(), from, Some(reason));
        self.parts.plane.lock().await.applies().count_rollback();
        self.look_again().await;
        note_end(
            self.parts.record.roll_back(reason, Timestamp::now()),
            &self.parts.record,
        );
        // There was one to go back from.
        let _ended = self.end(ApplyState::RolledBack, Some(reason.to_owned()));
        warn!(
            reason,
            "rolled back: the configuration of before runs, and the file is another"
        );
        Ok(())
    }

    /// The trial, if it is this one.
    fn on_trial(&self, id: &str) -> Result<&Trial<P>, Refusal> {
        let latest = self.latest().ok_or(Refusal::Unknown)?;
        if latest.id != id {
            return Err(Refusal::Unknown);
        }
        let trial = self.trial.as_ref();
        trial.ok_or_else(|| Refusal::Over(Box::new(latest)))
    }

    fn end(&mut self, state: ApplyState, reason: Option<String>) -> Result<Apply, Refusal> {
        if let Some(trial) = self.trial.take() {
            trial.guard.dismiss();
        }
        let mut apply = self.latest().ok_or(Refusal::Nothing)?;
        apply.state = state;
        apply.ended_at = Some(Timestamp::now());
        apply.reason = reason;
        set(&self.parts.latest, Some(apply.clone()));
        Ok(apply)
    }

    /// The latest one, and while it is on trial how it goes.
    async fn show(&self) -> Option<Apply> {
        let apply = self.latest()?;
        let Some(trial) = &self.trial else {
            return Some(apply);
        };
        let Findings { checked, problems } = trial.well.compare(
            &self.parts.report.problems_now().await,
            &self.parts.report.probes_now(),
            &self.parts.probes,
            trial.since,
        );
        Some(Apply {
            checked,
            problems,
            ..apply
        })
    }

    fn latest(&self) -> Option<Apply> {
        let latest = self.parts.latest.lock();
        latest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration file as it is now.
    fn read(&self) -> Result<Wanted<P>, Failure> {
        let text = cli::read(&self.parts.config_path)?;
        let parsed = simulation::parse_tested::<P>(&text, &self.parts.config_path)?;
        Ok(Wanted {
            text: text.into(),
            settings: P::settings(&parsed.config),
            config: Arc::new(parsed.config),
            preshared_keys: None,
        })
    }

    /// What runs, to come back to.
    async fn running(&self) -> Wanted<P> {
        let plane = self.parts.plane.lock().await;
        Wanted {
            text: Arc::clone(&self.parts.running),
            settings: plane.settings().clone(),
            config: Arc::clone(plane.config()),
            preshared_keys: Some(plane.preshared_keys().clone()),
        }
    }

    /// Put a configuration in place, with the members and the host of now.
    async fn take(&mut self, wanted: Wanted<P>, endpoints: &Endpoints) -> Result<(), Failure> {
        let mut plane = self.parts.plane.lock().await;
        if let Some(what) = app::needs_restart(plane.settings(), &wanted.settings) {
            return Err(Failure::Configuration(format!(
                "{}: {what} can't change while the daemon runs; restart it",
                self.parts.config_path.display()
            )));
        }
        let environment = app::environment(
            &wanted.settings,
            plane.kernel().lock().await.netlink(),
            &self.parts.ranges,
        )
        .await?;
        let model = P::model(&wanted.config, &environment, plane.members());
        let preshared_keys = match wanted.preshared_keys {
            Some(keys) => keys,
            None => app::preshared_keys(&model)?,
        };
        let peers = model.peers.clone();
        let ranges = wanted.settings.cloudflare.clone();
        let next = Next {
            settings: wanted.settings,
            environment,
            config: wanted.config,
            preshared_keys,
            model,
        };
        for conflict in plane.reload(next, endpoints).await? {
            warn!("{conflict}");
        }
        let control = plane.control().clone();
        drop(plane);
        self.parts.running = wanted.text;
        self.parts.wanted.send_replace(ranges);
        self.resolve.abort();
        self.resolve = tokio::spawn(resolve::run(peers, control));
        Ok(())
    }

    /// What runs now was put in the place of `from`.
    fn note(&self, by: &str, act: Act, apply: Option<&str>, from: Arc<str>, reason: Option<&str>) {
        self.parts.note(Taken {
            at: Timestamp::now(),
            by: by.to_owned(),
            act,
            apply: apply.map(str::to_owned),
            from,
            to: Arc::clone(&self.parts.running),
            reason: reason.map(str::to_owned),
        });
    }

    /// Counted, and what was seen before does not count.
    async fn done(&self, is_ok: bool) {
        self.parts.plane.lock().await.applies().count(is_ok);
        self.look_again().await;
    }

    async fn look_again(&self) {
        let settings = self.parts.plane.lock().await.settings().clone();
        self.parts.report.look_again(settings).await;
    }
}

impl<P: Product> Clone for Wanted<P> {
    fn clone(&self) -> Self {
        Self {
            text: Arc::clone(&self.text),
            settings: self.settings.clone(),
            config: Arc::clone(&self.config),
            preshared_keys: self.preshared_keys.clone(),
        }
    }
}

fn set(latest: &Latest, apply: Option<Apply>) {
    *latest.lock().unwrap_or_else(PoisonError::into_inner) = apply;
}

/// The end of a trial is written down; the file without it says the same to a start.
fn note_end(written: std::io::Result<()>, record: &Record) {
    if let Err(error) = written {
        error!(file = %record.file().display(), %error, "can't write that the apply was rolled back");
    }
}
