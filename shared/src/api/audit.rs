//! The audit log: who changed what, each entry sealed with the hash of the one before.
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One acknowledged change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Number of the entry, from 1, without gaps.
    pub sequence: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: `unix:uid=0,gid=0,pid=7`, `token:ID`, or `daemon` for expiry and quota.
    pub actor: String,
    /// What: `peer.create`, `peer.update`, `peer.delete`, `peer.rotate`, `token.create`, …
    pub action: String,
    /// On what: `peers/ID`, `tokens/ID`.
    pub resource: String,
    /// The request that asked for it; `null` when the daemon did it by itself.
    #[schema(required)]
    pub request: Option<AuditRequest>,
    /// What changed, without secrets: field → `{"from": …, "to": …}`.
    pub difference: serde_json::Map<String, serde_json::Value>,
    /// Hash of the entry before, in hexadecimal; zeros for the first.
    pub previous_hash: String,
    /// SHA-256 over `previous_hash` and this entry, in hexadecimal.
    pub hash: String,
}

/// A request, as far as the audit log is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRequest {
    /// Identifier, also in the answer's `X-Request-Id` and in the log.
    pub id: String,
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Address of the caller; `null` on the unix socket.
    #[schema(required)]
    pub remote: Option<String>,
}
