//! What lies between a TUN device with offloads and single packets: large packets of the kernel are cut into segments
//! on the way to the network, or wait there for their turn, and packets of one flow are joined on the way to the kernel.
//!
//! Both directions are pure functions over buffers; reading and writing is `shared-os`'s.
pub mod backlog;
pub mod coalesce;
pub mod segment;
#[cfg(test)]
pub(crate) mod testing;
pub mod vnet_hdr;

pub use backlog::{Backlog, Frame, Turn};
pub use coalesce::{CoalesceKinds, Coalescer, SuperKind, Write};
pub use segment::{FRAME_TAILROOM, SEGMENT_TAILROOM, SegmentError, Segments, segments};
pub use vnet_hdr::{GsoKind, VNET_HDR_LEN, VnetHdr};
