//! `/v1/tokens`.
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use shared::api::Page;
use shared::api::problem::Problem;
use shared::api::scope::Scope;
use shared::api::token::{CreateToken, CreatedToken, Token};
use shared_daemon::admin::actor::{Actor, Caller};
use shared_daemon::admin::extract::{ApiJson, ApiPath, IdempotencyKey, IfMatch};
use shared_daemon::admin::problem::{ApiError, ApiResult};

use super::answer::{ask, idempotency, precondition, unexpected, with_etag};
use crate::peers::request::{Command, Outcome};
use crate::peers::{Handle, tokens};
use crate::store::{Store, TokenRecord};

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", operation_id = "list_tokens",
    responses((status = 200, body = Page<Token>)))]
pub(super) async fn list<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
) -> ApiResult<Json<Page<Token>>> {
    caller.require(Scope::Admin)?;
    let view = handle.shared.view();
    let mut items: Vec<Token> = view.tokens.values().map(|t| shown(&handle, t)).collect();
    items.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Json(Page {
        items,
        next_cursor: None,
    }))
}

/// Make a token. Its secret is in this one answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", operation_id = "create_token", request_body = CreateToken,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same answer, without its secret, for the same request within 24 hours.")),
    responses((status = 201, body = CreatedToken, headers(("ETag" = String), ("Location" = String))),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "What a repeated request made is gone since."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn create<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    key: IdempotencyKey,
    ApiJson(body): ApiJson<CreateToken>,
) -> ApiResult<Response> {
    caller.require(Scope::Admin)?;
    let idempotency = idempotency(key, &caller, &body);
    let outcome = ask(&handle, caller, idempotency, Command::CreateToken(body)).await?;
    let Outcome::Token(record, secret) = outcome else {
        return Err(unexpected(&outcome));
    };
    let mut headers = with_etag(record.revision);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/tokens/{}", record.id)) {
        headers.insert(header::LOCATION, location);
    }
    let token = shown(&handle, &record);
    Ok((
        StatusCode::CREATED,
        headers,
        Json(CreatedToken { token, secret }),
    )
        .into_response())
}

/// One token, without its secret. A token may look at itself.
#[utoipa::path(get, path = "/v1/tokens/{id}", tag = "tokens", operation_id = "show_token",
    params(("id" = String, Path, description = "Identifier of the token.")),
    responses((status = 200, body = Token, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such token.")))]
pub(super) async fn show<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<(HeaderMap, Json<Token>)> {
    let own = matches!(&caller.actor, Actor::Token { id: own, .. } if *own == id);
    if !own {
        caller.require(Scope::Admin)?;
    }
    let view = handle.shared.view();
    let token = view
        .tokens
        .get(&id)
        .ok_or_else(|| ApiError::not_found("token"))?;
    Ok((with_etag(token.revision), Json(shown(&handle, token))))
}

/// Revoke a token: it stops to work at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", operation_id = "revoke_token",
    params(("id" = String, Path, description = "Identifier of the token."),
        ("If-Match" = String, Header, description = "The ETag of what is to be revoked, or `*`.")),
    responses((status = 204, description = "It is gone."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such token."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It has changed since."),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`If-Match` is missing."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn delete<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<String>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    caller.require(Scope::Admin)?;
    let command = Command::DeleteToken(id, precondition(Some(if_match)));
    ask(&handle, caller, None, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown<S: Store>(handle: &Handle<S>, record: &TokenRecord) -> Token {
    tokens::view(record, handle.shared.token_used_at(&record.id))
}
