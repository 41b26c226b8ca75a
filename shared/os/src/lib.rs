//! The Linux side of wg-edge, except nftables: what `shared` decides, this crate does.
//!
//! | module | what |
//! |---|---|
//! | [`tun`] | the TUN device: super-packets in and out |
//! | [`udp`] | the sockets of the tunnel: batches, GSO, GRO |
//! | [`echo`] | ICMP echo, with packets of any size |
//! | [`netlink`] | links, addresses, routes, rules: read the actual state, apply a change, watch for others' changes; the table of connections |
//! | [`sysctl`] | kernel switches under `/proc/sys`, and what they were before us |
//! | [`process`] | one instance at a time, privileges, no core dumps |
//! | [`key_file`] | secrets in files: permissions, creation |
//! | [`atomic_file`] | files that are either the old or the new ones |
//! | [`sockets`] | who waits for callers on this host |
//! | [`random`] | random bytes for keys |
//! | [`clock`] | the one place that reads the time |
//! | [`sys`] | system calls, each behind a safe function |
//! | [`netns`] | a closure in a network namespace of its own, for tests |
#![warn(missing_docs)]

pub mod atomic_file;
pub mod clock;
pub mod echo;
pub mod key_file;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod random;
pub mod sockets;
pub mod sys;
pub mod sysctl;
pub mod tun;
pub mod udp;
