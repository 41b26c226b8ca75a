//! `down`: stop the daemon if it runs, then remove everything that is ours from the kernel.
use std::path::Path;
use std::time::{Duration, Instant};

use shared_os::process::{self, Instance, InstanceError};
use tracing::info;

use crate::app;
use crate::cli::load;
use crate::error::Failure;
use crate::product::{Product, Settings};
use crate::reconcile::Kernel;

/// A daemon that was told to stop is gone well before.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The command.
pub async fn run<P: Product>(config_path: &Path) -> Result<(), Failure> {
    let loaded = load::<P>(config_path)?;
    let settings = P::settings(&loaded.config);
    process::require_net_admin().map_err(|error| Failure::environment(&error))?;
    let _instance = stop_daemon(&settings, P::NAME).await?;
    let mut kernel = Kernel::open(&settings.state_dir)?;
    let environment = app::environment_for_removal(&settings);
    let model = P::model(&loaded.config, &environment, &P::Members::default());
    kernel.remove(&model.desired).await?;
    for file in app::runtime_files(&settings, P::NAME) {
        remove_if_there(&file)?;
    }
    info!("everything of ours is gone");
    Ok(())
}

/// The lock of the instance, after its holder has ended.
async fn stop_daemon(settings: &Settings, product: &str) -> Result<Instance, Failure> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut told = None;
    loop {
        let error = match Instance::acquire(&settings.runtime_dir, product) {
            Ok(instance) => return Ok(instance),
            Err(error) => error,
        };
        let InstanceError::Running { pid: Some(pid), .. } = error else {
            return Err(Failure::environment(&error));
        };
        if told != Some(pid) {
            info!(pid, "stopping the daemon");
            process::terminate(pid).map_err(|error| {
                Failure::Environment(format!("the daemon (pid {pid}) can't be stopped: {error}"))
            })?;
            told = Some(pid);
        }
        if Instant::now() > deadline {
            return Err(Failure::Other(format!(
                "the daemon (pid {pid}) does not stop; end it first"
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::Other(format!(
            "can't remove {}: {error}",
            path.display()
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}
