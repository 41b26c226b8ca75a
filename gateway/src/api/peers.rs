//! `/v1/peers`.
#![expect(
    unused_qualifications,
    reason = "in what `utoipa::path` makes of `params(…)`"
)]
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Deserialize;
use shared::api::Page;
use shared::api::peer::{
    ClientConfig, ConfigSecrets, CreatePeer, ManagedBy, PatchPeer, Peer, PeerState,
    PeerWithSecrets, RotatePeer, Secrets,
};
use shared::api::problem::{FieldError, Problem};
use shared::api::scope::Scope;
use shared::model::{PresharedKey, PrivateKey, PublicKey};
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::extract::{
    ApiJson, ApiPath, ApiQuery, IdempotencyKey, IfMatch, OptionalIfMatch,
};
use shared_daemon::admin::problem::{ApiError, ApiResult};
use subtle::ConstantTimeEq as _;
use utoipa::IntoParams;
use uuid::Uuid;

use super::answer::{ask, idempotency, precondition, unexpected, with_etag, wrong_parameter};
use crate::peers::client_config::{self, Preshared};
use crate::peers::request::{Command, Idempotency, NewSecrets, Outcome};
use crate::peers::{Handle, view::View};
use crate::store::{PeerRecord, Store};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Parameters of the list: all that are given must be met.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Most entries of the page, 1 to 1000; 100 when not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The name.
    name: Option<String>,
    /// The public key.
    public_key: Option<String>,
    /// The role.
    role: Option<String>,
    /// Whether it can connect.
    #[param(inline)]
    state: Option<PeerState>,
    /// Where it is defined.
    #[param(inline)]
    managed_by: Option<ManagedBy>,
    /// Whether a session is up.
    online: Option<bool>,
    /// A label: `key=value`, or `key` alone for any value.
    label: Option<String>,
}

impl Filter {
    fn takes(&self, peer: &Peer) -> bool {
        let label = self
            .label
            .as_deref()
            .is_none_or(|label| match label.split_once('=') {
                Some((key, value)) => peer.labels.get(key).is_some_and(|is| is == value),
                None => peer.labels.contains_key(label),
            });
        label
            && self.name.as_ref().is_none_or(|name| *name == peer.name)
            && self
                .public_key
                .as_ref()
                .is_none_or(|key| *key == peer.public_key)
            && self.role.is_none_or_eq(peer.role.as_ref())
            && self.state.is_none_or(|state| state == peer.state)
            && self.managed_by.is_none_or(|by| by == peer.managed_by)
            && self
                .online
                .is_none_or(|online| online == peer.connection.online)
    }
}

/// Whether an optional wish is met by an optional value.
trait Wish<T> {
    fn is_none_or_eq(&self, value: Option<&T>) -> bool;
}

impl<T: PartialEq> Wish<T> for Option<T> {
    fn is_none_or_eq(&self, value: Option<&T>) -> bool {
        self.is_none() || self.as_ref() == value
    }
}

/// Peers of the file and of the API, by name.
#[utoipa::path(get, path = "/v1/peers", tag = "peers", operation_id = "list_peers", params(Filter),
    responses((status = 200, body = Page<Peer>),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A parameter makes no sense.")))]
pub(super) async fn list<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiQuery(filter): ApiQuery<Filter>,
) -> ApiResult<Json<Page<Peer>>> {
    caller.require(Scope::Read)?;
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(wrong_parameter(
            "limit",
            format!("1 to {MAX_LIMIT} are wanted"),
        ));
    }
    let after = match &filter.cursor {
        None => None,
        Some(cursor) => Some(
            name_of_cursor(cursor)
                .ok_or_else(|| wrong_parameter("cursor", "not a `next_cursor` of this list"))?,
        ),
    };
    let mut peers = handle
        .shared
        .view()
        .all(handle.shared.live(), Timestamp::now());
    peers.retain(|peer| filter.takes(peer));
    peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    // The cursor is a name, not a number: what comes and goes meanwhile moves no page.
    if let Some((name, id)) = &after {
        peers.retain(|peer| (&peer.name, peer.id) > (name, *id));
    }
    let more = peers.len() > limit;
    peers.truncate(limit);
    let next_cursor = peers.last().filter(|_| more).map(cursor_of);
    Ok(Json(Page {
        items: peers,
        next_cursor,
    }))
}

fn cursor_of(last: &Peer) -> String {
    format!("{}~{}", last.name, last.id)
}

fn name_of_cursor(cursor: &str) -> Option<(String, Uuid)> {
    let (name, id) = cursor.rsplit_once('~')?;
    Some((name.to_owned(), id.parse().ok()?))
}

/// Make a peer.
///
/// When this answers, the peer is on disk and in the data plane. Its private key is in this one answer, if it was asked for,
/// and nowhere else.
#[utoipa::path(post, path = "/v1/peers", tag = "peers", operation_id = "create_peer", request_body = CreatePeer,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same answer, without its secrets, for the same request within 24 hours.")),
    responses((status = 201, body = PeerWithSecrets, headers(("ETag" = String), ("Location" = String))),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Name, key, address or network belong to another."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn create<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    key: IdempotencyKey,
    ApiJson(body): ApiJson<CreatePeer>,
) -> ApiResult<Response> {
    caller.require(Scope::PeersWrite)?;
    let idempotency = idempotency(key, &caller, &body);
    let outcome = ask(&handle, caller, idempotency, Command::CreatePeer(body)).await?;
    let Outcome::PeerWithSecrets(record, secrets) = outcome else {
        return Err(unexpected(&outcome));
    };
    let mut headers = with_etag(record.revision);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/peers/{}", record.id)) {
        headers.insert(header::LOCATION, location);
    }
    let body = with_secrets(&handle, &record, secrets);
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// One peer.
#[utoipa::path(get, path = "/v1/peers/{id}", tag = "peers", operation_id = "show_peer",
    params(("id" = Uuid, Path, description = "Identifier of the peer.")),
    responses((status = 200, body = Peer, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer.")))]
pub(super) async fn show<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
) -> ApiResult<(HeaderMap, Json<Peer>)> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let revision = view.peers.get(&id).map_or(0, |record| record.revision);
    Ok((with_etag(revision), Json(find(&handle, &view, id)?)))
}

/// Change a peer (JSON Merge Patch).
#[utoipa::path(patch, path = "/v1/peers/{id}", tag = "peers", operation_id = "change_peer",
    request_body(content = PatchPeer, content_type = "application/merge-patch+json"),
    params(("id" = Uuid, Path, description = "Identifier of the peer."),
        ("If-Match" = String, Header, description = "The ETag of what is to be changed, or `*`.")),
    responses((status = 200, body = Peer, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It belongs to the file, or what it wants to another."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It has changed since."),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`If-Match` is missing."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn patch<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    if_match: IfMatch,
    ApiJson(body): ApiJson<PatchPeer>,
) -> ApiResult<(HeaderMap, Json<Peer>)> {
    caller.require(Scope::PeersWrite)?;
    let command = Command::PatchPeer(id, precondition(Some(if_match)), body);
    changed(&handle, caller, None, command).await
}

/// Begin to count for the quota anew.
#[utoipa::path(post, path = "/v1/peers/{id}/reset-usage", tag = "peers", operation_id = "reset_usage",
    params(("id" = Uuid, Path, description = "Identifier of the peer."),
        ("If-Match" = Option<String>, Header, description = "The ETag of what is to be changed."),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once, however often the same request comes within 24 hours.")),
    responses((status = 200, body = Peer, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It belongs to the file, or is gone since a repeated request was done."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It has changed since."),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "The Idempotency-Key was used for another request."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn reset_usage<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    OptionalIfMatch(if_match): OptionalIfMatch,
    key: IdempotencyKey,
) -> ApiResult<(HeaderMap, Json<Peer>)> {
    caller.require(Scope::PeersWrite)?;
    let idempotency = idempotency(key, &caller, &());
    let command = Command::ResetUsage(id, precondition(if_match));
    changed(&handle, caller, idempotency, command).await
}

async fn changed<S: Store>(
    handle: &Handle<S>,
    caller: Caller,
    idempotency: Option<Idempotency>,
    command: Command,
) -> ApiResult<(HeaderMap, Json<Peer>)> {
    let outcome = ask(handle, caller, idempotency, command).await?;
    // A repeated answer is the same for all requests about peers; this one never had secrets.
    let (Outcome::Peer(record) | Outcome::PeerWithSecrets(record, None)) = outcome else {
        return Err(unexpected(&outcome));
    };
    let shown = as_shown(handle, &record);
    Ok((with_etag(record.revision), Json(shown)))
}

/// Remove a peer. Its address rests before another gets it.
#[utoipa::path(delete, path = "/v1/peers/{id}", tag = "peers", operation_id = "delete_peer",
    params(("id" = Uuid, Path, description = "Identifier of the peer."),
        ("If-Match" = String, Header, description = "The ETag of what is to be removed, or `*`.")),
    responses((status = 204, description = "It is gone."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It belongs to the file."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It has changed since."),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "`If-Match` is missing."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn delete<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    caller.require(Scope::PeersWrite)?;
    let command = Command::DeletePeer(id, precondition(Some(if_match)));
    ask(&handle, caller, None, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a peer another key.
///
/// Both keys work until the new one is used for the first time, or the overlap is over; not a packet is lost.
#[utoipa::path(post, path = "/v1/peers/{id}/rotate", tag = "peers", operation_id = "rotate_peer", request_body = RotatePeer,
    params(("id" = Uuid, Path, description = "Identifier of the peer."),
        ("If-Match" = Option<String>, Header, description = "The ETag of what is to be changed."),
        ("Idempotency-Key" = Option<String>, Header, description = "The same answer, without its secrets, for the same request within 24 hours.")),
    responses((status = 200, body = PeerWithSecrets, headers(("ETag" = String))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It belongs to the file, or the key to another."),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "It has changed since."),
        (status = 507, body = Problem, content_type = "application/problem+json", description = "No space is left; nothing was changed.")))]
pub(super) async fn rotate<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    OptionalIfMatch(if_match): OptionalIfMatch,
    key: IdempotencyKey,
    ApiJson(body): ApiJson<RotatePeer>,
) -> ApiResult<(HeaderMap, Json<PeerWithSecrets>)> {
    caller.require(Scope::PeersWrite)?;
    let idempotency = idempotency(key, &caller, &body);
    let command = Command::RotatePeer(id, precondition(if_match), body);
    let outcome = ask(&handle, caller, idempotency, command).await?;
    let Outcome::PeerWithSecrets(record, secrets) = outcome else {
        return Err(unexpected(&outcome));
    };
    let told = with_secrets(&handle, &record, secrets);
    Ok((with_etag(record.revision), Json(told)))
}

/// The client's configuration in the format of `wg-quick`, without its secrets, which are not kept.
#[utoipa::path(get, path = "/v1/peers/{id}/config", tag = "peers", operation_id = "peer_config",
    params(("id" = Uuid, Path, description = "Identifier of the peer.")),
    responses((status = 200, body = ClientConfig),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer.")))]
pub(super) async fn config<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
) -> ApiResult<Json<ClientConfig>> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let peer = find(&handle, &view, id)?;
    let secrets = client_config::Secrets {
        private_key: None,
        preshared_key: Preshared::of(None, peer.has_preshared_key),
    };
    let config = config_text(&view, &peer, secrets);
    Ok(Json(ClientConfig { config }))
}

/// The client's configuration with secrets that the caller brings. They are checked and not kept.
#[utoipa::path(post, path = "/v1/peers/{id}/config", tag = "peers", operation_id = "fill_peer_config", request_body = ConfigSecrets,
    params(("id" = Uuid, Path, description = "Identifier of the peer.")),
    responses((status = 200, body = ClientConfig),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer.")))]
pub(super) async fn fill_config<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    ApiJson(body): ApiJson<ConfigSecrets>,
) -> ApiResult<Json<ClientConfig>> {
    caller.require(Scope::Read)?;
    filled(&handle, id, &body).map(|config| Json(ClientConfig { config }))
}

/// The client's configuration as a QR code that the WireGuard app scans, with secrets that the caller brings.
#[utoipa::path(post, path = "/v1/peers/{id}/qr", tag = "peers", operation_id = "peer_qr", request_body = ConfigSecrets,
    params(("id" = Uuid, Path, description = "Identifier of the peer.")),
    responses((status = 200, body = String, content_type = "image/svg+xml"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such peer.")))]
pub(super) async fn qr<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    ApiPath(id): ApiPath<Uuid>,
    ApiJson(body): ApiJson<ConfigSecrets>,
) -> ApiResult<Response> {
    caller.require(Scope::Read)?;
    let text = filled(&handle, id, &body)?;
    let code = QrCode::new(&text).map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too_long_for_qr",
            format!("the configuration does not fit into a QR code: {error}"),
        )
    })?;
    let image = code
        .render::<svg::Color<'_>>()
        .min_dimensions(256, 256)
        .build();
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], image).into_response())
}

fn filled<S: Store>(handle: &Handle<S>, id: Uuid, body: &ConfigSecrets) -> ApiResult<String> {
    let view = handle.shared.view();
    let peer = find(handle, &view, id)?;
    let record = view.peers.get(&id).map(AsRef::as_ref);
    let errors = wrong_secrets(&peer, record, body);
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let is_there = match (record, &body.private_key) {
        (Some(record), Some(key)) => keys_of(record, Some(key)).any(|(_, key)| key.is_some()),
        (_, _) => peer.has_preshared_key,
    };
    let secrets = client_config::Secrets {
        private_key: body.private_key.as_deref(),
        preshared_key: Preshared::of(body.preshared_key.as_deref(), is_there),
    };
    Ok(config_text(&view, &peer, secrets))
}

/// What the caller brings that is not the peer's. `record` is none for a peer of the file, whose preshared key is not known
/// here: of that only the form is checked.
fn wrong_secrets(
    peer: &Peer,
    record: Option<&PeerRecord>,
    body: &ConfigSecrets,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut refuse = |pointer: &str, detail: &str| {
        errors.push(FieldError {
            pointer: pointer.to_owned(),
            detail: detail.to_owned(),
        });
    };
    let private_key = body.private_key.as_deref();
    if let Some(key) = private_key {
        let public = public_of(key).map(|key| key.to_string());
        let next = peer.rotation.as_ref().map(|next| &next.public_key);
        if public.is_none_or(|key| key != peer.public_key && Some(&key) != next) {
            refuse(
                "/private_key",
                "is not the private key of this peer's public key",
            );
        }
    }
    if let Some(text) = &body.preshared_key {
        let is_its_own = |key: &PresharedKey| match record {
            Some(record) => keys_of(record, private_key)
                .filter_map(|(_, theirs)| theirs)
                .any(|theirs| bool::from(theirs.as_bytes().ct_eq(key.as_bytes()))),
            None => peer.has_preshared_key,
        };
        match text.parse::<PresharedKey>() {
            Err(_) => refuse("/preshared_key", "not 32 bytes as 44 characters of base64"),
            Ok(key) if !is_its_own(&key) => {
                refuse("/preshared_key", "is not the preshared key of this peer");
            }
            Ok(_) => {}
        }
    }
    errors
}

/// The keys of a peer, the one that comes too, each with the preshared key that goes with it; only the one with this private
/// key, when that is one of them.
fn keys_of<'a>(
    record: &'a PeerRecord,
    private_key: Option<&str>,
) -> impl Iterator<Item = (&'a PublicKey, Option<&'a PresharedKey>)> {
    let present = (&record.public_key, record.preshared_key.as_ref());
    let next = record.rotation.as_ref();
    let next = next.map(|next| (&next.public_key, next.preshared_key.as_ref()));
    let known = private_key.and_then(public_of);
    let known = known.filter(|key| present.0 == key || next.is_some_and(|next| next.0 == key));
    let keys = std::iter::once(present).chain(next);
    keys.filter(move |(key, _)| known.is_none_or(|known| **key == known))
}

fn public_of(private_key: &str) -> Option<PublicKey> {
    let key = private_key.parse::<PrivateKey>().ok()?;
    Some(key.public_key())
}

fn find<S: Store>(handle: &Handle<S>, view: &View, id: Uuid) -> ApiResult<Peer> {
    let peer = view.peer(id, handle.shared.live(), Timestamp::now());
    peer.ok_or_else(|| ApiError::not_found("peer"))
}

fn as_shown<S: Store>(handle: &Handle<S>, record: &Arc<PeerRecord>) -> Peer {
    let live = handle.shared.live()(record.id);
    handle
        .shared
        .view()
        .api_peer(record, live, Timestamp::now())
}

fn with_secrets<S: Store>(
    handle: &Handle<S>,
    record: &Arc<PeerRecord>,
    secrets: Option<NewSecrets>,
) -> PeerWithSecrets {
    let peer = as_shown(handle, record);
    let secrets = secrets.map(|new| Secrets {
        private_key: new.private_key.map(|key| key.to_base64().to_string()),
        preshared_key: new.preshared_key.map(|key| key.to_base64().to_string()),
    });
    // Of the key that was told: after a rotation that is the next one.
    let preshared_key = match &record.rotation {
        Some(next) => &next.preshared_key,
        None => &record.preshared_key,
    };
    let told = secrets.as_ref().and_then(|s| s.preshared_key.as_deref());
    let known = client_config::Secrets {
        private_key: secrets.as_ref().and_then(|s| s.private_key.as_deref()),
        preshared_key: Preshared::of(told, preshared_key.is_some()),
    };
    let config = config_text(&handle.shared.view(), &peer, known);
    PeerWithSecrets {
        peer,
        secrets,
        config,
    }
}

fn config_text(view: &View, peer: &Peer, secrets: client_config::Secrets<'_>) -> String {
    match &view.own_key {
        Some(key) => client_config::text(&view.config, key, peer, secrets),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use shared::api::peer::Connection;

    use super::*;
    use crate::store::RotationRecord;

    const KEYS: [u8; 3] = [1, 2, 3];

    fn private(salt: u8) -> PrivateKey {
        PrivateKey::from_bytes([salt; 32])
    }

    fn preshared(salt: u8) -> PresharedKey {
        PresharedKey::from_bytes([salt; 32])
    }

    /// Keys 1 with preshared key 1, and 2 with preshared key 2 or none to come.
    fn record(next_has_one: bool) -> PeerRecord {
        PeerRecord {
            id: Uuid::from_u128(7),
            revision: 1,
            name: "alice".to_owned(),
            public_key: private(1).public_key(),
            preshared_key: Some(preshared(1)),
            addresses: vec!["10.17.0.9".parse().unwrap()],
            networks: Vec::new(),
            role: None,
            enabled: true,
            expires_at: None,
            quota_bytes: None,
            labels: std::collections::BTreeMap::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            rotation: Some(RotationRecord {
                public_key: private(2).public_key(),
                preshared_key: next_has_one.then(|| preshared(2)),
                until: Timestamp::MAX,
            }),
        }
    }

    /// Fields that are refused.
    fn wrong(next_has_one: bool, private_key: Option<u8>, psk: u8) -> Vec<String> {
        let record = record(next_has_one);
        let peer = Peer {
            id: record.id,
            name: record.name.clone(),
            managed_by: ManagedBy::Api,
            public_key: record.public_key.to_string(),
            has_preshared_key: true,
            addresses: record.addresses.clone(),
            networks: Vec::new(),
            role: None,
            enabled: true,
            expires_at: None,
            quota_bytes: None,
            labels: record.labels.clone(),
            created_at: None,
            updated_at: None,
            rotation: record
                .rotation
                .as_ref()
                .map(|next| shared::api::peer::Rotation {
                    public_key: next.public_key.to_string(),
                    until: next.until,
                }),
            state: PeerState::Active,
            problems: Vec::new(),
            connection: Connection {
                online: false,
                endpoint: None,
                latest_handshake_at: None,
            },
            usage: shared::api::peer::Usage {
                rx_bytes: 0,
                tx_bytes: 0,
                quota_used_bytes: 0,
                counted_since: None,
            },
        };
        let body = ConfigSecrets {
            private_key: private_key.map(|salt| private(salt).to_base64().to_string()),
            preshared_key: Some(preshared(psk).to_base64().to_string()),
        };
        let errors = wrong_secrets(&peer, Some(&record), &body);
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn secrets_belong_to_the_peer_and_to_each_other() {
        let none: [&str; 0] = [];
        assert_eq!(wrong(true, Some(1), 1), none);
        assert_eq!(wrong(true, Some(2), 2), none);
        assert_eq!(wrong(true, Some(1), 2), ["/preshared_key"]);
        assert_eq!(wrong(true, Some(2), 1), ["/preshared_key"]);
        assert_eq!(wrong(false, Some(2), 1), ["/preshared_key"]);
        assert_eq!(wrong(true, Some(3), 3), ["/private_key", "/preshared_key"]);
        // Without a private key it may be either.
        assert_eq!(KEYS.map(|psk| wrong(true, None, psk).len()), [0, 0, 1]);
    }
}
