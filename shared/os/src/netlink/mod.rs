//! Links, addresses, routes and rules through netlink (`NETLINK_ROUTE`, rtnetlink(7)).
//!
//! [`Netlink::read`] gives a [`plan::Actual`](shared::plan::Actual), `plan::difference` says what to change, and
//! [`Netlink::apply`] does one change. One file holds one noun: how its messages are read and written.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's lists of attributes and messages are open, and so are the enums"
)]

mod address;
mod connection;
mod error;
mod link;
mod read;
mod route;
mod rule;
mod watch;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use shared::model::InterfaceName;
use shared::plan::{Change, Desired, LinkKind, Route, removal};
use tokio::sync::Mutex;

pub use address::LocalAddress;
pub use connection::RequestError;
pub use error::{ApplyError, ReadError};
pub use link::LinkInfo;
pub use watch::{Event, Watch};

use crate::sysctl;
use connection::Connection;

/// Our door to the kernel's links, addresses, routes and rules.
///
/// All use of the socket is serialised by the lock: the kernel refuses a second dump on a socket while one is under way
/// (`EBUSY`, `__netlink_dump_start` in `net/netlink/af_netlink.c`), and changes keep the order in which they were asked for.
///
/// The socket belongs to the network namespace of the thread that opens it. Needs a tokio runtime.
#[derive(Debug)]
pub struct Netlink {
    connection: Mutex<Connection>,
}

impl Netlink {
    /// Opens a socket in the network namespace of this thread. Reading needs no privilege, changing needs `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, RequestError> {
        Ok(Self {
            connection: Mutex::new(Connection::open()?),
        })
    }

    /// What is live of what concerns `desired`, sysctls included.
    pub async fn read(&self, desired: &Desired) -> Result<shared::plan::Actual, ReadError> {
        let mut connection = self.connection.lock().await;
        let mut actual = read::everything(&mut connection).await?;
        drop(connection);
        actual.retain_relevant(desired);
        for wanted in &desired.sysctls {
            actual.sysctls.push(sysctl::read(&wanted.path)?);
        }
        Ok(actual)
    }

    /// Makes one change. What is already as it should be is a success: an address that is there, a route that is gone.
    pub async fn apply(&self, change: &Change) -> Result<(), ApplyError> {
        if let Change::SetSysctl { sysctl, .. } = change {
            return sysctl::write(&sysctl.path, &sysctl.value).map_err(|source| {
                ApplyError::Sysctl {
                    change: change.to_string(),
                    source,
                }
            });
        }
        let mut connection = self.connection.lock().await;
        tracing::debug!(%change, "applying");
        apply(&mut connection, change).await
    }

    /// Removes everything of ours, wanted or not: routes, rules, and the links with what is on them. Goes on after an
    /// error and returns all of them. Sysctls are put back by [`sysctl::Remembered::restore`].
    pub async fn remove_all(&self, desired: &Desired) -> Result<(), RemoveAllError> {
        let actual = self.read(desired).await.map_err(RemoveAllError::Read)?;
        let mut errors = Vec::new();
        for change in removal(desired, &actual) {
            if let Err(error) = self.apply(&change).await {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(RemoveAllError::Apply(errors))
        }
    }

    /// The link of this name, whoever it belongs to.
    pub async fn link(&self, name: &InterfaceName) -> Result<Option<LinkInfo>, ReadError> {
        let mut connection = self.connection.lock().await;
        let found = link::by_name(&mut connection, name.as_str()).await;
        found.map_err(ReadError::of("link"))
    }

    /// Removes a link if it is a TUN link with this alias. `Ok(false)` when there is no link of this name.
    pub async fn delete_link(&self, name: &InterfaceName, alias: &str) -> Result<bool, ApplyError> {
        let change = Change::RemoveLink {
            name: name.clone(),
            alias: alias.to_owned(),
        };
        let mut connection = self.connection.lock().await;
        delete_link(&mut connection, &change, name, alias).await
    }

    /// The link that the default route leads to: IPv4 first, then IPv6; of several routes the one with the lowest
    /// metric. `None` without a default route, or when it has several next hops or a link whose name we don't accept.
    pub async fn default_route_link(&self) -> Result<Option<InterfaceName>, ReadError> {
        let mut connection = self.connection.lock().await;
        let everything = read::everything(&mut connection).await?;
        Ok(route::default_link(&everything.routes))
    }

    /// Every address of this host.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddress>, ReadError> {
        let mut connection = self.connection.lock().await;
        let names = link::names(&mut connection)
            .await
            .map_err(ReadError::of("links"))?;
        let found = address::all(&mut connection, &names).await;
        found.map_err(ReadError::of("addresses"))
    }

    /// Tells when somebody changes a link, address, route or rule. Uses a socket of its own.
    pub fn watch() -> Result<Watch, RequestError> {
        Watch::open()
    }
}

/// Why [`Netlink::remove_all`] did not remove everything.
#[derive(Debug, thiserror::Error)]
pub enum RemoveAllError {
    /// Nothing was removed: we don't know what is there.
    #[error(transparent)]
    Read(ReadError),
    /// These changes failed; the others were made.
    #[error("{} of our kernel objects could not be removed: {}", .0.len(), error::join(.0))]
    Apply(Vec<ApplyError>),
}

async fn apply(connection: &mut Connection, change: &Change) -> Result<(), ApplyError> {
    let failed = ApplyError::of(change);
    match change {
        Change::AddLink(link) => Err(ApplyError::NotForNetlink {
            name: link.name.clone(),
        }),
        Change::RemoveLink { name, alias } => {
            delete_link(connection, change, name, alias).await.map(drop)
        }
        Change::SetLinkAlias { .. }
        | Change::SetLinkMtu { .. }
        | Change::SetLinkTxQueueLen { .. }
        | Change::SetLinkUp { .. } => match link::set(change) {
            Some(message) => connection
                .change(Message::SetLink(message), 0)
                .await
                .map_err(failed),
            None => Ok(()),
        },
        Change::AddAddress(wanted) => {
            let index = link_index(connection, change, wanted.link.as_str()).await?;
            let message = Message::NewAddress(address::message(wanted, index));
            let result = connection.change(message, NLM_F_CREATE | NLM_F_EXCL).await;
            tolerate(result, &[libc::EEXIST]).map_err(failed)
        }
        Change::RemoveAddress(live) => {
            let Some(index) = find_link(connection, change, live.link.as_str()).await? else {
                return Ok(());
            };
            let message = Message::DelAddress(address::message(live, index));
            let result = connection.change(message, 0).await;
            tolerate(result, &[libc::EADDRNOTAVAIL, libc::ENODEV]).map_err(failed)
        }
        Change::AddRoute { route, protocol } => {
            add_route(connection, change, route, *protocol).await
        }
        Change::RemoveRoute(live) => {
            let index = match &live.link {
                None => None,
                Some(name) => match find_link(connection, change, name).await? {
                    None => return Ok(()),
                    found => found,
                },
            };
            let message = Message::DelRoute(route::live_message(live, index));
            let result = connection.change(message, 0).await;
            tolerate(result, &[libc::ESRCH]).map_err(failed)
        }
        Change::AddRule { rule, protocol } => {
            let message = Message::NewRule(rule::message(*rule, *protocol));
            let result = connection.change(message, NLM_F_CREATE | NLM_F_EXCL).await;
            tolerate(result, &[libc::EEXIST]).map_err(failed)
        }
        Change::RemoveRule(live) => {
            let listed = rule::listed(connection, *live).await;
            let Some(message) = listed.map_err(ApplyError::of(change))? else {
                return Ok(());
            };
            let result = connection.change(Message::DelRule(message), 0).await;
            tolerate(result, &[libc::ENOENT]).map_err(failed)
        }
        Change::SetSysctl { .. } => Ok(()), // not netlink: done by `Netlink::apply`
    }
}

/// `EEXIST` is a success only if the route that is there is this one; a foreign one would swallow our traffic.
async fn add_route(
    connection: &mut Connection,
    change: &Change,
    wanted: &Route,
    protocol: u8,
) -> Result<(), ApplyError> {
    let failed = ApplyError::of(change);
    let index = link_index(connection, change, wanted.link.as_str()).await?;
    let message = Message::NewRoute(route::message(wanted, index, protocol));
    let result = connection.change(message, NLM_F_CREATE | NLM_F_EXCL).await;
    let Err(error) = result else { return Ok(()) };
    if error.errno() != Some(libc::EEXIST) {
        return Err(failed(error));
    }
    let names = link::names(connection)
        .await
        .map_err(ApplyError::of(change))?;
    let live = route::all(connection, &names)
        .await
        .map_err(ApplyError::of(change))?;
    if live
        .iter()
        .any(|live| live.is(wanted, protocol) || live.is_kernel_made(wanted))
    {
        return Ok(());
    }
    Err(match live.into_iter().find(|live| live.excludes(wanted)) {
        Some(by) => ApplyError::RouteTaken {
            change: change.to_string(),
            by: by.to_string(),
        },
        None => failed(error),
    })
}

/// Checks kind and alias in the same breath and removes by index, so that neither a foreign link of the same name nor a
/// link renamed meanwhile can be hit.
async fn delete_link(
    connection: &mut Connection,
    change: &Change,
    name: &InterfaceName,
    alias: &str,
) -> Result<bool, ApplyError> {
    let found = link::by_name(connection, name.as_str()).await;
    let Some(info) = found.map_err(ApplyError::of(change))? else {
        return Ok(false);
    };
    if info.link.kind != LinkKind::Tun || info.link.alias != alias || alias.is_empty() {
        return Err(ApplyError::NotOurLink {
            name: name.clone(),
            kind: info.link.kind,
            alias: info.link.alias,
        });
    }
    let result = connection
        .change(Message::DelLink(link::index_message(info.index)), 0)
        .await;
    tolerate(result, &[libc::ENODEV])
        .map(|()| true)
        .map_err(ApplyError::of(change))
}

async fn find_link(
    connection: &mut Connection,
    change: &Change,
    name: &str,
) -> Result<Option<u32>, ApplyError> {
    let found = link::index_of(connection, name).await;
    found.map_err(ApplyError::of(change))
}

async fn link_index(
    connection: &mut Connection,
    change: &Change,
    name: &str,
) -> Result<u32, ApplyError> {
    let found = find_link(connection, change, name).await?;
    found.ok_or_else(|| ApplyError::LinkMissing {
        change: change.to_string(),
        name: name.to_owned(),
    })
}

fn tolerate(result: Result<(), RequestError>, errnos: &[i32]) -> Result<(), RequestError> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
        other => other,
    }
}
