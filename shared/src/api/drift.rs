//! What others have changed of what this daemon keeps in the kernel: `GET /v1/drift`, and a summary in the status.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that was not as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drift {
    /// When it was found.
    pub at: String,
    /// `link`, `address`, `route`, `rule`, `sysctl` or `nftables`.
    pub kind: String,
    /// Which it is, by the same name each time.
    pub subject: String,
    /// What puts it right, as a command, or what differs in the table.
    pub remedy: String,
    /// By what it was found.
    pub found_by: FoundBy,
    /// Processes that changed something of the network in the moment before, as far as they still ran.
    pub suspects: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it could not be put right; `null` otherwise.
    #[schema(required)]
    pub error: Option<String>,
}

/// By what a drift was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// The kernel told of a change.
    Notification,
    /// The look at switches and table each second: the kernel does not tell of them.
    Look,
    /// The look at everything each half minute.
    Sweep,
}

/// What became of a drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was put right.
    Healed,
    /// It could not be.
    Failed,
    /// It was put right five times within a minute, and is left for now: somebody else wants it otherwise.
    Fought,
}

/// Drift since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriftSummary {
    /// How often a thing was not as it was left, by kind.
    pub found: BTreeMap<String, u64>,
    /// How often it was put right.
    pub healed: u64,
    /// What is not put right for now, since somebody changes it again and again.
    pub fought: Vec<String>,
}
