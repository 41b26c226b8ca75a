//! The service that a package has installed: what `init` and `join` start when they have written a configuration.
use std::path::Path;
use std::process::Command;

use crate::error::Failure;
use crate::product::default_config_path;

/// A unit of systemd on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    unit: String,
}

impl Service {
    /// That of this product, if it is installed, systemd runs, and it reads this configuration.
    pub fn installed(product: &str, config_path: &Path) -> Option<Self> {
        let unit = format!("wg-edge-{product}.service");
        let is_installed = [
            "/etc/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ]
        .iter()
        .any(|dir| Path::new(dir).join(&unit).exists());
        let is_served = is_booted() && config_path == default_config_path(product);
        (is_installed && is_served).then_some(Self { unit })
    }

    /// Name of the unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Whether systemd runs it now.
    pub fn is_active(&self) -> bool {
        self.systemctl("is-active").is_ok()
    }

    /// Start it now and at every boot, anew if it runs. Returns when it says that it is ready.
    ///
    /// # Errors
    /// systemd's refusal, or the daemon's end.
    pub fn start(&self) -> Result<(), Failure> {
        self.systemctl("enable")?;
        self.systemctl("restart")
    }

    fn systemctl(&self, verb: &str) -> Result<(), Failure> {
        let unit = &self.unit;
        let command = format!("systemctl --quiet {verb} {unit}");
        let status = Command::new("systemctl")
            .args(["--quiet", verb, unit])
            .status()
            .map_err(|error| Failure::Environment(format!("{command}: {error}")))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Environment(format!(
            "`{command}` failed; `journalctl --unit {unit}` says why. What was written stays"
        )))
    }
}

/// The command that starts the daemon of this product, where `init` and `join` don't.
pub fn how_to_start(product: &str, config_path: &Path) -> String {
    match Service::installed(product, config_path) {
        Some(service) => format!("systemctl enable --now {}", service.unit()),
        None => format!("{product} run"),
    }
}

/// Whether systemd is the init system of this host (`sd_booted(3)`).
fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_reads_a_configuration_in_another_place() {
        assert_eq!(
            Service::installed("gateway", Path::new("gateway.toml")),
            None
        );
        let started_by = how_to_start("gateway", Path::new("gateway.toml"));
        assert_eq!(started_by, "gateway run");
        let unknown = "no-such-product";
        assert_eq!(
            Service::installed(unknown, &default_config_path(unknown)),
            None
        );
    }
}
