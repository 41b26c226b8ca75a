//! What nobody asks for: time and traffic end peers, finish rotations, and are written down.
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use shared::api::event::EventKind;
use shared::api::peer::PeerState;
use shared::model::PublicKey;
use shared_daemon::plane::Plane;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Batch, Worker, now};
use crate::Gateway;
use crate::audit;
use crate::claims::Claims;
use crate::peers::change::{ADDRESS_REST, Context, Made};
use crate::peers::events::of_peer;
use crate::peers::meter::Holder;
use crate::peers::view;
use crate::store::{Change, PeerRecord, Store};

/// How often it is written down what peers have moved, in looks: a crash forgets at most this much.
const LOOKS_PER_WRITE: u32 = 10;
/// How long an answer is repeated when its request is.
const ANSWERS_KEPT: SignedDuration = SignedDuration::from_hours(24);

impl<S: Store> Worker<S> {
    /// What time and traffic bring about: expiry, quota, the end of rotations, sessions that begin and end.
    pub(super) async fn look(&mut self) {
        let rotated = self.read_device().await;
        let now = now();
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        let mut batch = Batch::default();
        self.finish_rotations(&plane, &rotated, now, &mut batch);
        self.notice_ends(now, &mut batch);
        self.forget_old(now, &mut batch);
        if !(batch.changes.is_empty() && batch.touched.is_empty()) {
            // What could not be done is tried again with the next look.
            if self.carry_out(&mut plane, &mut batch, now).await.is_ok() {
                for event in std::mem::take(&mut batch.events) {
                    self.shared.events.emit(event);
                }
            }
            self.publish(Arc::clone(plane.config()));
        }
        drop(plane);
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
    pub(super) async fn read_device(&mut self) -> Vec<Uuid> {
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

    pub(super) async fn write_usage(&mut self) {
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
}
