//! The process that goes back in the daemon's place: a configuration on trial must not stay because the daemon was killed and
//! nobody starts it again.
//!
//! It holds one end of a pipe. As long as the daemon lives it does nothing; dismissed, it ends; when the pipe breaks, it waits for
//! the end of the trial. If no daemon runs then, and nobody has confirmed, it puts the firewall of before in place. The link went
//! with the daemon, and everything over it.
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use shared_os::process::Instance;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::record::{DIED, Record};
use crate::cloudflare;
use crate::error::Failure;
use crate::product::{Product, Service as _};
use crate::reconcile::Kernel;
use crate::{app, cli};

/// This program, also when its file was replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// What it is told when it is not needed any more.
const DISMISSED: u8 = b'.';

/// What the process is told at its start.
#[derive(Debug, Args)]
pub struct Orders {
    /// The record of the apply
    record: PathBuf,
    /// Its identifier
    id: Uuid,
    /// Seconds until the trial ends
    seconds: u64,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    line: ChildStdin,
}

impl Guard {
    /// Start it.
    ///
    /// # Errors
    /// No process can be started.
    pub fn start<P: Product>(
        config_path: &Path,
        record: &Path,
        id: Uuid,
        within: Duration,
    ) -> io::Result<Self> {
        let mut process = Command::new(PROGRAM)
            .arg0(P::NAME)
            .arg("--config")
            .arg(config_path)
            .arg("guard-apply")
            .arg(record)
            .args([id.to_string(), within.as_secs().to_string()])
            // Whom systemd talks to is the daemon.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What a terminal sends to the daemon is not meant for it.
            .process_group(0)
            .spawn()?;
        let line = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { process, line })
    }

    /// It is not needed any more.
    pub fn dismiss(mut self) {
        if let Err(error) = self.line.write_all(&[DISMISSED]) {
            warn!(%error, "the guard of the apply had ended before it was dismissed");
        }
        // It ends at once, and this waits only so that nothing is left of it.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.process.wait() {
                warn!(%error, "can't wait for the guard of the apply");
            }
        });
    }
}

/// The process itself, until it is not needed any more.
///
/// # Errors
/// It was needed, and could not do it.
pub async fn run<P: Product>(config_path: &Path, orders: &Orders) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(orders.seconds);
    let mut said = [0];
    let dismissed = io::stdin().read(&mut said);
    if dismissed.map_err(|error| Failure::other(&error))? > 0 {
        return Ok(());
    }
    tokio::time::sleep_until(until.into()).await;
    let mut record = Record::open(orders.record.clone());
    let Some(entry) = record.entry() else {
        return Ok(());
    };
    if entry.id != orders.id || entry.rolled_back.is_some() {
        return Ok(());
    }
    let before = entry.before.clone();
    let parsed = cli::parse::<P>(&before, config_path)?;
    let settings = P::settings(&parsed.config);
    // Who runs by now has seen the record, and gone back by itself.
    let Ok(_instance) = Instance::acquire(&settings.runtime_dir, P::NAME) else {
        return Ok(());
    };
    warn!("the daemon does not run, and the configuration was not confirmed: going back");
    let mut kernel = Kernel::open(&settings.state_dir)?;
    let ranges = cloudflare::Record::open(&settings.state_dir, &settings.cloudflare);
    let environment = app::environment(&settings, kernel.netlink(), &ranges).await?;
    let members = P::Service::look(&settings).await?;
    let model = P::model(&parsed.config, &environment, &members);
    let replaced = kernel.nftables().replace(&model.desired.ruleset);
    replaced.map_err(|error| Failure::other(&error))?;
    info!(table = %model.desired.ruleset.table, "the firewall of before is in place");
    if let Err(error) = record.roll_back(DIED, Timestamp::now()) {
        error!(file = %record.file().display(), %error, "can't write that the apply was rolled back");
    }
    Ok(())
}
