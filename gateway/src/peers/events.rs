//! What has happened, for who listens: the last events are kept, so that who lost the connection misses none.
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use shared::api::event::{Event, EventKind};
use tokio::sync::broadcast;
use uuid::Uuid;

/// Events that are kept for replay, and that a slow listener may lag behind.
const KEPT: usize = 4096;

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
}

#[derive(Debug)]
struct Inner {
    last: u64,
    kept: VecDeque<(u64, Event)>,
    sender: broadcast::Sender<Numbered>,
}

/// A listener: what it missed, then what comes.
#[derive(Debug)]
pub struct Subscription {
    /// Events after the last one that it saw.
    pub missed: Vec<Numbered>,
    /// Events from now on; who lags behind by too many loses some and is told.
    pub coming: broadcast::Receiver<Numbered>,
}

impl Events {
    /// No events yet. `start` tells this stream from those of other runs.
    pub fn new(start: Timestamp) -> Self {
        Self {
            start: start.as_millisecond().to_string(),
            inner: Mutex::new(Inner {
                last: 0,
                kept: VecDeque::with_capacity(64),
                sender: broadcast::Sender::new(KEPT),
            }),
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
        inner.kept.push_back((number, event.clone()));
        // Nobody listening is no error.
        let _nobody = inner.sender.send(self.numbered(number, event));
    }

    /// Listen. `last_id` is the last event that the listener saw; when what followed is not known any more, it is told so.
    pub fn subscribe(&self, last_id: Option<&str>, now: Timestamp) -> Subscription {
        let inner = self.lock();
        let missed = match last_id {
            None => Vec::new(),
            Some(id) => match self.number(id).filter(|&n| is_known(&inner, n)) {
                Some(seen) => inner
                    .kept
                    .iter()
                    .filter(|(number, _)| *number > seen)
                    .map(|(number, event)| self.numbered(*number, event.clone()))
                    .collect(),
                None => vec![self.numbered(inner.last, reset(now))],
            },
        };
        Subscription {
            missed,
            coming: inner.sender.subscribe(),
        }
    }

    /// What a listener gets that lagged behind.
    pub fn reset(&self, now: Timestamp) -> Numbered {
        let last = self.lock().last;
        self.numbered(last, reset(now))
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
    use super::*;

    fn event(number: u64) -> Event {
        of_peer(
            EventKind::PeerCreated,
            Timestamp::UNIX_EPOCH,
            Uuid::from_u128(u128::from(number)),
            "alice",
        )
    }

    fn missed(events: &Events, last_id: &str) -> Vec<String> {
        let subscription = events.subscribe(Some(last_id), Timestamp::UNIX_EPOCH);
        let ids = subscription.missed.into_iter();
        ids.map(|numbered| format!("{} {}", numbered.id, numbered.event.kind.name()))
            .collect()
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_it_missed_and_then_what_comes() {
        let events = Events::new(Timestamp::UNIX_EPOCH);
        (1..=3).for_each(|number| events.emit(event(number)));
        assert_eq!(missed(&events, "0-3"), [""; 0]);
        assert_eq!(
            missed(&events, "0-1"),
            ["0-2 peer.created", "0-3 peer.created"]
        );
        let mut subscription = events.subscribe(Some("0-2"), Timestamp::UNIX_EPOCH);
        events.emit(event(4));
        assert_eq!(subscription.missed.len(), 1);
        assert_eq!(subscription.coming.recv().await.unwrap().id, "0-4");
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
}
