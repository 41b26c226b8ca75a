//! Bearer tokens of the TCP listener: `edge_<id>_<secret>`. Only a hash of the secret is stored.
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::scope::Scope;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Identifier: the part between `edge_` and the secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it, as in the audit log.
    pub created_by: String,
    /// When it stops to work; `null` is never.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used since the daemon started; `null` is not.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for: 1 to 64 letters, digits, `.`, `_`, `@`, `-`.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$"
    )]
    pub name: String,
    /// What it allows; at least one.
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// When it stops to work, RFC 3339; excludes `expires_in_seconds`. Without either: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// How long it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3_155_760_000_u64)]
    pub expires_in_seconds: Option<u64>,
}

/// Answer of `POST /v1/tokens`: the only one that ever holds the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// What to send as `Authorization: Bearer …`; `null` when an answer is repeated by its `Idempotency-Key`.
    #[schema(required)]
    pub secret: Option<String>,
}
