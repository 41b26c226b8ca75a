//! `wg INTERFACE`: a bare userspace WireGuard device in the foreground, what `wireguard-go -f` is. It makes a TUN link and
//! its UAPI socket and knows nothing else: `wg(8)` gives it keys and peers, `ip(8)` addresses and routes.
//!
//! It ends, with success, when it gets SIGTERM or SIGINT, when the link is deleted (`ip link delete`), or when the socket
//! file is removed. Link and socket go with it.
//!
//! # As the userspace driver of `wg-quick(8)`
//!
//! `wg-quick` runs `$WG_QUICK_USERSPACE_IMPLEMENTATION INTERFACE` where the kernel has no WireGuard, and expects that it
//! returns when `wg` can be used. Under systemd a two-line script does that, because we say when we are ready:
//!
//! ```sh
//! #!/bin/sh
//! exec systemd-run --quiet --collect --unit="wg-edge-$1" --service-type=notify gateway wg "$1"
//! ```
//!
//! Without systemd it waits for the socket, which is the last thing that we make:
//!
//! ```sh
//! #!/bin/sh
//! gateway wg "$1" </dev/null >/dev/null 2>&1 &
//! until [ -S "/run/wireguard/$1.sock" ]; do kill -0 "$!" 2>/dev/null || exit 1; sleep 0.1; done
//! ```
//!
//! `wg-quick down` deletes the link, which ends us.
#[cfg(test)]
mod tests;

use std::io;

use shared::model::InterfaceName;
use shared::plan::Change;
use shared_datapath::{self as datapath, Control, Datapath, StartError, WorkerError, WorkerGone};
use shared_os::netlink::{self, Netlink, Noun, Watch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::policy::TUN_QUEUE_PACKETS;
use crate::uapi::{self, Server};

/// The MTU that every WireGuard link begins with: 1500 less the outer IPv6 and UDP headers and our 32 bytes.
const MTU: u16 = 1500 - 40 - 8 - 32;

/// Why there is no device, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// No TUN link or no UDP sockets.
    #[error(transparent)]
    Start(#[from] StartError),
    /// `wg` could not find it.
    #[error(transparent)]
    Socket(#[from] uapi::BindError),
    /// The kernel's notifications are not to be had.
    #[error("the link can't be watched")]
    Watch(#[from] netlink::RequestError),
    /// The link can't be read.
    #[error(transparent)]
    Read(#[from] netlink::ReadError),
    /// The link can't be prepared.
    #[error(transparent)]
    Link(#[from] netlink::ApplyError),
    /// No signal handlers, or the socket file can't be watched.
    #[error("waiting for signals or for the socket file failed")]
    Wait(#[from] io::Error),
    /// The packet worker broke.
    #[error(transparent)]
    Worker(WorkerError),
}

/// Serve a device until somebody ends it. Needs a tokio runtime.
pub async fn run(interface: InterfaceName) -> Result<(), BareError> {
    let mut ending = Signals::new()?;
    let netlink = Netlink::open()?;
    let changes = Netlink::watch()?; // before the link is made, so that nothing is missed
    let datapath = Datapath::start(&datapath::Config {
        interface: interface.clone(),
        mtu: MTU,
        persist: false,
        closed: false,
        outlives_link: false,
        listen_port: 0,
        fwmark: 0,
        limits: datapath::Limits::default(),
    })?;
    prepare_link(&netlink, &interface).await?;
    let server = Server::bind(&interface)?;
    tracing::info!(%interface, "ready: `wg` configures this device");
    systemd_ready();

    let follower = LinkFollower {
        interface: interface.clone(),
        netlink,
        device: datapath.control(),
        was: LinkState::NEW,
    };
    let why = tokio::select! {
        () = ending.received() => "asked by a signal",
        removed = server.serve(datapath.control()) => removed.map(|()| "the UAPI socket was removed")?,
        error = datapath.failed() => match error {
            WorkerError::TunRemoved { .. } => "the link was deleted",
            WorkerError::Wait(_) | WorkerError::Panicked => return Err(BareError::Worker(error)),
        },
        error = follower.run(changes) => return Err(error),
    };
    tracing::info!(%interface, why, "ending");
    datapath.stop();
    Ok(())
}

async fn prepare_link(netlink: &Netlink, interface: &InterfaceName) -> Result<(), BareError> {
    let mtu = Change::SetLinkMtu {
        name: interface.clone(),
        mtu: MTU.into(),
        was: None,
    };
    let queue = Change::SetLinkTxQueueLen {
        name: interface.clone(),
        txqueuelen: TUN_QUEUE_PACKETS,
        was: None,
    };
    netlink.apply(&mtu).await?;
    netlink.apply(&queue).await?;
    Ok(())
}

/// Tell systemd, if it waits for us.
fn systemd_ready() {
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd can't be told that the device is ready");
    }
}

/// The signals that end us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What of the link matters to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkState {
    up: bool,
    mtu: u16,
}

impl LinkState {
    const NEW: Self = Self {
        up: false,
        mtu: MTU,
    };
}

/// Makes the device follow what `ip link set` does to the link.
struct LinkFollower {
    interface: InterfaceName,
    netlink: Netlink,
    device: Control,
    was: LinkState,
}

impl LinkFollower {
    /// Follow for as long as the kernel tells us; returns only when it does not.
    async fn run(mut self, mut changes: Watch) -> BareError {
        loop {
            if let Err(error) = self.look().await {
                return error;
            }
            match self.next(&mut changes).await {
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    }

    /// Wait for a change that may be about links.
    async fn next(&self, changes: &mut Watch) -> Result<(), BareError> {
        loop {
            match changes.next().await.map(|event| event.noun) {
                Some(Noun::Link | Noun::Lost) => return Ok(()),
                Some(Noun::Address | Noun::Route | Noun::Rule) => {}
                None => {
                    *changes = Netlink::watch()?;
                    return Ok(());
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), BareError> {
        let Some(found) = self.netlink.link(&self.interface).await? else {
            // Deleted, which the worker says; or moved to another namespace, from where we hear nothing: handshakes then
            // start with the first packet, and the device keeps the MTU it had.
            return Ok(());
        };
        let is = LinkState {
            up: found.link.up,
            mtu: u16::try_from(found.link.mtu).unwrap_or(u16::MAX),
        };
        let told = self.tell(is).await;
        if let Err(WorkerGone) = told {
            return Ok(()); // the worker says why
        }
        self.was = is;
        Ok(())
    }

    async fn tell(&self, is: LinkState) -> Result<(), WorkerGone> {
        if is.mtu != self.was.mtu {
            tracing::info!(mtu = is.mtu, "the link has another MTU");
            self.device.set_mtu(is.mtu).await?;
        }
        if is.up && !self.was.up {
            tracing::info!("the link is up");
            self.device.initiate_handshakes().await?;
        }
        Ok(())
    }
}
