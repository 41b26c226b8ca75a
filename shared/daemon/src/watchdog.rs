//! systemd's watchdog: with `WatchdogSec=` in the unit a daemon that gives no sign of life for so long is killed and started
//! again (`sd_watchdog_enabled(3)`).
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// When the next sign is due.
#[derive(Debug)]
pub struct Watchdog {
    /// `None` when nobody waits for signs.
    ticks: Option<Interval>,
}

impl Watchdog {
    /// As systemd asked for it when it started this process.
    pub fn of_service() -> Self {
        let mut limit_micros = 0;
        let is_asked = sd_notify::watchdog_enabled(false, &mut limit_micros);
        Self::new(is_asked.then(|| Duration::from_micros(limit_micros)))
    }

    /// Twice within `limit`, as `sd_watchdog_enabled(3)` advises.
    fn new(limit: Option<Duration>) -> Self {
        let period = limit.map(|limit| limit / 2);
        let ticks = period.filter(|period| !period.is_zero()).map(|period| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks }
    }

    /// Wait until a sign is due, for ever when nobody waits for any, and say how long giving it may take. Cancel safe.
    pub async fn due(&mut self) -> Duration {
        let Some(ticks) = &mut self.ticks else {
            return std::future::pending().await;
        };
        ticks.tick().await;
        ticks.period() / 2
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signs_are_due_twice_within_the_limit() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        let start = Instant::now();
        for seconds in [15, 30, 45] {
            assert_eq!(watchdog.due().await, Duration::from_millis(7500));
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_when_nobody_asks() {
        for limit in [None, Some(Duration::ZERO)] {
            let mut watchdog = Watchdog::new(limit);
            let day = Duration::from_secs(86_400);
            assert!(timeout(day, watchdog.due()).await.is_err());
        }
    }
}
