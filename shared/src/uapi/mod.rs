//! WireGuard's cross-platform configuration protocol as text (<https://www.wireguard.com/xplatform/>): what `wg(8)`
//! speaks with a userspace implementation over `/run/wireguard/<interface>.sock`.
//!
//! ```text
//! request  := "get=1\n" "\n"  |  "set=1\n" device-line* ("public_key=…\n" peer-line*)* "\n"
//! answer   := line* "errno=" number "\n" "\n"
//! line     := key "=" value "\n"
//! ```
//!
//! Bytes of a connection go through [`Decoder`], which yields [`Request`]s; [`format_status`] and [`Errno::answer`]
//! make the answers. Meaning and error numbers are those of wireguard-go's `device/uapi.go`, but for four points:
//!
//! - A `set` is applied as a whole or not at all. wireguard-go applies line by line and stops at the first bad one.
//! - A connection that ends in the middle of a `set` changes nothing ([`RequestError::Truncated`]).
//! - `replace_peers` keeps endpoint, session and counters of a peer that the request names again; everything else of
//!   that peer is set back to what a new peer has. So `wg setconf` with a peer that stays does not interrupt it.
//! - What is no request at all gets `EINVAL` before the connection ends; wireguard-go just ends it.
//!
//! Every bound is here: a client can make us hold at most [`MAX_REQUEST_BYTES`] of text, in lines of at most
//! [`MAX_LINE_BYTES`], and what they say.
mod decode;
mod error;
mod format;
#[cfg(test)]
mod round_trip;
mod set;
mod value;

pub use decode::{Decoder, Request, ZoneIndex, check_any_bytes};
pub use error::{Errno, RequestError};
pub use format::format_status;

/// Longest line, without its line feed. The longest that means something has 83 bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// Largest request. 65,536 allowed IPs in their longest form (`allowed_ip=` and 44 bytes) take 3.7 MB.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
