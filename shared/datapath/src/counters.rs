//! What was moved and what was dropped, since the start.
use std::collections::BTreeMap;

use shared::wg::{DropReason, HandshakeResult};
use shared_os::udp;

/// Counters of a data path.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Packets and datagrams that the device dropped, by reason.
    pub drops: Vec<(DropReason, u64)>,
    /// Handshakes, by how they ended.
    pub handshakes: Vec<(HandshakeResult, u64)>,
    /// The TUN side.
    pub tun: TunCounters,
    /// The UDP side.
    pub udp: udp::Counters,
}

impl Counters {
    /// What the device dropped, by the name of the reason.
    pub fn dropped_by_reason(&self) -> BTreeMap<String, u64> {
        let named = self.drops.iter();
        named
            .map(|(reason, count)| (reason.as_str().to_owned(), *count))
            .collect()
    }

    /// How handshakes ended, by the name of the result.
    pub fn handshakes_by_result(&self) -> BTreeMap<String, u64> {
        let named = self.handshakes.iter();
        named
            .map(|(result, count)| (result.as_str().to_owned(), *count))
            .collect()
    }

    /// The rest, as `tun_…` and `udp_…`.
    pub fn io_by_name(&self) -> BTreeMap<String, u64> {
        let Self { tun, udp, .. } = self;
        let named = [
            ("tun_frames_read", tun.frames_read),
            ("tun_packets_read", tun.packets_read),
            ("tun_bytes_read", tun.bytes_read),
            ("tun_frames_malformed", tun.frames_malformed),
            ("tun_backlog_full", tun.backlog_full),
            ("tun_read_errors", tun.read_errors),
            ("tun_writes", tun.writes),
            ("tun_packets_written", tun.packets_written),
            ("tun_bytes_written", tun.bytes_written),
            ("tun_joined_writes", tun.joined_writes),
            ("tun_joined_writes_refused", tun.joined_writes_refused),
            ("tun_link_down", tun.link_down),
            ("tun_no_room", tun.no_room),
            ("tun_write_errors", tun.write_errors),
            ("udp_rx_datagrams", udp.rx_datagrams),
            ("udp_rx_bytes", udp.rx_bytes),
            ("udp_rx_merged", udp.rx_merged),
            ("udp_rx_truncated", udp.rx_truncated),
            ("udp_rx_errors", udp.rx_errors),
            ("udp_tx_datagrams", udp.tx_datagrams),
            ("udp_tx_bytes", udp.tx_bytes),
            ("udp_tx_segmented", udp.tx_segmented),
            ("udp_tx_calls", udp.tx_calls),
            ("udp_tx_queue_full", udp.tx_queue_full),
            ("udp_tx_too_big", udp.tx_too_big),
            ("udp_tx_no_socket", udp.tx_no_socket),
            ("udp_tx_errors", udp.tx_errors),
            ("udp_tx_source_cleared", udp.tx_source_cleared),
            ("udp_tx_segmented_refused", udp.tx_segmented_refused),
        ];
        named
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }
}

/// The TUN side. "Read" is from the kernel towards the network, "written" is to the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunCounters {
    /// Frames read; a large packet is one.
    pub frames_read: u64,
    /// Packets in them.
    pub packets_read: u64,
    /// Bytes of these packets.
    pub bytes_read: u64,
    /// Frames that made no sense.
    pub frames_malformed: u64,
    /// Frames dropped because too much waited to be sent.
    pub backlog_full: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes, of which each is one or several joined packets.
    pub writes: u64,
    /// Packets written.
    pub packets_written: u64,
    /// Bytes of these packets.
    pub bytes_written: u64,
    /// Writes of joined packets.
    pub joined_writes: u64,
    /// Writes of joined packets that the kernel refused, whose packets were then written one by one.
    pub joined_writes_refused: u64,
    /// Packets dropped because the link was down.
    pub link_down: u64,
    /// Packets dropped because the kernel had no room.
    pub no_room: u64,
    /// Packets dropped on any other error.
    pub write_errors: u64,
}
