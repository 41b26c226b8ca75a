//! Errors that come with packets may come a million times a second: one line per kind and interval.
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one line through per interval and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    next: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log now; how many lines were not logged since the last one.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.suppressed += 1;
            return None;
        }
        self.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_says_how_many_it_stands_for() {
        let mut limit = LogLimit::default();
        let start = shared_os::clock::now();
        assert_eq!(limit.allow(start), Some(0));
        assert_eq!(limit.allow(start), None);
        assert_eq!(limit.allow(start + INTERVAL / 2), None);
        assert_eq!(limit.allow(start + INTERVAL), Some(2));
        assert_eq!(limit.allow(start + INTERVAL), None);
    }
}
