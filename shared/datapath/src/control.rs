//! From the asynchronous side to the worker: a bounded queue of commands and an event that wakes it.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::wg::{DeviceChange, DeviceStatus, PeerStatus};
use shared_os::sys::event::Event;
use shared_os::{tun, udp};
use tokio::sync::{mpsc, oneshot};

use super::{Counters, Offloads};

/// Commands that may wait: the worker takes them between two batches of packets, so few ever do.
const QUEUE: usize = 64;

/// The worker has ended, so it can't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet worker has ended")]
pub struct WorkerGone;

/// Why a change was not applied; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The new port or mark can't be had; the sockets are as before.
    #[error(transparent)]
    Udp(#[from] udp::BindError),
    /// There is no worker.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// Why there is no new link; what was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceLinkError {
    /// None can be had.
    #[error(transparent)]
    Tun(#[from] tun::OpenError),
    /// There is one, but no descriptor for another process, or nothing to wait for it with.
    #[error("the queue of the new TUN link can't be used")]
    Queue(#[from] io::Error),
    /// There is no worker.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// What the worker is asked, and where its answer goes. Nobody waiting for an answer is no error.
#[derive(Debug)]
pub(super) enum Command {
    Apply(
        Box<DeviceChange>,
        oneshot::Sender<Result<Vec<PeerStatus>, udp::BindError>>,
    ),
    Status(oneshot::Sender<DeviceStatus>),
    Counters(oneshot::Sender<Counters>),
    Offloads(oneshot::Sender<Offloads>),
    SetMtu(u16, oneshot::Sender<()>),
    InitiateHandshakes(oneshot::Sender<()>),
    ClockSteppedForward(oneshot::Sender<()>),
    Open(oneshot::Sender<io::Result<()>>),
    ReplaceLink(oneshot::Sender<Result<OwnedFd, ReplaceLinkError>>),
    Ping(oneshot::Sender<()>),
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) queue: mpsc::Receiver<Command>,
    pub(super) event: Arc<Event>,
    pub(super) stop: Arc<AtomicBool>,
}

/// A handle to talk to the worker with.
#[derive(Debug, Clone)]
pub struct Control {
    queue: mpsc::Sender<Command>,
    event: Arc<Event>,
    stop: Arc<AtomicBool>,
}

impl Control {
    pub(super) fn new(event: Arc<Event>) -> (Self, Commands) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let commands = Commands {
            queue,
            event: Arc::clone(&event),
            stop: Arc::clone(&stop),
        };
        let queue = sender;
        (Self { queue, event, stop }, commands)
    }

    /// Change the device, its port or its mark: all of it, or nothing when this returns an error. Another port than the
    /// bound one opens new sockets; 0 does so always.
    ///
    /// Returns the peers that were named to be removed, as they were in their last moment.
    pub async fn apply(&self, change: DeviceChange) -> Result<Vec<PeerStatus>, ApplyError> {
        let change = Box::new(change);
        let applied = self.ask(|reply| Command::Apply(change, reply)).await?;
        Ok(applied?)
    }

    /// The device as it is.
    pub async fn status(&self) -> Result<DeviceStatus, WorkerGone> {
        self.ask(Command::Status).await
    }

    /// What was moved and what was dropped.
    pub async fn counters(&self) -> Result<Counters, WorkerGone> {
        self.ask(Command::Counters).await
    }

    /// What works here.
    pub async fn offloads(&self) -> Result<Offloads, WorkerGone> {
        self.ask(Command::Offloads).await
    }

    /// Tell the device that the TUN link has another MTU now.
    pub async fn set_mtu(&self, mtu: u16) -> Result<(), WorkerGone> {
        self.ask(|reply| Command::SetMtu(mtu, reply)).await
    }

    /// Start a handshake with every peer whose endpoint is known: after a start, when peers still hold sessions that we
    /// lost.
    pub async fn initiate_handshakes(&self) -> Result<(), WorkerGone> {
        self.ask(Command::InitiateHandshakes).await
    }

    /// Tell the device that the wall clock was set forward.
    pub async fn clock_stepped_forward(&self) -> Result<(), WorkerGone> {
        self.ask(Command::ClockSteppedForward).await
    }

    /// Take packets from now on, and let the TUN link stay when the data path ends. Until then it goes with it, so that a
    /// start that fails leaves nothing behind.
    pub async fn open(&self) -> Result<io::Result<()>, WorkerGone> {
        self.ask(Command::Open).await
    }

    /// Make the TUN link anew, since it was deleted or taken to where this process does not see it. The new one is as the
    /// kernel makes it: down, without addresses and without alias. Returns a descriptor of its queue.
    pub async fn replace_link(&self) -> Result<OwnedFd, ReplaceLinkError> {
        self.ask(Command::ReplaceLink).await?
    }

    /// Return when the worker has looked into the queue: it goes round.
    pub async fn ping(&self) -> Result<(), WorkerGone> {
        self.ask(Command::Ping).await
    }

    /// Put a command into the queue, waiting for room, and wait for the answer. A command whose caller is gone before it
    /// is in the queue is not carried out; one that is in the queue is.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WorkerGone> {
        let (reply, answer) = oneshot::channel();
        let permit = self.queue.reserve().await.map_err(|_| WorkerGone)?;
        permit.send(command(reply));
        self.event.raise();
        answer.await.map_err(|_| WorkerGone)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.event.raise();
    }
}
