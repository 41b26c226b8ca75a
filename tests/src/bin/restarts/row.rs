//! What came of it, as a table.
use std::fmt::Write as _;
use std::time::Duration;

use super::event::End;

/// One kind of event at one end.
#[derive(Debug)]
pub(crate) struct Row {
    end: End,
    event: String,
    silences: Vec<Duration>,
    lost: usize,
}

impl Row {
    pub(crate) fn new(end: End, event: String) -> Self {
        Self {
            end,
            event,
            silences: Vec::new(),
            lost: 0,
        }
    }

    /// One more time.
    pub(crate) fn add(&mut self, silence: Duration, lost: usize) {
        self.silences.push(silence);
        self.lost += lost;
    }

    /// Connections that were lost.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }

    fn line(&self) -> String {
        let mut sorted = self.silences.clone();
        sorted.sort_unstable();
        // The smallest that so many of a hundred do not exceed: the 19th of 20.
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            let found = sorted.get(rank).copied().unwrap_or_default();
            format!("{} ms", found.as_millis())
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.end.name(),
            self.event,
            sorted.len(),
            percentile(50),
            percentile(95),
            percentile(100),
            self.lost
        )
    }
}

/// In Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| end | what happened | times | nobody served for: median | 95 % | slowest | open connections lost |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "{}", row.line());
    }
    text
}
