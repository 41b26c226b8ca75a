//! The UAPI socket `/run/wireguard/<interface>.sock`, over which `wg(8)` shows and sets our device.
//!
//! [`Server::bind`] makes the socket file, [`Server::serve`] answers until the file is removed, and dropping either
//! removes the file. What is said over it is [`shared::uapi`]'s business; the device is behind [`DeviceControl`].
//!
//! Only the owner of the file (root, or the user of a hardened service) can connect. Even so a client can't make us
//! hold more than [`MAX_CONNECTIONS`] requests of [`MAX_REQUEST_BYTES`], nor keep a connection that says nothing or does
//! not read its answer for longer than [`REQUEST_TIMEOUT`].
mod connection;
mod device;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::io;
use std::path::Path;
use std::time::Duration;

use shared::model::InterfaceName;
use shared::uapi::MAX_REQUEST_BYTES;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

pub use device::{ControlError, DeviceControl};
pub use socket::BindError;
use socket::SocketFile;

/// Where `wg(8)` looks for sockets; it says `/var/run`, which is the same.
pub const DIRECTORY: &str = "/run/wireguard";

/// Most clients that are served at a time; further ones wait in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 16;

/// Longest time from the end of one request to the end of the next, and for a client to take an answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed `accept` (too many open files), so that it is not tried in a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// Text of requests that clients can make us hold; what it says takes at most about as much again.
const _: () = assert!(MAX_CONNECTIONS * MAX_REQUEST_BYTES <= 128 << 20);

/// A bound UAPI socket.
#[derive(Debug)]
pub struct Server {
    // Dropped first: as long as the listener lives no other file can have the inode by which ours is known.
    file: SocketFile,
    listener: UnixListener,
}

impl Server {
    /// Make the socket of `interface`. A file left behind by a dead process is replaced. Needs a tokio runtime.
    pub fn bind(interface: &InterfaceName) -> Result<Self, BindError> {
        Self::bind_in(Path::new(DIRECTORY), interface)
    }

    /// [`bind`](Self::bind) in another directory.
    pub fn bind_in(directory: &Path, interface: &InterfaceName) -> Result<Self, BindError> {
        let (file, listener) = SocketFile::bind(directory, interface)?;
        Ok(Self { file, listener })
    }

    /// Answer clients until the socket file is removed, which is how an administrator ends a userspace device
    /// (`wg-quick` on other systems does). Dropping the future ends every connection and removes the file.
    pub async fn serve(self, device: impl DeviceControl) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                removed = self.file.removed() => return removed,
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(connection::serve(stream, device.clone()));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a client of the UAPI socket can't be accepted");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "serving a client of the UAPI socket failed");
                    }
                }
            }
        }
    }
}
