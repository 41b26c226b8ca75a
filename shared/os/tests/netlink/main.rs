//! Our netlink code and the real kernel, in a fresh network namespace per test. What we did is asserted on the kernel's
//! own listing, not on our reading of it.
//!
//! ```text
//!   edge0 (TUN, ours)     eth0 ──── peer0 (veth, foreign)     lo
//! ```
mod desired;
mod foreign;
mod socket;
mod switches;
mod world;
