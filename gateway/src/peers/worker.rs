//! The one writer. Requests that wait are taken together: each is checked against the state that the ones before it have
//! made, then all of them go to kernel and device in one step and to disk in one transaction, and only then are answered.
//!
//! When kernel or disk refuse, the state is taken back and nobody was told anything else: what is acknowledged is on disk
//! and in the data plane, and what is not is in neither.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shared::api::event::{Event, EventKind};
use shared::api::peer::PeerState;
use shared::model::PublicKey;
use shared_daemon::error::Failure;
use shared_daemon::plane::Plane;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::change::{ADDRESS_REST, Context, Made};
use super::error::RequestError;
use super::events::of_peer;
use super::meter::Holder;
use super::request::{Command, NewSecrets, Outcome, Request, etag};
use super::state::{State, Undo};
use super::view::{self, View};
use super::{Shared, tokens};
use crate::Gateway;
use crate::audit;
use crate::claims::Claims;
use crate::members::{Member, Members};
use crate::store::{Change, IdempotentAnswer, PeerRecord, Store, StoreError, UsageRecord};

/// Most requests that go together: what a client waits for others stays short.
const MAX_BATCH: usize = 256;
/// How often peers are looked at: what expires or has moved its quota ends within this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written down what peers have moved, in looks: a crash forgets at most this much.
const LOOKS_PER_WRITE: u32 = 10;
/// How long an answer is repeated when its request is.
const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);

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
}

/// A request that was checked and waits for kernel and disk.
struct Pending {
    reply: oneshot::Sender<Result<Outcome, RequestError>>,
    outcome: Outcome,
    events: Vec<Event>,
}

/// Peers whose counting for the quota begins anew, or ends.
type Begun = BTreeMap<Uuid, Option<UsageRecord>>;

/// What a batch has come to so far.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    undos: Vec<Undo>,
    pending: Vec<Pending>,
    /// Peers whose membership may have changed.
    touched: Vec<Uuid>,
    /// Events of changes that nobody asked for.
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
    ) -> Self {
        let members = members.0.iter();
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
        }
    }

    /// Until it is stopped: then requests that wait are done, and what peers have moved is written down for the last time.
    pub async fn run(
        mut self,
        mut queue: mpsc::Receiver<Request>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = self.plane.lock().await.subscribe();
        self.publish().await;
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
            }
        }
        self.read_device().await;
        self.write_usage().await;
    }

    /// Check requests in their order, carry all of them out, answer.
    async fn handle(&mut self, requests: Vec<Request>) {
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        let config = Arc::clone(plane.config());
        let claims = Claims::of(&config);
        let now = now();
        let mut batch = Batch::default();
        for request in requests {
            self.check(&config, &claims, now, request, &mut batch);
        }
        let outcome = self.carry_out(&mut plane, &mut batch, now).await;
        drop(plane);
        self.publish().await;
        for pending in batch.pending {
            let answer = match &outcome {
                Ok(()) => {
                    for event in pending.events {
                        self.shared.events.emit(event);
                    }
                    Ok(pending.outcome)
                }
                Err(error) => Err(error.clone()),
            };
            let _nobody_waits = pending.reply.send(answer);
        }
    }

    /// One request → changes of the state, or an answer at once.
    fn check(
        &mut self,
        config: &shared::config::gateway::Gateway,
        claims: &Claims,
        now: Timestamp,
        request: Request,
        batch: &mut Batch,
    ) {
        if let Some(idempotency) = &request.idempotency {
            match self.state.answer(&idempotency.owner, &idempotency.key) {
                Some(known) if known.fingerprint != idempotency.fingerprint => {
                    let _nobody_waits = request.reply.send(Err(RequestError::KeyReused));
                    return;
                }
                Some(known) => {
                    // Answered with the others: the first one may be in this very batch.
                    let repeated = self.repeated(&known.resource.clone());
                    match repeated {
                        Ok(outcome) => batch.pending.push(Pending {
                            reply: request.reply,
                            outcome,
                            events: Vec::new(),
                        }),
                        Err(error) => drop(request.reply.send(Err(error))),
                    }
                    return;
                }
                None => {}
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
        let done = match decide(&context, &request, |id| shared.meter().usage(id)) {
            Ok(done) => done,
            Err(error) => {
                let _nobody_waits = request.reply.send(Err(error));
                return;
            }
        };
        self.note(done, request, now, batch);
    }

    /// Make the changes in memory, with the entry of the audit log and the answer that is kept.
    fn note(&mut self, done: Done, request: Request, now: Timestamp, batch: &mut Batch) {
        let before = done
            .peer
            .and_then(|id| self.state.peers().get(&id).cloned());
        let token_before = done
            .token
            .as_ref()
            .and_then(|id| self.state.tokens().get(id).cloned());
        let mut changes = done.changes;
        if let Some(idempotency) = request.idempotency {
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
            if let (Change::PutPeer(peer), None) = (&change, &before) {
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
        let entry = audit::seal(
            self.state.audit_head(),
            audit::Draft {
                at: now,
                actor: request.actor,
                action: done.action.to_owned(),
                resource: done.resource,
                request: Some(request.origin),
                difference,
            },
        );
        self.make(Change::Audit(entry), batch);
        batch.touched.extend(done.peer);
        batch.pending.push(Pending {
            reply: request.reply,
            outcome: done.outcome,
            events: vec![Event {
                kind: done.event,
                at: now,
                peer: done.peer,
                name: Some(done.name),
            }],
        });
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
            Some(_) | None => Err(gone()),
        }
    }

    /// To the data plane, then to disk. On any error neither has it.
    async fn carry_out(
        &mut self,
        plane: &mut Plane<Gateway>,
        batch: &mut Batch,
        now: Timestamp,
    ) -> Result<(), RequestError> {
        let members_before = plane.members().clone();
        let kept = self.members.clone();
        let changes = std::mem::take(&mut batch.changes);
        let usage = changes.iter().filter_map(|change| match change {
            Change::PutUsage(id, usage) => Some((*id, Some(*usage))),
            Change::DeletePeer(id) | Change::DeleteUsage(id) => Some((*id, None)),
            Change::PutPeer(_)
            | Change::PutToken(_)
            | Change::DeleteToken(_)
            | Change::ReleaseAddress(..)
            | Change::ForgetReleased(_)
            | Change::PutIdempotentAnswer(_)
            | Change::DeleteIdempotentAnswer { .. }
            | Change::Audit(_) => None,
        });
        let usage: Begun = usage.collect();
        let attempt = async {
            if self.update_members(&batch.touched, &usage, now) {
                let members = Members(Arc::new(self.members.values().cloned().collect()));
                let changed = plane.change_members(members).await;
                self.count_departed(plane, &batch.touched, &kept);
                changed.map_err(|failure| not_applied(&failure))?;
            }
            if changes.is_empty() {
                return Ok(());
            }
            match self.store.commit(changes).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    if plane.members().0 != members_before.0 {
                        if let Err(failure) = plane.change_members(members_before).await {
                            error!(%failure, "can't take back what could not be written down");
                        }
                    }
                    Err(not_written(&error))
                }
            }
        };
        match attempt.await {
            Ok(()) => {
                let mut meter = self.shared.meter();
                for (id, usage) in usage {
                    match usage {
                        Some(usage) => meter.begin(id, usage),
                        None => meter.forget(id),
                    }
                }
                Ok(())
            }
            Err(error) => {
                warn!(%error, "changes were taken back");
                self.members = kept;
                for undo in std::mem::take(&mut batch.undos).into_iter().rev() {
                    self.state.undo(undo);
                }
                Err(error)
            }
        }
    }

    /// The member that a peer is now, if it may connect.
    fn member_now(&self, id: Uuid, begun: &Begun, now: Timestamp) -> Option<Member> {
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
    fn count_departed(
        &self,
        plane: &mut Plane<Gateway>,
        touched: &[Uuid],
        before: &BTreeMap<Uuid, Arc<Member>>,
    ) {
        let departed = plane.take_departed();
        if departed.is_empty() {
            return;
        }
        let members = touched.iter().filter_map(|id| before.get(id));
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

    /// What time and traffic bring about: expiry, quota, the end of rotations, sessions that begin and end.
    async fn look(&mut self) {
        let rotated = self.read_device().await;
        let now = now();
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        let mut batch = Batch::default();
        self.finish_rotations(&plane, &rotated, now, &mut batch);
        self.notice_ends(now, &mut batch);
        self.forget_old(now, &mut batch);
        if batch.changes.is_empty() && batch.touched.is_empty() {
            drop(plane);
        } else {
            let events = std::mem::take(&mut batch.events);
            // What could not be done is tried again with the next look.
            if self.carry_out(&mut plane, &mut batch, now).await.is_ok() {
                for event in events {
                    self.shared.events.emit(event);
                }
            }
            drop(plane);
            self.publish().await;
        }
        self.looks = self.looks.wrapping_add(1);
        if self.looks % LOOKS_PER_WRITE == 0 {
            self.write_usage().await;
        }
    }

    fn finish_rotations(
        &mut self,
        plane: &Plane<Gateway>,
        used: &[Uuid],
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let due: Vec<Arc<PeerRecord>> = self
            .state
            .peers()
            .values()
            .filter(|peer| {
                let rotation = peer.rotation.as_ref();
                rotation.is_some_and(|next| next.until <= now || used.contains(&peer.id))
            })
            .cloned()
            .collect();
        if due.is_empty() {
            return;
        }
        let config = Arc::clone(plane.config());
        let claims = Claims::of(&config);
        for before in due {
            let context = Context {
                state: &self.state,
                config: &config,
                claims: &claims,
                own_key: self.shared.own_key(),
                last_allocated: &self.last_allocated,
                now,
            };
            let Some(made) = context.finish_rotation(&before) else {
                continue;
            };
            self.note_own(
                "peer.rotate.finish",
                EventKind::PeerRotated,
                Some(&before),
                made,
                now,
                batch,
            );
        }
    }

    /// Something that the daemon does by itself.
    fn note_own(
        &mut self,
        action: &str,
        kind: EventKind,
        before: Option<&PeerRecord>,
        made: Made,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        let id = made.peer.id;
        for change in made.changes {
            self.make(change, batch);
        }
        let entry = audit::seal(
            self.state.audit_head(),
            audit::Draft {
                at: now,
                actor: "daemon".to_owned(),
                action: action.to_owned(),
                resource: format!("peers/{id}"),
                request: None,
                difference: audit::difference(before, Some(&made.peer)),
            },
        );
        self.make(Change::Audit(entry), batch);
        batch.touched.push(id);
        batch.events.push(of_peer(kind, now, id, &made.peer.name));
    }

    /// Members whose time is up or that have moved their quota, and those that may connect again because their quota was
    /// raised or counting began anew.
    fn notice_ends(&mut self, now: Timestamp, batch: &mut Batch) {
        let mut ended = Vec::new();
        for id in self.members.keys() {
            let Some(peer) = self.state.peers().get(id) else {
                continue;
            };
            let usage = self.shared.meter().usage(*id);
            let (action, kind) = match view::state(peer, &usage, now) {
                PeerState::Expired => ("peer.expire", EventKind::PeerExpired),
                PeerState::OverQuota => ("peer.over_quota", EventKind::PeerOverQuota),
                PeerState::Active | PeerState::Disabled | PeerState::Shadowed => continue,
            };
            ended.push((action, kind, Arc::clone(peer)));
        }
        for (action, kind, peer) in ended {
            info!(peer = peer.name, action, "peer ends");
            let made = Made {
                peer: Arc::clone(&peer),
                changes: Vec::new(),
                private_key: None,
            };
            self.note_own(action, kind, Some(&peer), made, now, batch);
        }
    }

    /// Answers that are not repeated any more, and addresses that have rested.
    fn forget_old(&mut self, now: Timestamp, batch: &mut Batch) {
        let before = |span: SignedDuration| now.checked_sub(span).unwrap_or(Timestamp::MIN);
        for (actor, key) in self.state.answers_until(before(ANSWERS_KEPT)) {
            self.make(Change::DeleteIdempotentAnswer { actor, key }, batch);
        }
        for address in self.state.released_until(before(ADDRESS_REST)) {
            self.make(Change::ForgetReleased(address), batch);
        }
    }

    /// Read what the device knows of peers; returns those whose next key is in use.
    async fn read_device(&mut self) -> Vec<Uuid> {
        let control = self.plane.lock().await.control().clone();
        let Ok(device) = control.status().await else {
            return Vec::new(); // the data plane has ended, and the daemon is about to
        };
        self.take_reading(&device)
    }

    fn take_reading(&self, device: &shared::wg::DeviceStatus) -> Vec<Uuid> {
        let now = now();
        self.shared.set_own_key(device);
        let view = self.shared.view();
        let holder = |key: &PublicKey| match self.state.by_key(key) {
            Some(id) => {
                let peer = self.state.peers().get(&id)?;
                Some(Holder {
                    id,
                    is_next: peer.public_key != *key,
                })
            }
            None => view
                .file_holder(key)
                .map(|id| Holder { id, is_next: false }),
        };
        let reading = self.shared.meter().read(device, holder, now);
        let name_of = |id: &Uuid| {
            let api = self.state.peers().get(id).map(|peer| peer.name.clone());
            api.or_else(|| view.file_peer(*id).map(|peer| peer.name.clone()))
        };
        let online = reading
            .came_online
            .iter()
            .map(|id| (EventKind::PeerOnline, id));
        let offline = reading
            .went_offline
            .iter()
            .map(|id| (EventKind::PeerOffline, id));
        for (kind, id) in online.chain(offline) {
            if let Some(name) = name_of(id) {
                self.shared.events.emit(of_peer(kind, now, *id, &name));
            }
        }
        reading.rotated
    }

    async fn write_usage(&mut self) {
        let unwritten = self.shared.meter().unwritten();
        let known = |id: &Uuid| {
            self.state.peers().contains_key(id) || self.shared.view().file_peer(*id).is_some()
        };
        let unwritten: Vec<_> = unwritten.into_iter().filter(|(id, _)| known(id)).collect();
        if unwritten.is_empty() {
            return;
        }
        let changes = unwritten
            .iter()
            .map(|&(id, usage)| Change::PutUsage(id, usage));
        match self.store.commit(changes.collect()).await {
            Ok(()) => {
                let mut meter = self.shared.meter();
                for (id, usage) in unwritten {
                    meter.wrote(id, usage);
                }
            }
            Err(error) => warn!(%error, "can't write down what peers have moved"),
        }
    }

    /// Let readers see what is now.
    async fn publish(&self) {
        let config = Arc::clone(self.plane.lock().await.config());
        let view = View::new(config, self.shared.own_key(), &self.state);
        *self
            .shared
            .view
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The configuration may have been taken anew: what it claims has changed.
    async fn notice_reload(&mut self) {
        let config = Arc::clone(self.plane.lock().await.config());
        if Arc::ptr_eq(&config, &self.shared.view().config) {
            return;
        }
        self.publish().await;
        self.shared.events.emit(Event {
            kind: EventKind::ConfigReloaded,
            at: now(),
            peer: None,
            name: None,
        });
    }
}

/// What a request comes to, before anything is done.
struct Done {
    action: &'static str,
    event: EventKind,
    resource: String,
    name: String,
    peer: Option<Uuid>,
    token: Option<String>,
    status: u16,
    changes: Vec<Change>,
    outcome: Outcome,
}

fn decide(
    context: &Context<'_>,
    request: &Request,
    usage: impl Fn(Uuid) -> UsageRecord,
) -> Result<Done, RequestError> {
    let mut random = random_bytes;
    let now = context.now;
    let find = |id: &Uuid| context.peer(*id);
    match &request.command {
        Command::CreatePeer(create) => {
            let made = context.create(Uuid::now_v7(), create, &mut random)?;
            Ok(of_made(
                "peer.create",
                EventKind::PeerCreated,
                201,
                made,
                true,
            ))
        }
        Command::PatchPeer(id, precondition, patch) => {
            let before = find(id)?;
            precondition.check(before.revision)?;
            let made = context.patch(before, patch)?;
            Ok(of_made(
                "peer.update",
                EventKind::PeerUpdated,
                200,
                made,
                false,
            ))
        }
        Command::RotatePeer(id, precondition, rotate) => {
            let before = find(id)?;
            precondition.check(before.revision)?;
            let made = context.rotate(before, rotate, &mut random)?;
            Ok(of_made(
                "peer.rotate",
                EventKind::PeerUpdated,
                200,
                made,
                true,
            ))
        }
        Command::ResetUsage(id, precondition) => {
            let before = find(id)?;
            precondition.check(before.revision)?;
            let made = context.reset_usage(before, usage(*id));
            Ok(of_made(
                "peer.reset_usage",
                EventKind::PeerUpdated,
                200,
                made,
                false,
            ))
        }
        Command::DeletePeer(id, precondition) => {
            let before = find(id)?;
            precondition.check(before.revision)?;
            Ok(Done {
                action: "peer.delete",
                event: EventKind::PeerDeleted,
                resource: format!("peers/{id}"),
                name: before.name.clone(),
                peer: Some(*id),
                token: None,
                status: 204,
                changes: context.delete(before),
                outcome: Outcome::Deleted,
            })
        }
        Command::CreateToken(create) => {
            let (record, text) = tokens::create(create, &request.actor, now, &mut random)?;
            Ok(Done {
                action: "token.create",
                event: EventKind::TokenCreated,
                resource: format!("tokens/{}", record.id),
                name: record.name.clone(),
                peer: None,
                token: Some(record.id.clone()),
                status: 201,
                changes: vec![Change::PutToken(record.clone())],
                outcome: Outcome::Token(Arc::new(record), Some(text)),
            })
        }
        Command::DeleteToken(id, precondition) => {
            let token = context.state.tokens().get(id);
            let token = token.ok_or(RequestError::NotFound("token"))?;
            precondition.check(token.revision)?;
            Ok(Done {
                action: "token.revoke",
                event: EventKind::TokenRevoked,
                resource: format!("tokens/{id}"),
                name: token.name.clone(),
                peer: None,
                token: Some(id.clone()),
                status: 204,
                changes: vec![Change::DeleteToken(id.clone())],
                outcome: Outcome::Deleted,
            })
        }
    }
}

fn of_made(
    action: &'static str,
    event: EventKind,
    status: u16,
    made: Made,
    tells_secrets: bool,
) -> Done {
    let peer = made.peer;
    let next = peer.rotation.as_ref();
    let preshared_key = next.map_or(&peer.preshared_key, |next| &next.preshared_key);
    let outcome = if tells_secrets {
        let secrets = NewSecrets {
            private_key: made.private_key,
            preshared_key: preshared_key.clone(),
        };
        Outcome::PeerWithSecrets(Arc::clone(&peer), Some(secrets))
    } else {
        Outcome::Peer(Arc::clone(&peer))
    };
    Done {
        action,
        event,
        resource: format!("peers/{}", peer.id),
        name: peer.name.clone(),
        peer: Some(peer.id),
        token: None,
        status,
        changes: made.changes,
        outcome,
    }
}

/// The time, as exactly as the store keeps it.
fn now() -> Timestamp {
    let millis = Timestamp::now().as_millisecond();
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// 32 bytes that nobody can guess.
fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers from its start on");
    bytes
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

/// The `ETag` of a peer's record.
pub fn etag_of(peer: &PeerRecord) -> String {
    etag(peer.revision)
}
