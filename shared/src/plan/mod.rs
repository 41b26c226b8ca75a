//! Kernel state as data: what it should be, what it is, and the ordered changes between the two.
pub mod desired;
pub mod ruleset;

pub use desired::{Address, Desired, Link, Route, RoutingRule, Sysctl};
pub use ruleset::Ruleset;
