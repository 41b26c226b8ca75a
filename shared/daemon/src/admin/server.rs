//! Connections of the admin API: bounded in number, in time and in size, so that nobody who reaches a listener can keep
//! others from it, or make the daemon grow.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service as _;
use tracing::{debug, warn};

use super::body;
use super::gate::Peer;

/// How long the header of a request may take, and how long a connection may wait for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may wait for a caller that does not read on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a header.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Most connections of a listener; who comes then waits in the kernel's queue until one of them has ended.
const MAX_CONNECTIONS: usize = 1024;
/// Most connections from one address: a program needs a few, and it takes many addresses to fill the listener.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 64;
/// How long the listener rests when the process has no file descriptor left.
const REST: Duration = Duration::from_millis(100);

/// When the connection of a request was opened, as an extension of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened(pub Instant);

/// Serve a unix socket until the task is aborted.
pub fn serve_unix(listener: UnixListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = Connections::new();
        loop {
            let place = connections.place().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let who = stream.peer_cred();
                    let peer = who.map(|who| Peer::Unix {
                        uid: who.uid(),
                        gid: who.gid(),
                        pid: who.pid().unwrap_or(0),
                    });
                    match peer {
                        Ok(peer) => connections.serve(stream, peer, router.clone(), (place, None)),
                        Err(error) => debug!(%error, "a caller that is gone already"),
                    }
                }
                Err(error) => rest(&error).await,
            }
        }
    })
}

/// Serve a TCP listener until the task is aborted.
pub fn serve_tcp(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = Connections::new();
        let addresses = Arc::new(Addresses::default());
        loop {
            let place = connections.place().await;
            match listener.accept().await {
                Ok((stream, from)) => {
                    // Who has too many is hung up on; the others don't wait.
                    if let Some(guest) = Addresses::enter(&addresses, from) {
                        let peer = Peer::Tcp(from);
                        connections.serve(stream, peer, router.clone(), (place, Some(guest)));
                    }
                }
                Err(error) => rest(&error).await,
            }
        }
    })
}

async fn rest(error: &io::Error) {
    warn!(%error, "can't accept a connection of the admin API");
    tokio::time::sleep(REST).await;
}

/// What a connection holds while it lasts.
type Held = (Option<OwnedSemaphorePermit>, Option<Guest>);

/// Connections of one listener; they end with it.
struct Connections {
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl Connections {
    fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// A place for one more connection, once there is one.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        while self.tasks.try_join_next().is_some() {}
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn serve<I>(&mut self, stream: I, peer: Peer, router: Router, held: Held)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let opened = Opened(Instant::now());
        self.tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let mut router = router.clone();
                let (mut request, rest) = body::lend(request);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(opened);
                async move {
                    let answer = router.call(request).await.into_inner();
                    rest.drain().await;
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_headers(MAX_HEADERS)
                .max_buf_size(MAX_HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%error, "a connection of the admin API ended badly");
            }
            drop(held);
        });
    }
}

/// `Result<Response, Infallible>` → response.
trait IntoInner {
    type Inner;
    fn into_inner(self) -> Self::Inner;
}

impl<T> IntoInner for Result<T, Infallible> {
    type Inner = T;
    fn into_inner(self) -> T {
        match self {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
struct Addresses {
    counts: Mutex<BTreeMap<IpAddr, usize>>,
}

impl Addresses {
    /// `None` when this address has enough of them.
    fn enter(this: &Arc<Self>, from: SocketAddr) -> Option<Guest> {
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from.ip()).or_default();
        (*count < MAX_CONNECTIONS_PER_ADDRESS).then(|| {
            *count += 1;
            Guest {
                addresses: Arc::clone(this),
                from: from.ip(),
            }
        })
    }
}

/// A connection that counts for its address.
#[derive(Debug)]
struct Guest {
    addresses: Arc<Addresses>,
    from: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let counts = self.addresses.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests;
