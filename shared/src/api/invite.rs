//! Invitations: how a LAN host gets to join by `lan-server join TOKEN`.
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An invitation, without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invite {
    /// Identifier.
    pub id: Uuid,
    /// Name of the `[[lan_server]]` that the LAN host becomes.
    pub lan_server: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it, as in the audit log.
    pub created_by: String,
    /// When it is over, used or not.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Key of the LAN host that has used it; `null` when none has.
    #[schema(required)]
    pub used_by: Option<String>,
}

/// Body of `POST /v1/invites`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInvite {
    /// Name of a `[[lan_server]]` of the configuration file that has no `public_key` there.
    pub lan_server: String,
}

/// Answer of `POST /v1/invites`: the only one that ever holds the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedInvite {
    /// The invitation.
    pub invite: Invite,
    /// What to give to `lan-server join`; `null` when an answer is repeated by its `Idempotency-Key`.
    #[schema(required)]
    pub token: Option<String>,
}
