//! What was moved and what was dropped, since the start.
use shared::wg::DropReason;
use shared_os::udp;

/// Counters of a data path.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Packets and datagrams that the device dropped, by reason.
    pub drops: Vec<(DropReason, u64)>,
    /// The TUN side.
    pub tun: TunCounters,
    /// The UDP side.
    pub udp: udp::Counters,
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
