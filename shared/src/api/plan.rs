//! What a reload would do: `POST /v1/plan`, output of `plan --json`.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Another configuration file than the one that the daemon runs with, as an absolute path that the daemon can read. Only by
    /// the unix socket.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// Configuration files of the gateway's LAN servers, whose rules have a say in the tests of `file`. Only by the unix socket.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub lan_server_files: Vec<PathBuf>,
}

/// How what is live differs from what a configuration asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// What would be done, in that order; empty when everything is as it should be.
    pub changes: Vec<PlannedChange>,
    /// What can't be had because something that is not ours stands in its place, and what to do about it.
    pub conflicts: Vec<String>,
    /// What a reload can't change: the setting that needs a restart; `null` when there is none.
    #[schema(required)]
    pub needs_restart: Option<String>,
    /// What is allowed and yet most likely a mistake.
    pub warnings: Vec<PlanWarning>,
    /// Tests of the configuration (`[[test]]`) that fail: each with its place in the file, what was expected and what happens. A
    /// reload refuses a file whose own tests fail.
    #[serde(default)]
    pub failed_tests: Vec<String>,
}

impl Plan {
    /// Whether nothing would be done.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty() && self.needs_restart.is_none()
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedChange {
    /// `link`, `address`, `route`, `rule`, `sysctl`, `nftables`, `socket` or `peer`.
    pub kind: String,
    /// What is done to it.
    pub action: Action,
    /// Which it is.
    pub subject: String,
    /// The command that would do it, or what differs.
    pub detail: String,
}

/// What is done to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It comes.
    Add,
    /// It stays, and is different.
    Change,
    /// It goes.
    Remove,
}

impl Action {
    /// As in a difference of two files.
    pub const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Remove => '-',
        }
    }
}

/// What is most likely a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanWarning {
    /// What kind of mistake, for programs.
    pub name: String,
    /// What it is about: a chain, a port, a destination.
    pub subject: String,
    /// What it is.
    pub text: String,
    /// A command that puts it right; `null` when there is more than one way.
    #[schema(required)]
    pub remedy: Option<String>,
}
