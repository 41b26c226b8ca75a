//! The one writer. Requests that wait are taken together: each is checked against the state that the ones before it have
//! made, then all of them go to kernel and device in one step and to disk in one transaction, and only then are answered.
//!
//! When kernel or disk refuse, the state is taken back and nobody was told anything else: what is acknowledged is on disk
//! and in the data plane, and what is not is in neither.
mod upkeep;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use shared::api::event::{Event, EventKind};
use shared::api::peer::PeerState;
use shared::model::PublicKey;
use shared_daemon::apply::journal::Taken;
use shared_daemon::error::Failure;
use shared_daemon::plane::Plane;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};
use uuid::Uuid;

use super::Shared;
use super::change::Context;
use super::decide::{Done, decide};
use super::error::RequestError;
use super::events::of_peer;
use super::meter::{Holder, quota_used};
use super::request::{Command, Outcome, Request};
use super::state::{State, Undo};
use super::view;
use upkeep::Ended;

use crate::Gateway;
use crate::audit;
use crate::claims::Claims;
use crate::members::{Member, Members};
use crate::store::{Change, IdempotentAnswer, Store, StoreError, UsageRecord};

/// Most requests that go together: what a client waits for others stays short.
const MAX_BATCH: usize = 256;
/// After so many refusals of the kernel in a row it is not the requests that it refuses.
const REFUSALS_IN_A_ROW: usize = 8;
/// How often peers are looked at: what expires or has moved its quota ends within this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The worker.
#[derive(Debug)]
pub struct Worker<S: Store> {
    store: Arc<S>,
    plane: Arc<Mutex<Plane<Gateway>>>,
    shared: Arc<Shared<S>>,
    state: State,
    /// Members that are in the data plane, by identifier.
    members: BTreeMap<Uuid, Arc<Member>>,
    last_allocated: [Option<IpAddr>; 2],
    looks: u32,
    /// Peers that were taken out of the data plane by time or traffic and are not in the audit log yet.
    unrecorded: Vec<Ended>,
    /// Configurations that were taken and are not there yet.
    taken: Vec<Taken>,
    /// The configuration that readers were told of.
    announced: watch::Sender<Arc<shared::config::gateway::Gateway>>,
}

/// Who refused a batch.
enum Refused {
    ByKernel(RequestError),
    ByStore(RequestError),
}

/// A request that waits for kernel and disk, and its answer should they take the batch.
struct Pending {
    request: Request,
    answer: Result<Accepted, RequestError>,
}

/// What an accepted request comes to.
struct Accepted {
    outcome: Outcome,
    event: Option<Event>,
    /// It was done before, so that no refusal of now changes that.
    is_done: bool,
}

/// Peers whose counting for the quota begins anew, or ends.
type Begun = BTreeMap<Uuid, Option<UsageRecord>>;

/// Members before a change, those that it is about.
type Kept = BTreeMap<Uuid, Option<Arc<Member>>>;

/// What a batch has come to so far.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    undos: Vec<Undo>,
    /// Peers whose membership may have changed.
    touched: Vec<Uuid>,
    /// Events beside those of the requests.
    events: Vec<Event>,
}

impl<S: Store> Worker<S> {
    /// With the state that `shared` shows.
    pub fn new(
        store: Arc<S>,
        plane: Arc<Mutex<Plane<Gateway>>>,
        shared: Arc<Shared<S>>,
        state: State,
        members: &Members,
        announced: watch::Sender<Arc<shared::config::gateway::Gateway>>,
    ) -> Self {
        let members = members.peers.iter();
        Self {
            store,
            plane,
            shared,
            state,
            members: members
                .map(|member| (member.id, Arc::clone(member)))
                .collect(),
            last_allocated: [None, None],
            looks: 0,
            unrecorded: Vec::new(),
            taken: Vec::new(),
            announced,
        }
    }

    /// Until it is stopped: then requests that wait are done, and what peers have moved is written down for the last time.
    pub async fn run(
        mut self,
        mut queue: mpsc::Receiver<Request>,
        mut journal: mpsc::UnboundedReceiver<Taken>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = self.plane.lock().await.subscribe();
        self.notice_reload().await;
        let mut requests = Vec::new();
        loop {
            tokio::select! {
                _ = &mut stopped, if !queue.is_closed() => queue.close(),
                count = queue.recv_many(&mut requests, MAX_BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.handle(std::mem::take(&mut requests)).await;
                }
                _ = look.tick() => self.look().await,
                Ok(()) = taken.changed() => self.notice_reload().await,
                Some(taken) = journal.recv() => {
                    self.taken.push(taken);
                    self.record_taken().await;
                }
            }
        }
        while let Ok(taken) = journal.try_recv() {
            self.taken.push(taken);
        }
        self.record_taken().await;
        self.read_device().await;
        self.write_usage().await;
    }

    /// Check requests in their order, carry all of them out, answer.
    async fn handle(&mut self, requests: Vec<Request>) {
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        if requests.iter().any(|request| self.is_of_rotating(request)) {
            // Who owns the networks is known to the device alone until the rotation is finished.
            self.finish_used_rotations(&mut plane).await;
        }
        let alone = requests.len() == 1;
        let Err((mut error, refused)) = self.handle_together(&mut plane, requests).await else {
            return;
        };
        // What the kernel refuses of one is no reason to refuse the others: each goes by itself.
        let mut in_a_row = if alone { REFUSALS_IN_A_ROW } else { 0 };
        for request in refused {
            let refused = if in_a_row < REFUSALS_IN_A_ROW {
                match self.handle_together(&mut plane, vec![request]).await {
                    Ok(()) => {
                        in_a_row = 0;
                        continue;
                    }
                    Err((of_this, refused)) => {
                        in_a_row += 1;
                        error = of_this;
                        refused
                    }
                }
            } else {
                vec![request]
            };
            for request in refused {
                let _nobody_waits = request.reply.send(Err(error.clone()));
            }
        }
    }

    /// All of them or none. What the kernel refuses is given back unanswered.
    async fn handle_together(
        &mut self,
        plane: &mut Plane<Gateway>,
        requests: Vec<Request>,
    ) -> Result<(), (RequestError, Vec<Request>)> {
        let config = Arc::clone(plane.config());
        let claims = Claims::of(&config, self.state.lan_servers());
        let now = now();
        let mut batch = Batch::default();
        let check = |request| {
            let answer = self.check(&config, &claims, now, &request, &mut batch);
            Pending { request, answer }
        };
        let pending: Vec<Pending> = requests.into_iter().map(check).collect();
        let carried_out = match self.carry_out(plane, &mut batch, now).await {
            Ok(()) => Ok(()),
            Err(Refused::ByStore(error)) => Err(error),
            Err(Refused::ByKernel(error)) => {
                // Refusals, too: they may rest on what was taken back.
                let requests = pending.into_iter().map(|pending| pending.request);
                return Err((error, requests.collect()));
            }
        };
        self.publish(config);
        for Pending { request, answer } in pending {
            let answer = match (answer, &carried_out) {
                (Ok(accepted), Err(error)) if !accepted.is_done => Err(error.clone()),
                (Ok(accepted), _) => {
                    batch.events.extend(accepted.event);
                    Ok(accepted.outcome)
                }
                (Err(error), _) => Err(error),
            };
            let _nobody_waits = request.reply.send(answer);
        }
        for event in batch.events {
            self.shared.events.emit(event);
        }
        Ok(())
    }

    /// Whether a request is about a peer whose key is about to change.
    fn is_of_rotating(&self, request: &Request) -> bool {
        let peer = match &request.command {
            Command::PatchPeer(id, ..)
            | Command::RotatePeer(id, ..)
            | Command::DeletePeer(id, ..)
            | Command::ResetUsage(id, ..) => self.state.peers().get(id),
            Command::CreatePeer(_)
            | Command::CreateToken(_)
            | Command::DeleteToken(..)
            | Command::CreateInvite(_)
            | Command::DeleteInvite(..)
            | Command::Join(..) => None,
        };
        peer.is_some_and(|peer| peer.rotation.is_some())
    }

    /// One request → changes of the state and its answer.
    fn check(
        &mut self,
        config: &shared::config::gateway::Gateway,
        claims: &Claims,
        now: Timestamp,
        request: &Request,
        batch: &mut Batch,
    ) -> Result<Accepted, RequestError> {
        if let Some(idempotency) = &request.idempotency {
            if let Some(known) = self.state.answer(&idempotency.owner, &idempotency.key) {
                if known.fingerprint != idempotency.fingerprint {
                    return Err(RequestError::KeyReused);
                }
                let outcome = self.repeated(&known.resource)?;
                let is_same = |change: &Change| matches!(change, Change::PutIdempotentAnswer(new) if new == known);
                return Ok(Accepted {
                    outcome,
                    event: None,
                    is_done: !batch.changes.iter().any(is_same),
                });
            }
        }
        let context = Context {
            state: &self.state,
            config,
            claims,
            own_key: self.shared.own_key(),
            last_allocated: &self.last_allocated,
            now,
        };
        let shared = Arc::clone(&self.shared);
        let done = decide(&context, request, |id| shared.meter().usage(id))?;
        Ok(self.note(done, request, now, batch))
    }

    /// Make the changes in memory, with the entry of the audit log and the answer that is kept.
    fn note(
        &mut self,
        done: Done,
        request: &Request,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Accepted {
        let before = done
            .peer
            .and_then(|id| self.state.peers().get(&id).cloned());
        let token_before = done
            .token
            .as_ref()
            .and_then(|id| self.state.tokens().get(id).cloned());
        let mut changes = done.changes;
        let is_allocated = match &request.command {
            Command::CreatePeer(create) => create.addresses.is_none(),
            Command::PatchPeer(..)
            | Command::DeletePeer(..)
            | Command::RotatePeer(..)
            | Command::ResetUsage(..)
            | Command::CreateToken(_)
            | Command::DeleteToken(..)
            | Command::CreateInvite(_)
            | Command::DeleteInvite(..)
            | Command::Join(..) => false,
        };
        let used_before = done
            .peer
            .map(|id| quota_used(&self.shared.meter().usage(id)));
        let used_after = changes.iter().find_map(|change| {
            if let Change::PutUsage(_, usage) = change {
                Some(quota_used(usage))
            } else {
                None
            }
        });
        if let Some(idempotency) = request.idempotency.clone() {
            changes.push(Change::PutIdempotentAnswer(IdempotentAnswer {
                actor: idempotency.owner,
                key: idempotency.key,
                fingerprint: idempotency.fingerprint,
                status: done.status,
                resource: done.resource.clone(),
                at: now,
            }));
        }
        for change in changes {
            // Only what was given out: an address that was asked for may lie anywhere.
            if let (Change::PutPeer(peer), true) = (&change, is_allocated) {
                for &address in &peer.addresses {
                    let last = self.last_allocated.get_mut(usize::from(address.is_ipv6()));
                    if let Some(last) = last {
                        *last = Some(address);
                    }
                }
            }
            self.make(change, batch);
        }
        let after = done
            .peer
            .and_then(|id| self.state.peers().get(&id).cloned());
        let token_after = done
            .token
            .as_ref()
            .and_then(|id| self.state.tokens().get(id).cloned());
        let mut difference = audit::difference(before.as_deref(), after.as_deref());
        difference.extend(audit::token_difference(
            token_before.as_deref(),
            token_after.as_deref(),
        ));
        difference.extend(done.difference);
        if let (Some(before), Some(after)) = (used_before, used_after) {
            audit::note(&mut difference, "quota_used_bytes", before, after);
        }
        let entry = audit::seal(
            self.state.audit_head(),
            audit::Draft {
                at: now,
                actor: request.actor.clone(),
                action: done.action.to_owned(),
                resource: done.resource,
                request: Some(request.origin.clone()),
                difference,
            },
        );
        self.make(Change::Audit(entry), batch);
        batch.touched.extend(done.peer);
        batch.touched.extend(done.invites);
        Accepted {
            outcome: done.outcome,
            event: Some(Event {
                kind: done.event,
                at: now,
                peer: done.peer,
                name: Some(done.name),
            }),
            is_done: false,
        }
    }

    fn make(&mut self, change: Change, batch: &mut Batch) {
        batch.undos.push(self.state.apply(&change));
        batch.changes.push(change);
    }

    /// The answer to a request that was done before. Secrets are not kept, so it has none.
    fn repeated(&self, resource: &str) -> Result<Outcome, RequestError> {
        let gone = || RequestError::Conflict {
            code: "already_done",
            detail: format!(
                "this request was done before; what it made ({resource}) is gone since"
            ),
            errors: Vec::new(),
            hint: Some("send it with another Idempotency-Key to do it again".to_owned()),
        };
        match resource.split_once('/') {
            Some(("peers", id)) => {
                let id = id.parse::<Uuid>().ok();
                let peer = id
                    .and_then(|id| self.state.peers().get(&id))
                    .ok_or_else(gone)?;
                Ok(Outcome::PeerWithSecrets(Arc::clone(peer), None))
            }
            Some(("tokens", id)) => {
                let token = self.state.tokens().get(id).ok_or_else(gone)?;
                Ok(Outcome::Token(Arc::clone(token), None))
            }
            Some(("invites", id)) => {
                let id = id.parse::<Uuid>().ok();
                let invite = id
                    .and_then(|id| self.state.invites().get(&id))
                    .ok_or_else(gone)?;
                Ok(Outcome::Invite(Arc::clone(invite), None))
            }
            Some(_) | None => Err(gone()),
        }
    }

    /// To the data plane, then to disk. On any error neither has it.
    async fn carry_out(
        &mut self,
        plane: &mut Plane<Gateway>,
        batch: &mut Batch,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let members_before = plane.members().clone();
        let kept = self.members_of(&batch.touched);
        let changes = std::mem::take(&mut batch.changes);
        let usage = changes.iter().filter_map(|change| match change {
            Change::PutUsage(id, usage) => Some((*id, Some(*usage))),
            Change::DeletePeer(id) | Change::DeleteUsage(id) => Some((*id, None)),
            Change::PutPeer(_)
            | Change::PutToken(_)
            | Change::DeleteToken(_)
            | Change::PutInvite(_)
            | Change::DeleteInvite(_)
            | Change::PutLanServer(_)
            | Change::DeleteLanServer(_)
            | Change::ReleaseAddress(..)
            | Change::ForgetReleased(_)
            | Change::PutIdempotentAnswer(_)
            | Change::DeleteIdempotentAnswer { .. }
            | Change::Audit(_) => None,
        });
        let usage: Begun = usage.collect();
        let attempt = async {
            let changed = self.update_members(&batch.touched, &usage, now);
            if changed || *self.state.lan_servers() != members_before.lan_servers {
                let changed = plane.change_members(self.members_now()).await;
                self.count_departed(plane, &kept);
                changed.map_err(|failure| Refused::ByKernel(not_applied(&failure)))?;
            }
            if changes.is_empty() {
                return Ok(());
            }
            match self.store.commit(changes).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    if *plane.members() != members_before {
                        if let Err(failure) = plane.change_members(members_before).await {
                            error!(%failure, "can't take back what could not be written down");
                        }
                    }
                    Err(Refused::ByStore(not_written(&error)))
                }
            }
        };
        match attempt.await {
            Ok(()) => {
                self.note_usage(usage);
                self.note_ended(&kept, now, batch);
                Ok(())
            }
            Err(refused) => {
                let (Refused::ByKernel(error) | Refused::ByStore(error)) = &refused;
                warn!(%error, "changes were taken back");
                self.put_back(kept);
                for undo in std::mem::take(&mut batch.undos).into_iter().rev() {
                    self.state.undo(undo);
                }
                Err(refused)
            }
        }
    }

    /// All of them, as they are now.
    fn members_now(&self) -> Members {
        Members {
            peers: Arc::new(self.members.values().cloned().collect()),
            lan_servers: Arc::clone(self.state.lan_servers()),
        }
    }

    fn note_usage(&self, usage: Begun) {
        let mut meter = self.shared.meter();
        for (id, usage) in usage {
            match usage {
                Some(usage) => meter.begin(id, usage),
                None => meter.forget(id),
            }
        }
    }

    /// These members as they are, or that there are none.
    fn members_of(&self, ids: &[Uuid]) -> Kept {
        let ids = ids.iter();
        ids.map(|id| (*id, self.members.get(id).cloned())).collect()
    }

    fn put_back(&mut self, kept: Kept) {
        for (id, member) in kept {
            match member {
                Some(member) => self.members.insert(id, member),
                None => self.members.remove(&id),
            };
        }
    }

    /// Events of peers that may not connect any more by what was asked for: a quota below what was moved, a time that is up.
    fn note_ended(&self, before: &Kept, now: Timestamp, batch: &mut Batch) {
        for (id, was) in before {
            let peer = self.state.peers().get(id);
            if let (Some(peer), Some(_), None) = (peer, was, self.members.get(id)) {
                let usage = self.shared.meter().usage(*id);
                if let Some((_, kind)) = ending(view::state(peer, &usage, now)) {
                    batch.events.push(of_peer(kind, now, *id, &peer.name));
                }
            }
        }
    }

    /// The member that a peer is now, if it may connect.
    fn member_now(&self, id: Uuid, begun: &Begun, now: Timestamp) -> Option<Member> {
        if let Some(invite) = self.state.invites().get(&id) {
            return (invite.expires_at > now).then(|| view::invited(invite));
        }
        let peer = self.state.peers().get(&id)?;
        let mut usage = self.shared.meter().usage(id);
        // The meter is told once it is written down; whether the peer may connect is decided before.
        if let Some(Some(begun)) = begun.get(&id) {
            usage.quota_base_bytes = begun.quota_base_bytes;
        }
        let active = view::state(peer, &usage, now) == PeerState::Active;
        active.then(|| view::member(peer))
    }

    /// What peers moved until the moment in which they left the device. `before` are the members of then: the state may know
    /// them no more.
    fn count_departed(&self, plane: &mut Plane<Gateway>, before: &Kept) {
        let departed = plane.take_departed();
        if departed.is_empty() {
            return;
        }
        let members = before.values().flatten();
        let members = members.filter(|member| !member.is_invited);
        let keys: BTreeMap<PublicKey, Uuid> = members
            .flat_map(|member| member.keys().map(|key| (*key, member.id)))
            .collect();
        let holder = |key: &PublicKey| {
            let &id = keys.get(key)?;
            Some(Holder { id, is_next: false })
        };
        let mut meter = self.shared.meter();
        meter.read_departed(&departed, holder, now());
    }

    /// Returns whether any member has changed.
    fn update_members(&mut self, touched: &[Uuid], begun: &Begun, now: Timestamp) -> bool {
        let mut changed = false;
        for &id in touched {
            let is = self.member_now(id, begun, now);
            if self.members.get(&id).map(AsRef::as_ref) == is.as_ref() {
                continue;
            }
            changed = true;
            match is {
                Some(member) => {
                    self.members.insert(id, Arc::new(member));
                }
                None => {
                    self.members.remove(&id);
                }
            }
        }
        changed
    }

    /// Let readers see what is now.
    fn publish(&self, config: Arc<shared::config::gateway::Gateway>) {
        let view = self.shared.view();
        let view = view.next(config, self.shared.own_key(), &self.state);
        *self
            .shared
            .view
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The configuration may have been taken anew: what it claims has changed.
    async fn notice_reload(&mut self) {
        let config = Arc::clone(self.plane.lock().await.config());
        if Arc::ptr_eq(&config, &self.announced.borrow()) {
            return;
        }
        self.publish(Arc::clone(&config));
        self.announced.send_replace(config);
        self.shared.events.emit(Event {
            kind: EventKind::ConfigReloaded,
            at: now(),
            peer: None,
            name: None,
        });
    }
}

/// What the audit log and listeners call it when a peer gets into this state by itself.
fn ending(state: PeerState) -> Option<(&'static str, EventKind)> {
    match state {
        PeerState::Expired => Some(("peer.expire", EventKind::PeerExpired)),
        PeerState::OverQuota => Some(("peer.over_quota", EventKind::PeerOverQuota)),
        PeerState::Active | PeerState::Disabled | PeerState::Shadowed => None,
    }
}

/// The time, as exactly as the store keeps it.
fn now() -> Timestamp {
    let millis = Timestamp::now().as_millisecond();
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn not_applied(failure: &Failure) -> RequestError {
    RequestError::NotApplied(failure.to_string())
}

fn not_written(error: &StoreError) -> RequestError {
    match error {
        StoreError::Full { what } => RequestError::Full(what.clone()),
        StoreError::Conflict
        | StoreError::TooNew { .. }
        | StoreError::Damaged { .. }
        | StoreError::Failed { .. } => RequestError::NotApplied(error.to_string()),
    }
}
