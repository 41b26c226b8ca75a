//! Against the kernel, each test in a network namespace of its own; the real `nft` is the reference.
mod change;
mod listing;
mod ownership;
mod rulesets;
mod world;
