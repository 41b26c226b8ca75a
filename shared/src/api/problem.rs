//! Problem documents (RFC 9457): the body of every answer that is not a success.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a [`Problem`] (RFC 9457 §3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status code says what kind of problem it is, `code` says which (RFC 9457 §4.2.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// The status code in words.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What happened, in a sentence.
    pub detail: String,
    /// What happened, for programs: stable, in snake case (`stale_etag`, `name_taken`, …).
    pub code: String,
    /// What is wrong with the body or the query, each at its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body (RFC 6901), or `?name` for a parameter of the query.
    pub pointer: String,
    /// What is wrong there, and what is expected.
    pub detail: String,
}
