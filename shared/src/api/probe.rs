//! Whether published services answer: `GET /v1/probes`, and part of the status.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was found when a connection to a service was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// It took the connection.
    Up,
    /// It did not, or not in time.
    Down,
    /// Nobody has tried yet.
    Unknown,
}

impl ProbeState {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// The latest attempt to open a connection to one port of a published service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Probe {
    /// Name of the published service.
    pub publish: String,
    /// Its address.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// Port of the VIP.
    pub port: u16,
    /// What was found.
    pub state: ProbeState,
    /// Since when that is so, as far as was looked; `null` before the first attempt.
    #[schema(required)]
    pub since: Option<String>,
    /// When it was tried last; `null` before the first attempt.
    #[schema(required)]
    pub checked_at: Option<String>,
    /// How long it took to open the connection; `null` unless it is up.
    #[schema(required)]
    pub connect_milliseconds: Option<u64>,
    /// Why it is down; `null` unless it is.
    #[schema(required)]
    pub error: Option<String>,
}

/// All ports of a published service together: down when one of them is, up when all are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// What was found.
    pub state: ProbeState,
    /// Since when that is so, as far as was looked.
    #[schema(required)]
    pub since: Option<String>,
    /// The longest time that it took to open a connection; `null` unless it is up.
    #[schema(required)]
    pub connect_milliseconds: Option<u64>,
    /// Which port is down, and why; `null` unless one is.
    #[schema(required)]
    pub error: Option<String>,
}
