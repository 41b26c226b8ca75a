//! How far long work is: one line of standard error that is written over, on a terminal only.
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

/// Work that takes less than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);
/// Fast enough for eyes, and slow enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(100);
/// To the begin of the line, and what stands there away (ECMA-48, CR and EL).
const CLEAR: &str = "\r\x1b[K";

/// The line. It is gone when this is dropped, so that what is printed next begins on an empty one.
#[derive(Debug)]
pub struct Progress<W: Write = io::Stderr> {
    /// Nothing when nobody looks.
    to: Option<W>,
    next: Instant,
    shown: bool,
}

impl Progress {
    /// On standard error, when that is a terminal.
    pub fn new() -> Self {
        let stderr = io::stderr();
        let to = stderr.is_terminal().then_some(stderr);
        Self::on(to, Instant::now())
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write> Progress<W> {
    fn on(to: Option<W>, now: Instant) -> Self {
        Self {
            to,
            next: now + PATIENCE,
            shown: false,
        }
    }

    /// So much is done: `copied 1000 of 4000 pages`. Without a total, how much there is is not known.
    pub fn tell(&mut self, what: &str, done: u64, total: Option<u64>, unit: &str) {
        self.tell_at(what, done, total, unit, Instant::now());
    }

    fn tell_at(&mut self, what: &str, done: u64, total: Option<u64>, unit: &str, now: Instant) {
        let Some(to) = self.to.as_mut().filter(|_| now >= self.next) else {
            return;
        };
        self.next = now + INTERVAL;
        self.shown = true;
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        // Nothing is left to be done when even standard error is gone.
        let _closed = write!(to, "{CLEAR}{what} {done}{of} {unit}").and_then(|()| to.flush());
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        if let Some(to) = self.to.as_mut().filter(|_| self.shown) {
            let _closed = write!(to, "{CLEAR}").and_then(|()| to.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_work_is_told_and_not_too_often_and_leaves_nothing_behind() {
        let mut screen = Vec::new();
        let start = Instant::now();
        let mut progress = Progress::on(Some(&mut screen), start);
        for millis in 0..450 {
            let now = start + Duration::from_millis(millis);
            progress.tell_at("copied", millis, Some(450), "pages", now);
        }
        drop(progress);
        let screen = String::from_utf8(screen).unwrap();
        assert_eq!(
            screen,
            "\r\x1b[Kcopied 300 of 450 pages\r\x1b[Kcopied 400 of 450 pages\r\x1b[K"
        );
    }

    #[test]
    fn short_work_and_nobody_looking_write_nothing() {
        let mut screen = Vec::new();
        let start = Instant::now();
        Progress::on(Some(&mut screen), start).tell_at("read", 1, None, "entries", start);
        assert_eq!(screen, b"");
        let mut nobody = Progress::on(None::<Vec<u8>>, start);
        nobody.tell_at("read", 1, None, "entries", start + PATIENCE);
        assert!(!nobody.shown);
    }
}
