//! `/v1/apply`: a configuration on trial.
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use shared::api::apply::{Apply, ApplyRequest, CONFIRM_WITHIN_SECONDS, MAX_CONFIRM_WITHIN_SECONDS};
use shared::api::problem::{FieldError, Problem};
use shared::api::scope::Scope;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor::Caller;
use super::extract::{ApiJson, ApiPath};
use super::problem::{ApiError, ApiResult};
use super::server::Opened;
use crate::apply::request::{Ask, Desk, Refusal};
use crate::error::Failure;

/// The routes.
pub fn routes(desk: Desk) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(show, apply))
        .routes(routes!(confirm))
        .routes(routes!(roll_back))
        .with_state(desk)
}

/// The latest configuration that was applied, and while it is on trial whether what was well before is well.
#[utoipa::path(get, path = "/v1/apply", tag = "configuration", operation_id = "show_apply",
    responses((status = 200, body = Apply),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "None was applied.")))]
async fn show(State(desk): State<Desk>, caller: Caller) -> ApiResult<Json<Apply>> {
    caller.require(Scope::Read)?;
    ask(&desk, Ask::Show, &caller).await
}

/// Take the configuration file on trial. Unless it is confirmed in time by a connection that was opened after this, the
/// configuration of before comes back, also when the daemon dies meanwhile.
#[utoipa::path(post, path = "/v1/apply", tag = "configuration", operation_id = "apply", request_body = ApplyRequest,
    responses((status = 200, body = Apply),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "Another one is on trial, or the daemon runs with another file."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The file is wrong.")))]
async fn apply(
    State(desk): State<Desk>,
    caller: Caller,
    ApiJson(request): ApiJson<ApplyRequest>,
) -> ApiResult<Json<Apply>> {
    caller.require(Scope::Admin)?;
    if request.file.is_some() {
        super::may_name_files(&caller)?;
    }
    let seconds = request.confirm_within_seconds;
    let seconds = seconds.unwrap_or(CONFIRM_WITHIN_SECONDS);
    if !(1..=MAX_CONFIRM_WITHIN_SECONDS).contains(&seconds) {
        return Err(ApiError::invalid(vec![FieldError {
            pointer: "/confirm_within_seconds".to_owned(),
            detail: format!("must be from 1 to {MAX_CONFIRM_WITHIN_SECONDS}"),
        }]));
    }
    let ask_for = Ask::Apply {
        file: request.file,
        within: Duration::from_secs(seconds.into()),
    };
    ask(&desk, ask_for, &caller).await
}

/// Keep a configuration on trial. Only by a connection that was opened after it was in place.
#[utoipa::path(post, path = "/v1/apply/{id}/confirm", tag = "configuration", operation_id = "confirm_apply",
    params(("id" = String, Path, description = "Identifier of the apply.")),
    responses((status = 200, body = Apply),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The latest apply is another."),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It is not on trial any more, or the connection is too old.")))]
async fn confirm(
    State(desk): State<Desk>,
    caller: Caller,
    opened: Option<Extension<Opened>>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Apply>> {
    caller.require(Scope::Admin)?;
    let Extension(Opened(opened)) = opened.ok_or_else(ApiError::internal)?;
    ask(&desk, Ask::Confirm { id, opened }, &caller).await
}

/// Put the configuration of before in place again at once.
#[utoipa::path(post, path = "/v1/apply/{id}/rollback", tag = "configuration", operation_id = "roll_back_apply",
    params(("id" = String, Path, description = "Identifier of the apply.")),
    responses((status = 200, body = Apply),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The latest apply is another."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is not on trial any more.")))]
async fn roll_back(
    State(desk): State<Desk>,
    caller: Caller,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Apply>> {
    caller.require(Scope::Admin)?;
    ask(&desk, Ask::RollBack { id }, &caller).await
}

async fn ask(desk: &Desk, ask: Ask, caller: &Caller) -> ApiResult<Json<Apply>> {
    let answer = desk.ask(ask, caller.actor.to_string()).await;
    answer.map(Json).map_err(refused)
}

fn refused(refusal: Refusal) -> ApiError {
    let conflict = |code, detail: String| ApiError::new(StatusCode::CONFLICT, code, detail);
    match refusal {
        Refusal::Nothing | Refusal::Unknown => ApiError::not_found("apply"),
        Refusal::Pending(id) => conflict(
            "apply_pending",
            format!("the configuration of the apply {id} is on trial"),
        )
        .with_hint("confirm it or roll it back first"),
        Refusal::Over(apply) => {
            let reason = apply.reason.map_or_else(
                || "it was confirmed".to_owned(),
                |reason| format!("it was rolled back: {reason}"),
            );
            conflict("apply_over", reason)
        }
        Refusal::OldConnection => conflict(
            "connection_too_old",
            "this connection was opened before the configuration was in place, and so proves nothing".to_owned(),
        )
        .with_hint("open another one"),
        Refusal::OtherFile(ours) => conflict(
            "other_file",
            format!("the daemon runs with {}", ours.display()),
        ),
        Refusal::Failed(Failure::Configuration(errors)) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "configuration_invalid",
            errors,
        ),
        Refusal::Failed(failure) => ApiError::unavailable(failure.to_string()),
    }
}
