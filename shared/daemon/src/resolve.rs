//! Names of endpoints → addresses: at start, and again when a peer has fallen silent. A resolver that fails or answers
//! nothing never takes a working endpoint away.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::config::common::Endpoint;
use shared::model::PublicKey;
use shared::wg::{DeviceChange, PeerChange, PeerStatus};
use shared_datapath::Control;
use tracing::{info, warn};

use crate::model::PeerModel;

/// How often peers are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// A peer that we send to for this long without an answer may have moved (Keepalive-Timeout + Rekey-Timeout, whitepaper
/// §6.5, after which the device starts a handshake of its own).
const SILENCE: Duration = Duration::from_secs(15);

/// A peer whose endpoint is a name.
#[derive(Debug)]
struct Named {
    name: String,
    host: String,
    port: u16,
    watch: Watch,
}

/// What was seen of a peer's traffic.
#[derive(Debug, Default)]
struct Watch {
    resolved: bool,
    rx_bytes: u64,
    tx_bytes: u64,
    silent_for: Duration,
}

impl Watch {
    /// Look at the peer's counters once per [`INTERVAL`]: is it time to ask the resolver?
    fn is_due(&mut self, peer: &PeerStatus) -> bool {
        let received = peer.rx_bytes != self.rx_bytes;
        let sent = peer.tx_bytes != self.tx_bytes;
        self.rx_bytes = peer.rx_bytes;
        self.tx_bytes = peer.tx_bytes;
        if received {
            self.silent_for = Duration::ZERO;
        } else if sent || !self.silent_for.is_zero() {
            self.silent_for += INTERVAL;
        }
        !self.resolved || self.silent_for >= SILENCE
    }
}

/// Keeps the endpoints of `peers` that are names at their addresses, until dropped.
pub async fn run(peers: Vec<Arc<PeerModel>>, control: Control) {
    let mut named: BTreeMap<PublicKey, Named> = peers
        .into_iter()
        .filter_map(|peer| match &peer.endpoint {
            Some(Endpoint::Name { host, port }) => Some((
                peer.public_key,
                Named {
                    name: peer.name.clone(),
                    host: host.clone(),
                    port: *port,
                    watch: Watch::default(),
                },
            )),
            Some(Endpoint::Address(_)) | None => None,
        })
        .collect();
    if named.is_empty() {
        return;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(device) = control.status().await else {
            return; // the data plane has ended; its owner says why
        };
        for peer in &device.peers {
            if let Some(named) = named.get_mut(&peer.public_key) {
                if named.watch.is_due(peer) {
                    refresh(named, peer, &control).await;
                }
            }
        }
    }
}

async fn refresh(named: &mut Named, peer: &PeerStatus, control: &Control) {
    let Named {
        name, host, port, ..
    } = &*named;
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host.as_str(), *port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            warn!(peer = %name, %host, %error, "can't resolve the endpoint, trying again");
            return;
        }
    };
    let Some(endpoint) = choose(&addresses, peer.endpoint) else {
        warn!(peer = %name, %host, "the endpoint's name has no address, trying again");
        return;
    };
    if peer.endpoint != Some(endpoint) {
        info!(peer = %name, %host, %endpoint, "endpoint resolved");
        let change = DeviceChange {
            peers: vec![PeerChange {
                endpoint: Some(endpoint),
                update_only: true,
                ..PeerChange::new(peer.public_key)
            }],
            ..DeviceChange::default()
        };
        if let Err(error) = control.apply(change).await {
            warn!(peer = %name, %error, "can't set the endpoint");
            return;
        }
    }
    named.watch.resolved = true;
    named.watch.silent_for = Duration::ZERO;
}

/// The first address at the start; when the one in use has fallen silent, the one after it in the answer.
fn choose(addresses: &[SocketAddr], current: Option<SocketAddr>) -> Option<SocketAddr> {
    let place = addresses
        .iter()
        .position(|&address| Some(address) == current);
    match place {
        Some(place) => addresses.iter().cycle().nth(place + 1).copied(),
        None => addresses.first().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(rx_bytes: u64, tx_bytes: u64) -> PeerStatus {
        PeerStatus {
            public_key: PublicKey::from_bytes([1; 32]),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: Vec::new(),
            latest_handshake: None,
            rx_bytes,
            tx_bytes,
        }
    }

    #[test]
    fn a_name_is_resolved_at_start_and_after_15_seconds_without_an_answer() {
        let mut watch = Watch::default();
        assert!(watch.is_due(&peer(0, 0)), "not resolved yet");
        watch.resolved = true;
        assert!(!watch.is_due(&peer(100, 100)));
        assert!(!watch.is_due(&peer(100, 200)));
        assert!(!watch.is_due(&peer(100, 300)));
        assert!(watch.is_due(&peer(100, 400)));
    }

    #[test]
    fn an_answering_or_idle_peer_is_left_alone() {
        let mut watch = Watch {
            resolved: true,
            ..Watch::default()
        };
        for step in 1..20 {
            assert!(!watch.is_due(&peer(step, step)));
        }
        for _ in 0..20 {
            assert!(!watch.is_due(&peer(19, 19)), "idle is not silent");
        }
    }

    #[test]
    fn a_silent_address_gives_way_to_the_next_one() {
        let address = |last| SocketAddr::from(([192, 0, 2, last], 51820));
        let both = [address(1), address(2)];
        assert_eq!(choose(&both, None), Some(address(1)));
        assert_eq!(choose(&both, Some(address(1))), Some(address(2)));
        assert_eq!(choose(&both, Some(address(2))), Some(address(1)));
        assert_eq!(choose(&both[..1], Some(address(1))), Some(address(1)));
        assert_eq!(choose(&both, Some(address(9))), Some(address(1)));
        assert_eq!(choose(&[], Some(address(1))), None);
    }
}
