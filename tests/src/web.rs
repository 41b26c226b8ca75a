//! Web servers, by HTTP and by HTTPS, that answer whatever a test tells them to.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::node::Node;
use crate::servers::Server;

/// How long a caller may take for its request, and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What callers are answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A page with this text, and status 200.
    Page(String),
    /// The same, but the connection ends before its last ten bytes.
    Truncated(String),
    /// An empty page with this status.
    Status(u16),
    /// Nothing at all, as long as the test takes.
    Nothing,
}

/// What a server shows of itself, signed by itself, with the key to it.
#[derive(Debug, Clone)]
pub struct Certificate {
    pem: String,
    tls: Arc<ServerConfig>,
}

impl Certificate {
    /// For these names and addresses, valid longer than any test takes.
    pub fn of(names: &[&str]) -> Result<Self> {
        Self::signed_by_itself(&params(names)?)
    }

    /// The same, but its time was up years ago.
    pub fn expired(names: &[&str]) -> Result<Self> {
        let mut params = params(names)?;
        params.not_after = date_time_ymd(2020, 1, 1);
        Self::signed_by_itself(&params)
    }

    fn signed_by_itself(params: &CertificateParams) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self {
            pem: certificate.pem(),
            tls: Arc::new(tls),
        })
    }

    /// Write it into `dir`, without its key, for who is to believe it.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join("https.crt");
        std::fs::write(&path, &self.pem)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn params(names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    Ok(CertificateParams::new(names)?)
}

/// A server inside a node. Stopped when dropped.
#[derive(Debug)]
pub struct WebServer {
    content: Arc<Mutex<Content>>,
    _server: Server,
}

#[derive(Debug)]
struct Content {
    /// `None`: without TLS.
    certificate: Option<Certificate>,
    answer: Answer,
}

impl WebServer {
    /// Answer HTTP callers on this address.
    pub fn http(node: &Node, address: SocketAddr, answer: Answer) -> Result<Self> {
        Self::start(node, address, None, answer)
    }

    /// Answer HTTPS callers on this address.
    pub fn https(
        node: &Node,
        address: SocketAddr,
        certificate: Certificate,
        answer: Answer,
    ) -> Result<Self> {
        Self::start(node, address, Some(certificate), answer)
    }

    fn start(
        node: &Node,
        address: SocketAddr,
        certificate: Option<Certificate>,
        answer: Answer,
    ) -> Result<Self> {
        let content = Arc::new(Mutex::new(Content {
            certificate,
            answer,
        }));
        let of_server = Arc::clone(&content);
        // A caller that goes away in the middle is part of the tests.
        let server = Server::tcp_by(node, address, move |stream, _| {
            drop(converse(stream, &of_server));
        })?;
        Ok(Self {
            content,
            _server: server,
        })
    }

    /// What the next callers are answered.
    pub fn answer(&self, answer: Answer) {
        lock(&self.content).answer = answer;
    }

    /// What the next callers of HTTPS are shown.
    pub fn certify(&self, certificate: Certificate) {
        lock(&self.content).certificate = Some(certificate);
    }
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(mut stream: TcpStream, content: &Mutex<Content>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let certificate = lock(content).certificate.clone();
    let Some(certificate) = certificate else {
        return serve(&mut stream, content);
    };
    let mut stream = StreamOwned::new(ServerConnection::new(certificate.tls)?, stream);
    serve(&mut stream, content)?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}

/// Read one request and answer it.
fn serve(stream: &mut (impl Read + Write), content: &Mutex<Content>) -> Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let answer = lock(content).answer.clone();
    let (status, page, left_out) = match answer {
        Answer::Page(page) => (200, page, 0),
        Answer::Truncated(page) => (200, page, 10),
        Answer::Status(status) => (status, String::new(), 0),
        Answer::Nothing => loop {
            thread::park();
        },
    };
    let whole = format!(
        "HTTP/1.1 {status} as told\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let end = whole.len().saturating_sub(left_out);
    stream.write_all(whole.as_bytes().get(..end).unwrap_or_default())?;
    Ok(stream.flush()?)
}
