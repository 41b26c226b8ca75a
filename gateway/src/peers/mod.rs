//! Peers that come and go at run time, and the tokens of those who bring them.
//!
//! A request's route: [`crate::api`] reads it → [`request`] → [`worker`], the one writer: [`decide`], [`check`] and
//! [`change`] say what it comes to, [`state`] holds it, the data plane and the store take it → the answer. Readers take the [`view`] of the moment;
//! what peers move is on the [`meter`], what happens in the [`events`].
pub mod allocate;
pub mod change;
pub mod check;
pub mod client_config;
mod decide;
pub mod error;
pub mod events;
pub mod invites;
pub mod meter;
pub mod offline;
pub mod request;
pub mod state;
pub mod tokens;
pub mod view;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use shared::api::audit::{AuditEntry, AuditRequest};
use shared::api::peer::PeerState;
use shared::model::PublicKey;
use shared::wg::DeviceStatus;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::Gateway;
use crate::members::Members;
use crate::store::{Snapshot, Store, StoreError};
use error::RequestError;
use events::Events;
use meter::Meter;
use request::{Command, Idempotency, Outcome, Request};
use shared_daemon::apply::journal::Journal;
use shared_daemon::plane::Plane;
use state::State;
use view::{Live, View};
use worker::Worker;

/// Requests that may wait for the worker; who comes after waits at the door.
const QUEUE: usize = 1024;

/// What the worker and its readers share.
#[derive(Debug)]
pub struct Shared<S> {
    /// What readers see; `None` of it is ever half of a change.
    view: RwLock<Arc<View>>,
    meter: SyncMutex<Meter>,
    own_key: RwLock<Option<PublicKey>>,
    /// When tokens were used last.
    token_uses: SyncMutex<BTreeMap<String, Timestamp>>,
    /// What has happened.
    pub events: Events,
    store: Arc<S>,
}

impl<S: Store> Shared<S> {
    /// What there is now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_key(&self) -> Option<PublicKey> {
        *self.own_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_own_key(&self, device: &DeviceStatus) {
        let key = device.private_key.as_ref();
        // A scalar multiplication: not each second.
        if self.own_key().is_none() {
            let key = key.map(shared::model::PrivateKey::public_key);
            *self.own_key.write().unwrap_or_else(PoisonError::into_inner) = key;
        }
    }

    /// What is known of peers beside their definition, for as long as a list takes.
    pub fn live(&self) -> impl Fn(Uuid) -> Live + '_ {
        let meter = self.meter();
        move |id| Live {
            usage: meter.usage(id),
            seen: meter.seen(id),
        }
    }

    /// When a token was used last.
    pub fn token_used_at(&self, id: &str) -> Option<Timestamp> {
        let uses = self.token_uses.lock();
        uses.unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .copied()
    }

    /// A token is used.
    pub fn note_token_use(&self, id: &str, now: Timestamp) {
        let mut uses = self
            .token_uses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let view = self.view();
        uses.retain(|id, _| view.tokens.contains_key(id));
        uses.insert(id.to_owned(), now);
    }

    /// Entries of the audit log.
    pub async fn audit_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.audit_after(sequence, limit).await
    }
}

/// To talk to the worker with.
#[derive(Debug)]
pub struct Handle<S> {
    /// What readers see.
    pub shared: Arc<Shared<S>>,
    queue: mpsc::Sender<Request>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            queue: self.queue.clone(),
        }
    }
}

impl<S: Store> Handle<S> {
    /// Have something changed. When this returns `Ok`, it is on disk and in the data plane.
    pub async fn ask(
        &self,
        actor: String,
        origin: AuditRequest,
        idempotency: Option<Idempotency>,
        command: Command,
    ) -> Result<Outcome, RequestError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            actor,
            origin,
            idempotency,
            command,
            reply,
        };
        let sent = self.queue.send(request).await;
        sent.map_err(|_| RequestError::Ending)?;
        answer.await.map_err(|_| RequestError::Ending)?
    }
}

#[cfg(test)]
impl<S: Store> Handle<S> {
    /// With nobody at work: who reads finds nothing, who asks is told that the daemon ends.
    pub(crate) fn idle(store: S, config: Arc<shared::config::gateway::Gateway>) -> Self {
        let view = View::new(config, None, &State::of(Snapshot::default()));
        let (queue, _) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            own_key: RwLock::new(None),
            view: RwLock::new(Arc::new(view)),
            meter: SyncMutex::new(Meter::new(BTreeMap::new())),
            token_uses: SyncMutex::new(BTreeMap::new()),
            events: Events::new(Timestamp::now()),
            store: Arc::new(store),
        });
        Self { shared, queue }
    }
}

/// Peers, opened and not yet at work.
#[derive(Debug)]
pub struct Opened<S> {
    store: Arc<S>,
    state: State,
    usage: BTreeMap<Uuid, crate::store::UsageRecord>,
    members: Members,
}

impl<S: Store> Opened<S> {
    /// Read what the store holds.
    pub async fn open(store: S, now: Timestamp) -> Result<Self, StoreError> {
        let snapshot: Snapshot = store.load().await?;
        let usage = snapshot.usage.clone();
        let state = State::of(snapshot);
        let active = state.peers().values().filter(|peer| {
            let usage = usage.get(&peer.id).copied().unwrap_or_default();
            view::state(peer, &usage, now) == PeerState::Active
        });
        let invites = state.invites().values();
        let invites = invites.filter(|invite| invite.expires_at > now);
        let members = active
            .map(|peer| view::member(peer))
            .chain(invites.map(|invite| view::invited(invite)))
            .map(Arc::new)
            .collect();
        let members = Members {
            peers: Arc::new(members),
            lan_servers: Arc::clone(state.lan_servers()),
        };
        Ok(Self {
            store: Arc::new(store),
            state,
            usage,
            members,
        })
    }

    /// Peers that may connect.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Begin to work; the members are in the data plane.
    pub async fn start(
        self,
        plane: Arc<Mutex<Plane<Gateway>>>,
        config: Arc<shared::config::gateway::Gateway>,
    ) -> Running<S> {
        // Configurations of clients hold the device's key: it is known before the first of them is told.
        let control = plane.lock().await.control().clone();
        let device = control.status().await.ok();
        let own_key = device.and_then(|device| Some(device.private_key?.public_key()));
        let (announced, shown) = watch::channel(Arc::clone(&config));
        let view = View::new(config, own_key, &self.state);
        let shared = Arc::new(Shared {
            own_key: RwLock::new(own_key),
            view: RwLock::new(Arc::new(view)),
            meter: SyncMutex::new(Meter::new(self.usage)),
            token_uses: SyncMutex::new(BTreeMap::new()),
            events: Events::new(Timestamp::now()),
            store: Arc::clone(&self.store),
        });
        let (queue, requests) = mpsc::channel(QUEUE);
        let worker = Worker::new(
            self.store,
            plane,
            Arc::clone(&shared),
            self.state,
            &self.members,
            announced,
        );
        let (stop, stopped) = oneshot::channel();
        let (journal, taken) = mpsc::unbounded_channel();
        Running {
            handle: Handle { shared, queue },
            journal,
            shown,
            stop,
            worker: tokio::spawn(worker.run(requests, taken, stopped)),
        }
    }
}

/// Peers at work.
#[derive(Debug)]
pub struct Running<S> {
    /// To talk to the worker with.
    pub handle: Handle<S>,
    /// Where it is told which configurations are taken, for the audit log.
    pub journal: Journal,
    /// The configuration that readers see.
    shown: watch::Receiver<Arc<shared::config::gateway::Gateway>>,
    stop: oneshot::Sender<()>,
    worker: JoinHandle<()>,
}

impl<S: Store> Running<S> {
    /// `config` was put in place; returns when readers see it.
    pub async fn caught_up(&mut self, config: &Arc<shared::config::gateway::Gateway>) {
        let shown = self.shown.wait_for(|shown| Arc::ptr_eq(shown, config));
        // An error only when the worker has ended by itself, which `stop` tells.
        let _ended = shown.await;
    }

    /// Finish what was begun, and write down what peers have moved. Handles that are left get
    /// [`RequestError::Ending`].
    pub async fn stop(self) {
        let _already_gone = self.stop.send(());
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the worker of peers has ended by itself");
        }
    }
}
