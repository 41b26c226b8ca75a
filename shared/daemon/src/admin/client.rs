//! The command line's side of the admin socket.
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderName;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::api::problem::Problem;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::error::Failure;

/// A daemon that is alive answers from memory, and changes in well under a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than the status of thousands of peers.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Talks to a daemon over its admin socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A request to be sent.
#[derive(Debug)]
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

/// What came back; only of a success.
#[derive(Debug)]
pub struct Answer {
    response: Response<Bytes>,
}

impl Call {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// `If-Match`: only if it is still as it was read.
    #[must_use]
    pub fn if_match(self, etag: impl Into<String>) -> Self {
        self.header(header::IF_MATCH, etag)
    }

    /// A JSON body.
    pub fn json(self, body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::other(&error))?;
        let mut call = self.header(header::CONTENT_TYPE, "application/json");
        call.body = body;
        Ok(call)
    }
}

impl Answer {
    /// The body, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.response.body()).into_owned()
    }

    /// The body, from JSON.
    ///
    /// # Errors
    /// It is something else than this program expects: the daemon is of another version.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.response.body()).map_err(|error| {
            Failure::Other(format!(
                "the daemon answered what this program does not understand ({error}); are both of the same version?"
            ))
        })
    }

    /// The `ETag`.
    pub fn etag(&self) -> Option<&str> {
        let etag = self.response.headers().get(header::ETAG)?;
        etag.to_str().ok()
    }
}

impl Client {
    /// Of the daemon that listens on this socket. Nothing is done yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Call::new(Method::GET, path)).await
    }

    /// Send a request and wait for its answer.
    ///
    /// # Errors
    /// [`Failure::NotRunning`] when nobody listens on the socket, [`Failure::Refused`] when the answer is not a success.
    pub async fn send(&self, call: Call) -> Result<Answer, Failure> {
        self.in_time(async {
            let (response, connection) = self.open(call).await?;
            let (parts, body) = response.into_parts();
            let body = collect(body).await?;
            connection.abort();
            succeeded(Response::from_parts(parts, body))
        })
        .await
    }

    /// The same for an answer that does not end; its time is up to the caller.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn stream(&self, call: Call) -> Result<Incoming, Failure> {
        let (response, _connection) = self.in_time(self.open(call)).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let (parts, body) = response.into_parts();
        let body = self.in_time(collect(body)).await?;
        match succeeded(Response::from_parts(parts, body)) {
            Err(refused) => Err(refused),
            Ok(_) => Err(Failure::Other("the daemon answered nonsense".to_owned())),
        }
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(TIMEOUT, work)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::Other(format!(
                    "the daemon did not answer on {} within {} s",
                    self.socket.display(),
                    TIMEOUT.as_secs()
                )))
            })
    }

    async fn open(&self, call: Call) -> Result<(Response<Incoming>, JoinHandle<()>), Failure> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| not_connected(&self.socket, &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::other(&error))?;
        let connection = tokio::spawn(async move {
            // Its end is seen by who waits for the answer.
            let _ended = connection.await;
        });
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, "localhost");
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(call.body)))
            .map_err(|error| Failure::other(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| Failure::other(&error))?;
        Ok((response, connection))
    }
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let collected = collected.map_err(|error| Failure::other(error.as_ref()))?;
    Ok(collected.to_bytes())
}

fn succeeded(response: Response<Bytes>) -> Result<Answer, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(Answer { response });
    }
    match serde_json::from_slice::<Problem>(response.body()) {
        Ok(problem) => Err(Failure::Refused(Box::new(problem))),
        Err(_) => Err(Failure::Other(format!(
            "the daemon answered {status}: {}",
            String::from_utf8_lossy(response.body())
        ))),
    }
}

fn not_connected(socket: &Path, error: &io::Error) -> Failure {
    let kind = error.kind();
    let socket = socket.display();
    if matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    ) {
        Failure::NotRunning(format!(
            "the daemon does not run (nobody listens on {socket}); start it with `run`"
        ))
    } else if kind == io::ErrorKind::PermissionDenied {
        Failure::Environment(format!(
            "no permission to talk to the daemon on {socket}; run this as its user or as root"
        ))
    } else {
        Failure::Other(format!("can't connect to {socket}: {error}"))
    }
}
