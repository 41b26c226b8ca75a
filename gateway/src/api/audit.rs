//! `/v1/audit`.
#![expect(
    unused_qualifications,
    reason = "in what `utoipa::path` makes of `params(…)`"
)]
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::api::Page;
use shared::api::audit::AuditEntry;
use shared::api::problem::Problem;
use shared::api::scope::Scope;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::extract::ApiQuery;
use shared_daemon::admin::problem::ApiResult;
use utoipa::IntoParams;

use super::answer::{unreadable, wrong_parameter};
use crate::peers::Handle;
use crate::store::Store;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which part of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Most entries, 1 to 1000; 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Number of the entry after which to begin: `next_cursor` of the page before.
    cursor: Option<u64>,
}

/// The audit log, oldest entry first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit", params(Part),
    responses((status = 200, body = Page<AuditEntry>),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A parameter makes no sense.")))]
pub(super) async fn list<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiQuery(part): ApiQuery<Part>,
) -> ApiResult<Json<Page<AuditEntry>>> {
    caller.require(Scope::Admin)?;
    let limit = part.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(wrong_parameter(
            "limit",
            format!("1 to {MAX_LIMIT} are wanted"),
        ));
    }
    let after = part.cursor.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(wrong_parameter(
            "cursor",
            "not a `next_cursor` of this list",
        ));
    }
    let read = handle.shared.audit_after(after, limit + 1).await;
    let mut items = read.map_err(|error| unreadable(&error))?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more);
    let next_cursor = next_cursor.map(|last| last.sequence.to_string());
    Ok(Json(Page { items, next_cursor }))
}
