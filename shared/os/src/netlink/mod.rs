//! Links, addresses, routes and rules through netlink (`NETLINK_ROUTE`, rtnetlink(7)).
//!
//! [`Netlink::read`] gives a [`plan::Actual`](shared::plan::Actual), `plan::difference` says what to change, and
//! [`Netlink::apply`] does one change. One file holds one noun: how its messages are read and written. [`conntrack`] reads
//! another table of the kernel, by another protocol of netlink.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's lists of attributes and messages are open, and so are the enums"
)]

mod address;
mod apply;
mod connection;
pub mod conntrack;
mod error;
mod link;
mod read;
mod route;
mod rule;
mod watch;

use shared::model::InterfaceName;
use shared::plan::actual::{LOCAL_TABLE, MAIN_TABLE};
use shared::plan::{Actual, Change, Desired, Host, LiveRoute, removal};
use tokio::sync::Mutex;

pub use address::LocalAddress;
pub use connection::RequestError;
pub use error::{ApplyError, ReadError};
pub use link::LinkInfo;
pub use watch::{Event, Noun, Watch};

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
    pub async fn read(&self, desired: &Desired) -> Result<Actual, ReadError> {
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
        let mut connection = self.connection.lock().await;
        tracing::debug!(%change, "applying");
        apply::apply(&mut connection, change).await
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
        let mut connection = self.connection.lock().await;
        apply::remove_link(&mut connection, name, alias).await
    }

    /// The link that the default route leads to: IPv4 first, then IPv6; of several routes the one with the lowest
    /// metric. `None` without a default route, or when it has several next hops or a link whose name we don't accept.
    pub async fn default_route_link(&self) -> Result<Option<InterfaceName>, ReadError> {
        let mut connection = self.connection.lock().await;
        let everything = read::everything(&mut connection).await?;
        Ok(route::default_link(&everything.routes))
    }

    /// Links and routes, whoever made them.
    pub async fn host(&self) -> Result<Host, ReadError> {
        let mut connection = self.connection.lock().await;
        let names = link::names(&mut connection)
            .await
            .map_err(ReadError::of("links"))?;
        let routes = route::all(&mut connection, &names)
            .await
            .map_err(ReadError::of("routes"))?;
        let seen = |route: &LiveRoute| matches!(route.table, MAIN_TABLE | LOCAL_TABLE);
        Ok(Host {
            links: names
                .into_iter()
                .map(|(index, name)| (name, index))
                .collect(),
            routes: routes.into_iter().filter(seen).collect(),
        })
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
