//! What nobody asks for: time and traffic end peers, finish rotations, and are written down.
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;
use shared::api::event::EventKind;
use shared::api::peer::PeerState;
use shared::config::gateway::Gateway as Config;
use shared::model::PublicKey;
use shared_daemon::plane::Plane;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Batch, Worker, ending, now};
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
/// Most of these answers: what a program that uses keys all day may cost.
const MAX_ANSWERS: usize = 20_000;

/// A peer that was taken out of the data plane because its time is up or its quota is moved.
#[derive(Debug)]
pub(super) struct Ended {
    id: Uuid,
    name: String,
    at: Timestamp,
    state: PeerState,
    action: &'static str,
    kind: EventKind,
}

impl<S: Store> Worker<S> {
    /// What time and traffic bring about: expiry, quota, the end of rotations, sessions that begin and end.
    pub(super) async fn look(&mut self) {
        let rotated = self.read_device().await;
        let now = now();
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        self.end_peers(&mut plane, now).await;
        let mut batch = Batch::default();
        self.finish_rotations(&plane, &rotated, now, &mut batch);
        for ended in std::mem::take(&mut self.unrecorded) {
            self.record(&ended, &mut batch);
            self.unrecorded.push(ended);
        }
        self.note_taken(&mut batch);
        self.end_invites(now, &mut batch);
        self.forget_lan_servers(plane.config(), now, &mut batch);
        self.forget_old(now, &mut batch);
        // What could not be done is tried again with the next look.
        if self.carry_out_own(&mut plane, batch, now).await {
            self.unrecorded.clear();
            self.taken.clear();
        }
        drop(plane);
        self.looks = self.looks.wrapping_add(1);
        if self.looks % LOOKS_PER_WRITE == 0 {
            self.write_usage().await;
        }
    }

    /// Finish rotations whose next key is in use already, before anything else is done with these peers.
    pub(super) async fn finish_used_rotations(&mut self, plane: &mut Plane<Gateway>) {
        let Ok(device) = plane.control().status().await else {
            return; // the data plane has ended, and the daemon is about to
        };
        let used = self.take_reading(&device);
        let now = now();
        let mut batch = Batch::default();
        self.finish_rotations(plane, &used, now, &mut batch);
        self.carry_out_own(plane, batch, now).await;
    }

    /// Carry out what nobody waits for; returns whether it is done.
    async fn carry_out_own(
        &mut self,
        plane: &mut Plane<Gateway>,
        mut batch: Batch,
        now: Timestamp,
    ) -> bool {
        if batch.changes.is_empty() && batch.touched.is_empty() {
            return true;
        }
        let done = self.carry_out(plane, &mut batch, now).await.is_ok();
        if done {
            for event in batch.events {
                self.shared.events.emit(event);
            }
        }
        self.publish(Arc::clone(plane.config()));
        done
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
        let claims = Claims::of(&config, self.state.lan_servers());
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

    /// Take members out of the data plane whose time is up or that have moved their quota. That needs no disk: a full one
    /// prolongs nothing.
    async fn end_peers(&mut self, plane: &mut Plane<Gateway>, now: Timestamp) {
        let mut ended = Vec::new();
        for id in self.members.keys() {
            let Some(peer) = self.state.peers().get(id) else {
                continue;
            };
            let usage = self.shared.meter().usage(*id);
            let state = view::state(peer, &usage, now);
            if let Some((action, kind)) = ending(state) {
                ended.push(Ended {
                    id: *id,
                    name: peer.name.clone(),
                    at: now,
                    state,
                    action,
                    kind,
                });
            }
        }
        if ended.is_empty() {
            return;
        }
        let ids: Vec<Uuid> = ended.iter().map(|ended| ended.id).collect();
        let kept = self.members_of(&ids);
        for id in &ids {
            self.members.remove(id);
        }
        let changed = plane.change_members(self.members_now()).await;
        self.count_departed(plane, &kept);
        if let Err(failure) = changed {
            warn!(%failure, "can't take peers out whose end has come");
            self.put_back(kept);
            return;
        }
        for ended in ended {
            info!(peer = ended.name, action = ended.action, "peer ends");
            let event = of_peer(ended.kind, now, ended.id, &ended.name);
            self.shared.events.emit(event);
            self.unrecorded.push(ended);
        }
    }

    /// Invitations whose time is up, used or not.
    fn end_invites(&mut self, now: Timestamp, batch: &mut Batch) {
        let invites = self.state.invites().values();
        let over: Vec<_> = invites.filter(|i| i.expires_at <= now).cloned().collect();
        for invite in over {
            self.make(Change::DeleteInvite(invite.id), batch);
            self.make(Change::ReleaseAddress(invite.address, now), batch);
            let entry = audit::seal(
                self.state.audit_head(),
                audit::Draft {
                    at: now,
                    actor: "daemon".to_owned(),
                    action: "invite.expire".to_owned(),
                    resource: format!("invites/{}", invite.id),
                    request: None,
                    difference: Map::new(),
                },
            );
            self.make(Change::Audit(entry), batch);
            batch.touched.push(invite.id);
        }
    }

    /// LAN servers that the file has no more, or has given a key of its own: a host that was taken out of it has to join again
    /// when the name comes back.
    fn forget_lan_servers(&mut self, config: &Config, now: Timestamp, batch: &mut Batch) {
        let is_waiting = |name: &String| {
            let mut lans = config.lan_servers.iter();
            lans.any(|lan| lan.name == *name && lan.public_key.is_none())
        };
        let joined = Arc::clone(self.state.lan_servers());
        for lan_server in joined.values().filter(|joined| !is_waiting(&joined.name)) {
            self.make(Change::DeleteLanServer(lan_server.name.clone()), batch);
            let mut difference = Map::new();
            let key = Some(lan_server.public_key.to_string());
            audit::note(&mut difference, "public_key", key, None::<String>);
            let entry = audit::seal(
                self.state.audit_head(),
                audit::Draft {
                    at: now,
                    actor: "daemon".to_owned(),
                    action: "lan_server.forget".to_owned(),
                    resource: format!("lan-servers/{}", lan_server.name),
                    request: None,
                    difference,
                },
            );
            self.make(Change::Audit(entry), batch);
            info!(
                lan_server = lan_server.name,
                "its key is forgotten: the file has it no more"
            );
        }
    }

    /// Write down which configurations were taken.
    pub(super) async fn record_taken(&mut self) {
        let plane = Arc::clone(&self.plane);
        let mut plane = plane.lock().await;
        let mut batch = Batch::default();
        self.note_taken(&mut batch);
        if self.carry_out_own(&mut plane, batch, now()).await {
            self.taken.clear();
        }
    }

    fn note_taken(&mut self, batch: &mut Batch) {
        for taken in std::mem::take(&mut self.taken) {
            let mut difference = Map::new();
            let [from, to] = [&taken.from, &taken.to].map(|text| audit::sha256(text));
            audit::note(&mut difference, "sha256", from, to);
            audit::note(&mut difference, "reason", None::<String>, &taken.reason);
            let apply = taken.apply.as_ref().map(|id| format!("applies/{id}"));
            let entry = audit::seal(
                self.state.audit_head(),
                audit::Draft {
                    at: taken.at,
                    actor: taken.by.clone(),
                    action: taken.act.name().to_owned(),
                    resource: apply.unwrap_or_else(|| "configuration".to_owned()),
                    request: None,
                    difference,
                },
            );
            self.make(Change::Audit(entry), batch);
            self.taken.push(taken);
        }
    }

    /// Into the audit log with the end of a peer.
    fn record(&mut self, ended: &Ended, batch: &mut Batch) {
        let mut difference = Map::new();
        audit::note(&mut difference, "state", PeerState::Active, ended.state);
        let entry = audit::seal(
            self.state.audit_head(),
            audit::Draft {
                at: ended.at,
                actor: "daemon".to_owned(),
                action: ended.action.to_owned(),
                resource: format!("peers/{}", ended.id),
                request: None,
                difference,
            },
        );
        self.make(Change::Audit(entry), batch);
    }

    /// Answers that are not repeated any more, and addresses that have rested.
    fn forget_old(&mut self, now: Timestamp, batch: &mut Batch) {
        let before = |span: SignedDuration| now.checked_sub(span).unwrap_or(Timestamp::MIN);
        let forgotten = self
            .state
            .answers_to_forget(before(ANSWERS_KEPT), MAX_ANSWERS);
        for (actor, key) in forgotten {
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
        let holder = |key: &PublicKey| {
            if view.is_of_file(key) {
                let id = view.file_holder(key)?;
                return Some(Holder { id, is_next: false });
            }
            let id = self.state.by_key(key)?;
            let is_next = self.state.peers().get(&id)?.public_key != *key;
            Some(Holder { id, is_next })
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
