//! The command line's side of the admin socket.
use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::error::Failure;

/// A daemon that is alive answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);

/// More than the status of thousands of peers.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `GET path`: the body of a successful answer.
///
/// # Errors
/// [`Failure::NotRunning`] when nobody listens on the socket.
pub async fn get(socket: &Path, path: &str) -> Result<String, Failure> {
    tokio::time::timeout(TIMEOUT, request(socket, path))
        .await
        .unwrap_or_else(|_| {
            Err(Failure::Other(format!(
                "the daemon did not answer on {} within {} s",
                socket.display(),
                TIMEOUT.as_secs()
            )))
        })
}

async fn request(socket: &Path, path: &str) -> Result<String, Failure> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| not_connected(socket, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::other(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::other(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| Failure::other(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| Failure::other(error.as_ref()))?
        .to_bytes();
    connection.abort();
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(Failure::Other(format!(
            "the daemon answered {status}: {body}"
        )))
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
