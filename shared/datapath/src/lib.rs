//! The data path: plain threads between a TUN link and UDP sockets, with the WireGuard device between them.
//!
//! [`Datapath::start`] opens everything and starts the worker; a [`Control`] talks to it from the asynchronous side;
//! [`worker`] is the packet's route.
mod control;
mod counters;
mod log_limit;
mod tun_port;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use shared::model::InterfaceName;
use shared::offload::CoalesceKinds;
use shared::wg::Device;
use shared_os::clock;
use shared_os::sys::event::Event;
use shared_os::tun::{self, Tun};
use shared_os::udp::{self, Sockets};
use tokio::sync::watch;

pub use control::{ApplyError, Control, ReplaceLinkError, WorkerGone};
pub use counters::{Counters, TunCounters};

use tun_port::TunPort;
use worker::Worker;

#[cfg(test)]
mod tests;

/// What to open.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the TUN link.
    pub interface: InterfaceName,
    /// Most bytes of an inner packet.
    pub mtu: u16,
    /// Whether the TUN link stays when the data path ends.
    pub persist: bool,
    /// Take no packet until [`Control::open`]: what waits in the link's queue and in the sockets is of use only to a device
    /// that has its key and its peers.
    pub closed: bool,
    /// Go on when the TUN link is deleted, without one, until [`Control::replace_link`]; otherwise that ends the worker.
    pub outlives_link: bool,
    /// UDP port of both sockets; 0 lets the kernel choose.
    pub listen_port: u16,
    /// Mark of outgoing datagrams; 0 is none.
    pub fwmark: u32,
    /// What is used at most; the default is everything that works here.
    pub limits: Limits,
}

impl Config {
    /// How the TUN link is opened.
    pub fn tun_options(&self) -> tun::Options {
        tun::Options {
            name: self.interface.clone(),
            persist: self.persist,
            offload: self.limits.tun,
            multi_queue: false,
        }
    }

    const fn udp_options(&self) -> udp::Options {
        udp::Options {
            port: self.listen_port,
            fwmark: self.fwmark,
            limits: self.limits.udp,
        }
    }
}

/// What is used at most of what makes packet I/O fast: to force every fall-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What the kernel may leave to us.
    pub tun: tun::Offload,
    /// What we may leave to the kernel.
    pub coalesce: CoalesceKinds,
    /// How the sockets work.
    pub udp: udp::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tun: tun::Offload::Uso,
            coalesce: CoalesceKinds {
                tcp: true,
                udp: true,
            },
            udp: udp::Limits::default(),
        }
    }
}

/// What works here, as found out so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// What the kernel leaves to us.
    pub tun: tun::Offload,
    /// What the kernel takes joined.
    pub coalesce: CoalesceKinds,
    /// The IPv4 socket; `None` when there is none.
    pub udp4: Option<udp::SocketOffloads>,
    /// The IPv6 socket; `None` when there is none.
    pub udp6: Option<udp::SocketOffloads>,
}

impl Offloads {
    /// Each as on or off, by name.
    pub fn by_name(self) -> BTreeMap<String, bool> {
        let mut named = vec![
            ("tun_checksum", self.tun >= tun::Offload::Checksum),
            ("tun_tso", self.tun >= tun::Offload::Tso),
            ("tun_uso", self.tun >= tun::Offload::Uso),
            ("tun_gro_tcp", self.coalesce.tcp),
            ("tun_gro_udp", self.coalesce.udp),
        ];
        let sockets = [
            ("udp4_gso", "udp4_gro", self.udp4),
            ("udp6_gso", "udp6_gro", self.udp6),
        ];
        for (gso, gro, socket) in sockets {
            if let Some(socket) = socket {
                named.push((gso, socket.send == udp::SendRung::Segmented));
                named.push((gro, socket.gro));
            }
        }
        named
            .into_iter()
            .map(|(name, on)| (name.to_owned(), on))
            .collect()
    }
}

/// Why the data path did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No TUN link.
    #[error(transparent)]
    Tun(#[from] tun::OpenError),
    /// No sockets.
    #[error(transparent)]
    Udp(#[from] udp::BindError),
    /// No thread, or nothing to wake it with.
    #[error("the packet worker can't be started")]
    Worker(#[source] io::Error),
}

/// Why a worker ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkerError {
    /// The TUN link is no more.
    #[error("the TUN link {name} was removed")]
    TunRemoved {
        /// Its name.
        name: InterfaceName,
        /// The kernel's answer.
        source: Arc<io::Error>,
    },
    /// Waiting for packets failed: the process is out of memory.
    #[error("waiting for packets failed")]
    Wait(#[source] Arc<io::Error>),
    /// A bug.
    #[error("the packet worker panicked; this is a bug")]
    Panicked,
}

/// How a worker ended.
#[derive(Debug, Clone)]
enum Ended {
    Asked,
    Failed(WorkerError),
}

/// A running data path. Dropping it ends it.
pub struct Datapath {
    control: Control,
    worker: Option<JoinHandle<()>>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Datapath {
    /// Open the TUN link and the sockets and start the worker, on which everything then happens.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_on(Tun::open(&config.tun_options())?, config)
    }

    /// The same on a TUN link that is open, as [`Config::tun_options`] says.
    pub fn start_on(tun: Tun, config: &Config) -> Result<Self, StartError> {
        let udp = Sockets::bind(config.udp_options())?;
        let event = Arc::new(Event::new().map_err(StartError::Worker)?);
        let (control, commands) = Control::new(event);
        let device = Device::new(usize::from(config.mtu), clock::now());
        let tun = TunPort::new(tun, config.limits.coalesce);
        let worker = Worker::new(device, tun, udp, commands, config).map_err(StartError::Worker)?;
        tracing::info!(interface = %worker.interface(), offloads = ?worker.offloads(), "packet worker starts");
        let (ended_tx, ended) = watch::channel(None);
        let thread = thread::Builder::new()
            .name("wg-worker-0".to_owned())
            .spawn(move || run(worker, &ended_tx))
            .map_err(StartError::Worker)?;
        Ok(Self {
            control,
            worker: Some(thread),
            ended,
        })
    }

    /// A handle to talk to the worker with.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Wait until the worker ends by itself, which it only does when it can't go on. Never returns when it was stopped.
    /// Cancel safe.
    pub async fn failed(&self) -> WorkerError {
        let mut ended = self.ended.clone();
        let ended = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None, // the thread is gone without a word
        };
        match ended {
            Some(Ended::Failed(error)) => error,
            Some(Ended::Asked) => std::future::pending().await,
            None => WorkerError::Panicked,
        }
    }

    /// End the worker, close everything, and wait for it: some milliseconds.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(worker) = self.worker.take() {
            let _panicked = worker.join();
        }
    }
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").finish_non_exhaustive()
    }
}

fn run(worker: Worker, ended: &watch::Sender<Option<Ended>>) {
    let how = match worker.run() {
        Ok(()) => Ended::Asked,
        Err(error) => {
            tracing::error!(%error, "packet worker ends");
            Ended::Failed(error)
        }
    };
    ended.send_replace(Some(how));
}
