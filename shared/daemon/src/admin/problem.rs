//! Every answer that is not a success is a problem document (RFC 9457).
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shared::api::problem::{FieldError, MEDIA_TYPE, Problem};
use shared::api::scope::Scope;

/// An answer that is not a success; handlers return it as their error.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Answer>);

/// Boxed: errors travel through many results, and are rare.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    hint: Option<String>,
    headers: HeaderMap,
}

/// What handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A problem of this status.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Answer {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            hint: None,
            headers: HeaderMap::new(),
        }))
    }

    /// What is wrong at which place.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A header of the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// 400: the request can't be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 401, as RFC 6750 §3 wants it.
    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_hint("send a token of this gateway: `Authorization: Bearer edge_…` (`gateway token add`)")
            .with_header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"wg-edge\""),
            )
    }

    /// 403: the token does not allow it.
    pub fn missing_scope(scope: Scope) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "missing_scope",
            format!("the token lacks the scope {scope}"),
        )
        .with_hint(format!(
            "make one with `gateway token add NAME --scope {scope}`"
        ))
    }

    /// 403: what files there are is not told by the tunnel.
    pub fn file_not_allowed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "file_not_allowed",
            "only by the unix socket may a file be named",
        )
        .with_hint("without `file` it is that of the daemon")
    }

    /// 404.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    /// 422: the body can be read and makes no sense.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "the request is not valid",
        )
        .with_errors(errors)
    }

    /// 429, with the seconds after which it makes sense again.
    pub fn too_many(code: &'static str, detail: &str, retry_after_secs: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_secs))
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// 500.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "this is a bug of the daemon; its log says more",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let answer = *self.0;
        let title = answer.status.canonical_reason().unwrap_or("Error");
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status: answer.status.as_u16(),
            detail: answer.detail,
            code: answer.code.to_owned(),
            errors: answer.errors,
            hint: answer.hint,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, MEDIA_TYPE)];
        (answer.status, kind, answer.headers, body).into_response()
    }
}
