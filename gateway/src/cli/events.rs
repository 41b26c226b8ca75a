//! `gateway events`: server-sent events as lines.
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::header::HeaderName;
use shared::api::event::Event;
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::{nobody_reads, note, print_on};
use shared_daemon::error::Failure;

/// Before the daemon is asked again after the connection was lost.
const PAUSE: Duration = Duration::from_secs(1);

/// Print events until interrupted, or until nobody reads them. A daemon that restarts is waited for; one that does not run at
/// the beginning is an error.
pub(super) async fn follow(client: &Client, json: bool) -> Result<(), Failure> {
    tokio::select! {
        ended = print_all(client, json) => ended,
        () = nobody_reads() => Ok(()),
    }
}

async fn print_all(client: &Client, json: bool) -> Result<(), Failure> {
    let mut lines = Lines::default();
    let mut connected_before = false;
    loop {
        let mut call = Call::new(Method::GET, "/v1/events");
        if let Some(id) = &lines.last_id {
            call = call.header(HeaderName::from_static("last-event-id"), id);
        }
        match client.stream(call).await {
            Ok(mut body) => {
                connected_before = true;
                // An error is the same as the end: the daemon is gone.
                while let Some(Ok(frame)) = body.frame().await {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    for event in lines.take(&data) {
                        if !print_on(&line(&event, json)?)? {
                            return Ok(());
                        }
                    }
                }
                note("the daemon hung up; waiting for it");
            }
            Err(failure @ (Failure::NotRunning(_) | Failure::Other(_))) => {
                if !connected_before {
                    return Err(failure);
                }
            }
            Err(
                failure @ (Failure::Refused(_)
                | Failure::Configuration(_)
                | Failure::Environment(_)),
            ) => return Err(failure),
        }
        lines.rest.clear();
        tokio::time::sleep(PAUSE).await;
    }
}

fn line(event: &Event, json: bool) -> Result<String, Failure> {
    if json {
        let text = serde_json::to_string(event).map_err(|error| Failure::other(&error))?;
        return Ok(format!("{text}\n"));
    }
    let name = event.name.as_deref().unwrap_or_default();
    let text = format!("{}  {:<16}  {name}", event.at, event.kind.name());
    Ok(format!("{}\n", text.trim_end()))
}

/// Frames of the stream, put together to events (HTML Living Standard §9.2.6, as much of it as our daemon sends).
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    last_id: Option<String>,
}

impl Lines {
    fn take(&mut self, data: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(data);
        let mut events = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = self.rest.drain(..end + 2).collect();
            let message = String::from_utf8_lossy(&message);
            for line in message.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.last_id = Some(id.to_owned());
                } else if let Some(data) = line.strip_prefix("data: ") {
                    // An event of a newer daemon that is not known here is passed over.
                    events.extend(serde_json::from_str(data));
                }
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_whatever_pieces_come() {
        let stream = b": hello\n\nid: 5-1\nevent: peer.created\ndata: {\"kind\":\"peer.created\",\"at\":\"2026-11-23T00:00:00Z\",\"name\":\"alice\"}\n\nid: 5-2\nevent: x\ndata: {\"kind\":\"from.the.future\"}\n\n";
        for size in [1, 7, stream.len()] {
            let mut lines = Lines::default();
            let events: Vec<Event> = stream
                .chunks(size)
                .flat_map(|piece| lines.take(piece))
                .collect();
            let texts: Vec<String> = events.iter().map(|e| line(e, false).unwrap()).collect();
            assert_eq!(texts, ["2026-11-23T00:00:00Z  peer.created      alice\n"]);
            assert_eq!(lines.last_id.as_deref(), Some("5-2"));
            assert!(
                line(&events[0], true)
                    .unwrap()
                    .contains("\"name\":\"alice\"")
            );
        }
    }
}
