//! Facts about the router that both products have, asked through real sockets.
use std::future::Future;
use std::pin::Pin;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use shared::api::policy::RangesSource;
use shared::api::problem::Problem;
use shared::api::status::{Interface, Publish};
use shared::config::policy_test::{CallerName, Target};
use tower_service::Service as _;

use super::*;
use crate::readiness::Problems;

/// Knows a status, or that there is none.
struct Fake(Option<Status>);

impl Reporter for Fake {
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>> {
        let status = self.0.clone();
        Box::pin(async { status.ok_or_else(|| Failure::Other("no data plane".to_owned())) })
    }

    fn problems(&self) -> Pin<Box<dyn Future<Output = Problems> + Send + '_>> {
        let problems = match &self.0 {
            Some(status) => status.problems.clone(),
            None => vec!["no data plane".to_owned()],
        };
        Box::pin(std::future::ready(problems.into()))
    }

    fn publishes(&self) -> Pin<Box<dyn Future<Output = Vec<Publish>> + Send + '_>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn probes(&self) -> Vec<Probe> {
        Vec::new()
    }

    fn plan(
        &self,
        request: PlanRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Plan, Failure>> + Send + '_>> {
        let wrong = |file: PathBuf| Failure::Configuration(format!("{}:1: wrong", file.display()));
        Box::pin(std::future::ready(
            request
                .file
                .map_or_else(|| Ok(Plan::default()), |file| Err(wrong(file))),
        ))
    }

    fn trace(
        &self,
        from: CallerName,
        to: Target,
        _: Vec<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = Result<Trace, Failure>> + Send + '_>> {
        let trace = match from {
            CallerName::Address(from) => Ok(Trace {
                from,
                to: to.to_string(),
                allowed: true,
                reason: "no rule of ours stops it".to_owned(),
                steps: Vec::new(),
                not_looked_at: None,
            }),
            CallerName::Peer(_) | CallerName::Set(_) => {
                Err(Failure::Other("there is no such peer".to_owned()))
            }
        };
        Box::pin(std::future::ready(trace))
    }

    fn diagnose(
        &self,
        request: ProbeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Diagnosis, Failure>> + Send + '_>> {
        let none = request.publish.is_none();
        let none = none.then(|| crate::doctor::not_running("test", "it does not run"));
        let none = none.ok_or_else(|| Failure::Other("there is no such service".to_owned()));
        Box::pin(std::future::ready(none))
    }

    fn lately(&self) -> crate::history::Window {
        crate::history::Window::default()
    }

    fn drifts(&self) -> Vec<Drift> {
        Vec::new()
    }

    fn cloudflare_ranges(&self) -> CloudflareRanges {
        CloudflareRanges {
            networks: Vec::new(),
            source: RangesSource::File,
            as_of: None,
            leaving: Vec::new(),
            refresh: None,
        }
    }
}

pub(super) fn status(problems: &[&str]) -> Status {
    Status {
        product: "gateway".to_owned(),
        version: "0.1.0".to_owned(),
        host: "vps".to_owned(),
        pid: 1,
        started_at: "2026-11-22T22:19:29Z".to_owned(),
        reported_at: "2026-11-22T22:19:30Z".to_owned(),
        ready: problems.is_empty(),
        problems: problems.iter().map(ToString::to_string).collect(),
        warnings: Vec::new(),
        obstacles: Vec::new(),
        faults: Vec::new(),
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
        probes: Vec::new(),
        cloudflare_ranges_as_of: None,
        cloudflare_refresh: None,
        refused_packets: std::collections::BTreeMap::new(),
        dropped_packets: std::collections::BTreeMap::new(),
        handshakes: std::collections::BTreeMap::new(),
        applies: std::collections::BTreeMap::new(),
        apply: None,
        drift: shared::api::drift::DriftSummary::default(),
        conntrack: None,
        source_ports: Vec::new(),
        io: std::collections::BTreeMap::new(),
    }
}

/// The router of a daemon with this status.
pub(super) fn routes(status: Option<Status>) -> (Router, Arc<OpenApi>) {
    router("gateway", Arc::new(Fake(status)), OpenApiRouter::new())
}

/// Asks through a real socket, as the command line does.
async fn get(known: Option<Status>, path: &str) -> Result<String, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gateway.sock");
    let router = behind(Gate::unix(), routes(known).0);
    let server = server::serve_unix(bind(&socket).unwrap(), router);
    let answer = client::Client::new(socket).get(path).await;
    server.abort();
    answer.map(|answer| answer.text())
}

#[tokio::test]
async fn status_is_the_status() {
    let body = get(Some(status(&[])), "/v1/status").await.unwrap();
    let answer: Status = serde_json::from_str(&body).unwrap();
    assert_eq!(answer, status(&[]));
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    assert_eq!(get(Some(status(&[])), "/readyz").await.unwrap(), "ready\n");
    let failure = get(Some(status(&["the table is gone"])), "/readyz").await;
    let failure = failure.unwrap_err().to_string();
    assert!(failure.contains("the table is gone"), "{failure}");
}

#[tokio::test]
async fn readiness_tells_no_details_to_who_needs_no_token() {
    let listen = "10.17.0.1:8443".parse().unwrap();
    let gate = Gate::tcp(Arc::new(gate::NoTokens), listen, true);
    let mut router = behind(gate, routes(Some(status(&["the table is gone"]))).0);
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/readyz".parse().unwrap();
    let host = "10.17.0.1:8443".parse().unwrap();
    request.headers_mut().insert(header::HOST, host);
    let from = gate::Peer::Tcp("10.17.0.10:1".parse().unwrap());
    request.extensions_mut().insert(from);
    let answer = router.call(request).await.unwrap();
    assert_eq!(answer.status(), 503);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.code, "not_ready");
    assert!(!String::from_utf8_lossy(&body).contains("table"));
}

#[tokio::test]
async fn health_is_of_the_process_alone() {
    assert_eq!(get(None, "/healthz").await.unwrap(), "ok\n");
}

#[tokio::test]
async fn a_missing_daemon_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let client = client::Client::new(dir.path().join("gateway.sock"));
    let failure = client.get("/v1/status").await;
    let failure = failure.unwrap_err();
    assert!(matches!(failure, Failure::NotRunning(_)), "{failure}");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_replaces_that_of_a_dead_process() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gateway.sock");
    for _ in 0..2 {
        let server = server::serve_unix(bind(&socket).unwrap(), routes(None).0);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        server.abort();
    }
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    for (method, path, known, status_code, code) in [
        ("GET", "/v1/status", false, 503, "unavailable"),
        ("GET", "/nothing", true, 404, "no_such_path"),
        ("POST", "/v1/status", true, 405, "no_such_method"),
        ("DELETE", "/openapi.json", true, 405, "no_such_method"),
    ] {
        let status = known.then(|| status(&[]));
        let mut router = behind(Gate::unix(), routes(status).0);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        let who = gate::Peer::Unix {
            uid: 0,
            gid: 0,
            pid: 1,
        };
        request.extensions_mut().insert(who);
        let answer = router.call(request).await.unwrap();
        assert_eq!(answer.status(), status_code, "{path}");
        let kind = answer.headers()[header::CONTENT_TYPE].clone();
        assert_eq!(kind, "application/problem+json", "{path}");
        assert_eq!(
            answer.headers().contains_key(header::ALLOW),
            status_code == 405
        );
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (status_code, code));
    }
}

/// Every path that a router serves. Its `Debug` text is the only list of them that axum has; its own for what is nowhere are
/// among them.
fn served(router: &Router) -> Vec<String> {
    let text = format!("{router:?}");
    let quoted = text.split('"').skip(1).step_by(2);
    let is_ours =
        |path: &&str| path.starts_with('/') && *path != "/" && !path.contains("__private");
    let mut paths: Vec<String> = quoted.filter(is_ours).map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[test]
fn nothing_is_served_that_is_not_specified() {
    let (router, api) = routes(None);
    let specified: Vec<&String> = api.paths.paths.keys().collect();
    assert_eq!(served(&router).iter().collect::<Vec<_>>(), specified);
    let more = OpenApiRouter::new().route("/x", axum::routing::get(|| async { "" }));
    let fake = Arc::new(Fake(None));
    let (router, api) = super::router("gateway", fake, more);
    assert!(served(&router).contains(&"/x".to_owned()), "{router:?}");
    assert!(!api.paths.paths.contains_key("/x"));
}

#[test]
fn the_specification_documents_what_every_operation_may_answer() {
    let (_, api) = routes(None);
    let api = serde_json::to_value(&*api).unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/v1/status",
        "/v1/probes",
        "/v1/cloudflare/ranges",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ] {
        let answers = &api["paths"][path]["get"]["responses"];
        for status in ["200", "400", "401", "403", "421", "429", "500", "503"] {
            assert!(answers[status].is_object(), "{path} {status}");
        }
    }
    assert!(api["components"]["schemas"]["Problem"].is_object());
}
