//! What the configuration file says, read-only: `/v1/roles`, `/v1/lan-servers`, `/v1/publishes`.
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use shared::api::Page;
use shared::api::policy::{LanServer, Publish, Role};
use shared::api::scope::Scope;
use shared::config::common::{PortMap, Sources};
use shared::config::gateway;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::problem::ApiResult;
use shared_daemon::status::Reporter;

use crate::members::joined;
use crate::peers::Handle;
use crate::store::{LanServerRecord, Store};

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
    let role = |role: &gateway::Role| Role {
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
    let joined: BTreeMap<&str, &LanServerRecord> = joined(&view.config, &view.lan_servers)
        .map(|(lan, record)| (lan.name.as_str(), record))
        .collect();
    let lan_server = |lan: &gateway::LanServerPeer| {
        let joined = joined.get(lan.name.as_str());
        let key = lan.public_key.or(joined.map(|joined| joined.public_key));
        LanServer {
            name: lan.name.clone(),
            public_key: key.map(|key| key.to_string()),
            joined_at: joined.map(|joined| joined.joined_at),
            addresses: lan.addresses.clone(),
            networks: lan.networks.iter().map(ToString::to_string).collect(),
        }
    };
    Ok(Json(whole(view.config.lan_servers.iter().map(lan_server))))
}

/// What the file publishes, whether it answers, and how often it was called.
#[utoipa::path(get, path = "/v1/publishes", tag = "policy", operation_id = "list_publishes",
    responses((status = 200, body = Page<Publish>)))]
pub(super) async fn publishes<S: Store>(
    State(handle): State<Handle<S>>,
    Extension(reporter): Extension<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Json<Page<Publish>>> {
    caller.require(Scope::Read)?;
    let now = reporter.publishes().await;
    let probes = reporter.probes();
    let view = handle.shared.view();
    let publish = |publish: &gateway::Publish| {
        let name = &publish.name;
        // A reload may have taken another configuration since the view was made: then nothing is known yet.
        let known = now.iter().find(|known| known.name == *name);
        Publish {
            name: name.clone(),
            vip: publish.vip,
            protocol: publish.protocol.to_string(),
            ports: publish.ports.iter().copied().map(port_text).collect(),
            allow: sources_text(&publish.allow),
            source_ip: publish.source_ip.to_string(),
            connections: known.and_then(|known| known.connections),
            health: known.and_then(|known| known.health.clone()),
            probes: probes
                .iter()
                .filter(|probe| probe.publish == *name)
                .cloned()
                .collect(),
        }
    };
    Ok(Json(whole(view.config.publishes.iter().map(publish))))
}

/// As in the configuration.
fn port_text(map: PortMap) -> String {
    if map.listen == map.target {
        map.listen.to_string()
    } else {
        format!("{}:{}", map.listen, map.target)
    }
}

fn sources_text(sources: &Sources) -> Vec<String> {
    match sources {
        Sources::Any => vec!["any".to_owned()],
        Sources::Listed { sets, networks } => {
            let networks = networks.iter().map(ToString::to_string);
            sets.iter().cloned().chain(networks).collect()
        }
    }
}

fn whole<T>(items: impl Iterator<Item = T>) -> Page<T> {
    Page {
        items: items.collect(),
        next_cursor: None,
    }
}
