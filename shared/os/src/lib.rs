//! The Linux side of wg-edge except nftables.
#![warn(missing_docs)]
pub mod clock;
pub mod sys;
pub mod tun;
pub mod udp;
