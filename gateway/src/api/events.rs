//! `/v1/events`: server-sent events, for as long as their listener may have them.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use shared::api::event::Event;
use shared::api::scope::Scope;
use shared_daemon::admin::actor::{Actor, Caller};
use shared_daemon::admin::problem::{ApiError, ApiResult};

use crate::peers::events::{Listener, MAX_STREAMS, Numbered};
use crate::peers::{Handle, Shared};
use crate::store::Store;

/// A comment this often tells both sides that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream that hears nothing looks this often whether its token's time is up.
const LOOK: Duration = Duration::from_secs(1);
/// When it makes sense to try again, for who has too many streams.
const RETRY_AFTER_SECS: u64 = 10;

/// What happens, as it happens.
///
/// Who comes back with `Last-Event-ID` gets what it missed first; an event `reset` says that some of it is not known any
/// more: list again. The stream ends with the token that it was asked with. A token, or a user of this host, has at most 16
/// streams at a time.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "follow_events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen.")),
    responses((status = 200, body = Event, content_type = "text/event-stream")))]
pub(super) async fn follow<S: Store>(
    State(handle): State<Handle<S>>,
    caller: Caller,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>> {
    const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
    caller.require(Scope::Read)?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let shared = handle.shared;
    let who = caller.actor.principal();
    let listener = shared.events.listen(&who, last).ok_or_else(|| {
        let detail = format!("there are {MAX_STREAMS} streams of events for {who} already");
        ApiError::too_many("too_many_streams", &detail, RETRY_AFTER_SECS)
            .with_hint("end one of them; one stream tells everything")
    })?;
    let following = Following {
        shared,
        actor: caller.actor,
        listener,
    };
    let events = stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((Ok(sent(&event)), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A stream, and who listens.
struct Following<S> {
    shared: Arc<Shared<S>>,
    actor: Actor,
    listener: Listener,
}

impl<S: Store> Following<S> {
    /// The next event; `None` when the listener may not hear it any more. The end of a token is an event itself, so that its
    /// streams wake up and end at once.
    async fn next(&mut self) -> Option<Arc<Numbered>> {
        loop {
            let event = self.shared.events.next(&mut self.listener);
            let event = tokio::time::timeout(LOOK, event).await;
            if !may_listen(&self.shared, &self.actor, Timestamp::now()) {
                return None;
            }
            if let Ok(event) = event {
                return Some(event);
            }
        }
    }
}

fn may_listen<S: Store>(shared: &Shared<S>, actor: &Actor, now: Timestamp) -> bool {
    let Actor::Token { id, .. } = actor else {
        return true;
    };
    let view = shared.view();
    let token = view.tokens.get(id);
    token.is_some_and(|token| token.expires_at.is_none_or(|at| at > now))
}

fn sent(numbered: &Numbered) -> SseEvent {
    let event = SseEvent::default()
        .id(&numbered.id)
        .event(numbered.event.kind.name());
    event.data(serde_json::to_string(&numbered.event).unwrap_or_default())
}
