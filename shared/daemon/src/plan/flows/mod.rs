//! Open connections that a change would cut. Most changes cut none: rules of ours let pass what is established, and a
//! translation stays with its connection. What does cut, the simulation of the rules decides, on each connection that the
//! kernel tracks.
//!
//! | file | what |
//! |---|---|
//! | this | the table of connections, read |
//! | `judge` | which of them are cut, counted by service or peer; pure |
//! | `words` | what of it is told |
mod judge;
mod words;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use shared::api::plan::PlanWarning;
use shared_os::netlink::conntrack::{self, status};
use shared_os::netlink::{Netlink, ReadError};

use super::Running;
use crate::error::{Failure, chain};
use crate::model::Model;
use crate::pressure;
use judge::{Found, Judge};

/// How long connections are judged. Tens of thousands that differ in more than the caller's port take a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// The warnings, none where no daemon runs: there is no tunnel then, and nothing flows.
///
/// # Errors
/// Links and routes can't be read.
pub(super) async fn cut(
    running: Running<'_>,
    planned: &Model,
    netlink: &Netlink,
) -> Result<Vec<PlanWarning>, Failure> {
    let Some(now) = running.model.filter(|now| *now != planned) else {
        return Ok(Vec::new());
    };
    match pressure::conntrack() {
        Ok(Some(tracked)) if tracked.entries > 0 => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) => return Ok(vec![words::unread(&chain(&error))]),
    }
    let host = netlink.host().await;
    let host = host.map_err(|error| Failure::other(&error))?;
    let judge = Judge::new(now, planned, &host);
    // The table may be large, and nothing else would be done meanwhile.
    let found = tokio::task::spawn_blocking(move || look(judge)).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(match found {
        Ok(Ok(found)) => words::warnings(&found, now.unwrap_or_default()),
        Ok(Err(error)) => vec![words::unread(&chain(&error))],
        Err(error) => vec![words::unread(&error.to_string())],
    })
}

fn look(mut judge: Judge) -> Result<Found, ReadError> {
    let until = Instant::now() + PATIENCE;
    conntrack::each(status::SEEN_REPLY, |entry| {
        judge.look_at(entry, || Instant::now() < until);
        ControlFlow::Continue(())
    })?;
    Ok(judge.into_found())
}
