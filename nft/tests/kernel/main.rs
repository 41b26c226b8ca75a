//! Against the kernel, each test in a network namespace of its own; the real `nft` is the reference.
mod listing;
mod rulesets;
mod world;
