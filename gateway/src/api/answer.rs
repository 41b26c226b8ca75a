//! What handlers have in common: from the worker's words to HTTP's.
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::api::problem::FieldError;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::extract::{IdempotencyKey, IfMatch};
use shared_daemon::admin::problem::{ApiError, ApiResult};

use crate::peers::Handle;
use crate::peers::error::RequestError;
use crate::peers::request::{Command, Idempotency, Outcome, Precondition, etag};
use crate::store::{Store, StoreError};

/// Have something changed.
pub(super) async fn ask<S: Store>(
    handle: &Handle<S>,
    caller: Caller,
    idempotency: Option<Idempotency>,
    command: Command,
) -> ApiResult<Outcome> {
    let actor = caller.actor.to_string();
    let asked = handle
        .ask(actor, caller.request, idempotency, command)
        .await;
    asked.map_err(refused)
}

/// The key with what it stands for.
pub(super) fn idempotency(
    key: IdempotencyKey,
    caller: &Caller,
    body: &impl Serialize,
) -> Option<Idempotency> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let fingerprint = Sha256::new()
        .chain_update(&caller.request.method)
        .chain_update([0])
        .chain_update(&caller.request.path)
        .chain_update([0])
        .chain_update(body)
        .finalize();
    key.0.map(|key| Idempotency {
        owner: caller.actor.principal(),
        key,
        fingerprint: fingerprint.into(),
    })
}

pub(super) fn precondition(if_match: Option<IfMatch>) -> Precondition {
    match if_match {
        None | Some(IfMatch::Any) => Precondition::Any,
        Some(IfMatch::OneOf(tags)) => Precondition::OneOf(tags),
    }
}

/// `ETag: "7"`.
pub(super) fn with_etag(revision: u64) -> HeaderMap {
    let value = HeaderValue::from_str(&etag(revision));
    value
        .map(|value| HeaderMap::from_iter([(header::ETAG, value)]))
        .unwrap_or_default()
}

/// Why the worker did not do it.
pub(super) fn refused(error: RequestError) -> ApiError {
    let detail = error.to_string();
    match error {
        RequestError::Invalid(errors) => ApiError::invalid(errors),
        RequestError::Conflict {
            code,
            detail,
            errors,
            hint,
        } => {
            let problem = ApiError::new(StatusCode::CONFLICT, code, detail).with_errors(errors);
            match hint {
                Some(hint) => problem.with_hint(hint),
                None => problem,
            }
        }
        RequestError::NotFound(what) => ApiError::not_found(what),
        RequestError::Stale { .. } => {
            ApiError::new(StatusCode::PRECONDITION_FAILED, "stale_etag", detail)
                .with_hint("read it again, and send the ETag of what you read")
        }
        RequestError::KeyReused => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            detail,
        )
        .with_hint("a new request needs a new key"),
        RequestError::Full(_) => {
            ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail)
                .with_hint("make room in state_dir and send it again")
        }
        RequestError::NotApplied(_) => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_applied", detail)
        }
        RequestError::Ending => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ending", detail),
    }
}

/// A store that can't be read.
pub(super) fn unreadable(error: &StoreError) -> ApiError {
    ApiError::unavailable(error.to_string())
}

/// One wrong parameter of the query.
pub(super) fn wrong_parameter(name: &str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid(vec![FieldError {
        pointer: format!("?{name}"),
        detail: detail.into(),
    }])
}

/// The worker answered something else than what was asked: a bug.
pub(super) fn unexpected(outcome: &Outcome) -> ApiError {
    tracing::error!(?outcome, "not an answer to this request");
    ApiError::internal()
}
