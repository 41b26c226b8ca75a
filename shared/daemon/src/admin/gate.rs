//! What every request passes before a handler sees it: who sends it, whether it came by the right name and from the right
//! page, and whether there are too many of them.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use shared::api::audit::AuditRequest;
use shared_os::process;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::actor::{Actor, Caller};
use super::problem::{ApiError, ApiResult};

/// Bad tokens within [`LOCK_OUT`] from one address after which it is locked out.
const MAX_BAD_TOKENS: u32 = 10;
/// How long bad tokens count, and how long a lock-out lasts.
const LOCK_OUT: Duration = Duration::from_secs(60);
/// Most addresses whose bad tokens are counted; who comes from more of them finds the oldest forgotten.
const MAX_ADDRESSES: usize = 4096;
/// Requests per second that a token may send for long.
const RATE_PER_SECOND: u32 = 2000;
/// Requests that a token may send at once.
const RATE_BURST: u32 = 4000;

/// Who knows tokens.
pub trait Authenticator: Send + Sync {
    /// The bearer of this token; `None` when there is no such token or its time is up. Takes the same time for every
    /// wrong secret.
    fn authenticate(&self, id: &str, secret: &str) -> Option<Actor>;
}

/// Nobody has a token.
#[derive(Debug, Clone, Copy)]
pub struct NoTokens;

impl Authenticator for NoTokens {
    fn authenticate(&self, _: &str, _: &str) -> Option<Actor> {
        None
    }
}

/// Where a connection came from; the server puts it into each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// By the unix socket: the process at the other end, as the kernel names it.
    Unix {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Process; 0 when it is not known.
        pid: i32,
    },
    /// By TCP.
    Tcp(SocketAddr),
}

/// The gate of a listener.
pub struct Gate {
    authenticator: Arc<dyn Authenticator>,
    /// The TCP address that is listened on; `None` for the unix socket.
    listen: Option<SocketAddr>,
    /// Whether TCP callers need a token.
    tokens: bool,
    /// Who we are.
    own_uid: u32,
    bad_tokens: Mutex<BTreeMap<IpAddr, BadTokens>>,
    rates: Mutex<BTreeMap<String, Bucket>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct BadTokens {
    count: u32,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Gate {
    /// For the unix socket: root and the daemon's own user are trusted.
    pub fn unix() -> Self {
        Self::new(Arc::new(NoTokens), None, false)
    }

    /// For a TCP listener.
    pub fn tcp(authenticator: Arc<dyn Authenticator>, listen: SocketAddr, tokens: bool) -> Self {
        Self::new(authenticator, Some(listen), tokens)
    }

    fn new(
        authenticator: Arc<dyn Authenticator>,
        listen: Option<SocketAddr>,
        tokens: bool,
    ) -> Self {
        Self {
            authenticator,
            listen,
            tokens,
            own_uid: process::effective_user(),
            bad_tokens: Mutex::default(),
            rates: Mutex::default(),
        }
    }

    /// The actor, if the request may go on.
    fn admit(&self, peer: Peer, parts: &Request, now: Instant) -> ApiResult<Actor> {
        let headers = parts.headers();
        self.check_host(headers, parts.uri().host())?;
        check_origin(headers)?;
        match peer {
            // The socket's mode says the same; this also holds when somebody has changed that.
            Peer::Unix { uid, gid, pid } if uid == 0 || uid == self.own_uid => {
                Ok(Actor::Unix { uid, gid, pid })
            }
            Peer::Unix { uid, .. } => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "foreign_user",
                format!("user {uid} may not manage this daemon"),
            )
            .with_hint("call as root or as the daemon's user, or over TCP with a token")),
            Peer::Tcp(address) if !self.tokens => Ok(Actor::Tunnel(address)),
            // What a load balancer or a monitor asks needs no secret, and says none.
            Peer::Tcp(address) if matches!(parts.uri().path(), "/healthz" | "/readyz") => {
                Ok(Actor::Tunnel(address))
            }
            Peer::Tcp(address) => self.authenticate(address.ip(), headers, now),
        }
    }

    /// A page of the web can make a browser send requests here under a name of its own (DNS rebinding): only our address
    /// is our name.
    fn check_host(&self, headers: &HeaderMap, uri_host: Option<&str>) -> ApiResult<()> {
        let Some(listen) = self.listen else {
            return Ok(()); // a browser does not reach a unix socket
        };
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.or(uri_host).unwrap_or_default();
        let address = host.parse::<SocketAddr>().ok();
        let address = address.map(|address| address.ip()).or_else(|| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.parse::<IpAddr>().ok()
        });
        if address == Some(listen.ip()) && headers.get_all(header::HOST).iter().count() <= 1 {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong_host",
            "this is not the host that the request was sent to",
        )
        .with_hint(format!("use http://{listen}/")))
    }

    /// Whether who was answered may send more by the same connection. Who has shown no token gets one answer: to hold
    /// connections open is for those who may come in.
    fn may_stay(&self, peer: Option<Peer>, admitted: &ApiResult<Actor>) -> bool {
        match (peer, admitted) {
            (Some(Peer::Tcp(_)), Ok(Actor::Token { .. })) => true,
            (Some(Peer::Tcp(_)), _) => !self.tokens,
            (Some(Peer::Unix { .. }) | None, _) => true,
        }
    }

    fn authenticate(&self, from: IpAddr, headers: &HeaderMap, now: Instant) -> ApiResult<Actor> {
        self.check_lock_out(from, now)?;
        let Some(sent) = headers.get(header::AUTHORIZATION) else {
            return Err(ApiError::unauthorized("a token is needed"));
        };
        let actor =
            token_of(sent).and_then(|(id, secret)| self.authenticator.authenticate(id, secret));
        let Some(actor) = actor else {
            self.note_bad_token(from, now);
            return Err(ApiError::unauthorized("this token is not valid"));
        };
        if let Actor::Token { id, .. } = &actor {
            self.check_rate(id, now)?;
        }
        Ok(actor)
    }

    fn check_lock_out(&self, from: IpAddr, now: Instant) -> ApiResult<()> {
        let bad = lock(&self.bad_tokens).get(&from).copied();
        match bad {
            Some(bad) if bad.count >= MAX_BAD_TOKENS && now < bad.since + LOCK_OUT => {
                let left = (bad.since + LOCK_OUT).saturating_duration_since(now);
                Err(ApiError::too_many(
                    "locked_out",
                    "too many bad tokens came from this address",
                    left.as_secs() + 1,
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn note_bad_token(&self, from: IpAddr, now: Instant) {
        let mut all = lock(&self.bad_tokens);
        all.retain(|_, bad| now < bad.since + LOCK_OUT);
        if all.len() >= MAX_ADDRESSES && !all.contains_key(&from) {
            let oldest = all.iter().min_by_key(|(_, bad)| bad.since);
            if let Some(oldest) = oldest.map(|(&address, _)| address) {
                all.remove(&oldest);
            }
        }
        let bad = all.entry(from).or_insert(BadTokens {
            count: 0,
            since: now,
        });
        bad.count += 1;
        if bad.count == MAX_BAD_TOKENS {
            // The lock-out counts from its last cause.
            bad.since = now;
            warn!(%from, "locked out after {MAX_BAD_TOKENS} bad tokens");
        }
    }

    fn check_rate(&self, token: &str, now: Instant) -> ApiResult<()> {
        let mut buckets = lock(&self.rates);
        // Full buckets need no memory.
        let is_full = |bucket: &Bucket| refilled(bucket, now) >= f64::from(RATE_BURST);
        buckets.retain(|id, bucket| id == token || !is_full(bucket));
        let bucket = buckets.entry(token.to_owned()).or_insert(Bucket {
            left: f64::from(RATE_BURST),
            at: now,
        });
        bucket.left = refilled(bucket, now).min(f64::from(RATE_BURST));
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(ApiError::too_many(
                "rate_limited",
                "this token sends too many requests",
                1,
            ));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

fn refilled(bucket: &Bucket, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
    bucket.left + passed * f64::from(RATE_PER_SECOND)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `Bearer edge_<id>_<secret>` (RFC 6750 §2.1).
fn token_of(header: &HeaderValue) -> Option<(&str, &str)> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let (id, secret) = token.trim().strip_prefix("edge_")?.split_once('_')?;
    (scheme.eq_ignore_ascii_case("bearer") && !id.is_empty() && !secret.is_empty())
        .then_some((id, secret))
}

/// No page of the web has business here: there is none of ours.
fn check_origin(headers: &HeaderMap) -> ApiResult<()> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let site = headers.get(SITE).map(HeaderValue::as_bytes);
    let foreign_site = site.is_some_and(|site| site != b"none" && site != b"same-origin");
    if headers.contains_key(header::ORIGIN) || foreign_site {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "cross_origin",
            "requests of web pages are refused",
        ));
    }
    Ok(())
}

/// The middleware.
pub async fn pass(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    let id = Uuid::now_v7().to_string();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let started = Instant::now();
    let peer = request.extensions().get::<Peer>().copied();
    let admitted = match peer {
        Some(peer) => gate.admit(peer, &request, started),
        None => Err(ApiError::internal()),
    };
    let may_stay = gate.may_stay(peer, &admitted);
    let (mut response, actor) = match admitted {
        Ok(actor) => {
            let name = actor.to_string();
            request.extensions_mut().insert(Caller {
                actor,
                request: AuditRequest {
                    id: id.clone(),
                    method: method.to_string(),
                    path: path.clone(),
                    remote: match peer {
                        Some(Peer::Tcp(address)) => Some(address.to_string()),
                        Some(Peer::Unix { .. }) | None => None,
                    },
                },
            });
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
            (answer.unwrap_or_else(super::panicked), name)
        }
        Err(error) => (error.into_response(), "nobody".to_owned()),
    };
    let status = response.status().as_u16();
    let millis = started.elapsed().as_millis();
    if method == Method::GET || method == Method::HEAD {
        debug!(%method, path, status, millis, actor, id, "request");
    } else {
        info!(%method, path, status, millis, actor, id, "request");
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if !may_stay {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
