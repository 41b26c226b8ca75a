//! TLS and HTTP with a service that took a connection.
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use shared::api::diagnosis::{Hop, HopKind, ProbeRequest, Verdict};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::{self, Worth};
use super::hop::{failed, ok, shown_as, skipped, timed, warning};
use super::visit::Target;
use crate::error::chain;
use crate::tls::{onlooker, roots_of_system};

/// Ports where TLS is expected: those that Cloudflare proxies with it
/// (<https://developers.cloudflare.com/fundamentals/reference/network-ports/>), and that of the API of Kubernetes.
const TLS_PORTS: [u16; 7] = [443, 2053, 2083, 2087, 2096, 8443, KUBERNETES];
/// Ports where HTTP is expected without it: those that Cloudflare proxies so.
const HTTP_PORTS: [u16; 7] = [80, 8080, 8880, 2052, 2082, 2086, 2095];
/// Whose certificate is for the cluster, not for the names of a website.
const KUBERNETES: u16 = 6443;

/// How long a handshake or an answer may take.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What is said on ports where nothing else is known is nothing: the service might take it for something.
pub(super) async fn hops(target: &Target, stream: TcpStream, request: &ProbeRequest) -> Vec<Hop> {
    let port = target.address.port();
    let name = request.server_name.as_deref();
    let name = name.filter(|_| port != KUBERNETES || request.publish.is_some());
    let host = host_header(target, name);
    if HTTP_PORTS.contains(&port) {
        let no_certificate = AtomicBool::new(false);
        return vec![http(target, stream, &host, &no_certificate).await];
    }
    if !TLS_PORTS.contains(&port) {
        return Vec::new();
    }
    let was_asked = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    match handshake(stream, target.address.ip(), name, &was_asked).await {
        Ok(stream) => {
            let took = began.elapsed();
            let chain = stream.get_ref().1.peer_certificates();
            let chain = chain.unwrap_or_default().to_vec();
            let tls = of_certificates(target, &chain, name).await;
            vec![
                timed(tls, took),
                http(target, stream, &host, &was_asked).await,
            ]
        }
        Err(_) if was_asked.load(Ordering::Relaxed) => {
            vec![skipped(HopKind::Tls, &target.of, WANTS_CERTIFICATE)]
        }
        Err(why) => {
            let remedy = "look at the log of the service; is its certificate in place?";
            let tls = failed(
                HopKind::Tls,
                &target.of,
                format!("no TLS handshake: {why}"),
                remedy,
            );
            vec![timed(tls, began.elapsed())]
        }
    }
}

const WANTS_CERTIFICATE: &str = "it wants a certificate of its callers, as Cloudflare's Authenticated Origin Pulls have one: from here nothing more can \
     be asked";

/// What the service is called, as a browser would.
fn host_header(target: &Target, name: Option<&str>) -> String {
    let address = target.address;
    match (name, address.port()) {
        (Some(name), _) => name.to_owned(),
        (None, 80 | 443) => match address.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
        (None, _) => address.to_string(),
    }
}

async fn handshake(
    stream: TcpStream,
    vip: IpAddr,
    name: Option<&str>,
    was_asked: &Arc<AtomicBool>,
) -> Result<TlsStream<TcpStream>, String> {
    // An address is no name that would be sent.
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?,
        None => ServerName::from(vip),
    };
    let mut config = onlooker(Arc::clone(was_asked)).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match timeout(PATIENCE, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("not finished within {} s", PATIENCE.as_secs_f32())),
    }
}

fn in_words(error: &io::Error) -> String {
    let is_garbage = error.get_ref().is_some_and(|error| {
        matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
    });
    if is_garbage {
        "the service does not speak TLS".to_owned()
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        "the service closed the connection".to_owned()
    } else {
        chain(error)
    }
}

async fn of_certificates(target: &Target, chain: &[CertificateDer<'_>], name: Option<&str>) -> Hop {
    // Of a cluster nobody expects a certificate that browsers trust.
    let roots = if target.address.port() == KUBERNETES {
        None
    } else {
        roots_of_system().await.ok()
    };
    let of = &target.of;
    match certificate::worth(chain, name, roots, SystemTime::now()) {
        Worth::Good(evidence) => ok(HopKind::Tls, of, evidence),
        Worth::NotForLong { evidence, remedy } => {
            shown_as(warning(HopKind::Tls, of, evidence, remedy), None)
        }
        Worth::NotForAll { evidence, remedy } => {
            shown_as(warning(HopKind::Tls, of, evidence, remedy), Some(526))
        }
        Worth::Bad { evidence, remedy } => {
            shown_as(failed(HopKind::Tls, of, evidence, remedy), Some(526))
        }
    }
}

async fn http<S>(target: &Target, stream: S, host: &str, was_asked: &AtomicBool) -> Hop
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let began = Instant::now();
    let asked = timeout(PATIENCE, ask(stream, host)).await;
    let of = &target.of;
    let remedy = "look at the log of the service";
    let hop = match asked {
        Ok(Ok(status)) if status.is_server_error() => {
            let evidence = format!("GET / is answered with {status}");
            let remedy = match status {
                StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {
                    "the proxy at the VIP has nobody behind it who is well: look at its backends (pods, endpoints, health checks)"
                }
                _ => remedy,
            };
            // Which Cloudflare hands on.
            shown_as(failed(HopKind::Http, of, evidence, remedy), None)
        }
        Ok(Ok(status)) => ok(
            HopKind::Http,
            of,
            format!("GET / is answered with {status}"),
        ),
        Ok(Err(_)) | Err(_) if was_asked.load(Ordering::Relaxed) => {
            skipped(HopKind::Http, of, WANTS_CERTIFICATE)
        }
        Ok(Err(why)) => failed(
            HopKind::Http,
            of,
            format!("no answer to GET /: {why}"),
            remedy,
        ),
        Err(_) => {
            let evidence = format!("no answer to GET / within {} s", PATIENCE.as_secs_f32());
            shown_as(failed(HopKind::Http, of, evidence, remedy), Some(524))
        }
    };
    if hop.verdict == Verdict::Skipped {
        hop
    } else {
        timed(hop, began.elapsed())
    }
}

/// The status of `GET /`; nothing more is read.
async fn ask<S>(stream: S, host: &str) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    let connection = tokio::spawn(connection);
    let user_agent = concat!("wg-edge-doctor/", env!("CARGO_PKG_VERSION"));
    let request = Request::get("/")
        .header(header::HOST, host)
        .header(header::USER_AGENT, user_agent)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    connection.abort();
    response
        .map(|response| response.status())
        .map_err(|error| chain(&error))
}
