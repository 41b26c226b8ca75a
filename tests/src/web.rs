//! A web server by HTTPS that answers whatever a test tells it to.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::node::Node;

/// How long a caller may take for its request, and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What callers are answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A page with this text, and status 200.
    Page(String),
    /// The same, but the connection ends before its last ten bytes.
    Truncated(String),
    /// Nothing at all, as long as the test takes.
    Nothing,
}

/// A server inside a node, served by threads of this process until that ends.
#[derive(Debug)]
pub struct WebServer {
    /// Certificate of the server, for who is to believe it.
    pub certificate: PathBuf,
    answer: Arc<Mutex<Answer>>,
}

impl WebServer {
    /// Answer on this address with a certificate for it, which is written into `dir`.
    pub fn start(node: &Node, address: SocketAddr, dir: &Path, answer: Answer) -> Result<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([address.ip().to_string()])?;
        let certificate = dir.join("https.crt");
        std::fs::write(&certificate, cert.pem())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let config = Arc::new(config);
        let listener = node.enter(|| {
            TcpListener::bind(address).with_context(|| format!("cannot listen on tcp {address}"))
        })?;
        let answer = Arc::new(Mutex::new(answer));
        let answers = Arc::clone(&answer);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (config, answers) = (Arc::clone(&config), Arc::clone(&answers));
                // A caller that goes away in the middle is part of the tests.
                thread::spawn(move || drop(converse(stream, config, &answers)));
            }
        });
        Ok(Self {
            certificate,
            answer,
        })
    }

    /// What the next callers are answered.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

fn converse(stream: TcpStream, config: Arc<ServerConfig>, answer: &Mutex<Answer>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    let answer = answer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let (page, left_out) = match answer {
        Answer::Page(page) => (page, 0),
        Answer::Truncated(page) => (page, 10),
        Answer::Nothing => loop {
            thread::park();
        },
    };
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    );
    let end = whole.len().saturating_sub(left_out);
    stream.write_all(whole.as_bytes().get(..end).unwrap_or_default())?;
    stream.conn.send_close_notify();
    Ok(stream.flush()?)
}
