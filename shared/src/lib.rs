//! The pure core of wg-edge: nouns, checked configuration, the WireGuard device as a state machine, packet
//! segmentation and coalescing, the plan of kernel changes and the ruleset as plain data.
//!
//! Nothing here reads a clock, opens a socket or talks to the kernel: time is an argument (`now`), input arrives
//! through `handle_*`, output leaves through `poll_*` and queues, configuration through `apply_*`/`set_*`.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | what the admin API and `--json` say |
//! | [`model`] | newtypes: keys, interface names, marks |
//! | [`cloudflare`] | lists of Cloudflare's networks: which may take the place of the one in use, and when |
//! | [`config`] | text of a configuration file → checked configuration, or an error with line, column and remedy |
//! | `wire` | checked views of IP, TCP, UDP, and checksums |
//! | [`offload`] | virtio-net header, segmentation of what TUN hands us, coalescing of what we hand to TUN |
//! | [`pairing`] | how a LAN host joins a gateway: token, messages, the conversation |
//! | [`wg`] | the WireGuard device: peers, sessions, allowed IPs, timers, handshake limits |
//! | [`uapi`] | WireGuard's cross-platform configuration protocol as text |
//! | [`plan`] | desired and actual kernel state, their difference, the nftables ruleset as data |
//! | [`simulate`] | what the rulesets of both ends do with a packet, without a kernel |
#![warn(missing_docs)]

pub mod api;
pub mod cloudflare;
pub mod config;
pub mod model;
pub mod offload;
pub mod pairing;
pub mod plan;
pub mod simulate;
pub mod uapi;
pub mod wg;
pub mod wire;

#[cfg(test)]
mod packet_path;
