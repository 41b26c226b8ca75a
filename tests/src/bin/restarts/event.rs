//! What happens to an end.
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::edge::{Edge, Instance};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Gateway,
    LanServer,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::LanServer => "lan-server",
        }
    }

    pub(crate) fn of(self, edge: &mut Edge) -> &mut Instance {
        match self {
            Self::Gateway => &mut edge.gateway,
            Self::LanServer => &mut edge.lan_server,
        }
    }
}

/// What befalls it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// SIGKILL, and started again after so long.
    Kill(Duration),
    /// SIGTERM, and started again at once.
    Restart,
    /// SIGHUP with a file that has changed.
    Reload,
}

impl Event {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Kill(wait) => format!("SIGKILL, started after {} ms", wait.as_millis()),
            Self::Restart => "stopped and started".to_owned(),
            Self::Reload => "reloaded".to_owned(),
        }
    }

    /// Let it happen; returns when it began.
    pub(crate) fn happens_to(self, instance: &mut Instance) -> Result<Instant> {
        let since = Instant::now();
        match self {
            Self::Kill(wait) => {
                instance.daemon.kill();
                std::thread::sleep(wait);
                instance.restart()?;
            }
            Self::Restart => {
                instance.daemon.stop(Signal::SIGTERM, PATIENCE)?;
                instance.restart()?;
            }
            Self::Reload => instance.reload(|text| format!("{text}\n# changed\n"))?,
        }
        Ok(since)
    }
}
