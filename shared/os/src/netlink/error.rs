//! What can go wrong, in sentences that name the change and the remedy.
use shared::model::InterfaceName;
use shared::plan::{Change, LinkKind};

use super::RequestError;
use crate::sysctl::SysctlError;

/// Why the actual state is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel did not list something.
    #[error("can't list the kernel's {what}: {source}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: RequestError,
    },
    /// A switch could not be read.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl ReadError {
    pub(super) fn of(what: &'static str) -> impl FnOnce(RequestError) -> Self {
        move |source| Self::Netlink { what, source }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused it.
    #[error("`{change}` failed: {source}{}", remedy(.source))]
    Refused {
        /// The change as a command.
        change: String,
        /// The kernel's answer.
        source: RequestError,
    },
    /// The link that the change is about does not exist.
    #[error("`{change}` failed: there is no link {name}; it is made when the tunnel starts")]
    LinkMissing {
        /// The change as a command.
        change: String,
        /// Name of the link.
        name: String,
    },
    /// TUN links are made by opening them.
    #[error("the link {name} can only be made by the data path: start the daemon")]
    NotForNetlink {
        /// Name of the link.
        name: InterfaceName,
    },
    /// The link is not one that we made.
    #[error(
        "the link {name} was not removed: it is not ours (kind {kind}, alias {alias:?}); if nothing uses it, remove it \
         with `ip link delete dev {name}`"
    )]
    NotOurLink {
        /// Name of the link.
        name: InterfaceName,
        /// Its kind.
        kind: LinkKind,
        /// Its alias.
        alias: String,
    },
    /// Another route leads to the same destination.
    #[error(
        "`{change}` failed: there is already a route that is not ours, `{by}`; remove it or give it another metric"
    )]
    RouteTaken {
        /// The change as a command.
        change: String,
        /// The other route as `ip route` prints it.
        by: String,
    },
    /// A switch could not be set.
    #[error("`{change}` failed: {source}")]
    Sysctl {
        /// The change as a command.
        change: String,
        /// Why.
        source: SysctlError,
    },
}

impl ApplyError {
    pub(super) fn of(change: &Change) -> impl FnOnce(RequestError) -> Self + use<> {
        let change = change.to_string();
        move |source| Self::Refused { change, source }
    }
}

/// What the operator can do about an error of the kernel.
fn remedy(error: &RequestError) -> &'static str {
    match error.errno() {
        Some(libc::EPERM) => {
            "; missing privilege: run as root or with the capability CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
        }
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            "; the kernel has no support for this: is IPv6 switched off (ipv6.disable=1)?"
        }
        // inet6_addr_add, fib6_nh_init
        Some(libc::EACCES) => {
            "; switch IPv6 on with `sysctl -w net.ipv6.conf.all.disable_ipv6=0`, or leave IPv6 out of the configuration"
        }
        Some(libc::ENETDOWN) => "; the link is down",
        Some(libc::ENODEV) => "; the link disappeared meanwhile",
        Some(libc::EBUSY | libc::EAGAIN) => "; try again",
        _ => "",
    }
}

pub(super) fn join(errors: &[ApplyError]) -> String {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_privilege_is_named_with_its_remedy() {
        let change = Change::SetLinkUp {
            name: "edge0".parse().unwrap(),
        };
        let error = ApplyError::of(&change)(RequestError::refused(libc::EPERM, None));
        assert_eq!(
            error.to_string(),
            "`ip link set dev edge0 up` failed: Operation not permitted (os error 1); missing privilege: run as root or \
             with the capability CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
        );
    }

    #[test]
    fn the_kernels_own_explanation_is_kept() {
        let error = RequestError::refused(
            libc::EINVAL,
            Some("Invalid prefix for given prefix length".to_owned()),
        );
        assert_eq!(
            error.to_string(),
            "Invalid argument (os error 22): Invalid prefix for given prefix length"
        );
    }
}
