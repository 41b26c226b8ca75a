//! What the configuration file says, read-only: `/v1/roles`, `/v1/lan-servers`.
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use shared::api::Page;
use shared::api::policy::{LanServer, Role};
use shared::api::scope::Scope;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::problem::ApiResult;

use crate::peers::Handle;
use crate::store::Store;

/// Roles of the file, with the number of peers that have them.
#[utoipa::path(get, path = "/v1/roles", tag = "policy", operation_id = "list_roles",
    responses((status = 200, body = Page<Role>)))]
pub(super) async fn roles<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
) -> ApiResult<Json<Page<Role>>> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let peers = view.all(handle.shared.live(), Timestamp::now());
    let role = |role: &shared::config::gateway::Role| Role {
        name: role.name.clone(),
        allow: role.allow.iter().map(ToString::to_string).collect(),
        peers: peers
            .iter()
            .filter(|peer| peer.role.as_ref() == Some(&role.name))
            .count(),
    };
    Ok(Json(whole(view.config.roles.iter().map(role))))
}

/// Hosts that bring LAN networks.
#[utoipa::path(get, path = "/v1/lan-servers", tag = "policy", operation_id = "list_lan_servers",
    responses((status = 200, body = Page<LanServer>)))]
pub(super) async fn lan_servers<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
) -> ApiResult<Json<Page<LanServer>>> {
    caller.require(Scope::Read)?;
    let view = handle.shared.view();
    let lan_server = |lan: &shared::config::gateway::LanServerPeer| LanServer {
        name: lan.name.clone(),
        public_key: lan.public_key.to_string(),
        addresses: lan.addresses.clone(),
        networks: lan.networks.iter().map(ToString::to_string).collect(),
    };
    Ok(Json(whole(view.config.lan_servers.iter().map(lan_server))))
}

fn whole<T>(items: impl Iterator<Item = T>) -> Page<T> {
    Page {
        items: items.collect(),
        next_cursor: None,
    }
}
