//! Two hosts: each a thread in a network namespace of its own.
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use shared::model::{PrivateKey, PublicKey};
use shared::wg::{AllowedIpChange, DeviceChange, DropReason, PeerChange};
use shared_os::netns;

use super::super::{Config, Control, Counters, Datapath, Limits};

pub(super) const LISTEN_PORT: u16 = 51820;

/// What the tunnel adds to a packet over IPv6: IP and UDP headers, WireGuard's header and tag.
const OVERHEAD: u16 = 40 + 8 + 16 + 16;

/// What runs in a host: a closure on its thread.
type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it; it ends when this is dropped.
pub(super) struct Host {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    /// The file that stands for the namespace: `/proc/PID/task/TID/ns/net`.
    namespace: String,
}

impl Host {
    /// `None` in an unprivileged run.
    pub(super) fn new() -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (started, namespace) = mpsc::channel();
        let thread = thread::spawn(move || {
            netns::run(move || {
                let task = std::fs::read_link("/proc/thread-self").unwrap();
                started
                    .send(format!("/proc/{}/ns/net", task.display()))
                    .unwrap();
                for job in queue {
                    job();
                }
            });
        });
        if let Ok(namespace) = namespace.recv() {
            return Some(Self {
                jobs: Some(jobs),
                thread: Some(thread),
                namespace,
            });
        }
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        None
    }

    /// Run a closure on the host's thread and wait for its result.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result.recv().expect("the closure on the host panicked")
    }

    /// Run a command line on the host; it must succeed.
    pub(super) fn sh(&self, line: &str) -> Output {
        let owned = line.to_owned();
        let output = self.run(move || Command::new("sh").args(["-c", &owned]).output().unwrap());
        assert!(
            output.status.success(),
            "{line}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

impl Host {
    /// The thread, by which `ip` finds the namespace.
    pub(super) fn thread_id(&self) -> &str {
        self.namespace.split('/').nth(4).unwrap()
    }

    /// The file that stands for the namespace.
    pub(super) fn namespace_path(&self) -> &str {
        &self.namespace
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A host with a data path.
pub(super) struct Node {
    _datapath: Datapath,
    pub(super) control: Control,
    pub(super) key: PrivateKey,
    pub(super) host: Host,
}

/// The two nodes of the picture above, with each other as peer.
pub(super) struct World {
    pub(super) near: Node,
    pub(super) far: Node,
}

impl World {
    /// `None` in an unprivileged run.
    pub(super) fn new(near_limits: Limits, far_limits: Limits) -> Option<Self> {
        Self::with_mtu(1420, near_limits, far_limits)
    }

    /// With another MTU of the tunnel, and as much as it needs for the cable.
    pub(super) fn with_mtu(mtu: u16, near_limits: Limits, far_limits: Limits) -> Option<Self> {
        let of = |limits| Config {
            mtu,
            ..config(limits)
        };
        Self::of(of(near_limits), of(far_limits))
    }

    /// With something else at the near end.
    pub(super) fn with_config(edit: impl FnOnce(&mut Config)) -> Option<Self> {
        let mut near = config(Limits::default());
        edit(&mut near);
        Self::of(near, config(Limits::default()))
    }

    fn of(near_config: Config, far_config: Config) -> Option<Self> {
        let (near, far) = (Host::new()?, Host::new()?);
        connect(&near, &far, near_config.mtu + OVERHEAD);
        let near = Node::new(near, 1, near_config);
        let far = Node::new(far, 2, far_config);
        let world = Self { near, far };
        world
            .near
            .add_peer(&world.far, 2, IpAddr::from([192, 0, 2, 2]));
        world
            .far
            .add_peer(&world.near, 1, IpAddr::from([192, 0, 2, 1]));
        Some(world)
    }
}

/// A veth pair between the hosts, with addresses.
fn connect(near: &Host, far: &Host, mtu: u16) {
    let far_tid = far.thread_id();
    near.sh(&format!(
        "ip link add veth type veth peer name veth netns {far_tid}"
    ));
    for (host, number) in [(near, 1), (far, 2)] {
        host.sh(&format!(
            "ip address add 192.0.2.{number}/24 dev veth; \
             ip address add 2001:db8::{number}/64 dev veth nodad; \
             ip link set veth mtu {mtu} up"
        ));
    }
}

impl Node {
    fn new(host: Host, number: u8, config: Config) -> Self {
        let mtu = config.mtu;
        let datapath = host.run(move || Datapath::start(&config).unwrap());
        host.sh(&format!(
            "ip address add 10.9.0.{number}/24 dev wg0; \
             ip address add fd09::{number}/64 dev wg0 nodad; \
             ip link set wg0 mtu {mtu} up"
        ));
        let key = PrivateKey::from_bytes([number; 32]);
        let control = datapath.control();
        let change = DeviceChange {
            private_key: Some(Some(key.clone())),
            ..DeviceChange::default()
        };
        wait_for(control.apply(change)).unwrap();
        Self {
            _datapath: datapath,
            control,
            key,
            host,
        }
    }

    pub(super) fn add_peer(&self, other: &Self, number: u8, at: IpAddr) {
        let networks = [format!("10.9.0.{number}/32"), format!("fd09::{number}/128")];
        let peer = PeerChange {
            endpoint: Some(SocketAddr::new(at, LISTEN_PORT)),
            allowed_ips: networks
                .iter()
                .map(|network| AllowedIpChange {
                    network: network.parse().unwrap(),
                    remove: false,
                })
                .collect(),
            ..PeerChange::new(other.public_key())
        };
        let change = DeviceChange {
            peers: vec![peer],
            ..DeviceChange::default()
        };
        wait_for(self.control.apply(change)).unwrap();
    }

    pub(super) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
}

/// What all tests start from.
pub(super) fn config(limits: Limits) -> Config {
    Config {
        interface: "wg0".parse().unwrap(),
        mtu: 1420,
        persist: false,
        closed: false,
        outlives_link: false,
        listen_port: LISTEN_PORT,
        fwmark: 0,
        limits,
    }
}

/// Wait for a future on this thread.
pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// What was dropped, but for the multicasts by which a link looks for IPv6 routers: they are for nobody.
pub(super) fn dropped(counters: &Counters) -> Vec<(DropReason, u64)> {
    let mut dropped = counters.drops.clone();
    dropped.retain(|&(reason, count)| count > 0 && reason != DropReason::NoPeerForDestination);
    dropped
}
