//! Namespaces need root.
use anyhow::{Result, bail};

/// Whether the tests may make namespaces: `Ok(false)` only when the environment says `WG_EDGE_UNPRIVILEGED=1`.
///
/// Without root and without that word this is an error, so that a run that proves nothing never looks like success.
pub fn namespaces_allowed() -> Result<bool> {
    if nix::unistd::geteuid().is_root() {
        return Ok(true);
    }
    if std::env::var_os("WG_EDGE_UNPRIVILEGED").is_some_and(|value| value == "1") {
        return Ok(false);
    }
    bail!(
        "network namespaces need root: run as root, or set WG_EDGE_UNPRIVILEGED=1 to leave these tests out"
    )
}
