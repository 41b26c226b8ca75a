//! The only place where time is read: everything else takes `now` as an argument.
use std::time::Instant;

/// The time, monotonic (`CLOCK_MONOTONIC`: it stands still while the machine sleeps).
pub fn now() -> Instant {
    Instant::now()
}
