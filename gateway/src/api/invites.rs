//! `/v1/invites`.
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use shared::api::Page;
use shared::api::invite::{CreateInvite, CreatedInvite, Invite};
use shared::api::problem::Problem;
use shared::api::scope::Scope;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::extract::{ApiJson, ApiPath, IdempotencyKey, IfMatch};
use shared_daemon::admin::problem::{ApiError, ApiResult};
use uuid::Uuid;

use super::answer::{ask, idempotency, precondition, unexpected, with_etag};
use crate::peers::Handle;
use crate::peers::request::{Command, Outcome};
use crate::store::{InviteRecord, Store};

/// Invitations that are not over, the oldest first, without their tokens.
#[utoipa::path(get, path = "/v1/invites", tag = "invites", operation_id = "list_invites",
    responses((status = 200, body = Page<Invite>)))]
pub(super) async fn list<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
) -> ApiResult<Json<Page<Invite>>> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let invites = view.invites.values();
    Ok(Json(Page {
        items: invites.map(|invite| shown(invite)).collect(),
        next_cursor: None,
    }))
}

/// Invite a LAN host. The token works once and for 15 minutes, and is in this one answer and nowhere else. Earlier
/// invitations for the same LAN server are over.
#[utoipa::path(post, path = "/v1/invites", tag = "invites", operation_id = "create_invite", request_body = CreateInvite,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same answer, without its token, for the same request within 24 hours.")),
    responses((status = 201, body = CreatedInvite, headers(("ETag" = String), ("Location" = String))),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The file gives the LAN server its key, no address is free, or what a repeated request made is over."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn create<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    key: IdempotencyKey,
    ApiJson(body): ApiJson<CreateInvite>,
) -> ApiResult<Response> {
    caller.require(Scope::Admin)?;
    let idempotency = idempotency(key, &caller, &body);
    let outcome = ask(&handle, caller, idempotency, Command::CreateInvite(body)).await?;
    let Outcome::Invite(record, token) = outcome else {
        return Err(unexpected(&outcome));
    };
    let mut headers = with_etag(record.revision());
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/invites/{}", record.id)) {
        headers.insert(header::LOCATION, location);
    }
    let created = CreatedInvite {
        invite: shown(&record),
        token: token.map(|token| token.as_str().to_owned()),
    };
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// One invitation, without its token.
#[utoipa::path(get, path = "/v1/invites/{id}", tag = "invites", operation_id = "show_invite",
    params(("id" = Uuid, Path, description = "Identifier of the invitation.")),
    responses((status = 200, body = Invite, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such invitation, or it is over.")))]
pub(super) async fn show<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
) -> ApiResult<(HeaderMap, Json<Invite>)> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let invite = view.invites.get(&id);
    let invite = invite.ok_or_else(|| ApiError::not_found("invitation"))?;
    Ok((with_etag(invite.revision()), Json(shown(invite))))
}

/// Take an invitation back: its token is worthless at once. A LAN host that has used it stays.
#[utoipa::path(delete, path = "/v1/invites/{id}", tag = "invites", operation_id = "revoke_invite",
    params(("id" = Uuid, Path, description = "Identifier of the invitation."),
        ("If-Match" = String, Header, description = "The ETag of what is to be taken back, or `*`.")),
    responses((status = 204, description = "It is over."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such invitation, or it is over."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It was used since."),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`If-Match` is missing."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn delete<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    caller.require(Scope::Admin)?;
    let command = Command::DeleteInvite(id, precondition(Some(if_match)));
    ask(&handle, caller, None, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(record: &InviteRecord) -> Invite {
    Invite {
        id: record.id,
        lan_server: record.lan_server.clone(),
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        expires_at: record.expires_at,
        used_by: record.used_by.map(|key| key.to_string()),
    }
}
