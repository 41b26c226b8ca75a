//! The packet's route. One thread owns a TUN queue, the sockets, their buffers and the WireGuard device, and goes round:
//!
//! 1. [`Worker::handle_commands`]: what the control side asks;
//! 2. [`Worker::receive_datagrams`]: network → [`Device::handle_datagram`] → TUN;
//! 3. [`Worker::read_packets`]: TUN → [`Device::handle_tun_packet`] → queue of datagrams;
//! 4. [`Worker::send_datagrams`]: that queue, and the device's own messages, → network;
//! 5. [`Worker::handle_timers`]: what the device has to do by itself;
//! 6. [`Worker::wait`]: sleep, but only when the others found nothing.
//!
//! Each step takes a bounded amount, so that neither direction starves the other. The clock is read once per round.
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared::model::InterfaceName;
use shared::wg::{Device, DeviceChange, DeviceStatus, PacketBatch, PeerStatus, TransmitQueue};
use shared_os::clock;
use shared_os::sys::poll;
use shared_os::udp::{self, BindError, Family, ReceiveBuffers, Sockets};

use super::control::{Command, Commands};
use super::log_limit::LogLimit;
use super::tun_port::{ReadError, TunPort};
use super::{Counters, Offloads, WorkerError};

/// Frames read from TUN per round: 4 large ones are 190 datagrams, some 0.3 ms of encryption.
const TUN_FRAMES_PER_ROUND: usize = 4;

/// Bytes of datagrams that may wait, beside the one being made: what 4 large frames become, so that runs stay whole.
const TRANSMIT_CAPACITY: usize = 288 << 10;

/// Bytes of packets that may wait, beside the one being decrypted: two large writes. More would leave the cache.
const INBOUND_CAPACITY: usize = 128 << 10;

/// Rounds in a row in which a descriptor was ready but nothing came of it, before we believe that it stays so.
const FRUITLESS_ROUNDS: u32 = 8;

/// Sleep after that many: a descriptor in error must not cost a core.
const FRUITLESS_SLEEP: Duration = Duration::from_millis(1);

/// Shortest sleep for a deadline, which is also the grain of `poll`.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// One thread's worth of data path.
#[derive(Debug)]
pub(super) struct Worker {
    device: Device,
    tun: TunPort,
    udp: Sockets,
    /// What the sockets were bound with.
    options: udp::Options,
    received: ReceiveBuffers,
    inbound: PacketBatch,
    outbound: TransmitQueue,
    commands: Commands,
    fruitless: u32,
    log: LogLimit,
}

impl Worker {
    pub(super) fn new(
        device: Device,
        tun: TunPort,
        udp: Sockets,
        options: udp::Options,
        commands: Commands,
    ) -> Self {
        Self {
            device,
            tun,
            udp,
            options,
            received: ReceiveBuffers::default(),
            inbound: PacketBatch::new(INBOUND_CAPACITY),
            outbound: TransmitQueue::new(TRANSMIT_CAPACITY),
            commands,
            fruitless: 0,
            log: LogLimit::default(),
        }
    }

    pub(super) const fn interface(&self) -> &InterfaceName {
        self.tun.tun().name()
    }

    /// Go round until asked to stop, or until the TUN link is gone.
    pub(super) fn run(mut self) -> Result<(), WorkerError> {
        while !self.commands.stop.load(Ordering::Acquire) {
            let now = clock::now();
            let commanded = self.handle_commands(now);
            let received = self.receive_datagrams(now);
            let read = self.read_packets(now)?;
            self.send_datagrams();
            let more_due = self.handle_timers(now);
            if commanded || received || read || more_due {
                self.fruitless = 0;
            } else {
                self.wait()?;
            }
        }
        Ok(())
    }

    // 1. Commands

    fn handle_commands(&mut self, now: Instant) -> bool {
        let mut handled = false;
        while let Ok(command) = self.commands.queue.try_recv() {
            handled = true;
            self.handle_command(command, now);
        }
        handled
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
            Command::Persist(reply) => {
                let _unheard = reply.send(self.tun.tun().set_persist(true));
            }
            Command::ClockSteppedForward(reply) => {
                self.device.handle_forward_clock_step();
                let _unheard = reply.send(());
            }
        }
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
                let mut udp = Sockets::bind(self.options).inspect_err(|_| self.options = before)?;
                udp.continue_counters(*self.udp.counters());
                self.udp = udp;
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
            tun: self.tun.counters,
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

    fn receive_datagrams(&mut self, now: Instant) -> bool {
        let mut any = false;
        for family in [Family::Ipv4, Family::Ipv6] {
            match self.udp.receive(family, &mut self.received) {
                Ok(true) => {
                    any = true;
                    self.handle_received(now);
                }
                Ok(false) => {}
                Err(error) => {
                    if let Some(suppressed) = self.log.allow(now) {
                        tracing::warn!(%error, ?family, suppressed, "receiving datagrams failed");
                    }
                }
            }
        }
        any
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
        for received in received.received() {
            for datagram in received.datagrams() {
                if inbound.is_full() {
                    tun.write(inbound, now);
                }
                if outbound.is_full() {
                    flush(udp, outbound, device);
                }
                let (path, ecn) = (received.path, received.ecn);
                if let Err(reason) =
                    device.handle_datagram(path, ecn, datagram, inbound, outbound, now)
                {
                    tracing::trace!(?reason, remote = %path.remote, "datagram dropped");
                }
            }
        }
        tun.write(inbound, now);
    }

    // 3. TUN → device

    fn read_packets(&mut self, now: Instant) -> Result<bool, WorkerError> {
        for frames in 0..TUN_FRAMES_PER_ROUND {
            let Self {
                device,
                tun,
                udp,
                outbound,
                ..
            } = self;
            let mut segments = match tun.read(now) {
                Ok(segments) => segments,
                Err(ReadError::Useless) => continue,
                Err(ReadError::Empty) => return Ok(frames > 0),
                Err(ReadError::Removed(source)) => {
                    return Err(WorkerError::TunRemoved {
                        name: tun.tun().name().clone(),
                        source: Arc::new(source),
                    });
                }
            };
            let (mut packets, mut bytes) = (0, 0);
            while let Some(packet) = segments.next_packet() {
                packets += 1;
                bytes += packet.length as u64;
                if outbound.is_full() {
                    flush(udp, outbound, device);
                }
                if let Err(reason) = device.handle_tun_packet(packet, outbound, now) {
                    tracing::trace!(?reason, "packet from TUN dropped");
                }
            }
            tun.counters.packets_read += packets;
            tun.counters.bytes_read += bytes;
        }
        Ok(true)
    }

    // 4. Device → network

    fn send_datagrams(&mut self) {
        flush(&mut self.udp, &mut self.outbound, &mut self.device);
    }

    // 5. Timers

    /// Returns whether more is due: the device does a bounded amount per call.
    fn handle_timers(&mut self, now: Instant) -> bool {
        if self.device.poll_timeout().is_none_or(|(at, _)| at > now) {
            return false;
        }
        self.device.handle_timeout(&mut self.outbound, now);
        self.send_datagrams();
        self.device.poll_timeout().is_some_and(|(at, _)| at <= now)
    }

    // 6. Sleep

    fn wait(&mut self) -> Result<(), WorkerError> {
        if self.fruitless >= FRUITLESS_ROUNDS {
            thread::sleep(FRUITLESS_SLEEP);
        }
        let timeout = self.device.poll_timeout().map(|(at, _)| {
            let left = at.saturating_duration_since(clock::now());
            left.max(SHORTEST_WAIT)
        });
        let event = &self.commands.event;
        let ready = poll::readable(
            [
                Some(self.tun.tun().as_fd()),
                self.udp.fd(Family::Ipv4),
                self.udp.fd(Family::Ipv6),
                Some(event.as_fd()),
            ],
            timeout,
        )
        .map_err(|error| WorkerError::Wait(Arc::new(error)))?;
        let [tun, udp4, udp6, woken] = ready;
        if woken {
            event.lower();
        }
        let packets = tun || udp4 || udp6;
        self.fruitless = if packets { self.fruitless + 1 } else { 0 };
        Ok(())
    }
}

fn flush(udp: &mut Sockets, outbound: &mut TransmitQueue, device: &mut Device) {
    if !outbound.is_empty() {
        if let Some(local) = udp.send(outbound) {
            device.handle_unusable_local(local);
        }
        outbound.clear();
    }
}
