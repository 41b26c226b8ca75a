//! `/v1/events`: server-sent events.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use jiff::Timestamp;
use shared::api::event::Event;
use shared::api::scope::Scope;
use shared_daemon::admin::actor::Caller;
use shared_daemon::admin::problem::ApiResult;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt as _};

use crate::peers::events::Numbered;
use crate::peers::{Handle, Shared};
use crate::store::Store;

/// A comment this often tells both sides that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as it happens.
///
/// Who comes back with `Last-Event-ID` gets what it missed first; an event `reset` says that some of it is not known any
/// more: list again.
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
    let subscription = handle.shared.events.subscribe(last, Timestamp::now());
    let shared: Arc<Shared<S>> = handle.shared;
    let coming = BroadcastStream::new(subscription.coming)
        // Who reads too slowly has lost some.
        .map(move |event| event.unwrap_or_else(|_| shared.events.reset(Timestamp::now())));
    let missed = tokio_stream::iter(subscription.missed);
    let events = missed.chain(coming).map(|event| Ok(sent(&event)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn sent(numbered: &Numbered) -> SseEvent {
    let event = SseEvent::default()
        .id(&numbered.id)
        .event(numbered.event.kind.name());
    event.data(serde_json::to_string(&numbered.event).unwrap_or_default())
}
