//! The list of Cloudflare's networks is kept up to date: asked for, judged by [`shared::cloudflare`], put in place through the
//! [`Plane`], written down. Whatever goes wrong, the networks that are in use stay.
//!
//! | file | what |
//! |---|---|
//! | this | list → plane |
//! | `source` | when the next list is there: a web server's, or a file's |
//! | `fetch` | one HTTPS request |
//! | `record` | the list in use and how the latest attempt ended, for status, metrics, API and the next start |
mod fetch;
mod record;
mod source;

use std::sync::Arc;

use jiff::Timestamp;
use shared::config::cloudflare::Ranges;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::plane::Plane;
use crate::product::Product;

pub use record::Record;

use source::{Offered, Source};

/// Refresh for ever. `wanted` is what the running configuration says; each time it is sent, also unchanged, the source is
/// asked at once.
pub async fn run<P: Product>(
    plane: Arc<Mutex<Plane<P>>>,
    record: Arc<Record>,
    mut wanted: watch::Receiver<Ranges>,
) {
    let ranges = wanted.borrow_and_update().clone();
    let mut source = Source::at_start(ranges.refresh.as_ref(), P::NAME, record.confirmed_at());
    let mut refresher = Refresher {
        plane,
        record,
        ranges,
    };
    loop {
        tokio::select! {
            sent = wanted.changed() => {
                if sent.is_err() {
                    return; // the daemon ends
                }
                refresher.ranges = wanted.borrow_and_update().clone();
                source = Source::at_once(refresher.ranges.refresh.as_ref(), P::NAME);
            }
            offered = source.next() => {
                // Not a branch that another one could end: half a change must not stay.
                let is_taken = refresher.take(offered).await;
                source.ended(is_taken);
            }
        }
    }
}

struct Refresher<P: Product> {
    plane: Arc<Mutex<Plane<P>>>,
    record: Arc<Record>,
    ranges: Ranges,
}

impl<P: Product> Refresher<P> {
    /// Whether that was a list.
    async fn take(&self, offered: Result<Offered, String>) -> bool {
        let outcome = match offered {
            Ok(offered) => self.put_in_place(&offered).await,
            Err(why) => Err(why),
        };
        let from = self.ranges.refresh.as_ref();
        let from = from.map(ToString::to_string).unwrap_or_default();
        let before = self.record.note(outcome.clone(), now());
        match (&outcome, before) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => info!(from, "a list of Cloudflare's networks is taken again"),
            (Err(why), Some(before)) if *why == before => {} // it is said already
            (Err(why), _) => {
                warn!(
                    from,
                    why, "no new list of Cloudflare's networks; the one in use stays"
                );
            }
        }
        outcome.is_ok()
    }

    async fn put_in_place(&self, offered: &Offered) -> Result<(), String> {
        let mut plane = self.plane.lock().await;
        if plane.settings().cloudflare != self.ranges {
            return Ok(()); // a reload came first, and its source is asked next
        }
        let mut list = self.record.list();
        let changes = list
            .take(&offered.text, offered.as_of, &self.ranges.ours, now())
            .map_err(|refusal| refusal.to_string())?;
        if !changes.is_empty() {
            let changed = plane.change_cloudflare(list.networks()).await;
            changed.map_err(|failure| format!("it can't be put in place: {failure}"))?;
            let shown = |networks: &[ipnetwork::IpNetwork]| {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                networks.join(" ")
            };
            info!(
                added = shown(&changes.added),
                removed = shown(&changes.removed),
                "Cloudflare's networks have changed"
            );
        }
        // Under the lock of the plane: a reload takes either both of the old or both of the new.
        self.record.set_list(list);
        Ok(())
    }
}

/// The time of day, in whole seconds as it is told.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
