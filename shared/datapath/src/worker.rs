//! The packet's route. One thread owns a TUN queue, the sockets, their buffers and the WireGuard device, and goes round:
//!
//! 1. [`Worker::handle_commands`]: what the control side asks;
//! 2. [`Worker::receive_datagrams`]: network → [`Device::handle_datagram`] → TUN;
//! 3. [`Worker::read_packets`]: TUN → [`Device::handle_tun_packet`] → queue of datagrams;
//! 4. [`Worker::send_datagrams`]: that queue, and the device's own messages, → network;
//! 5. [`Worker::handle_timers`]: what the device has to do by itself;
//! 6. [`Worker::wait`]: sleep until there is something to do.
//!
//! The sleep says what there is to do. Beyond that only TUN is looked at after something was received: what a service on
//! this host answers is there by then. Each step takes a bounded amount, so that neither direction starves the other. The
//! clock is read once per round.
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared::model::InterfaceName;
use shared::offload::{Segments, VNET_HDR_LEN};
use shared::wg::{Device, DeviceChange, DeviceStatus, PacketBuffer, PeerStatus, TransmitQueue};
use shared_os::clock::PacketClock;
use shared_os::sys::poll::Poller;
use shared_os::tun::{self, Tun};
use shared_os::udp::{self, BindError, Family, ReceiveBuffers, Sockets};

use super::control::{Command, Commands, ReplaceLinkError};
use super::log_limit::LogLimit;
use super::tun_port::{ReadError, TunPort};
use super::{Config, Counters, Offloads, WorkerError};

/// Frames read from TUN per round: enough to empty the kernel's queue of small packets before it runs over.
const READS_PER_ROUND: usize = 64;

/// Nothing came in a direction for so long: longer than any pause while there is load. What comes then, most likely comes
/// alone, and is passed on before others are looked for.
const SILENCE: Duration = Duration::from_millis(1);

/// Bytes taken from TUN per round, before its last frame: 2 large frames are 94 datagrams, some 0.15 ms of encryption.
const BYTES_PER_ROUND: usize = 112 << 10;

/// Bytes of datagrams that are sent before more packets are read.
const SEND_AT: usize = 112 << 10;

/// Bytes of datagrams that may wait, beside the one being made: [`SEND_AT`] and what a large frame becomes.
const TRANSMIT_CAPACITY: usize = 192 << 10;

/// Rounds in a row in which a descriptor was ready but nothing came of it, before we believe that it stays so.
const FRUITLESS_ROUNDS: u32 = 8;

/// Sleep after that many: a descriptor in error must not cost a core.
const FRUITLESS_SLEEP: Duration = Duration::from_millis(1);

/// Shortest sleep for a deadline, which is also the grain of `epoll`.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// One thread's worth of data path.
#[derive(Debug)]
pub(super) struct Worker {
    device: Device,
    tun: TunPort,
    udp: Sockets,
    /// What the sockets were bound with.
    options: udp::Options,
    poller: Poller<5>,
    received: ReceiveBuffers,
    inbound: PacketBuffer,
    outbound: TransmitQueue,
    /// When the network will have been silent, [`SILENCE`] after something was received.
    network_silent_from: Instant,
    /// When TUN will have been.
    tun_silent_from: Instant,
    clock: PacketClock,
    commands: Commands,
    /// Only commands are looked at.
    closed: bool,
    /// How the TUN link is made anew; `None` when its end is ours.
    remake: Option<tun::Options>,
    /// The link was deleted, and there is no other yet: nothing is read from it.
    without_link: bool,
    fruitless: u32,
    log: LogLimit,
}

impl Worker {
    pub(super) fn new(
        device: Device,
        tun: TunPort,
        udp: Sockets,
        commands: Commands,
        config: &Config,
    ) -> io::Result<Self> {
        let clock = PacketClock::default();
        let now = clock.now();
        let open = !config.closed;
        Ok(Self {
            poller: poller(open.then_some(&tun), open.then_some(&udp), &commands)?,
            device,
            tun,
            udp,
            options: config.udp_options(),
            received: ReceiveBuffers::default(),
            inbound: PacketBuffer::default(),
            outbound: TransmitQueue::new(TRANSMIT_CAPACITY),
            network_silent_from: now,
            tun_silent_from: now,
            clock,
            commands,
            closed: config.closed,
            remake: config.outlives_link.then(|| config.tun_options()),
            without_link: false,
            fruitless: 0,
            log: LogLimit::default(),
        })
    }

    pub(super) const fn interface(&self) -> &InterfaceName {
        self.tun.tun().name()
    }

    /// Go round until asked to stop, or until the TUN link is gone.
    pub(super) fn run(mut self) -> Result<(), WorkerError> {
        let mut ready = Ready::ALL;
        loop {
            let now = self.clock.now();
            if ready.commands {
                self.handle_commands(now);
                // Not before: the event is down by now, so whoever asks from here on raises it for the next wait.
                if self.commands.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
            if self.closed {
                ready = Ready::COMMANDS;
            }
            let received = self.receive_datagrams(ready, now);
            let read = match self.read_packets(ready.tun || received, now) {
                Ok(read) => read,
                Err(removed) => self.go_on_without_link(removed)?,
            };
            if read != Read::More {
                self.send_datagrams();
            }
            let due = self.handle_timers(now);
            while self.udp.take_direct_changed() {
                self.change_sockets(now)?;
            }
            let fruitless = ready.has_packets() && !received && read == Read::Nothing;
            self.fruitless = if fruitless { self.fruitless + 1 } else { 0 };
            ready = self.wait(read == Read::More, due, now)?;
        }
    }

    // 1. Commands

    #[cold] // beside the packets
    fn handle_commands(&mut self, now: Instant) {
        self.commands.event.lower(); // first: a command that comes meanwhile raises it again
        while let Ok(command) = self.commands.queue.try_recv() {
            self.handle_command(command, now);
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        // That nobody waits for the answer any more is no error.
        match command {
            Command::Apply(change, reply) => {
                let _unheard = reply.send(self.apply(&change, now));
            }
            Command::Status(reply) => {
                let _unheard = reply.send(self.status(now));
            }
            Command::Counters(reply) => {
                let _unheard = reply.send(self.counters());
            }
            Command::Offloads(reply) => {
                let _unheard = reply.send(self.offloads());
            }
            Command::SetMtu(mtu, reply) => {
                self.device.set_mtu(usize::from(mtu));
                let _unheard = reply.send(());
            }
            Command::InitiateHandshakes(reply) => {
                self.device.initiate_handshakes(&mut self.outbound, now);
                let _unheard = reply.send(());
            }
            Command::Open(reply) => {
                let _unheard = reply.send(self.open());
            }
            Command::ReplaceLink(reply) => {
                let _unheard = reply.send(self.replace_link());
            }
            Command::ClockSteppedForward(reply) => {
                self.device.handle_forward_clock_step();
                let _unheard = reply.send(());
            }
            Command::Ping(reply) => {
                let _unheard = reply.send(());
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.tun.tun().set_persist(true)?;
        if let Some(options) = &mut self.remake {
            options.persist = true;
        }
        self.closed = false;
        self.poller = self.poller_with(&self.udp)?;
        Ok(())
    }

    fn replace_link(&mut self) -> Result<OwnedFd, ReplaceLinkError> {
        let Some(options) = &self.remake else {
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        };
        let tun = Tun::open(options)?;
        let queue = tun.as_fd().try_clone_to_owned()?;
        // One that was taken elsewhere, and not deleted, goes with its queue.
        let _is_deleted = self.tun.tun().set_persist(false);
        self.tun.replace(tun);
        self.without_link = false;
        self.poller = self.poller_with(&self.udp)?;
        Ok(queue)
    }

    #[cold] // beside the packets
    fn go_on_without_link(&mut self, removed: WorkerError) -> Result<Read, WorkerError> {
        if self.remake.is_none() {
            return Err(removed);
        }
        tracing::warn!("{removed}: no packet passes until there is another");
        self.without_link = true;
        let poller = self.poller_with(&self.udp);
        self.poller = poller.map_err(|error| WorkerError::Wait(Arc::new(error)))?;
        Ok(Read::Nothing)
    }

    /// Sockets first: they are what can fail, and then nothing has changed.
    /// Returns the last state of the peers that are removed by name.
    fn apply(&mut self, change: &DeviceChange, now: Instant) -> Result<Vec<PeerStatus>, BindError> {
        let before = self.options;
        let fwmark = change.fwmark.unwrap_or(before.fwmark);
        match change.listen_port {
            Some(port) if port == 0 || port != self.udp.port() => {
                self.options = udp::Options {
                    port,
                    fwmark,
                    ..before
                };
                let (mut udp, poller) = self.bind().inspect_err(|_| self.options = before)?;
                udp.continue_counters(*self.udp.counters());
                self.udp = udp;
                self.poller = poller;
            }
            _ if fwmark != before.fwmark => {
                if let Err(error) = self.udp.set_fwmark(fwmark) {
                    let _first_socket = self.udp.set_fwmark(before.fwmark);
                    return Err(error);
                }
                self.options.fwmark = fwmark;
            }
            _ => {}
        }
        let removed = change.peers.iter().filter(|peer| peer.remove);
        let departed = removed
            .filter_map(|peer| self.device.peer_status(&peer.public_key, now))
            .collect();
        self.device.apply_change(change, &mut self.outbound, now);
        Ok(departed)
    }

    /// Sockets as the options say, and what waits for them.
    fn bind(&self) -> Result<(Sockets, Poller<5>), BindError> {
        let udp = Sockets::bind(self.options)?;
        let poller = self.poller_with(&udp);
        let poller = poller.map_err(|source| BindError::Wait {
            port: udp.port(),
            source,
        })?;
        Ok((udp, poller))
    }

    /// A line got a socket for itself, or lost it: what that holds came before all that will come.
    #[cold]
    fn change_sockets(&mut self, now: Instant) -> Result<(), WorkerError> {
        while self.udp.receive_left(&mut self.received) {
            self.handle_received(now);
        }
        self.send_datagrams();
        let poller = self.poller_with(&self.udp);
        self.poller = poller.map_err(|error| WorkerError::Wait(Arc::new(error)))?;
        Ok(())
    }

    /// What waits for everything that is to be looked at, with these sockets.
    fn poller_with(&self, udp: &Sockets) -> io::Result<Poller<5>> {
        let open = !self.closed;
        let tun = (open && !self.without_link).then_some(&self.tun);
        poller(tun, open.then_some(udp), &self.commands)
    }

    fn status(&self, now: Instant) -> DeviceStatus {
        DeviceStatus {
            listen_port: self.udp.port(),
            fwmark: self.options.fwmark,
            ..self.device.status(now)
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            drops: self.device.drops().collect(),
            handshakes: self.device.handshakes().collect(),
            tun: self.tun.counters(),
            udp: *self.udp.counters(),
        }
    }

    pub(super) fn offloads(&self) -> Offloads {
        Offloads {
            tun: self.tun.tun().offload(),
            coalesce: self.tun.kinds(),
            udp4: self.udp.offloads(Family::Ipv4),
            udp6: self.udp.offloads(Family::Ipv6),
        }
    }

    // 2. Network → device → TUN

    fn receive_datagrams(&mut self, ready: Ready, now: Instant) -> bool {
        let mut any = false;
        if ready.udp4 {
            any |= self.receive(Family::Ipv4, now);
        }
        if ready.udp6 {
            any |= self.receive(Family::Ipv6, now);
        }
        if ready.direct {
            any |= self.receive_direct(now);
        }
        any
    }

    fn receive_direct(&mut self, now: Instant) -> bool {
        let most = self.most(now);
        let received = self.udp.receive_direct(most, &mut self.received);
        if received {
            self.network_silent_from = now + SILENCE;
            self.handle_received(now);
        }
        received
    }

    fn most(&self, now: Instant) -> udp::Most {
        if now >= self.network_silent_from {
            udp::Most::One
        } else {
            udp::Most::Batch
        }
    }

    #[inline(never)] // one for both families
    fn receive(&mut self, family: Family, now: Instant) -> bool {
        let most = self.most(now);
        match self.udp.receive(family, most, &mut self.received) {
            Ok(true) => {
                self.network_silent_from = now + SILENCE;
                self.handle_received(now);
                true
            }
            Ok(false) => false,
            Err(error) => {
                if let Some(suppressed) = self.log.allow(now) {
                    tracing::warn!(%error, ?family, suppressed, "receiving datagrams failed");
                }
                false
            }
        }
    }

    fn handle_received(&mut self, now: Instant) {
        let Self {
            device,
            tun,
            udp,
            received,
            inbound,
            outbound,
            ..
        } = self;
        let alone = received.is_one_datagram();
        for received in received.received() {
            let (path, ecn) = (received.path, received.ecn);
            for datagram in received.datagrams() {
                if outbound.is_full() {
                    flush(udp, outbound, device);
                }
                if let Err(reason) =
                    device.handle_datagram(path, ecn, datagram, inbound, outbound, now)
                {
                    tracing::trace!(?reason, remote = %path.remote, "datagram dropped");
                }
                if alone {
                    if let Some(frame) = inbound.take_behind_zeros(VNET_HDR_LEN) {
                        tun.write_alone(frame, now);
                    }
                } else if let Some(packet) = inbound.take() {
                    tun.write(packet, now);
                }
            }
        }
        tun.flush(now);
    }

    // 3. TUN → device

    /// New frames first, if there may be any: those that need not wait overtake those that do.
    fn read_packets(&mut self, look: bool, now: Instant) -> Result<Read, WorkerError> {
        let most = match look && !self.without_link {
            true if now >= self.tun_silent_from => 1,
            true => READS_PER_ROUND,
            false => 0,
        };
        let Self {
            device,
            tun,
            udp,
            outbound,
            tun_silent_from,
            ..
        } = self;
        let mut left = BYTES_PER_ROUND;
        let mut read = Read::Nothing;
        for _ in 0..most {
            match tun.read(left > 0, now) {
                Ok(segments) => {
                    let (packets, bytes) = encapsulate(segments, device, udp, outbound, now);
                    tun.count_read(packets, bytes);
                    left = left.saturating_sub(bytes);
                }
                Err(ReadError::Passed) => {}
                Err(ReadError::Empty) => break,
                Err(ReadError::Removed(source)) => {
                    return Err(WorkerError::TunRemoved {
                        name: tun.tun().name().clone(),
                        source: Arc::new(source),
                    });
                }
            }
            *tun_silent_from = now + SILENCE;
            read = Read::All;
        }
        while left > 0 {
            match tun.next_waiting(now) {
                Some(Ok(segments)) => {
                    let (packets, bytes) = encapsulate(segments, device, udp, outbound, now);
                    tun.count_read(packets, bytes);
                    left = left.saturating_sub(bytes);
                }
                Some(Err(_)) => {}
                None => break,
            }
            read = Read::All;
        }
        Ok(if left == 0 || tun.has_waiting() {
            Read::More
        } else {
            read
        })
    }

    // 4. Device → network

    fn send_datagrams(&mut self) {
        flush(&mut self.udp, &mut self.outbound, &mut self.device);
    }

    // 5. Timers

    /// Returns when it wants to be called again; in the past if more is due, for the device does a bounded amount per call.
    fn handle_timers(&mut self, now: Instant) -> Option<Instant> {
        let (due, _) = self.device.poll_timeout()?;
        if due > now {
            return Some(due);
        }
        self.handle_due_timers(now)
    }

    #[cold] // beside the packets
    fn handle_due_timers(&mut self, now: Instant) -> Option<Instant> {
        self.device.handle_timeout(&mut self.outbound, now);
        self.send_datagrams();
        self.device.poll_timeout().map(|(due, _)| due)
    }

    // 6. Sleep

    fn wait(
        &mut self,
        busy: bool,
        due: Option<Instant>,
        now: Instant,
    ) -> Result<Ready, WorkerError> {
        if self.fruitless >= FRUITLESS_ROUNDS {
            thread::sleep(FRUITLESS_SLEEP);
        }
        let timeout = match due {
            _ if busy => Some(Duration::ZERO),
            Some(due) if due <= now => Some(Duration::ZERO),
            Some(due) => Some((due - now).max(SHORTEST_WAIT)),
            None => None,
        };
        let ready = self.poller.wait(timeout);
        let [tun, udp4, udp6, commands, direct] =
            ready.map_err(|error| WorkerError::Wait(Arc::new(error)))?;
        Ok(Ready {
            tun,
            udp4,
            udp6,
            commands,
            direct,
        })
    }
}

/// What is waited for, in the order of [`Ready`].
fn poller(
    tun: Option<&TunPort>,
    udp: Option<&Sockets>,
    commands: &Commands,
) -> io::Result<Poller<5>> {
    Poller::new([
        tun.map(|tun| tun.tun().as_fd()),
        udp.and_then(|udp| udp.fd(Family::Ipv4)),
        udp.and_then(|udp| udp.fd(Family::Ipv6)),
        Some(commands.event.as_fd()),
        udp.and_then(Sockets::direct_fd),
    ])
}

/// What there is to do.
#[derive(Debug, Clone, Copy)]
struct Ready {
    tun: bool,
    udp4: bool,
    udp6: bool,
    commands: bool,
    /// The socket that one line has for itself.
    direct: bool,
}

impl Ready {
    const ALL: Self = Self {
        tun: true,
        udp4: true,
        udp6: true,
        commands: true,
        direct: true,
    };

    const COMMANDS: Self = Self {
        tun: false,
        udp4: false,
        udp6: false,
        commands: true,
        direct: false,
    };

    const fn has_packets(self) -> bool {
        self.tun || self.udp4 || self.udp6 || self.direct
    }
}

/// What there was to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Nothing,
    /// Something, and all of it was taken.
    All,
    /// The time of the round was used up; there may be more.
    More,
}

/// Packets of one frame into the queue of datagrams; returns how many and their bytes.
fn encapsulate(
    mut segments: Segments<'_>,
    device: &mut Device,
    udp: &mut Sockets,
    outbound: &mut TransmitQueue,
    now: Instant,
) -> (u64, usize) {
    let (mut packets, mut bytes) = (0, 0);
    while let Some(packet) = segments.next_packet() {
        packets += 1;
        bytes += packet.length;
        if outbound.is_full() {
            flush(udp, outbound, device);
        }
        if let Err(reason) = device.handle_tun_packet(packet, outbound, now) {
            tracing::trace!(?reason, "packet from TUN dropped");
        }
    }
    if outbound.len() >= SEND_AT {
        send_whole_runs(udp, outbound, device);
    }
    (packets, bytes)
}

/// Send everything.
fn flush(udp: &mut Sockets, outbound: &mut TransmitQueue, device: &mut Device) {
    if !outbound.is_empty() {
        send(udp, outbound, device, outbound.runs().len());
        outbound.clear();
    }
}

/// Send what can't grow any more, while it is in the cache.
fn send_whole_runs(udp: &mut Sockets, outbound: &mut TransmitQueue, device: &mut Device) {
    let runs = outbound.runs().len();
    if runs > 1 {
        send(udp, outbound, device, runs - 1);
        outbound.keep_last_run();
    }
}

fn send(udp: &mut Sockets, outbound: &TransmitQueue, device: &mut Device, runs: usize) {
    if let Some(local) = udp.send_first(outbound, runs) {
        device.handle_unusable_local(local);
    }
}
