//! The admin API over the unix socket of the runtime directory. Only its owner may connect (mode 0600): who can open it
//! is trusted.
//!
//! Handlers never touch the kernel: they ask a [`Reporter`] what it knows.
pub mod actor;
pub mod client;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use shared::api::status::Status;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

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

/// Serve `router` until the task is aborted.
pub fn serve(listener: UnixListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "admin socket ended");
        }
    })
}

fn try_bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
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
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use shared::api::status::Interface;

    use super::*;

    /// Knows a status, or that there is none.
    struct Fake(Option<Status>);

    impl Reporter for Fake {
        fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>> {
            let status = self.0.clone();
            Box::pin(async { status.ok_or_else(|| Failure::Other("no data plane".to_owned())) })
        }
    }

    fn status(problems: &[&str]) -> Status {
        Status {
            product: "gateway".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            started_at: "2026-11-22T22:19:29Z".to_owned(),
            reported_at: "2026-11-22T22:19:30Z".to_owned(),
            ready: problems.is_empty(),
            problems: problems.iter().map(ToString::to_string).collect(),
            firewall_protected: true,
            interface: Interface {
                name: "edge0".to_owned(),
                public_key: None,
                listen_port: 51820,
                fwmark: 0,
                mtu: 1420,
                offloads: std::collections::BTreeMap::new(),
            },
            peers: Vec::new(),
            publishes: Vec::new(),
            refused_packets: std::collections::BTreeMap::new(),
            dropped_packets: std::collections::BTreeMap::new(),
            io: std::collections::BTreeMap::new(),
        }
    }

    /// Asks through a real socket, as the command line does.
    async fn get(reporter: Fake, path: &str) -> Result<String, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gateway.sock");
        let server = serve(bind(&socket).unwrap(), router(Arc::new(reporter)));
        let answer = client::get(&socket, path).await;
        server.abort();
        answer
    }

    #[tokio::test]
    async fn status_is_the_status() {
        let body = get(Fake(Some(status(&[]))), "/v1/status").await.unwrap();
        let answer: Status = serde_json::from_str(&body).unwrap();
        assert_eq!(answer, status(&[]));
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        assert_eq!(
            get(Fake(Some(status(&[]))), "/readyz").await.unwrap(),
            "ready\n"
        );
        let failure = get(Fake(Some(status(&["the table is gone"]))), "/readyz")
            .await
            .unwrap_err()
            .to_string();
        assert!(failure.contains("503"), "{failure}");
        assert!(failure.contains("the table is gone"), "{failure}");
    }

    #[tokio::test]
    async fn health_is_of_the_process_alone() {
        assert_eq!(get(Fake(None), "/healthz").await.unwrap(), "ok\n");
    }

    #[tokio::test]
    async fn errors_are_problem_documents() {
        for (reporter, path, code) in [
            (Fake(None), "/v1/status", 503),
            (Fake(Some(status(&[]))), "/nothing", 404),
        ] {
            let failure = get(reporter, path).await.unwrap_err().to_string();
            let (_, body) = failure.split_once(": ").unwrap();
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["status"], code, "{problem}");
            assert!(problem["detail"].is_string(), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_missing_daemon_has_an_exit_code_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let failure = client::get(&dir.path().join("gateway.sock"), "/v1/status")
            .await
            .unwrap_err();
        assert!(matches!(failure, Failure::NotRunning(_)), "{failure}");
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_replaces_that_of_a_dead_process() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gateway.sock");
        for _ in 0..2 {
            let server = serve(bind(&socket).unwrap(), router(Arc::new(Fake(None))));
            let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            server.abort();
        }
    }
}
