//! End-to-end tests: the two real binaries in a [world](tests::world), real traffic, real kernel.
//!
//! Every file is one behaviour. A test gets a world of its own, so any number of them run at the same time.
mod support;

mod world_itself;
