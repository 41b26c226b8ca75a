//! When the next list is there, and its text.
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use shared::cloudflare::LONGEST_TEXT;
use shared::config::{ListUrl, Refresh};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::fetch::{self, fetch};
use super::now;

/// How often a web server is asked.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// By how much that varies: thousands of edges that were started together do not ask together.
const JITTER: Duration = Duration::from_secs(60 * 60);

/// A start does not wait for the first answer, and when it comes the network is up.
const FIRST: Duration = Duration::from_secs(30);

/// Pause after the first attempt that failed; each further one doubles it.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// But no longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(6 * 60 * 60);

/// How often it is looked whether a file has changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a file is read although it has not: networks that it lacks go after a while.
const READ_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// A text that may be a list, and as of when.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) text: String,
    pub(super) as_of: Timestamp,
}

/// Where lists come from.
#[derive(Debug)]
pub(super) enum Source {
    Nowhere,
    Web(Web),
    File(Watched),
}

#[derive(Debug)]
pub(super) struct Web {
    url: ListUrl,
    user_agent: String,
    due: Instant,
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    /// As it was when it was read last; `Err` when it could not be looked at.
    seen: Option<Result<Seen, io::ErrorKind>>,
    read_at: Instant,
}

/// What differs after a file was written or replaced, or may be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    /// Last change of content or attributes, in seconds and nanoseconds.
    changed: (i64, i64),
    modified: SystemTime,
}

impl Source {
    /// Soon, or when a day has passed since the list was like that.
    pub(super) fn at_start(
        refresh: Option<&Refresh>,
        program: &str,
        confirmed_at: Option<Timestamp>,
    ) -> Self {
        let age = confirmed_at.map(|at| now().duration_since(at));
        let age = age.and_then(|age| Duration::try_from(age).ok());
        let wait = match age {
            Some(age) if age < DAY => DAY.saturating_sub(age) + random(JITTER),
            Some(_) | None => random(FIRST),
        };
        Self::new(refresh, program, wait)
    }

    /// Now.
    pub(super) fn at_once(refresh: Option<&Refresh>, program: &str) -> Self {
        Self::new(refresh, program, Duration::ZERO)
    }

    fn new(refresh: Option<&Refresh>, program: &str, wait: Duration) -> Self {
        match refresh {
            None => Self::Nowhere,
            Some(Refresh::Url(url)) => Self::Web(Web {
                url: url.clone(),
                user_agent: format!("wg-edge-{program}/{}", env!("CARGO_PKG_VERSION")),
                due: Instant::now() + wait,
                failures: 0,
            }),
            Some(Refresh::File(path)) => Self::File(Watched {
                path: path.clone(),
                seen: None,
                read_at: Instant::now(),
            }),
        }
    }

    /// The next text, or why there is none. Whoever stops waiting loses nothing.
    pub(super) async fn next(&mut self) -> Result<Offered, String> {
        match self {
            Self::Nowhere => std::future::pending().await,
            Self::Web(web) => web.next().await,
            Self::File(file) => file.next().await,
        }
    }

    /// What became of the text: whether it was a list.
    pub(super) fn ended(&mut self, is_taken: bool) {
        match self {
            Self::Nowhere | Self::File(_) => {}
            Self::Web(web) => {
                web.failures = if is_taken { 0 } else { web.failures + 1 };
                web.due =
                    Instant::now() + pause(web.failures) + random(JITTER.min(pause(web.failures)));
            }
        }
    }
}

impl Web {
    async fn next(&mut self) -> Result<Offered, String> {
        sleep_until(self.due).await;
        let trust = fetch::trust_of_system().await;
        let trust = trust.map_err(|error| error.to_string())?;
        let fetched = fetch(&self.url, &self.user_agent, trust).await;
        let text = fetched.map_err(|error| crate::error::chain(&error))?;
        Ok(Offered { text, as_of: now() })
    }
}

impl Watched {
    async fn next(&mut self) -> Result<Offered, String> {
        loop {
            let seen = self.look().await;
            let kind = seen.as_ref().map(|seen| *seen).map_err(io::Error::kind);
            if self.seen != Some(kind) || self.read_at.elapsed() >= READ_INTERVAL {
                let offered = match seen {
                    Ok(seen) => self.read(seen).await,
                    Err(error) => Err(error),
                };
                // Only now: whoever stops waiting before has not read it.
                self.seen = Some(kind);
                self.read_at = Instant::now();
                return offered.map_err(|error| format!("it can't be read: {error}"));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn look(&self) -> io::Result<Seen> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = tokio::fs::metadata(&self.path).await?;
        if !metadata.is_file() {
            // Reading a pipe might never end.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Seen {
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: metadata.modified()?,
        })
    }

    /// A file's list is as old as the file: who updates it each day can see when that has stopped.
    async fn read(&self, seen: Seen) -> io::Result<Offered> {
        let file = tokio::fs::File::open(&self.path).await?;
        let mut text = String::new();
        // One more than is allowed: what is too long is refused, not cut.
        let most = LONGEST_TEXT as u64 + 1;
        file.take(most).read_to_string(&mut text).await?;
        let as_of = Timestamp::try_from(seen.modified).unwrap_or_else(|_| now());
        Ok(Offered {
            text,
            as_of: Timestamp::from_second(as_of.as_second()).unwrap_or(as_of),
        })
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => DAY,
        Some(doublings) => {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            RETRY.saturating_mul(factor).min(LONGEST_RETRY)
        }
    }
}

/// Anything up to `most`.
fn random(most: Duration) -> Duration {
    // Without random numbers all wait for the same time, which is better than none.
    let bytes = shared_os::random::bytes::<4>().unwrap_or([u8::MAX; 4]);
    most.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
