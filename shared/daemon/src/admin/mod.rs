//! The admin API over the unix socket of the runtime directory. Only its owner may connect (mode 0600): who can open it
//! is trusted.
//!
//! Handlers never touch the kernel: they ask the [`App`](crate::app::App) what it knows.
pub mod client;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use shared::api::status::Status;

use crate::error::Failure;
use crate::status::Reporter;

/// Where a product's admin socket is.
pub fn socket_path(runtime_dir: &Path, product: &str) -> PathBuf {
    runtime_dir.join(format!("{product}.sock"))
}

/// The routes, testable without a socket.
pub fn router(reporter: Arc<dyn Reporter>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(reporter)
}

async fn status(State(reporter): State<Arc<dyn Reporter>>) -> Response {
    match reporter.status().await {
        Ok(status) => Json(status).into_response(),
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The kernel holds what the configuration asks for.
async fn readyz(State(reporter): State<Arc<dyn Reporter>>) -> Response {
    match reporter.status().await {
        Ok(Status { ready: true, .. }) => "ready\n".into_response(),
        Ok(Status { problems, .. }) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &problems.join("; "))
        }
        Err(failure) => problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    }
}

async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path")
}

async fn method_not_allowed() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not know this method",
    )
}

/// A problem document (RFC 9457 §3).
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

/// Serve `router` on `path` until the task is dropped. A socket that a dead process left is replaced: the caller holds
/// the instance lock, so nobody else can be listening.
pub fn serve(path: &Path, router: Router) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let listener = bind(path).map_err(|error| {
        Failure::Environment(format!(
            "can't listen on {}: {error}; is {} writable?",
            path.display(),
            path.parent().unwrap_or(path).display(),
        ))
    })?;
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "admin socket ended");
        }
    }))
}

fn bind(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // Bound under another name and moved once its mode is right: at no moment can a stranger connect.
    let unfinished = path.with_extension("sock.new");
    for old in [&unfinished, path] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let listener = tokio::net::UnixListener::bind(&unfinished)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unfinished, path)?;
    Ok(listener)
}
