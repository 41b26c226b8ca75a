//! What the API has made, and where it is kept: behind [`Store`], so that a shared store of several gateways can take the
//! place of the database on disk. Nothing outside of this folder knows which one it is.
pub mod memory;
pub mod sqlite;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use shared::api::audit::AuditEntry;
use shared::api::scope::Scope;
use shared::model::{PresharedKey, PublicKey};
use uuid::Uuid;

/// A durable place for what the API has made.
///
/// One caller at a time writes. A store that several gateways share must refuse a batch that was made from an older
/// snapshot than the present one ([`StoreError::Conflict`]).
pub trait Store: Send + Sync + 'static {
    /// Everything but the audit log.
    fn load(&self) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Take all changes or none. When this returns they are durable: neither a crash nor a power failure takes them back.
    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Entries of the audit log after `sequence`, in order, at most `limit`.
    fn audit_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<AuditEntry>, StoreError>> + Send;
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left; nothing was changed.
    #[error("no space is left for {what}")]
    Full {
        /// The file, or what else is full.
        what: String,
    },
    /// Someone else has written since the snapshot was taken; nothing was changed.
    #[error("the store was changed by someone else")]
    Conflict,
    /// It was written by a newer version of this program.
    #[error(
        "{what} has schema {found}, this program knows {known}; run the version that wrote it, or a newer one"
    )]
    TooNew {
        /// The file.
        what: String,
        /// Its schema.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
    /// What it holds makes no sense.
    #[error("{what} is damaged: {detail}; restore a backup")]
    Damaged {
        /// The file.
        what: String,
        /// What makes no sense.
        detail: String,
    },
    /// Anything else.
    #[error("{what}: {detail}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why it failed.
        detail: String,
    },
}

/// Everything that is kept, but for the audit log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Peers of the API.
    pub peers: Vec<PeerRecord>,
    /// What peers have moved; those of the file too.
    pub usage: BTreeMap<Uuid, UsageRecord>,
    /// Tokens.
    pub tokens: Vec<TokenRecord>,
    /// Invitations for LAN hosts that are not over yet.
    pub invites: Vec<InviteRecord>,
    /// Keys of LAN servers that have joined.
    pub lan_servers: Vec<LanServerRecord>,
    /// Addresses that peers gave back, and when: the youngest are not given out again yet.
    pub released_addresses: BTreeMap<IpAddr, Timestamp>,
    /// Answers that are repeated when their request is.
    pub idempotent_answers: Vec<IdempotentAnswer>,
    /// The last entry of the audit log.
    pub audit_head: Option<AuditEntry>,
}

/// One change of what is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Add a peer, or replace the one with this identifier.
    PutPeer(PeerRecord),
    /// Remove a peer and its usage.
    DeletePeer(Uuid),
    /// What a peer has moved.
    PutUsage(Uuid, UsageRecord),
    /// Forget what a peer has moved.
    DeleteUsage(Uuid),
    /// Add a token, or replace the one with this identifier.
    PutToken(TokenRecord),
    /// Remove a token.
    DeleteToken(String),
    /// Add an invitation, or replace the one with this identifier.
    PutInvite(InviteRecord),
    /// Remove an invitation.
    DeleteInvite(Uuid),
    /// A LAN server has this key from now on.
    PutLanServer(LanServerRecord),
    /// A LAN server has no key any more.
    DeleteLanServer(String),
    /// A peer gave an address back.
    ReleaseAddress(IpAddr, Timestamp),
    /// An address is in use again, or free for anyone.
    ForgetReleased(IpAddr),
    /// An answer that is repeated when its request is.
    PutIdempotentAnswer(IdempotentAnswer),
    /// Forget an answer.
    DeleteIdempotentAnswer {
        /// Who asked.
        actor: String,
        /// The key that was sent.
        key: String,
    },
    /// The next entry of the audit log.
    Audit(AuditEntry),
}

/// A peer of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Identifier.
    pub id: Uuid,
    /// Grows with each change; the `ETag`.
    pub revision: u64,
    /// Unique name.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// Its tunnel addresses, one per family at most, at least one.
    pub addresses: Vec<IpAddr>,
    /// Networks behind it, sorted.
    pub networks: Vec<IpNetwork>,
    /// Name of its role.
    pub role: Option<String>,
    /// Whether it may connect.
    pub enabled: bool,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// Most bytes, received and sent together.
    pub quota_bytes: Option<u64>,
    /// Anything the owner likes to note.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The key that replaces the present one.
    pub rotation: Option<RotationRecord>,
}

/// A key that is about to replace another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationRecord {
    /// The new key.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// When it replaces the old one even if it was not used.
    pub until: Timestamp,
}

/// What a peer has moved until the last time that was written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Received from it, in bytes.
    pub rx_bytes: u64,
    /// Sent to it, in bytes.
    pub tx_bytes: u64,
    /// Sum of both at which counting for the quota began.
    pub quota_base_bytes: u64,
    /// When counting for the quota began.
    pub counted_since: Option<Timestamp>,
    /// When the latest handshake was completed.
    pub latest_handshake_at: Option<Timestamp>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Identifier.
    pub id: String,
    /// Grows with each change; the `ETag`.
    pub revision: u64,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret, which has 256 random bits itself.
    pub secret_hash: [u8; 32],
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
}

/// An invitation for a LAN host. What it needs to use it, the private key among it, is in the token and nowhere here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    /// Identifier.
    pub id: Uuid,
    /// Name of the `[[lan_server]]` that the LAN host becomes.
    pub lan_server: String,
    /// Key of the invited peer.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: PresharedKey,
    /// Its tunnel address.
    pub address: IpAddr,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it is over.
    pub expires_at: Timestamp,
    /// The key of the LAN host that has used it.
    pub used_by: Option<PublicKey>,
}

impl InviteRecord {
    /// Grows with each change; the `ETag`. The one change is that it is used.
    pub fn revision(&self) -> u64 {
        1 + u64::from(self.used_by.is_some())
    }
}

/// What a LAN server is known by that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanServerRecord {
    /// Name of the `[[lan_server]]`.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// The preshared key that it was given.
    pub preshared_key: PresharedKey,
    /// When.
    pub joined_at: Timestamp,
}

/// An answer that is repeated when its request is (`Idempotency-Key`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentAnswer {
    /// Whose key it is: `unix:uid=0`, `token:ID`.
    pub actor: String,
    /// The key that was sent.
    pub key: String,
    /// SHA-256 over method, path and body: the same key with another request is a mistake.
    pub fingerprint: [u8; 32],
    /// Status code.
    pub status: u16,
    /// What was made, for the body: `peers/ID`, `tokens/ID`.
    pub resource: String,
    /// When.
    pub at: Timestamp,
}
