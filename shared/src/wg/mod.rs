//! The WireGuard device as a pure state machine: datagrams and packets in, datagrams and packets out, `now` as an
//! argument, no socket, no clock (the engine behind `noise.rs` reads its own, see there).
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | all peers of one interface; timeouts |
//! | `outbound.rs`, `inbound.rs` | the two ways of a packet, step by step |
//! | `configure.rs` | changes of configuration |
//! | `peer.rs` | one peer: endpoint, staged packets, what follows from each event |
//! | `keypairs.rs`, `timers.rs` | which session may be used; when a peer acts of its own accord |
//! | `noise.rs` | the engine: handshake and encryption |
//! | `allowed_ips.rs`, `index.rs`, `peer_table.rs` | address → peer, receiver index → peer, key → peer |
//! | `limits.rs` | what a handshake of a stranger may cost |
//! | `drop_reason.rs`, `handshakes.rs` | what is counted |
//! | `wire.rs`, `inner.rs` | what is read of messages and of the packets in them |
pub mod change;
pub mod device;
pub mod drop_reason;
pub mod handshakes;
pub mod packet_buffer;
pub mod transmit;

mod allowed_ips;
mod configure;
mod constants;
mod inbound;
mod index;
mod inner;
mod keypairs;
mod limits;
mod noise;
mod outbound;
mod peer;
mod peer_table;
mod timers;
mod wire;

#[cfg(test)]
mod tests;

pub use change::{AllowedIpChange, DeviceChange, DeviceStatus, PeerChange, PeerStatus};
pub use device::{Device, OutboundPacket};
pub use drop_reason::DropReason;
pub use handshakes::HandshakeResult;
pub use packet_buffer::PacketBuffer;
pub use transmit::{Ecn, Path, TransmitQueue};
