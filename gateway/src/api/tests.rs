//! Facts about the routes: what is specified is served, what is served is specified, and what is neither is a problem.
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use shared::api::diagnosis::{Diagnosis, ProbeRequest};
use shared::api::drift::Drift;
use shared::api::plan::{Plan, PlanRequest};
use shared::api::policy::{CloudflareRanges, RangesSource};
use shared::api::probe::Probe;
use shared::api::problem::{MEDIA_TYPE, Problem};
use shared::api::status::{Publish, Status};
use shared::api::trace::Trace;
use shared::config::policy_test::{CallerName, Target};
use shared_daemon::admin::gate::{Gate, Peer};
use shared_daemon::admin::{apply, behind, router as whole_router};
use shared_daemon::apply::request;
use shared_daemon::error::Failure;
use shared_daemon::readiness::Problems;
use shared_daemon::status::Reporter;
use tower_service::Service as _;
use utoipa_axum::router::OpenApiRouter;

use super::*;
use crate::store::memory::MemoryStore;

const CONFIG: &str = r#"
[wan]
interface = "eth0"
endpoint  = "203.0.113.10:51820"

[tunnel]
address = "10.17.0.1/16"
"#;

/// Methods that a route may have.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

struct NoStatus;

impl Reporter for NoStatus {
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>> {
        Box::pin(async { Err(Failure::Other("no data plane".to_owned())) })
    }

    fn problems(&self) -> Pin<Box<dyn Future<Output = Problems> + Send + '_>> {
        Box::pin(std::future::ready(["no data plane".to_owned()].into()))
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
        _: CallerName,
        _: Target,
        _: Vec<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = Result<Trace, Failure>> + Send + '_>> {
        let nobody = Failure::Other("nobody is such a caller".to_owned());
        Box::pin(std::future::ready(Err(nobody)))
    }

    fn diagnose(
        &self,
        request: ProbeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Diagnosis, Failure>> + Send + '_>> {
        let none = request.publish.is_none();
        let none = none.then(|| shared_daemon::doctor::not_running("test", "it does not run"));
        let none = none.ok_or_else(|| Failure::Other("there is no such service".to_owned()));
        Box::pin(std::future::ready(none))
    }

    fn lately(&self) -> shared_daemon::history::Window {
        shared_daemon::history::Window::default()
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

/// What the daemon serves beside the routes that need nothing.
fn routes(handle: Handle<MemoryStore>) -> OpenApiRouter {
    let (desk, _nobody) = request::desk();
    router(handle).merge(apply::routes(desk))
}

/// The gateway's router as the unix socket serves it, with nothing behind it, and its specification.
fn gateway() -> (Router, Value) {
    let config = shared::config::gateway::Gateway::parse(CONFIG, "gateway.toml").unwrap();
    let handle = Handle::idle(MemoryStore::default(), Arc::new(config.config));
    let (router, specification) = whole_router("gateway", Arc::new(NoStatus), routes(handle));
    let specification = serde_json::to_value(&*specification).unwrap();
    (behind(Gate::unix(), router), specification)
}

async fn ask(router: &Router, method: &str, path: &str) -> Response<Body> {
    let mut request = Request::new(Body::from("{}"));
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    headers.insert(header::IF_MATCH, "*".parse().unwrap());
    let (uid, gid, pid) = (0, 0, 1);
    request
        .extensions_mut()
        .insert(Peer::Unix { uid, gid, pid });
    router.clone().call(request).await.unwrap()
}

/// The problem that an answer holds, checked against its status.
async fn problem(answer: Response<Body>) -> Problem {
    let status = answer.status();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.status, status.as_u16());
    problem
}

/// Path with identifiers → its methods.
fn specified(specification: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let id = "0d9b73b1-0a5c-4d0e-9a55-5d1f7f1c2e57";
    let paths = specification["paths"].as_object().unwrap();
    let operations = paths.iter().map(|(path, item)| {
        let keys = item
            .as_object()
            .unwrap()
            .keys()
            .map(|key| key.to_uppercase());
        let methods = keys.filter(|key| METHODS.contains(&key.as_str()));
        (path.replace("{id}", id), methods.collect())
    });
    operations.collect()
}

#[tokio::test]
async fn routes_and_specification_agree() {
    let (router, specification) = gateway();
    let specified = specified(&specification);
    let count: usize = specified.values().map(BTreeSet::len).sum();
    assert_eq!(count, 39, "{specified:#?}");
    for (path, methods) in &specified {
        for method in METHODS {
            let answer = ask(&router, method, path).await;
            let status = answer.status().as_u16();
            if methods.contains(method) {
                assert_ne!(status, 405, "{method} {path} is not served");
                if status == 404 {
                    // Of the handler, which knows no such thing; not of the router.
                    assert_eq!(problem(answer).await.code, "not_found", "{method} {path}");
                }
                continue;
            }
            assert_eq!(status, 405, "{method} {path} is served");
            let allow = answer.headers()[header::ALLOW].to_str().unwrap();
            let mut allowed: BTreeSet<_> = allow.split(',').map(str::to_owned).collect();
            allowed.remove(Method::HEAD.as_str());
            assert_eq!(&allowed, methods, "{path}");
            assert_eq!(problem(answer).await.code, "no_such_method");
        }
    }
}

#[tokio::test]
async fn what_is_not_specified_is_not_there() {
    let (router, specification) = gateway();
    let mut paths: BTreeSet<String> = ["/", "/v1", "/v1/peer", "/v1/peers/a/b/c", "/v2/peers"]
        .map(str::to_owned)
        .into();
    for path in specified(&specification).into_keys() {
        paths.insert(format!("{path}/"));
        paths.insert(format!("{path}/nothing/there"));
        paths.insert(format!("/v1{path}"));
    }
    for path in paths {
        for method in METHODS {
            let answer = ask(&router, method, &path).await;
            assert_eq!(answer.status(), 404, "{method} {path}");
            let problem = problem(answer).await;
            assert_eq!(problem.code, "no_such_path", "{method} {path}");
        }
    }
}

#[test]
fn what_is_served_is_specified() {
    let config = shared::config::gateway::Gateway::parse(CONFIG, "gateway.toml").unwrap();
    let handle = Handle::idle(MemoryStore::default(), Arc::new(config.config));
    let (router, specification) = whole_router("gateway", Arc::new(NoStatus), routes(handle));
    // Its `Debug` text is the only list of routes that axum has; its own for what is nowhere are among them.
    let text = format!("{router:?}");
    let quoted = text.split('"').skip(1).step_by(2);
    let is_ours =
        |path: &&str| path.starts_with('/') && *path != "/" && !path.contains("__private");
    let served: BTreeSet<&str> = quoted.filter(is_ours).collect();
    let specified = specification.paths.paths.keys();
    assert_eq!(served, specified.map(String::as_str).collect());
}

#[test]
fn every_specified_answer_that_is_no_success_is_a_problem() {
    let (_, specification) = gateway();
    let schema = "#/components/schemas/Problem";
    assert!(specification["components"]["schemas"]["Problem"].is_object());
    for (path, item) in specification["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with('2')));
            for (status, answer) in answers {
                let place = format!("{method} {path} {status}");
                // What the HTTP parser refuses has no body.
                let is_problem = !status.starts_with('2') && status != "431";
                let is = &answer["content"][MEDIA_TYPE]["schema"]["$ref"];
                assert_eq!(is == schema, is_problem, "{place}: {answer}");
            }
        }
    }
}

#[test]
fn documentation_names_no_operation_that_is_not_there() {
    let (_, specification) = gateway();
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let mut pages = 0;
    for page in std::fs::read_dir(docs).unwrap() {
        let page = page.unwrap().path();
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        pages += 1;
        let text = std::fs::read_to_string(&page).unwrap();
        let words: Vec<&str> = text
            .split([' ', '\n', '`', '|', '"', '\'', '(', ')'])
            .collect();
        for pair in words.windows(2) {
            let [method, path] = pair else { continue };
            if !METHODS.contains(method) || !path.starts_with("/v1/") {
                continue;
            }
            let path = path.split(['?', '#']).next().unwrap();
            let path = path.trim_end_matches(['.', ',', ';', ':']);
            let operation = &specification["paths"][path][method.to_lowercase()];
            assert!(operation.is_object(), "{}: {method} {path}", page.display());
        }
    }
    assert!(pages > 0);
}
