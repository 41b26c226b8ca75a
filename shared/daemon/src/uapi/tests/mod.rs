//! The server with a device in memory behind it.
mod clients;
mod socket;
mod wg_tools;

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::model::InterfaceName;
use shared::uapi::Errno;
use shared::wg::{Device, DeviceChange, DeviceStatus, TransmitQueue};
use shared_os::netns::UNPRIVILEGED;

use super::{ControlError, DeviceControl};

/// A port that is in use.
const BUSY_PORT: u16 = 1;

/// The WireGuard device without data path: what it would send stays in a queue.
#[derive(Debug, Clone)]
struct MemoryDevice(Arc<Mutex<Memory>>);

#[derive(Debug)]
struct Memory {
    device: Device,
    out: TransmitQueue,
    listen_port: u16,
    fwmark: u32,
    /// What traffic would have done to the first peer: age of the handshake, bytes received and sent.
    traffic: (Option<Duration>, u64, u64),
}

impl MemoryDevice {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Memory {
            device: Device::new(1420, Instant::now()),
            out: TransmitQueue::new(1 << 20),
            listen_port: 0,
            fwmark: 0,
            traffic: (None, 0, 0),
        })))
    }

    fn set_traffic(&self, latest_handshake: Duration, rx_bytes: u64, tx_bytes: u64) {
        self.0.lock().unwrap().traffic = (Some(latest_handshake), rx_bytes, tx_bytes);
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
        let memory = &mut *self.0.lock().unwrap();
        memory.listen_port = change.listen_port.unwrap_or(memory.listen_port);
        memory.fwmark = change.fwmark.unwrap_or(memory.fwmark);
        memory
            .device
            .apply_change(&change, &mut memory.out, Instant::now());
        memory.out.clear();
        Ok(())
    }

    async fn status(&self) -> Result<DeviceStatus, ControlError> {
        let memory = self.0.lock().unwrap();
        let mut status = memory.device.status(Instant::now());
        (status.listen_port, status.fwmark) = (memory.listen_port, memory.fwmark);
        if let Some(peer) = status.peers.first_mut() {
            (peer.latest_handshake, peer.rx_bytes, peer.tx_bytes) = memory.traffic;
        }
        Ok(status)
    }
}

/// Whether a test that needs root is to do nothing, which it then has said.
pub(crate) fn is_unprivileged_run() -> bool {
    let unprivileged = std::env::var_os(UNPRIVILEGED).is_some_and(|value| value == "1");
    if unprivileged {
        eprintln!(
            "unprivileged run: a test with the kernel's links and /run/wireguard did nothing"
        );
    }
    unprivileged
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
    tokio::task::spawn_blocking(move || command.output().expect("wireguard-tools are installed"))
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
