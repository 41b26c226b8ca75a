//! What the rules of both ends do with a packet, without a kernel: the rules are the [`Ruleset`](crate::plan::Ruleset) that
//! the kernel gets, evaluated here. Pure.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | a packet as rules see it |
//! | [`host`] | what a host knows beside its rules: addresses, routes, routing rules |
//! | `part` | one match or statement of a rule: the only place that knows what each does |
//! | `chain` | rules in order, jumps, verdicts |
//! | [`passage`] | one host: hooks, connection tracking, translation and routing in the kernel's order |
//! | [`walk`] | both ends and the tunnel between them, there and back |
//! | [`expectation`] | the tests of a configuration, tried |
//! | [`survival`] | what becomes of open connections when a configuration follows another |
//!
//! Left out is what no rule of ours asks for: fragments, other tables, neighbours, and which process listens. That the rest
//! is as in the kernel is shown by `tests/netns/simulation`, which sends random packets through random policies.
mod chain;
pub mod expectation;
pub mod host;
pub mod packet;
mod part;
pub mod passage;
pub mod survival;
pub mod walk;

pub use expectation::{NoCaller, Results, Simulation};
pub use host::Host;
pub use packet::{Icmp, Packet, Payload};
pub use passage::{Connection, End, Entry, Passage, Step};
pub use survival::{Cause, Fate, Transition};
pub use walk::{LanEnd, Peer, Site, TunnelEnd};

#[cfg(test)]
mod tests;
