//! The server with a device in memory behind it.
mod clients;
mod socket;
mod wg_tools;

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::model::InterfaceName;
use shared::uapi::Errno;
use shared::wg::{DeviceChange, DeviceStatus, PeerChange, PeerStatus};

use super::{ControlError, DeviceControl};

/// A port that is in use.
const BUSY_PORT: u16 = 1;

/// A device that only remembers its configuration.
#[derive(Debug, Clone)]
struct MemoryDevice(Arc<Mutex<DeviceStatus>>);

impl MemoryDevice {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers: Vec::new(),
        })))
    }

    fn with<T>(&self, f: impl FnOnce(&mut DeviceStatus) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl DeviceControl for MemoryDevice {
    async fn apply(&self, change: DeviceChange) -> Result<(), ControlError> {
        if change.listen_port == Some(BUSY_PORT) {
            return Err(ControlError {
                errno: Errno::AddressInUse,
                source: "port 1 is in use".into(),
            });
        }
        self.with(|device| {
            device.private_key = change.private_key.unwrap_or(device.private_key.take());
            device.listen_port = change.listen_port.unwrap_or(device.listen_port);
            device.fwmark = change.fwmark.unwrap_or(device.fwmark);
            if change.replace_peers {
                let named = |peer: &PeerStatus| {
                    let mut named = change.peers.iter();
                    named.any(|change| change.public_key == peer.public_key)
                };
                device.peers.retain(named);
            }
            for peer in change.peers {
                apply_peer(&mut device.peers, peer);
            }
        });
        Ok(())
    }

    async fn status(&self) -> Result<DeviceStatus, ControlError> {
        Ok(self.with(|device| device.clone()))
    }
}

fn apply_peer(peers: &mut Vec<PeerStatus>, change: PeerChange) {
    let at = peers.iter().position(|p| p.public_key == change.public_key);
    if change.remove {
        at.map(|at| peers.remove(at));
        return;
    }
    if at.is_none() && change.update_only {
        return;
    }
    let at = at.unwrap_or_else(|| {
        peers.push(PeerStatus {
            public_key: change.public_key,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: Vec::new(),
            latest_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        });
        peers.len() - 1
    });
    let peer = &mut peers[at];
    if let Some(key) = change.preshared_key {
        peer.preshared_key = (!key.is_zero()).then_some(key);
    }
    peer.endpoint = change.endpoint.or(peer.endpoint);
    if let Some(secs) = change.persistent_keepalive_secs {
        peer.persistent_keepalive_secs = (secs != 0).then_some(secs);
    }
    if change.replace_allowed_ips {
        peer.allowed_ips.clear();
    }
    for change in change.allowed_ips {
        if change.remove {
            peers[at]
                .allowed_ips
                .retain(|network| *network != change.network);
        } else if peers.len() == 1 {
            peers[at].allowed_ips.push(change.network);
        } else {
            for peer in peers.iter_mut() {
                peer.allowed_ips
                    .retain(|network| *network != change.network);
            }
            peers[at].allowed_ips.push(change.network);
        }
    }
}

/// An interface name that no other test and no other process uses: `wg` knows one directory only.
fn unique_name() -> InterfaceName {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("u{}x{number}", std::process::id()).parse().unwrap()
}

/// Run a command without stopping the server, which shares our thread.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || {
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("wireguard-tools are installed");
        drop(child.stdin.take());
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

/// Poll until `fact` holds; a test that waits longer has failed.
async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    for _ in 0..500 {
        if fact() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}
