//! Events of `GET /v1/events` (server-sent events).
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What happened. The `id` of the server-sent event is for `Last-Event-ID`, its name is `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Which peer, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Uuid>,
    /// Name of the peer, token or LAN server, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EventKind {
    /// A peer was made.
    #[serde(rename = "peer.created")]
    PeerCreated,
    /// A peer was changed.
    #[serde(rename = "peer.updated")]
    PeerUpdated,
    /// A peer was removed.
    #[serde(rename = "peer.deleted")]
    PeerDeleted,
    /// A peer's new key has replaced the old one.
    #[serde(rename = "peer.rotated")]
    PeerRotated,
    /// A session with a peer is up.
    #[serde(rename = "peer.online")]
    PeerOnline,
    /// The last session with a peer is over.
    #[serde(rename = "peer.offline")]
    PeerOffline,
    /// A peer's time is up.
    #[serde(rename = "peer.expired")]
    PeerExpired,
    /// A peer has moved its quota.
    #[serde(rename = "peer.over_quota")]
    PeerOverQuota,
    /// A token was made.
    #[serde(rename = "token.created")]
    TokenCreated,
    /// A token was revoked.
    #[serde(rename = "token.revoked")]
    TokenRevoked,
    /// A LAN host was invited.
    #[serde(rename = "invite.created")]
    InviteCreated,
    /// An invitation was taken back.
    #[serde(rename = "invite.revoked")]
    InviteRevoked,
    /// A LAN host has joined by an invitation.
    #[serde(rename = "lan_server.joined")]
    LanServerJoined,
    /// The configuration file was taken.
    #[serde(rename = "config.reloaded")]
    ConfigReloaded,
    /// What lies between the last event and this one is not known any more: list again.
    #[serde(rename = "reset")]
    Reset,
}

impl EventKind {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerCreated => "peer.created",
            Self::PeerUpdated => "peer.updated",
            Self::PeerDeleted => "peer.deleted",
            Self::PeerRotated => "peer.rotated",
            Self::PeerOnline => "peer.online",
            Self::PeerOffline => "peer.offline",
            Self::PeerExpired => "peer.expired",
            Self::PeerOverQuota => "peer.over_quota",
            Self::TokenCreated => "token.created",
            Self::TokenRevoked => "token.revoked",
            Self::InviteCreated => "invite.created",
            Self::InviteRevoked => "invite.revoked",
            Self::LanServerJoined => "lan_server.joined",
            Self::ConfigReloaded => "config.reloaded",
            Self::Reset => "reset",
        }
    }
}
