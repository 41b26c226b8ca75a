//! The admin API: one router for the unix socket and, on the gateway, for TCP inside of the tunnel.
//!
//! A request's route: [`server`] takes the connection → [`gate`] knows who sends it and refuses what must not get in →
//! [`extract`] reads it → a handler → the answer, or a [`problem`]. Handlers never touch the kernel.
pub mod actor;
pub mod apply;
mod body;
pub mod client;
pub mod extract;
pub mod gate;
mod openapi;
pub mod problem;
pub mod server;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json, Router, middleware};
use rustls::pki_types::DnsName;
use shared::api::Page;
use shared::api::diagnosis::{Diagnosis, ProbeRequest};
use shared::api::drift::Drift;
use shared::api::explanation::{Explanation, OriginError};
use shared::api::plan::{Plan, PlanRequest};
use shared::api::policy::CloudflareRanges;
use shared::api::probe::Probe;
use shared::api::problem::FieldError;
use shared::api::scope::Scope;
use shared::api::status::Status;
use shared::api::trace::{Trace, TraceRequest};
use shared::config::policy_test::{CallerError, TargetError};
use tokio::net::UnixListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Failure;
use crate::metrics;
use crate::status::Reporter;
use actor::{Actor, Caller};
use extract::MAX_BODY_BYTES;
use extract::{ApiJson, ApiPath};
use gate::Gate;
use problem::{ApiError, ApiResult};

/// Where a product's admin socket is.
pub fn socket_path(runtime_dir: &Path, product: &str) -> PathBuf {
    runtime_dir.join(format!("{product}.sock"))
}

/// What the common routes know.
#[derive(Clone)]
struct Common {
    reporter: Arc<dyn Reporter>,
    /// The specification; it is made of the routes, so they are there first.
    specification: Arc<OnceLock<String>>,
}

impl FromRef<Common> for Arc<dyn Reporter> {
    fn from_ref(common: &Common) -> Self {
        Arc::clone(&common.reporter)
    }
}

/// The routes that both products have, and `more`, with their specification. Put it behind a gate ([`behind`]) before it is
/// served. Handlers of `more` get the reporter as an extension.
pub fn router(
    product: &str,
    reporter: Arc<dyn Reporter>,
    more: OpenApiRouter,
) -> (Router, Arc<OpenApi>) {
    let common = Common {
        reporter: Arc::clone(&reporter),
        specification: Arc::default(),
    };
    let routes = OpenApiRouter::with_openapi(openapi::base(product))
        .routes(routes!(status))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(prometheus))
        .routes(routes!(probes, probe_now))
        .routes(routes!(explain))
        .routes(routes!(drift))
        .routes(routes!(plan))
        .routes(routes!(trace))
        .routes(routes!(cloudflare_ranges))
        .routes(routes!(specification))
        .with_state(common.clone());
    let (router, mut api) = routes.merge(more).split_for_parts();
    openapi::complete(&mut api);
    let api = Arc::new(api);
    let _first = common.specification.set(api.to_json().unwrap_or_default());
    let router = router
        .layer(Extension(reporter))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    (router, api)
}

/// The router behind the gate of one listener.
pub fn behind(gate: Gate, router: Router) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(gate), gate::pass))
}

/// The daemon as it is.
#[utoipa::path(get, path = "/v1/status", tag = "status", operation_id = "status",
    responses((status = 200, body = Status)))]
async fn status(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Json<Status>> {
    caller.require(Scope::Read)?;
    report(&*reporter).await.map(Json)
}

async fn report(reporter: &dyn Reporter) -> ApiResult<Status> {
    let status = reporter.status().await;
    status.map_err(|failure| ApiError::unavailable(failure.to_string()))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "status", operation_id = "healthz",
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8", description = "`ok`")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// The daemon does what its configuration asks for, and that leads to a service.
///
/// The kernel holds link, addresses, routes, rules, sysctls and every rule and element of the firewall table as configured, the
/// packet worker answers, a LAN server has a session with a gateway, and of the published services that can be tried not all are down. Looked at once a second at most. Who is told what is
/// missing has called by the unix socket.
#[utoipa::path(get, path = "/readyz", tag = "status", operation_id = "readyz",
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8", description = "`ready`")))]
async fn readyz(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<&'static str> {
    let problems = reporter.problems().await;
    if problems.is_empty() {
        return Ok("ready\n");
    }
    let not_ready =
        |detail: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail);
    Err(match caller.actor {
        Actor::Unix { .. } => not_ready(problems.join("; ")),
        // No token was asked for, so nothing is told of the machine.
        Actor::Token { .. } | Actor::Tunnel(_) | Actor::Daemon => {
            not_ready("the daemon does not do what its configuration asks for, or no published service answers".to_owned())
                .with_hint("GET /v1/status says what is missing")
        }
    })
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "status", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
async fn prometheus(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Response> {
    caller.require(Scope::Read)?;
    let status = report(&*reporter).await?;
    let text = metrics::text(&status, &metrics::Process::of_self());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text).into_response())
}

/// Whether published services answer: the latest attempt to open a connection to each of their TCP ports, the first four of a
/// service. They are tried every ten seconds, and every two while they don't answer.
#[utoipa::path(get, path = "/v1/probes", tag = "status", operation_id = "list_probes",
    responses((status = 200, body = Page<Probe>)))]
async fn probes(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Json<Page<Probe>>> {
    caller.require(Scope::Read)?;
    Ok(Json(Page {
        items: reporter.probes(),
        next_cursor: None,
    }))
}

/// Look at every hop of every published path now, in the order in which a visitor's packets take them, and try those that can be
/// tried; takes up to five seconds. Changes nothing.
///
/// The services are called as by a visitor: a connection, TLS where it is expected (ports that Cloudflare proxies with it, and
/// 6443), `GET /` there and on the ports that Cloudflare proxies without.
#[utoipa::path(post, path = "/v1/probes", tag = "status", operation_id = "probe_now", request_body = ProbeRequest,
    responses((status = 200, body = Diagnosis), (status = 422, body = shared::api::problem::Problem,
        description = "There is no such service, or the name is none", content_type = "application/problem+json")))]
async fn probe_now(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
    ApiJson(request): ApiJson<ProbeRequest>,
) -> ApiResult<Json<Diagnosis>> {
    caller.require(Scope::Read)?;
    let wrong = |pointer: &str, detail: String| {
        ApiError::invalid(vec![FieldError {
            pointer: pointer.to_owned(),
            detail,
        }])
    };
    if let Some(name) = &request.server_name {
        if DnsName::try_from(name.as_str()).is_err() {
            let detail = format!("\"{name}\" is not the name of a host");
            return Err(wrong("/server_name", detail));
        }
    }
    match reporter.diagnose(request).await {
        Ok(diagnosis) => Ok(Json(diagnosis)),
        Err(Failure::Other(detail)) => Err(wrong("/publish", detail)),
        Err(failure) => Err(ApiError::unavailable(failure.to_string())),
    }
}

/// What an error that Cloudflare shows to visitors (520 to 526) most likely comes from: what is broken now, for which every hop is
/// looked at as by `POST /v1/probes`, what was seen in the last minutes, and what can't be seen from here.
#[utoipa::path(get, path = "/v1/explain/{error}", tag = "status", operation_id = "explain",
    params(("error" = OriginError, Path, description = "As Cloudflare shows it.")),
    responses((status = 200, body = Explanation), (status = 404, body = shared::api::problem::Problem,
        description = "It is none of these errors", content_type = "application/problem+json")))]
async fn explain(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
    ApiPath(error): ApiPath<OriginError>,
) -> ApiResult<Json<Explanation>> {
    caller.require(Scope::Read)?;
    let diagnosis = reporter.diagnose(ProbeRequest::default()).await;
    let diagnosis = diagnosis.map_err(|failure| ApiError::unavailable(failure.to_string()))?;
    Ok(Json(crate::explain::explain(
        error,
        &diagnosis,
        &reporter.lately(),
    )))
}

/// What others have changed in the kernel and what became of it: the latest hundred, the newest first.
///
/// Links, addresses, routes and rules are put right as the kernel tells of them, sysctls within a second or two, the firewall table
/// likewise where the kernel can't protect it. Five attempts within a minute at the same thing are the most.
#[utoipa::path(get, path = "/v1/drift", tag = "status", operation_id = "list_drift",
    responses((status = 200, body = Page<Drift>)))]
async fn drift(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Json<Page<Drift>>> {
    caller.require(Scope::Read)?;
    Ok(Json(Page {
        items: reporter.drifts(),
        next_cursor: None,
    }))
}

/// What a reload would do: how what is live differs from what the configuration file asks for now. Changes nothing.
#[utoipa::path(post, path = "/v1/plan", tag = "status", operation_id = "plan", request_body = PlanRequest,
    responses((status = 200, body = Plan), (status = 422, body = shared::api::problem::Problem,
        description = "The file is wrong", content_type = "application/problem+json")))]
async fn plan(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
    ApiJson(request): ApiJson<PlanRequest>,
) -> ApiResult<Json<Plan>> {
    caller.require(Scope::Read)?;
    if request.file.is_some() || !request.lan_server_files.is_empty() {
        may_name_files(&caller)?;
    }
    match reporter.plan(request).await {
        Ok(plan) => Ok(Json(plan)),
        Err(Failure::Configuration(errors)) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "configuration_invalid",
            errors,
        )),
        Err(failure) => Err(ApiError::unavailable(failure.to_string())),
    }
}

/// The way of a call through the rules that run, simulated: every rule that matches, on both ends, there and back. Nothing is
/// sent.
#[utoipa::path(post, path = "/v1/trace", tag = "status", operation_id = "trace", request_body = TraceRequest,
    responses((status = 200, body = Trace), (status = 422, body = shared::api::problem::Problem,
        description = "Nobody is such a caller, or the file is wrong", content_type = "application/problem+json")))]
async fn trace(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
    ApiJson(request): ApiJson<TraceRequest>,
) -> ApiResult<Json<Trace>> {
    caller.require(Scope::Read)?;
    if !request.lan_server_files.is_empty() {
        may_name_files(&caller)?;
    }
    let wrong = |pointer: &str, detail: String| FieldError {
        pointer: pointer.to_owned(),
        detail,
    };
    let from = request.from.parse();
    let from = from.map_err(|error: CallerError| wrong("/from", error.to_string()));
    let to = request.to.parse();
    let to = to.map_err(|error: TargetError| wrong("/to", error.to_string()));
    let (from, to) = match (from, to) {
        (Ok(from), Ok(to)) => (from, to),
        (from, to) => {
            let errors = [from.err(), to.err()].into_iter().flatten();
            return Err(ApiError::invalid(errors.collect()));
        }
    };
    match reporter.trace(from, to, request.lan_server_files).await {
        Ok(trace) => Ok(Json(trace)),
        Err(Failure::Configuration(errors)) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "configuration_invalid",
            errors,
        )),
        Err(failure) => Err(ApiError::invalid(vec![wrong("/from", failure.to_string())])),
    }
}

/// What the daemon may read, not everybody who may ask it may.
fn may_name_files(caller: &Caller) -> ApiResult<()> {
    if matches!(caller.actor, Actor::Unix { .. }) {
        Ok(())
    } else {
        Err(ApiError::file_not_allowed())
    }
}

/// The networks that the set `cloudflare` stands for.
#[utoipa::path(get, path = "/v1/cloudflare/ranges", tag = "policy", operation_id = "cloudflare_ranges",
    responses((status = 200, body = CloudflareRanges)))]
async fn cloudflare_ranges(
    State(reporter): State<Arc<dyn Reporter>>,
    caller: Caller,
) -> ApiResult<Json<CloudflareRanges>> {
    caller.require(Scope::Read)?;
    Ok(Json(reporter.cloudflare_ranges()))
}

/// This specification.
#[utoipa::path(get, path = "/openapi.json", tag = "status", operation_id = "specification",
    responses((status = 200, body = serde_json::Value, content_type = "application/json")))]
async fn specification(State(common): State<Common>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let text = common.specification.get().cloned().unwrap_or_default();
    (kind, text).into_response()
}

async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_path",
        "there is nothing at this path",
    )
    .with_hint("GET /openapi.json says what there is")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        "this path does not know this method",
    )
}

/// What a handler that panicked answers; the panic itself is in the log.
pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::internal().into_response()
}

/// Listen on `path`. A socket that a dead process left is replaced: the caller holds the instance lock, so nobody else can
/// be listening.
pub fn bind(path: &Path) -> Result<UnixListener, Failure> {
    try_bind(path).map_err(|error| {
        Failure::Environment(format!(
            "can't listen on {}: {error}; is {} writable?",
            path.display(),
            path.parent().unwrap_or(path).display(),
        ))
    })
}

fn try_bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    // Bound under another name and moved once its mode is right: at no moment can a stranger connect.
    let unfinished = path.with_extension("sock.new");
    for old in [&unfinished, path] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let listener = UnixListener::bind(&unfinished)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unfinished, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
