//! Bodies of requests: they have to come in time, and what a handler leaves of one is read before its answer is sent.
//!
//! A connection that is closed while its caller still writes is reset, and a reset takes the answer with it: who is refused
//! before its body has come would often not hear why (RFC 9112 §9.6).
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::future::poll_fn;
use hyper::Request;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use tokio::time::Sleep;

use super::extract::{BodyTimeout, MAX_BODY_BYTES};

/// How long a body may take as a whole, from the moment on when somebody wants it.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what nobody wants is waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

type Shared = Arc<Mutex<Incoming>>;

/// The request for its handler, and what remains with the server.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Body>, Rest) {
    // Who waits for `100 Continue` has sent nothing yet; what is said to be too large is not worth its way.
    let worth_it = !request.headers().contains_key(EXPECT)
        && !request.body().is_end_stream()
        && request.body().size_hint().lower() <= MAX_BODY_BYTES as u64;
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let rest = Rest(worth_it.then(|| Arc::clone(&body)));
    let timed = TimedBody {
        body,
        deadline: None,
    };
    (Request::from_parts(parts, Body::new(timed)), rest)
}

/// What is left of a body once its handler is done.
pub(super) struct Rest(Option<Shared>);

impl Rest {
    /// Read and forget it: as much as a body may have, for as long as is polite.
    pub(super) async fn drain(self) {
        let Some(body) = self.0 else { return };
        let read_all = async {
            let mut left = MAX_BODY_BYTES;
            while let Some(Ok(frame)) = poll_fn(|context| poll(&body, context)).await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        let _too_slow = tokio::time::timeout(DRAIN_TIMEOUT, read_all).await;
    }
}

fn poll(
    body: &Shared,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
    Pin::new(&mut *body).poll_frame(context)
}

/// A body that has to be here in time as a whole.
struct TimedBody {
    body: Shared,
    /// Set by the first look at the body.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_TIMEOUT)));
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(BodyTimeout))));
        }
        poll(&self.body, context).map_err(axum::Error::new)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.size_hint()
    }
}
