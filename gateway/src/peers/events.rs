//! What has happened, for who listens: the last events are kept once for all listeners, each of which knows only how far it
//! has come. So none can make the daemon grow, and who lost the connection misses none.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use shared::api::event::{Event, EventKind};
use tokio::sync::watch;
use uuid::Uuid;

/// Events that are kept for replay, and that a slow listener may lag behind.
const KEPT: usize = 4096;
/// Most streams of one listener at a time.
pub const MAX_STREAMS: usize = 16;

/// An event with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// `START-NUMBER`: START is another one each time the daemon starts.
    pub id: String,
    /// The event.
    pub event: Event,
}

/// The stream of events.
#[derive(Debug)]
pub struct Events {
    start: String,
    inner: Mutex<Inner>,
    /// Wakes listeners.
    news: watch::Sender<()>,
    streams: Arc<Streams>,
}

#[derive(Debug)]
struct Inner {
    last: u64,
    kept: VecDeque<(u64, Arc<Numbered>)>,
}

/// Who listens: how far it has come.
#[derive(Debug)]
pub struct Listener {
    /// The last event that it saw; `None` when what followed is not known, and it has not been told so yet.
    seen: Option<u64>,
    news: watch::Receiver<()>,
    _stream: Stream,
}

impl Events {
    /// No events yet. `start` tells this stream from those of other runs.
    pub fn new(start: Timestamp) -> Self {
        Self {
            start: start.as_millisecond().to_string(),
            inner: Mutex::new(Inner {
                last: 0,
                kept: VecDeque::with_capacity(64),
            }),
            news: watch::Sender::new(()),
            streams: Arc::default(),
        }
    }

    /// Something has happened.
    pub fn emit(&self, event: Event) {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        let numbered = Arc::new(self.numbered(number, event));
        inner.kept.push_back((number, numbered));
        drop(inner);
        self.news.send_replace(());
    }

    /// Listen; `None` when `who` has [`MAX_STREAMS`] streams already. `last_id` is the last event that the listener saw.
    pub fn listen(&self, who: &str, last_id: Option<&str>) -> Option<Listener> {
        let stream = Streams::begin(&self.streams, who)?;
        let inner = self.lock();
        let seen = match last_id {
            None => Some(inner.last),
            Some(id) => self.number(id).filter(|&seen| is_known(&inner, seen)),
        };
        Some(Listener {
            seen,
            news: self.news.subscribe(),
            _stream: stream,
        })
    }

    /// The next event for this listener, once there is one. Who has missed some that are not known any more gets a `reset`.
    pub async fn next(&self, listener: &mut Listener) -> Arc<Numbered> {
        loop {
            listener.news.mark_unchanged();
            if let Some(event) = self.take(listener) {
                return event;
            }
            if listener.news.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&self, listener: &mut Listener) -> Option<Arc<Numbered>> {
        let inner = self.lock();
        let Some(seen) = listener.seen.filter(|&seen| is_known(&inner, seen)) else {
            listener.seen = Some(inner.last);
            let reset = reset(Timestamp::now());
            return Some(Arc::new(self.numbered(inner.last, reset)));
        };
        let first = inner.kept.front().map_or(0, |(first, _)| *first);
        let place = usize::try_from((seen + 1).checked_sub(first)?).ok()?;
        let (number, event) = inner.kept.get(place)?;
        listener.seen = Some(*number);
        Some(Arc::clone(event))
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (start, number) = id.split_once('-')?;
        (start == self.start).then(|| number.parse().ok())?
    }

    fn numbered(&self, number: u64, event: Event) -> Numbered {
        Numbered {
            id: format!("{}-{number}", self.start),
            event,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many streams each listener has.
#[derive(Debug, Default)]
struct Streams {
    counts: Mutex<BTreeMap<String, usize>>,
}

impl Streams {
    fn begin(this: &Arc<Self>, who: &str) -> Option<Stream> {
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(who.to_owned()).or_default();
        (*count < MAX_STREAMS).then(|| {
            *count += 1;
            Stream {
                streams: Arc::clone(this),
                who: who.to_owned(),
            }
        })
    }
}

/// A stream that counts for its listener.
#[derive(Debug)]
struct Stream {
    streams: Arc<Streams>,
    who: String,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let counts = self.streams.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

/// Whether everything after this event is still kept.
fn is_known(inner: &Inner, seen: u64) -> bool {
    let first = inner
        .kept
        .front()
        .map_or(inner.last + 1, |(first, _)| *first);
    seen <= inner.last && seen + 1 >= first
}

fn reset(at: Timestamp) -> Event {
    Event {
        kind: EventKind::Reset,
        at,
        peer: None,
        name: None,
    }
}

/// An event about a peer.
pub fn of_peer(kind: EventKind, at: Timestamp, id: Uuid, name: &str) -> Event {
    Event {
        kind,
        at,
        peer: Some(id),
        name: Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn event(number: u64) -> Event {
        of_peer(
            EventKind::PeerCreated,
            Timestamp::UNIX_EPOCH,
            Uuid::from_u128(u128::from(number)),
            "alice",
        )
    }

    /// What a listener gets at once, in all.
    fn missed(events: &Events, last_id: &str) -> Vec<String> {
        let mut listener = events.listen("test", Some(last_id)).unwrap();
        let mut got = Vec::new();
        loop {
            let next = std::pin::pin!(events.next(&mut listener));
            let Some(event) = next.now_or_never() else {
                return got;
            };
            got.push(format!("{} {}", event.id, event.event.kind.name()));
        }
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_it_missed_and_then_what_comes() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        assert_eq!(missed(&events, "0-0"), [""; 0]);
        (1..=3).for_each(|number| events.emit(event(number)));
        assert_eq!(missed(&events, "0-3"), [""; 0]);
        assert_eq!(
            missed(&events, "0-1"),
            ["0-2 peer.created", "0-3 peer.created"]
        );
        let mut listener = events.listen("test", Some("0-2")).unwrap();
        assert_eq!(events.next(&mut listener).await.id, "0-3");
        let coming = events.next(&mut listener);
        let (coming, ()) = tokio::join!(coming, async { events.emit(event(4)) });
        assert_eq!(coming.id, "0-4");
    }

    #[test]
    fn who_was_away_for_too_long_is_told() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        let many = u64::try_from(KEPT).unwrap() + 10;
        (1..=many).for_each(|number| events.emit(event(number)));
        let last = format!("0-{many} reset");
        for id in ["0-9", "7-3", "x", "", "0-99999"] {
            assert_eq!(missed(&events, id), [last.as_str()], "{id:?}");
        }
        assert_eq!(missed(&events, "0-10").len(), KEPT);
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_told_and_goes_on() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        let mut slow = events.listen("test", None).unwrap();
        let many = u64::try_from(KEPT).unwrap() + 1;
        (1..=many).for_each(|number| events.emit(event(number)));
        assert_eq!(events.next(&mut slow).await.event.kind, EventKind::Reset);
        events.emit(event(many + 1));
        let next = events.next(&mut slow).await;
        assert_eq!(next.id, format!("0-{}", many + 1));
    }

    #[test]
    fn nobody_has_more_streams_than_its_share() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        let listeners: Vec<_> = (0..MAX_STREAMS)
            .map(|_| events.listen("token:a", None).unwrap())
            .collect();
        assert!(events.listen("token:a", None).is_none());
        assert!(events.listen("token:b", None).is_some());
        drop(listeners);
        assert!(events.listen("token:a", None).is_some());
    }

    #[test]
    fn listeners_share_what_is_kept() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        (1..=100).for_each(|number| events.emit(event(number)));
        let mut first = events.listen("a", Some("0-50")).unwrap();
        let mut second = events.listen("b", Some("0-50")).unwrap();
        let of = |listener: &mut Listener| events.take(listener).unwrap();
        assert!(Arc::ptr_eq(&of(&mut first), &of(&mut second)));
    }
}
