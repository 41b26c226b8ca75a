//! What on this host will not let the configuration work, although nothing in it is wrong.
//!
//! | file | what |
//! |---|---|
//! | this | what is looked at, and in which order it is told |
//! | `path` | what the configuration expects → packets on this host |
//! | `firewall` | chains of others that drop them, or give them another source |
//! | `routes` | routes and the reverse path filter |
//! | `ports` | sockets of others where ours have to be |
//! | `endpoints` | endpoints that Cloudflare proxies |
mod endpoints;
pub(crate) mod firewall;
pub(crate) mod path;
mod ports;
pub(crate) mod routes;

#[cfg(test)]
mod tests;

use shared::api::plan::PlanWarning;
use shared::plan::{Actual, Desired};
use shared_os::sockets;

use super::Running;
use crate::error::Failure;
use crate::model::{Environment, PublishModel};
use crate::product::{Expected, Settings};
use crate::reconcile::Kernel;

/// What is planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) environment: &'a Environment,
    pub(crate) desired: &'a Desired,
    pub(crate) expected: &'a Expected,
    pub(crate) publishes: &'a [PublishModel],
    pub(crate) running: Running<'a>,
}

/// Looks at the host and at the endpoints; changes nothing.
///
/// # Errors
/// The kernel can't be read.
pub(super) async fn find(
    asked: &Asked<'_>,
    actual: &Actual,
    kernel: &mut Kernel,
) -> Result<Vec<PlanWarning>, Failure> {
    let mut warnings = on_this_host(asked, actual, kernel).await?;
    warnings.extend(endpoints::proxied(asked).await);
    Ok(warnings)
}

/// Looks at the host alone; asks no name server.
///
/// # Errors
/// The kernel can't be read.
pub(crate) async fn on_this_host(
    asked: &Asked<'_>,
    actual: &Actual,
    kernel: &mut Kernel,
) -> Result<Vec<PlanWarning>, Failure> {
    let host = kernel.netlink().host().await;
    let host = host.map_err(|error| Failure::other(&error))?;
    let listeners = sockets::listeners().map_err(|error| Failure::other(&error))?;
    let host = host.with(asked.desired);
    let paths = path::all(asked, &host);

    let mut warnings = match kernel.nftables().foreign(&asked.desired.ruleset.table) {
        Ok(foreign) => {
            let mut warnings = firewall::obstacles(&foreign, &paths);
            warnings.extend(firewall::translations(&foreign, &paths));
            warnings
        }
        Err(error) => vec![firewall::unread(&error)],
    };
    warnings.extend(routes::missing(asked, &host));
    warnings.extend(routes::elsewhere(asked, &host));
    warnings.extend(routes::stolen(asked.desired, actual));
    let filters = |link: &str| routes::reverse_path_filter(asked.desired, link);
    warnings.extend(routes::filtered(&paths, &host, filters));
    warnings.extend(ports::taken(asked, &listeners, sockets::owner));
    Ok(warnings)
}
