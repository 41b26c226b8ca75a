//! What a token allows.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the bearer of a token may do. A scope includes no other.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum Scope {
    /// Read everything but the audit log: peers, roles, status, events, metrics.
    #[serde(rename = "read")]
    Read,
    /// Add, change, rotate and remove peers.
    #[serde(rename = "peers:write")]
    PeersWrite,
    /// List, make and revoke tokens, read the audit log, and apply the configuration file: with this one can give oneself the
    /// others.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::PeersWrite, Self::Admin];
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::PeersWrite => "peers:write",
            Self::Admin => "admin",
        })
    }
}

/// No scope has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}; there are read, peers:write and admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.to_string() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}
