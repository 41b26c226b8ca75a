//! A configuration on trial: `/v1/apply`, output of `apply --json`.
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Seconds for which a configuration is on trial when the request does not say.
pub const CONFIRM_WITHIN_SECONDS: u32 = 60;
/// The longest trial.
pub const MAX_CONFIRM_WITHIN_SECONDS: u32 = 3600;

/// What is to be applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The configuration file, as an absolute path: refused unless it is the one that the daemon runs with.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// After how many seconds the configuration of before comes back unless this one is confirmed, 1 to 3600; 60 without it.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    pub confirm_within_seconds: Option<u32>,
}

/// A configuration that was applied, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Apply {
    /// Identifier.
    pub id: String,
    /// What became of it.
    pub state: ApplyState,
    /// When it was put in place.
    #[schema(value_type = String, format = DateTime)]
    pub applied_at: Timestamp,
    /// When the configuration of before comes back unless this one is confirmed.
    #[schema(value_type = String, format = DateTime)]
    pub confirm_by: Timestamp,
    /// When it was confirmed or rolled back; `null` while it is on trial.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Why it was rolled back; `null` unless it was.
    #[schema(required)]
    pub reason: Option<String>,
    /// Whether everything that was well before was looked at since: the daemon's own state, and each published port that answered.
    pub checked: bool,
    /// What was well before and is not any more.
    pub problems: Vec<String>,
}

/// What became of a configuration that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyState {
    /// It runs, on trial.
    Pending,
    /// It runs.
    Confirmed,
    /// The configuration of before runs again.
    RolledBack,
}
