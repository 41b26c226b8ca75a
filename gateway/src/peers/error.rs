//! Why a request was not done, without a word about HTTP.
use shared::api::problem::FieldError;

/// Why a request was not done. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Parts of it make no sense.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// Parts of it belong to another.
    #[error("{detail}")]
    Conflict {
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
        /// The parts.
        errors: Vec<FieldError>,
        /// What to do.
        hint: Option<String>,
    },
    /// What it is about is not there.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It was changed since the caller read it.
    #[error("it has changed since it was read: its ETag is {current} now")]
    Stale {
        /// The `ETag` of now.
        current: String,
    },
    /// The same `Idempotency-Key` came with another request before.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// No space is left to write it down.
    #[error("no space is left for {0}; nothing was changed")]
    Full(String),
    /// The kernel or the store refused it.
    #[error("{0}; nothing was changed")]
    NotApplied(String),
    /// The daemon is about to end.
    #[error("the daemon is ending")]
    Ending,
}

impl RequestError {
    /// One wrong field.
    pub fn invalid(pointer: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError {
            pointer: pointer.to_owned(),
            detail: detail.into(),
        }])
    }
}
