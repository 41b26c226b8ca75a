//! Peers: what they are, how they are made and changed.
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A WireGuard client of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Identifier; never used again.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// Where it is defined: a peer of the file can't be changed here.
    pub managed_by: ManagedBy,
    /// Its key.
    pub public_key: String,
    /// Whether a preshared key is mixed into its handshakes.
    pub has_preshared_key: bool,
    /// Its tunnel addresses, one per family at most.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Networks behind it.
    pub networks: Vec<String>,
    /// What it may reach: the name of a role; `null` reaches nothing.
    #[schema(required)]
    pub role: Option<String>,
    /// Whether it may connect.
    pub enabled: bool,
    /// When it stops to work; `null` is never.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Most bytes, received and sent together, since `usage.counted_since`; `null` is no limit.
    #[schema(required)]
    pub quota_bytes: Option<u64>,
    /// Anything the owner likes to note.
    pub labels: BTreeMap<String, String>,
    /// When it was made; `null` for a peer of the file.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// When it was last changed; `null` for a peer of the file.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub updated_at: Option<Timestamp>,
    /// The key that replaces the present one, until it has.
    #[schema(required)]
    pub rotation: Option<Rotation>,
    /// Whether it can connect, and if not, why.
    pub state: PeerState,
    /// What is wrong, in sentences: a role that the file no longer has, an address that it gave to another.
    pub problems: Vec<String>,
    /// Where it is now.
    pub connection: Connection,
    /// What it has moved; survives restarts.
    pub usage: Usage,
}

/// Where a peer is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManagedBy {
    /// By this API.
    Api,
    /// By a `[[peer]]` of the configuration file.
    File,
}

/// Whether a peer can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It can.
    Active,
    /// `enabled` is false.
    Disabled,
    /// `expires_at` has passed.
    Expired,
    /// It has moved `quota_bytes`.
    OverQuota,
    /// The configuration file gave its name, key or address to another; see `problems`.
    Shadowed,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::OverQuota => "over_quota",
            Self::Shadowed => "shadowed",
        })
    }
}

/// A key that is being replaced: both work, until the new one is used or the time is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rotation {
    /// The new key.
    pub public_key: String,
    /// When the old key stops to work even if the new one was not used.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// A peer on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Whether a session is up: a handshake within the last 180 seconds (whitepaper §6.1, Reject-After-Time).
    pub online: bool,
    /// Where it was last heard from.
    #[schema(required, value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// When the latest handshake was completed.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub latest_handshake_at: Option<Timestamp>,
}

/// What a peer has moved, as on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Received from it.
    pub rx_bytes: u64,
    /// Sent to it.
    pub tx_bytes: u64,
    /// Of these, what counts for `quota_bytes`.
    pub quota_used_bytes: u64,
    /// When counting for `quota_bytes` began; `null` for a peer of the file.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub counted_since: Option<Timestamp>,
}

/// Body of `POST /v1/peers`. Give `public_key`, or ask for `generate_key`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePeer {
    /// Unique name: 1 to 64 letters, digits, `.`, `_`, `@`, `-`.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$"
    )]
    pub name: String,
    /// The client's key, 32 bytes in base64: its private key stays with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]
    pub public_key: Option<String>,
    /// Make a key pair and tell the private key once, in the answer.
    #[serde(default)]
    pub generate_key: bool,
    /// `generate` (default), `none`, or 32 bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(generate|none|[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)$")]
    pub preshared_key: Option<String>,
    /// Tunnel addresses, one per family at most; without them one of each family of the tunnel is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 2)]
    pub addresses: Option<Vec<String>>,
    /// Networks behind the peer: what is sent to them goes to it, and it may send from them.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub networks: Vec<String>,
    /// What it may reach: the name of a role; without one it reaches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether it may connect; true when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// When it stops to work, RFC 3339; excludes `expires_in_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// How long it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3_155_760_000_u64)]
    pub expires_in_seconds: Option<u64>,
    /// Most bytes, received and sent together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64)]
    pub quota_bytes: Option<u64>,
    /// Anything the owner likes to note: at most 32, keys like names, values of at most 256 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Body of `PATCH /v1/peers/{id}`: a JSON Merge Patch (RFC 7396). What is absent stays, `null` removes. Another key comes by
/// `rotate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
pub struct PatchPeer {
    /// As in [`CreatePeer`].
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$"
    )]
    pub name: Option<String>,
    /// As in [`CreatePeer`].
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(min_items = 1, max_items = 2)]
    pub addresses: Option<Vec<String>>,
    /// As in [`CreatePeer`]; `null` removes all.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(max_items = 64)]
    pub networks: Option<Option<Vec<String>>>,
    /// As in [`CreatePeer`]; `null` takes the role away.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub role: Option<Option<String>>,
    /// As in [`CreatePeer`].
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub enabled: Option<bool>,
    /// RFC 3339; `null` is never.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(format = DateTime)]
    pub expires_at: Option<Option<String>>,
    /// As in [`CreatePeer`]; `null` is no limit.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_u64)]
    pub quota_bytes: Option<Option<u64>>,
    /// Labels to set, and with `null` to remove; `null` removes all.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub labels: Option<Option<BTreeMap<String, Option<String>>>>,
}

/// A field that is there: `Option` alone takes `null` for absent, even where there must be a value.
fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Body of `POST /v1/peers/{id}/rotate`. Give `public_key`, or ask for `generate_key`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotatePeer {
    /// The client's new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]
    pub public_key: Option<String>,
    /// Make a key pair and tell the private key once, in the answer.
    #[serde(default)]
    pub generate_key: bool,
    /// As in [`CreatePeer`], for the new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(generate|none|[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)$")]
    pub preshared_key: Option<String>,
    /// How long the old key goes on when the new one is not used; a day when not given, 0 changes over at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 31_557_600_u64)]
    pub overlap_seconds: Option<u64>,
}

/// Answer of `POST /v1/peers` and of `rotate`: the only one that ever holds these secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerWithSecrets {
    /// The peer.
    pub peer: Peer,
    /// What was made for it; `null` when an answer is repeated by its `Idempotency-Key`.
    #[schema(required)]
    pub secrets: Option<Secrets>,
    /// Configuration for the client in the format of `wg-quick`, with the secrets that are known here.
    pub config: String,
}

/// Keys that are told once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secrets {
    /// The client's private key, when it was made here.
    #[schema(required)]
    pub private_key: Option<String>,
    /// The preshared key, when there is one.
    #[schema(required)]
    pub preshared_key: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Body of `POST /v1/peers/{id}/config` and `/qr`: secrets of the client, to be written into its configuration. They are
/// checked against the peer and not kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigSecrets {
    /// The client's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]
    pub private_key: Option<String>,
    /// The preshared key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$")]
    pub preshared_key: Option<String>,
}

impl fmt::Debug for ConfigSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigSecrets(…)")
    }
}

/// A configuration for a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientConfig {
    /// In the format of `wg-quick`; secrets that are not known here are lines to be filled in.
    pub config: String,
}
