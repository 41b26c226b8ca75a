//! What handlers take from a request; what can't be taken is a problem document that names the place.
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use hyper::body::Body as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use shared::api::problem::FieldError;
use shared::api::scope::Scope;

use super::actor::Caller;
use super::problem::{ApiError, ApiResult};

/// Most bytes of a body.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// A JSON body. `application/json`, and for patches `application/merge-patch+json` (RFC 7396 §4).
#[derive(Debug, Clone)]
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        check_media_type(request.headers())?;
        // Said to be too large: not even the beginning is read.
        if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(too_large());
        }
        let body = Bytes::from_request(request, state).await.map_err(|error| {
            if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large()
            } else if is_timeout(&error) {
                ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_too_slow",
                    "the body did not come in time",
                )
            } else {
                ApiError::malformed("the body can't be read")
            }
        })?;
        parse(&body).map(Self)
    }
}

/// 413.
pub fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("a body has at most {MAX_BODY_BYTES} bytes"),
    )
}

/// Marks the error of a body that took too long.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come in time")]
pub struct BodyTimeout;

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyTimeout>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn check_media_type(headers: &HeaderMap) -> ApiResult<()> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if ["application/json", "application/merge-patch+json"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
    {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
        "the body has to be JSON",
    )
    .with_hint("send `Content-Type: application/json`"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    // Serde would take an array for a structure: its fields in their order, which nobody has promised.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    if !is_object && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return Err(ApiError::invalid(vec![FieldError {
            pointer: String::new(),
            detail: "an object is expected".to_owned(),
        }]));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_syntax() || error.is_eof() {
            ApiError::malformed(format!("the body is no JSON: {error}"))
        } else {
            ApiError::invalid(vec![FieldError {
                pointer,
                detail: without_place(&error.to_string()),
            }])
        }
    })?;
    match deserializer.end() {
        Ok(()) => Ok(parsed),
        Err(error) => Err(ApiError::malformed(format!("the body is no JSON: {error}"))),
    }
}

/// `name[0].x` → `/name/0/x` (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => index.to_string(),
        Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
        Segment::Enum { variant } => variant.clone(),
        Segment::Unknown => "?".to_owned(),
    };
    let segments = path.iter().flat_map(|s| ["/".to_owned(), segment(s)]);
    segments.collect()
}

/// The pointer says where, better than serde's line and column.
fn without_place(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message.get(..end).unwrap_or(message).to_owned(),
        None => message.to_owned(),
    }
}

/// Parameters of the query; what is not known is refused.
#[derive(Debug, Clone)]
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| {
            let detail = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.to_string(), ToString::to_string);
            let name = detail.split(':').next().unwrap_or_default();
            let named = detail.split_once(": ").filter(|_| is_parameter(name));
            let (pointer, detail) = match named {
                Some((name, detail)) => (format!("?{name}"), detail.to_owned()),
                None => ("?".to_owned(), detail),
            };
            ApiError::invalid(vec![FieldError { pointer, detail }])
        })?;
        Ok(Self(query.0))
    }
}

fn is_parameter(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Parameters of the path; what does not parse names nothing that could be there: 404.
#[derive(Debug, Clone)]
pub struct ApiPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|_| ApiError::not_found("resource: the path holds no identifier"))
    }
}

/// `If-Match` (RFC 9110 §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever it is now.
    Any,
    /// One of these, with their quotes.
    OneOf(Vec<String>),
}

impl IfMatch {
    fn of(headers: &HeaderMap) -> ApiResult<Option<Self>> {
        let mut tags = Vec::new();
        let mut present = false;
        for value in headers.get_all(header::IF_MATCH) {
            present = true;
            let text = value.to_str().map_err(|_| bad_etag())?;
            if text.trim() == "*" {
                return Ok(Some(Self::Any));
            }
            let mut rest = text.trim_matches([' ', '\t', ',']);
            while !rest.is_empty() {
                let (tag, after) = split_etag(rest).ok_or_else(bad_etag)?;
                // A weak one never matches: the comparison is strong.
                tags.push(tag.to_owned());
                rest = after.trim_start_matches([' ', '\t', ',']);
            }
        }
        if present && tags.is_empty() {
            return Err(bad_etag());
        }
        Ok(present.then_some(Self::OneOf(tags)))
    }
}

/// The first of a list of tags, with its quotes, and what follows it. A comma may stand inside of the quotes (RFC 9110
/// §8.8.3), so they can't be split at commas.
fn split_etag(list: &str) -> Option<(&str, &str)> {
    let opaque = list.strip_prefix("W/").unwrap_or(list);
    let inner = opaque.strip_prefix('"')?;
    let end = list.len() - inner.len() + inner.find('"')? + 1;
    let (tag, rest) = list.split_at_checked(end)?;
    let ends = rest.is_empty() || rest.trim_start_matches([' ', '\t']).starts_with(',');
    ends.then_some((tag, rest))
}

fn bad_etag() -> ApiError {
    ApiError::malformed("If-Match holds no ETag: \"…\" with its quotes, or *")
}

/// `If-Match` that has to be there.
impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        Self::of(&parts.headers)?.ok_or_else(|| {
            ApiError::new(
                StatusCode::PRECONDITION_REQUIRED,
                "if_match_required",
                "this changes something, so it has to say of which state it thinks",
            )
            .with_hint("send the ETag of a GET as `If-Match`, or `If-Match: *` to change it whatever it is")
        })
    }
}

/// `If-Match` that may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalIfMatch(pub Option<IfMatch>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalIfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        IfMatch::of(&parts.headers).map(Self)
    }
}

/// `Idempotency-Key`: the same answer for the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        const NAME: HeaderName = HeaderName::from_static("idempotency-key");
        let Some(value) = parts.headers.get(NAME) else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default();
        let is_key = (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
        if is_key {
            Ok(Self(Some(text.to_owned())))
        } else {
            Err(ApiError::malformed(
                "an Idempotency-Key has 1 to 255 visible ASCII characters",
            ))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        // The gate has put it there; without a gate nobody gets in.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(ApiError::internal)
    }
}

impl Caller {
    /// Go on only when the caller may do this.
    pub fn require(&self, scope: Scope) -> ApiResult<()> {
        if self.actor.may(scope) {
            Ok(())
        } else {
            Err(ApiError::missing_scope(scope))
        }
    }
}

#[cfg(test)]
mod tests;
