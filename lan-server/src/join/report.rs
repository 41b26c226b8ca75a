//! Whether the path is up, as the daemon that was just started says.
use std::time::{Duration, Instant};

use shared::api::probe::ProbeState;
use shared::api::status::Status;
use shared_daemon::admin::client::Client;
use shared_daemon::cli::output::note;

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is not up by then is reported as it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wait for the first handshake and the first look at each service, and say how it went; since `begin` somebody waits.
pub(super) async fn when_up(client: Client, begin: Instant) {
    let mut handshake = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let is_late = begin.elapsed() > PATIENCE;
        let status = match client.get("/v1/status").await {
            Ok(answer) => answer.json::<Status>().ok(),
            Err(_) => None, // not there yet
        };
        let Some(status) = status else {
            if is_late {
                return;
            }
            continue;
        };
        if handshake.is_none() && status.peers.iter().any(|peer| peer.online) {
            handshake = Some(begin.elapsed());
        }
        let is_known = |state: ProbeState| state != ProbeState::Unknown;
        let probed = status.probes.iter().all(|probe| is_known(probe.state));
        if is_late || (handshake.is_some() && probed) {
            return note(&said(&status, handshake));
        }
    }
}

fn said(status: &Status, handshake: Option<Duration>) -> String {
    let mut lines = vec![match handshake {
        Some(after) => format!(
            "tunnel up after {} ms, MTU {}",
            after.as_millis(),
            status.interface.mtu
        ),
        None => format!(
            "tunnel: no handshake in {} s; `lan-server status` says more",
            PATIENCE.as_secs()
        ),
    }];
    lines.extend(status.probes.iter().map(|probe| {
        let (vip, port, publish) = (probe.vip, probe.port, &probe.publish);
        let found = match (probe.connect_milliseconds, &probe.error) {
            (Some(milliseconds), _) => format!("up, connected in {milliseconds} ms"),
            (None, Some(error)) => format!("down: {error}"),
            (None, None) => probe.state.name().to_owned(),
        };
        format!("  {publish} {vip} port {port}: {found}")
    }));
    lines.join("\n")
}
