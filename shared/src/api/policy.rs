//! What the configuration file says, read-only: roles, published services, LAN servers.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What tunnel peers of this role may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Role {
    /// Name.
    pub name: String,
    /// Services, as in the configuration: `10.17.5.10:6443/tcp`.
    pub allow: Vec<String>,
    /// Number of peers that have it.
    pub peers: usize,
}

/// A host that brings LAN networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LanServer {
    /// Name.
    pub name: String,
    /// Its key.
    pub public_key: String,
    /// Its tunnel addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Networks behind it.
    pub networks: Vec<String>,
}
