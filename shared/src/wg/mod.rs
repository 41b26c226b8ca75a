//! The WireGuard device as a pure state machine: datagrams and packets in, datagrams and packets out, `now` as an
//! argument, no socket, no clock (the engine behind `noise.rs` reads its own, see there).
pub mod change;
pub mod device;
pub mod drop_reason;
pub mod packet_batch;
pub mod transmit;

pub use change::{AllowedIpChange, DeviceChange, DeviceStatus, PeerChange, PeerStatus};
pub use device::Device;
pub use drop_reason::DropReason;
pub use packet_batch::PacketBatch;
pub use transmit::{Ecn, Path, TransmitQueue};
