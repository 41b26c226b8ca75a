//! One change. What is already as it should be is a success, so that a change may be made twice: the state was read a
//! moment ago, and we are not alone.
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::LinkAttribute;
use shared::model::InterfaceName;
use shared::plan::{Address, Change, LinkKind, LiveRoute, LiveRule, Route, RoutingRule, Sysctl};

use super::connection::Connection;
use super::{ApplyError, RequestError, address, link, route, rule};
use crate::sysctl;

/// Makes one change.
pub(super) async fn apply(connection: &mut Connection, change: &Change) -> Result<(), ApplyError> {
    let mut applying = Applying { connection, change };
    match change {
        Change::AddLink(link) => Err(ApplyError::NotForNetlink {
            name: link.name.clone(),
        }),
        Change::RemoveLink { name, alias } => applying.remove_link(name, alias).await.map(drop),
        Change::SetLinkAlias { name, alias } => {
            let alias = LinkAttribute::IfAlias(alias.clone());
            applying.set_link(name, Some(alias)).await
        }
        Change::SetLinkMtu { name, mtu, .. } => {
            applying
                .set_link(name, Some(LinkAttribute::Mtu(*mtu)))
                .await
        }
        Change::SetLinkTxQueueLen {
            name, txqueuelen, ..
        } => {
            let length = LinkAttribute::TxQueueLen(*txqueuelen);
            applying.set_link(name, Some(length)).await
        }
        Change::SetLinkUp { name } => applying.set_link(name, None).await,
        Change::AddAddress(address) => applying.add_address(address).await,
        Change::RemoveAddress(address) => applying.remove_address(address).await,
        Change::AddRoute { route, protocol } => applying.add_route(route, *protocol).await,
        Change::RemoveRoute(route) => applying.remove_route(route).await,
        Change::AddRule { rule, protocol } => applying.add_rule(*rule, *protocol).await,
        Change::RemoveRule(rule) => applying.remove_rule(*rule).await,
        Change::SetSysctl { sysctl, .. } => applying.set_switch(sysctl).await,
    }
}

/// Removes a link if it is a TUN link with this alias; `false` when there is no link of this name.
pub(super) async fn remove_link(
    connection: &mut Connection,
    name: &InterfaceName,
    alias: &str,
) -> Result<bool, ApplyError> {
    let change = &Change::RemoveLink {
        name: name.clone(),
        alias: alias.to_owned(),
    };
    Applying { connection, change }
        .remove_link(name, alias)
        .await
}

/// A change under way; errors name it.
struct Applying<'a> {
    connection: &'a mut Connection,
    change: &'a Change,
}

impl Applying<'_> {
    /// Looks at kind and alias right before, and removes by index: neither a foreign link of the same name nor one that
    /// was renamed meanwhile can be hit.
    async fn remove_link(&mut self, name: &InterfaceName, alias: &str) -> Result<bool, ApplyError> {
        let found = link::by_name(self.connection, name.as_str()).await;
        let Some(info) = found.map_err(ApplyError::of(self.change))? else {
            return Ok(false);
        };
        if info.link.kind != LinkKind::Tun || info.link.alias != alias || alias.is_empty() {
            return Err(ApplyError::NotOurLink {
                name: name.clone(),
                kind: info.link.kind,
                alias: info.link.alias,
            });
        }
        let message = Message::DelLink(link::index_message(info.index));
        self.remove(message, &[libc::ENODEV]).await.map(|()| true)
    }

    /// Sets an attribute, or brings the link up when there is none.
    async fn set_link(
        &mut self,
        name: &InterfaceName,
        attribute: Option<LinkAttribute>,
    ) -> Result<(), ApplyError> {
        let message = Message::SetLink(link::message(name, attribute));
        let result = self.connection.change(message, 0).await;
        result.map_err(|error| match error.errno() {
            Some(libc::ENODEV) => self.link_missing(name.as_str()),
            _ => ApplyError::of(self.change)(error),
        })
    }

    /// A switch of our own link goes by netlink as far as that knows it: a hardened service finds `/proc/sys` read-only, and
    /// nobody could preset what only comes to be with the link.
    async fn set_switch(&mut self, sysctl: &Sysctl) -> Result<(), ApplyError> {
        if let Some((name, attribute)) = link::reverse_path_filter(sysctl) {
            return self.set_link(&name, Some(attribute)).await;
        }
        sysctl::write(&sysctl.path, &sysctl.value).map_err(|source| ApplyError::Sysctl {
            change: self.change.to_string(),
            source,
        })
    }

    async fn add_address(&mut self, wanted: &Address) -> Result<(), ApplyError> {
        let index = self.link_index(wanted.link.as_str()).await?;
        self.add(Message::NewAddress(address::message(wanted, index)))
            .await
    }

    async fn remove_address(&mut self, live: &Address) -> Result<(), ApplyError> {
        let Some(index) = self.find_link(live.link.as_str()).await? else {
            return Ok(());
        };
        let message = Message::DelAddress(address::message(live, index));
        self.remove(message, &[libc::EADDRNOTAVAIL, libc::ENODEV])
            .await
    }

    /// `EEXIST` is a success only if the route that is there is this one; a foreign one would take our packets elsewhere.
    async fn add_route(&mut self, wanted: &Route, protocol: u8) -> Result<(), ApplyError> {
        let failed = ApplyError::of(self.change);
        let index = self.link_index(wanted.link.as_str()).await?;
        let message = Message::NewRoute(route::message(wanted, index, protocol));
        let Err(error) = self
            .connection
            .change(message, NLM_F_CREATE | NLM_F_EXCL)
            .await
        else {
            return Ok(());
        };
        if error.errno() != Some(libc::EEXIST) {
            return Err(failed(error));
        }
        let names = link::names(self.connection)
            .await
            .map_err(ApplyError::of(self.change))?;
        let live = route::all(self.connection, &names)
            .await
            .map_err(ApplyError::of(self.change))?;
        let does_it = |live: &LiveRoute| live.is(wanted, protocol) || live.is_kernel_made(wanted);
        if live.iter().any(does_it) {
            return Ok(());
        }
        let by = live.into_iter().find(|live| live.excludes(wanted));
        Err(match by {
            Some(by) => ApplyError::RouteTaken {
                change: self.change.to_string(),
                by: by.to_string(),
            },
            None => failed(error),
        })
    }

    async fn remove_route(&mut self, live: &LiveRoute) -> Result<(), ApplyError> {
        let index = match &live.link {
            None => None,
            Some(name) => match self.find_link(name).await? {
                None => return Ok(()), // it went with its link
                found => found,
            },
        };
        let message = Message::DelRoute(route::live_message(live, index));
        self.remove(message, &[libc::ESRCH]).await
    }

    async fn add_rule(&mut self, wanted: RoutingRule, protocol: u8) -> Result<(), ApplyError> {
        self.add(Message::NewRule(rule::message(wanted, protocol)))
            .await
    }

    async fn remove_rule(&mut self, live: LiveRule) -> Result<(), ApplyError> {
        let listed = rule::listed(self.connection, live).await;
        match listed.map_err(ApplyError::of(self.change))? {
            Some(message) => {
                self.remove(Message::DelRule(message), &[libc::ENOENT])
                    .await
            }
            None => Ok(()),
        }
    }

    async fn add(&mut self, message: Message) -> Result<(), ApplyError> {
        let result = self
            .connection
            .change(message, NLM_F_CREATE | NLM_F_EXCL)
            .await;
        tolerate(result, &[libc::EEXIST]).map_err(ApplyError::of(self.change))
    }

    /// `gone` are the errors that mean that there is nothing to remove.
    async fn remove(&mut self, message: Message, gone: &[i32]) -> Result<(), ApplyError> {
        let result = self.connection.change(message, 0).await;
        tolerate(result, gone).map_err(ApplyError::of(self.change))
    }

    async fn find_link(&mut self, name: &str) -> Result<Option<u32>, ApplyError> {
        let found = link::index_of(self.connection, name).await;
        found.map_err(ApplyError::of(self.change))
    }

    async fn link_index(&mut self, name: &str) -> Result<u32, ApplyError> {
        let found = self.find_link(name).await?;
        found.ok_or_else(|| self.link_missing(name))
    }

    fn link_missing(&self, name: &str) -> ApplyError {
        ApplyError::LinkMissing {
            change: self.change.to_string(),
            name: name.to_owned(),
        }
    }
}

fn tolerate(result: Result<(), RequestError>, errnos: &[i32]) -> Result<(), RequestError> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
        other => other,
    }
}
