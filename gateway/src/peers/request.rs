//! What is asked of the worker, and what it answers.
use std::sync::Arc;

use shared::api::audit::AuditRequest;
use shared::api::invite::CreateInvite;
use shared::api::peer::{CreatePeer, PatchPeer, RotatePeer};
use shared::api::token::CreateToken;
use shared::model::{PresharedKey, PrivateKey, PublicKey};
use tokio::sync::oneshot;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::RequestError;
use crate::store::{InviteRecord, LanServerRecord, PeerRecord, TokenRecord};

/// One request to change something.
#[derive(Debug)]
pub struct Request {
    /// Who asks, as in the audit log.
    pub actor: String,
    /// The HTTP request that brought it.
    pub origin: AuditRequest,
    /// Asks for the same answer when the same request comes again.
    pub idempotency: Option<Idempotency>,
    /// What is asked.
    pub command: Command,
    /// Where the answer goes; nobody waiting for it is no error.
    pub reply: oneshot::Sender<Result<Outcome, RequestError>>,
}

/// `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose key it is.
    pub owner: String,
    /// The key.
    pub key: String,
    /// SHA-256 over method, path and body.
    pub fingerprint: [u8; 32],
}

/// What is asked.
#[derive(Debug)]
pub enum Command {
    /// Make a peer.
    CreatePeer(CreatePeer),
    /// Change a peer.
    PatchPeer(Uuid, Precondition, PatchPeer),
    /// Remove a peer.
    DeletePeer(Uuid, Precondition),
    /// Give a peer another key.
    RotatePeer(Uuid, Precondition, RotatePeer),
    /// Begin to count for the quota anew.
    ResetUsage(Uuid, Precondition),
    /// Make a token.
    CreateToken(CreateToken),
    /// Revoke a token.
    DeleteToken(String, Precondition),
    /// Invite a LAN host.
    CreateInvite(CreateInvite),
    /// Take an invitation back.
    DeleteInvite(Uuid, Precondition),
    /// A LAN host uses an invitation, and has this key.
    Join(Uuid, PublicKey),
}

/// `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// It was not sent, or is `*`.
    Any,
    /// One of these `ETag`s, with their quotes.
    OneOf(Vec<String>),
}

impl Precondition {
    /// Whether a resource of this revision fulfils it.
    pub fn check(&self, revision: u64) -> Result<(), RequestError> {
        let current = etag(revision);
        match self {
            Self::OneOf(tags) if !tags.contains(&current) => Err(RequestError::Stale { current }),
            Self::OneOf(_) | Self::Any => Ok(()),
        }
    }
}

/// The `ETag` of a revision, with its quotes.
pub fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The peer as it is now.
    Peer(Arc<PeerRecord>),
    /// The peer, and keys that are told once; none when an answer is repeated.
    PeerWithSecrets(Arc<PeerRecord>, Option<NewSecrets>),
    /// The token; its secret unless an answer is repeated.
    Token(Arc<TokenRecord>, Option<String>),
    /// The invitation; the text of its token unless an answer is repeated.
    Invite(Arc<InviteRecord>, Option<Zeroizing<String>>),
    /// The LAN server with its keys.
    Joined(LanServerRecord),
    /// It is gone.
    Deleted,
}

/// Keys that are told once.
#[derive(Debug)]
pub struct NewSecrets {
    /// The client's private key, when it was made here.
    pub private_key: Option<PrivateKey>,
    /// The preshared key, when there is one.
    pub preshared_key: Option<PresharedKey>,
}
