//! One HTTPS request for a list. Nothing that a server does makes it last longer, take more memory or go elsewhere.
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use shared::cloudflare::LONGEST_TEXT;
use shared::config::ListUrl;
use shared::config::common::Endpoint;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{NoTrust, roots_of_system};

/// For all of it: name, connection, handshake, answer to its last byte.
const TIMEOUT: Duration = Duration::from_secs(20);

/// For the connection to one of several addresses: one family may lead nowhere.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    NoTrust(#[from] NoTrust),
    #[error("the name can't be resolved: {0}")]
    Resolve(#[source] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("no connection to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("the host is no name that a certificate can be for: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no TLS connection: {0}")]
    Handshake(#[source] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("no request can be made of this URL: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the server sends elsewhere ({0}); write the URL that holds the list")]
    Redirect(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the answer is longer than {LONGEST_TEXT} bytes")]
    TooLong,
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    #[error("the answer is no text")]
    NoText,
}

/// TLS with servers whom this host trusts.
pub(super) async fn trust_of_system() -> Result<Arc<ClientConfig>, FetchError> {
    trust(roots_of_system().await?)
}

/// TLS 1.2 or 1.3 with servers whom one of `roots` has signed.
pub(super) fn trust(roots: RootCertStore) -> Result<Arc<ClientConfig>, FetchError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The text behind a URL.
pub(super) async fn fetch(
    url: &ListUrl,
    user_agent: &str,
    trust: Arc<ClientConfig>,
) -> Result<String, FetchError> {
    let fetched = tokio::time::timeout(TIMEOUT, ask(url, user_agent, trust)).await;
    fetched.unwrap_or(Err(FetchError::Timeout))
}

async fn ask(
    url: &ListUrl,
    user_agent: &str,
    trust: Arc<ClientConfig>,
) -> Result<String, FetchError> {
    let name = match &url.server {
        Endpoint::Address(socket) => ServerName::from(socket.ip()),
        Endpoint::Name { host, .. } => ServerName::try_from(host.clone())?,
    };
    let stream = connect(&url.server).await?;
    let connector = TlsConnector::from(trust);
    let stream = connector.connect(name, stream).await;
    let stream = TokioIo::new(stream.map_err(FetchError::Handshake)?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    // It ends with the sender.
    tokio::spawn(async move {
        let _ended = connection.await; // which who waits for the answer sees, too
    });
    let request = Request::get(&url.target)
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, user_agent)
        .header(header::ACCEPT, "application/json, text/plain")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status.is_redirection() {
        let target = response.headers().get(header::LOCATION);
        let target = target.and_then(|target| target.to_str().ok());
        return Err(FetchError::Redirect(shown(target.unwrap_or("nowhere"))));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    let body = Limited::new(response.into_body(), LONGEST_TEXT)
        .collect()
        .await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            FetchError::TooLong
        } else {
            FetchError::BrokenOff(crate::error::chain(error.as_ref()))
        }
    })?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| FetchError::NoText)
}

/// To the first address that takes the connection.
async fn connect(server: &Endpoint) -> Result<TcpStream, FetchError> {
    let addresses: Vec<SocketAddr> = match server {
        Endpoint::Address(address) => vec![*address],
        Endpoint::Name { host, port } => {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            found.map_err(FetchError::Resolve)?.collect()
        }
    };
    let mut failed = FetchError::NoAddress;
    for address in addresses {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let connected = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = FetchError::Connect(address, error),
        }
    }
    Err(failed)
}

/// Of a server's text as much as fits into a line of the log.
fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    text.chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect()
}

#[cfg(test)]
mod tests;
