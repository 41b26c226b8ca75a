//! All peers of one interface.
use std::time::Instant;

use super::{DeviceChange, DeviceStatus, DropReason, Ecn, PacketBatch, Path, TransmitQueue};

/// A WireGuard device without its I/O.
#[derive(Debug)]
pub struct Device {}

/// A packet read from TUN.
#[derive(Debug)]
pub struct OutboundPacket<'a> {
    /// The packet and at least 16 bytes behind it, which may be used while the call lasts and are restored after it.
    pub buffer: &'a mut [u8],
    /// Length of the packet.
    pub length: usize,
}

impl Device {
    /// A device without key and peers whose inner packets have at most `mtu` bytes.
    pub fn new(_mtu: usize, _now: Instant) -> Self {
        Self {}
    }

    /// Change configuration; `listen_port` and `fwmark` are the socket owner's business and ignored here.
    pub fn apply_change(
        &mut self,
        _change: &DeviceChange,
        _out: &mut TransmitQueue,
        _now: Instant,
    ) {
    }

    /// What `wg show` shows, but for listen port and fwmark.
    pub fn status(&self, _now: Instant) -> DeviceStatus {
        DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers: Vec::new(),
        }
    }

    /// Outbound: a packet from TUN becomes a datagram in `out`, or waits for a handshake whose initiation goes to `out`.
    pub fn handle_tun_packet(
        &mut self,
        _packet: OutboundPacket<'_>,
        _out: &mut TransmitQueue,
        _now: Instant,
    ) -> Result<(), DropReason> {
        Err(DropReason::NoPeerForDestination)
    }

    /// Inbound: a datagram becomes a packet in `inbound`, an answer in `out`, both, or neither.
    pub fn handle_datagram(
        &mut self,
        _path: Path,
        _ecn: Ecn,
        _datagram: &[u8],
        _inbound: &mut PacketBatch,
        _out: &mut TransmitQueue,
        _now: Instant,
    ) -> Result<(), DropReason> {
        Err(DropReason::NoPeerForDestination)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next, and why. May change after every call of
    /// `apply_change`, `handle_tun_packet`, `handle_datagram` and `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// Do what is due: retransmissions, keepalives, rekeys, erasure of old keys.
    pub fn handle_timeout(&mut self, _out: &mut TransmitQueue, _now: Instant) {}
}
