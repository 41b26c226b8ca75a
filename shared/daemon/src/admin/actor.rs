//! Who asks, and what it may.
use std::fmt;
use std::net::SocketAddr;

use shared::api::audit::AuditRequest;
use shared::api::scope::Scope;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A process on this host, as the kernel names it (`SO_PEERCRED`): may do everything.
    Unix {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Process; 0 when it is not known.
        pid: i32,
    },
    /// The bearer of a token.
    Token {
        /// Identifier of the token.
        id: String,
        /// What it allows.
        scopes: Vec<Scope>,
    },
    /// Anyone who reaches the TCP listener, when the configuration says `tokens = false`.
    Tunnel(SocketAddr),
    /// The daemon itself: expiry, quota, the end of a rotation.
    Daemon,
}

impl Actor {
    /// Whether it may do what `scope` stands for.
    pub fn may(&self, scope: Scope) -> bool {
        match self {
            Self::Unix { .. } | Self::Tunnel(_) | Self::Daemon => true,
            Self::Token { scopes, .. } => scopes.contains(&scope),
        }
    }

    /// Who owns an `Idempotency-Key`: a user, not one of its processes; a request is often repeated by another.
    pub fn principal(&self) -> String {
        match self {
            Self::Unix { uid, .. } => format!("unix:uid={uid}"),
            Self::Token { .. } | Self::Tunnel(_) | Self::Daemon => self.to_string(),
        }
    }
}

/// As in the audit log.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, gid, pid } => write!(f, "unix:uid={uid},gid={gid},pid={pid}"),
            Self::Token { id, .. } => write!(f, "token:{id}"),
            Self::Tunnel(address) => write!(f, "tunnel:{}", address.ip()),
            Self::Daemon => f.write_str("daemon"),
        }
    }
}

/// A request, as far as others than its handler need to know: an extension of every request that has passed the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub actor: Actor,
    /// The request, for the audit log.
    pub request: AuditRequest,
}
