//! One request → what it comes to. Decides and does nothing: the worker carries it out.
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};
use shared::api::event::EventKind;
use uuid::Uuid;

use super::change::{Context, Made};
use super::error::RequestError;
use super::request::{Command, NewSecrets, Outcome, Request};
use super::tokens;
use crate::audit;
use crate::store::{Change, InviteRecord, UsageRecord};

/// What a request comes to, before anything is done.
pub(super) struct Done {
    /// As the audit log names it.
    pub(super) action: &'static str,
    /// What to tell who listens.
    pub(super) event: EventKind,
    /// As the audit log names it: `peers/ID`, `tokens/ID`, `invites/ID`, `lan-servers/NAME`.
    pub(super) resource: String,
    /// Name of the peer, token or LAN server.
    pub(super) name: String,
    /// The peer that it is about.
    pub(super) peer: Option<Uuid>,
    /// Invitations that come or go.
    pub(super) invites: Vec<Uuid>,
    /// What differs, as far as it is no matter of peers and tokens.
    pub(super) difference: Map<String, Value>,
    /// The token that it is about.
    pub(super) token: Option<String>,
    /// HTTP status, as it is kept for a repetition.
    pub(super) status: u16,
    /// What to store.
    pub(super) changes: Vec<Change>,
    /// What to answer.
    pub(super) outcome: Outcome,
}

/// # Errors
/// Why it is refused; nothing has changed.
pub(super) fn decide(
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
                invites: Vec::new(),
                difference: Map::new(),
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
                invites: Vec::new(),
                difference: Map::new(),
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
                invites: Vec::new(),
                difference: Map::new(),
                status: 204,
                changes: vec![Change::DeleteToken(id.clone())],
                outcome: Outcome::Deleted,
            })
        }
        Command::CreateInvite(create) => {
            let (id, actor) = (Uuid::now_v7(), &request.actor);
            let invited = context.invite(id, &create.lan_server, actor, &mut random)?;
            let invite = invited.invite;
            let text = invited.token.to_text();
            Ok(Done {
                invites: invited.touched,
                difference: expiry(None, Some(invite.expires_at)),
                changes: invited.changes,
                ..of_invite(
                    "invite.create",
                    EventKind::InviteCreated,
                    201,
                    &invite,
                    Outcome::Invite(Arc::new(invite.clone()), Some(text)),
                )
            })
        }
        Command::DeleteInvite(id, precondition) => {
            let invite = context.state.invites().get(id);
            let invite = invite.ok_or(RequestError::NotFound("invitation"))?;
            precondition.check(invite.revision())?;
            Ok(Done {
                difference: expiry(Some(invite.expires_at), None),
                changes: context.end_invite(invite).into(),
                ..of_invite(
                    "invite.revoke",
                    EventKind::InviteRevoked,
                    204,
                    invite,
                    Outcome::Deleted,
                )
            })
        }
        Command::Join(id, key) => {
            let invite = context.state.invites().get(id);
            let invite = invite.ok_or(RequestError::NotFound("invitation"))?;
            let (lan_server, changes) = context.join(invite, *key, &mut random)?;
            let before = context.state.lan_servers().get(&lan_server.name);
            let before = before.map(|before| before.public_key.to_string());
            let mut difference = Map::new();
            audit::note(&mut difference, "public_key", before, key.to_string());
            Ok(Done {
                resource: format!("lan-servers/{}", lan_server.name),
                difference,
                changes,
                ..of_invite(
                    "lan_server.join",
                    EventKind::LanServerJoined,
                    200,
                    invite,
                    Outcome::Joined(lan_server),
                )
            })
        }
    }
}

/// Of an invitation, as yet without changes.
fn of_invite(
    action: &'static str,
    event: EventKind,
    status: u16,
    invite: &InviteRecord,
    outcome: Outcome,
) -> Done {
    Done {
        action,
        event,
        resource: format!("invites/{}", invite.id),
        name: invite.lan_server.clone(),
        peer: None,
        token: None,
        invites: vec![invite.id],
        difference: Map::new(),
        status,
        changes: Vec::new(),
        outcome,
    }
}

fn expiry(from: Option<Timestamp>, to: Option<Timestamp>) -> Map<String, Value> {
    let mut difference = Map::new();
    audit::note(&mut difference, "expires_at", from, to);
    difference
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
        invites: Vec::new(),
        difference: Map::new(),
        status,
        changes: made.changes,
        outcome,
    }
}

/// 32 bytes that nobody can guess.
pub(super) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers from its start on");
    bytes
}
