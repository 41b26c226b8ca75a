//! How often a configuration, or a change of peers, was put in place.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start of the process. The configuration that it started with is not among them: had that failed, there
/// would be no process.
#[derive(Debug, Default)]
pub struct Applies {
    ok: AtomicU64,
    failed: AtomicU64,
    rolled_back: AtomicU64,
}

impl Applies {
    /// Count one.
    pub fn count(&self, is_ok: bool) {
        let counter = if is_ok { &self.ok } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Count a configuration that was applied and taken back.
    pub fn count_rollback(&self) {
        self.rolled_back.fetch_add(1, Ordering::Relaxed);
    }

    /// `ok`, `failed` and `rolled_back`.
    pub fn by_result(&self) -> BTreeMap<String, u64> {
        let counters = [
            ("ok", &self.ok),
            ("failed", &self.failed),
            ("rolled_back", &self.rolled_back),
        ];
        counters
            .into_iter()
            .map(|(result, counter)| (result.to_owned(), counter.load(Ordering::Relaxed)))
            .collect()
    }
}
