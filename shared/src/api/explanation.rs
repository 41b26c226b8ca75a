//! What an error of Cloudflare's most likely comes from: `GET /v1/explain/{error}`, output of `explain --json`.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// An error that Cloudflare shows when the origin is at fault
/// (<https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/>): 520 to 526.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct OriginError(u16);

const FIRST: u16 = 520;
const LAST: u16 = 526;

impl PartialSchema for OriginError {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        number.minimum(Some(FIRST)).maximum(Some(LAST)).into()
    }
}

impl ToSchema for OriginError {}

impl OriginError {
    /// As Cloudflare shows it.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Cloudflare has no such error, or the origin has no part in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is none of the errors {FIRST} to {LAST}, which Cloudflare shows when the origin is at fault"
)]
pub struct NotAnOriginError(String);

impl TryFrom<u16> for OriginError {
    type Error = NotAnOriginError;

    fn try_from(number: u16) -> Result<Self, NotAnOriginError> {
        if (FIRST..=LAST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(NotAnOriginError(number.to_string()))
        }
    }
}

impl From<OriginError> for u16 {
    fn from(error: OriginError) -> Self {
        error.0
    }
}

impl FromStr for OriginError {
    type Err = NotAnOriginError;

    fn from_str(text: &str) -> Result<Self, NotAnOriginError> {
        let number: Result<u16, _> = text.parse();
        number.map_or_else(
            |_| Err(NotAnOriginError(format!("`{text}`"))),
            Self::try_from,
        )
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What it may come from, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The error.
    pub error: OriginError,
    /// What Cloudflare says by it.
    pub means: String,
    /// The end that has looked: `gateway` or `lan-server`.
    pub end: String,
    /// How far back it remembers.
    pub minutes: u64,
    /// Causes.
    pub causes: Vec<Cause>,
}

/// Something that leads to the error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// How likely it is.
    pub likelihood: Likelihood,
    /// What it is.
    pub what: String,
    /// What was seen of it here.
    pub evidence: String,
    /// What to do; `null` when the evidence says it.
    #[schema(required)]
    pub remedy: Option<String>,
}

/// How likely a cause is, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Likelihood {
    /// It is so now, and visitors see just this error for it.
    Now,
    /// It was so within the last minutes.
    Lately,
    /// Something is not as it should be, which may have to do with it.
    Possible,
    /// It can't be seen from this host.
    Elsewhere,
}

impl Likelihood {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Lately => "lately",
            Self::Possible => "possible",
            Self::Elsewhere => "elsewhere",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_origin_are_520_to_526() {
        for (text, number) in [
            ("520", Some(520)),
            ("526", Some(526)),
            ("527", None),
            ("52x", None),
            ("65536", None),
        ] {
            let parsed: Result<OriginError, _> = text.parse();
            assert_eq!(parsed.ok().map(OriginError::number), number, "{text}");
        }
        assert!(serde_json::from_str::<OriginError>("519").is_err());
        let error: OriginError = serde_json::from_str("522").unwrap();
        assert_eq!(serde_json::to_string(&error).unwrap(), "522");
    }
}
