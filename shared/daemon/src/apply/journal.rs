//! Who has taken which configuration, for whoever keeps a log of changes.
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

/// Who takes note. Nobody waits for it: what is in place is in place.
pub type Journal = UnboundedSender<Taken>;

/// What asked for it that no request did.
pub const BY_DAEMON: &str = "daemon";
/// SIGHUP, which does not say who sent it.
pub const BY_SIGNAL: &str = "signal";

/// A configuration was taken, kept or put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// When.
    pub at: Timestamp,
    /// Who, as in the log of requests; [`BY_DAEMON`], [`BY_SIGNAL`].
    pub by: String,
    /// What was done.
    pub act: Act,
    /// The apply that it belongs to.
    pub apply: Option<String>,
    /// The file's text of before.
    pub from: Arc<str>,
    /// And of now.
    pub to: Arc<str>,
    /// Why it was put back.
    pub reason: Option<String>,
}

/// What was done with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Taken for good.
    Reload,
    /// Taken on trial.
    Apply,
    /// Kept.
    Confirm,
    /// The one of before was put back.
    RollBack,
}

impl Act {
    /// As in a log of changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reload => "configuration.reload",
            Self::Apply => "configuration.apply",
            Self::Confirm => "configuration.confirm",
            Self::RollBack => "configuration.rollback",
        }
    }
}
