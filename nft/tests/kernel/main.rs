//! Against the kernel, each test in a network namespace of its own; the real `nft` is the reference.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails where it panics, and says what it left out"
)]

mod change;
mod foreign;
mod listing;
mod ownership;
mod random;
mod rulesets;
mod world;
