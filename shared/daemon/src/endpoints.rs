//! Where peers were last heard from, over a restart: then both ends can call each other at once, instead of waiting for
//! the one behind NAT to notice that its session is gone.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shared::model::PublicKey;
use shared::wg::DeviceStatus;
use shared_os::atomic_file;
use tracing::warn;

/// Endpoints by peer, as they stand in `state_dir/endpoints.json`.
#[derive(Debug, Clone)]
pub struct Endpoints {
    path: PathBuf,
    known: BTreeMap<PublicKey, SocketAddr>,
}

impl Endpoints {
    /// What was written last. A file that can't be used costs some seconds and nothing else: it is replaced.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("endpoints.json");
        let known = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                warn!(file = %path.display(), "not a list of endpoints, starting without");
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    warn!(file = %path.display(), %error, "can't read the last endpoints");
                }
                BTreeMap::new()
            }
        };
        Self { path, known }
    }

    /// Where this peer was.
    pub fn of(&self, peer: &PublicKey) -> Option<SocketAddr> {
        self.known.get(peer).copied()
    }

    /// Write down where the peers are, when that has changed.
    pub fn remember(&mut self, device: &DeviceStatus) {
        let now: BTreeMap<PublicKey, SocketAddr> = device
            .peers
            .iter()
            // One that never answered may be wrong.
            .filter(|peer| peer.latest_handshake.is_some())
            .filter_map(|peer| Some((peer.public_key, peer.endpoint?)))
            .collect();
        if now == self.known || now.is_empty() {
            return;
        }
        if let Err(error) = atomic_file::write(&self.path, text(&now).as_bytes(), 0o600) {
            warn!(file = %self.path.display(), %error, "can't write the last endpoints");
            return;
        }
        self.known = now;
    }
}

fn parse(text: &str) -> Option<BTreeMap<PublicKey, SocketAddr>> {
    let entries: BTreeMap<String, SocketAddr> = serde_json::from_str(text).ok()?;
    entries
        .into_iter()
        .map(|(key, endpoint)| Some((key.parse().ok()?, endpoint)))
        .collect()
}

fn text(endpoints: &BTreeMap<PublicKey, SocketAddr>) -> String {
    let entries: serde_json::Map<String, serde_json::Value> = endpoints
        .iter()
        .map(|(key, endpoint)| (key.to_string(), endpoint.to_string().into()))
        .collect();
    format!("{:#}\n", serde_json::Value::Object(entries))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::wg::PeerStatus;

    use super::*;

    fn device(handshake: Option<Duration>, endpoint: &str) -> DeviceStatus {
        DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers: vec![PeerStatus {
                public_key: PublicKey::from_bytes([7; 32]),
                preshared_key: None,
                endpoint: Some(endpoint.parse().unwrap()),
                persistent_keepalive_secs: None,
                allowed_ips: Vec::new(),
                latest_handshake: handshake,
                rx_bytes: 0,
                tx_bytes: 0,
            }],
        }
    }

    #[test]
    fn endpoints_of_peers_that_answered_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let peer = PublicKey::from_bytes([7; 32]);
        let mut endpoints = Endpoints::open(dir.path());
        endpoints.remember(&device(None, "192.0.2.1:1"));
        assert_eq!(Endpoints::open(dir.path()).of(&peer), None);
        endpoints.remember(&device(Some(Duration::ZERO), "[2001:db8::1]:51820"));
        assert_eq!(
            Endpoints::open(dir.path()).of(&peer),
            Some("[2001:db8::1]:51820".parse().unwrap())
        );
    }

    #[test]
    fn an_unusable_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let peer = PublicKey::from_bytes([7; 32]);
        for text in ["", "[]", "{\"key\":\"192.0.2.1:1\"}", "{\"a\":1}"] {
            std::fs::write(dir.path().join("endpoints.json"), text).unwrap();
            let mut endpoints = Endpoints::open(dir.path());
            assert_eq!(endpoints.of(&peer), None, "{text}");
            endpoints.remember(&device(Some(Duration::ZERO), "192.0.2.1:1"));
            assert!(Endpoints::open(dir.path()).of(&peer).is_some(), "{text}");
        }
    }
}
