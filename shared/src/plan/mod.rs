//! Kernel state as data: what it should be, what it is, and the ordered changes between the two.
//!
//! ```text
//! configuration ─► Desired ─┐
//!                           ├─► difference ─► Changes: before_ruleset, (the ruleset), after_ruleset
//! kernel ────────► Actual ──┘
//! ```
//! Nothing here talks to the kernel: `shared_os::netlink` reads an [`Actual`] and applies a [`Change`].
pub mod actual;
pub mod change;
pub mod desired;
pub mod diff;
pub mod drift;
pub mod flow;
mod going;
pub mod host;
mod missing;
mod ownership;
pub mod ruleset;

pub use actual::{Actual, LinkKind, LiveLink, LiveRoute, LiveRule, LiveSysctl};
pub use change::{Change, Changes, Conflict};
pub use desired::{Address, Desired, Link, Route, RoutingRule, Sysctl};
pub use diff::{difference, removal};
pub use drift::{Drift, DriftKind, Heals};
pub use flow::{Flow, FlowKind};
pub use host::Host;
pub use missing::same_value;
pub use ownership::{LinkClaim, Ownership};
pub use ruleset::Ruleset;

#[cfg(test)]
mod fake_kernel;
#[cfg(test)]
mod tests;
