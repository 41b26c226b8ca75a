//! A kernel that holds links, addresses, routes, rules and switches, and has the habits of the real one that matter to
//! [`difference`](super::difference). `shared/os/tests/netlink` shows the same habits in the real one.
use std::collections::BTreeMap;

use super::actual::{KERNEL_PROTOCOL, MAIN_TABLE, UNICAST};
use super::{
    Actual, Address, Change, Desired, LinkKind, LiveLink, LiveRoute, LiveRule, LiveSysctl,
};
use crate::model::InterfaceName;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FakeKernel {
    pub(super) state: Actual,
    pub(super) sysctls: BTreeMap<Vec<String>, String>,
    /// `net.ipv4.conf.all.promote_secondaries`.
    pub(super) promotes_secondaries: bool,
}

impl FakeKernel {
    pub(super) fn read(&self, desired: &Desired) -> Actual {
        let mut actual = self.state.clone();
        actual.retain_relevant(desired);
        actual.sysctls = desired
            .sysctls
            .iter()
            .map(|sysctl| LiveSysctl {
                path: sysctl.path.clone(),
                value: self.sysctls.get(&sysctl.path).cloned(),
            })
            .collect();
        actual
    }

    /// Fails where the real one would, with the name of its error.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), &'static str> {
        match change {
            Change::AddLink(link) => self.add_tun(&link.name),
            Change::RemoveLink { name, alias } => {
                let link = self.link(name)?;
                if (&link.kind, &link.alias) != (&LinkKind::Tun, alias) {
                    return Err("not our link");
                }
                self.remove_link(name);
                Ok(())
            }
            Change::SetLinkAlias { name, alias } => {
                self.link(name)?.alias.clone_from(alias);
                Ok(())
            }
            Change::SetLinkMtu { name, mtu, .. } => {
                self.link(name)?.mtu = *mtu;
                Ok(())
            }
            Change::SetLinkTxQueueLen {
                name, txqueuelen, ..
            } => {
                self.link(name)?.txqueuelen = *txqueuelen;
                Ok(())
            }
            Change::SetLinkUp { name } => {
                self.link(name)?.up = true;
                let addresses = self.addresses_of(name);
                for address in &addresses {
                    self.add_network_route(address);
                }
                Ok(())
            }
            Change::AddAddress(address) => self.add_address(address),
            Change::RemoveAddress(address) => {
                self.remove_address(address);
                Ok(())
            }
            Change::AddRoute { route, protocol } => {
                if !self.link(&route.link)?.up {
                    return Err("ENETDOWN");
                }
                let is_local = |source| {
                    self.state
                        .addresses
                        .iter()
                        .any(|live| live.address == source)
                };
                if !route.source.is_none_or(is_local) {
                    return Err("EINVAL");
                }
                let same =
                    |live: &&LiveRoute| live.is(route, *protocol) || live.is_kernel_made(route);
                if self.state.routes.iter().any(|live| same(&live)) {
                    return Ok(()); // EEXIST
                }
                if self.state.routes.iter().any(|live| live.excludes(route)) {
                    return Err("EEXIST");
                }
                self.state.routes.push(LiveRoute {
                    destination: route.destination,
                    table: route.table,
                    link: Some(route.link.to_string()),
                    gateway: None,
                    source: route.source,
                    metric: route.metric(),
                    tos: 0,
                    protocol: *protocol,
                    route_type: UNICAST,
                });
                Ok(())
            }
            Change::RemoveRoute(route) => {
                self.state.routes.retain(|live| live != route);
                Ok(())
            }
            Change::AddRule { rule, protocol } => {
                if !self
                    .state
                    .rules
                    .iter()
                    .any(|live| live.plain && live.rule == *rule)
                {
                    self.state.rules.push(LiveRule {
                        rule: *rule,
                        protocol: *protocol,
                        plain: true,
                    });
                }
                Ok(())
            }
            Change::RemoveRule(rule) => {
                self.state.rules.retain(|live| live != rule);
                Ok(())
            }
            Change::SetSysctl { sysctl, .. } => {
                let value = self.sysctls.get_mut(&sysctl.path).ok_or("ENOENT")?;
                value.clone_from(&sysctl.value);
                Ok(())
            }
        }
    }

    /// As the data path does.
    pub(super) fn add_tun(&mut self, name: &InterfaceName) -> Result<(), &'static str> {
        if self.state.link(name).is_some() {
            return Err("EBUSY");
        }
        self.state.links.push(LiveLink {
            name: name.clone(),
            kind: LinkKind::Tun,
            alias: String::new(),
            mtu: 1500,
            txqueuelen: 500,
            up: false,
        });
        self.sysctls.insert(switch_of(name), "0".to_owned());
        Ok(())
    }

    /// All on it goes with it.
    pub(super) fn remove_link(&mut self, name: &InterfaceName) {
        self.state.links.retain(|live| live.name != *name);
        self.state.addresses.retain(|live| live.link != *name);
        self.state
            .routes
            .retain(|live| live.link.as_deref() != Some(name.as_str()));
        self.sysctls.remove(&switch_of(name));
    }

    pub(super) fn add_address(&mut self, address: &Address) -> Result<(), &'static str> {
        let up = self.link(&address.link)?.up;
        if !self.state.addresses.contains(address) {
            self.state.addresses.push(address.clone());
            if up {
                self.add_network_route(address);
            }
        }
        Ok(())
    }

    pub(super) fn remove_address(&mut self, address: &Address) {
        let Some(index) = self.state.addresses.iter().position(|live| live == address) else {
            return;
        };
        let is_secondary = self
            .state
            .addresses
            .iter()
            .take(index)
            .any(|live| shares_network(live, address));
        self.state.addresses.remove(index);
        let mut gone = vec![address.clone()];
        if !is_secondary && address.address.is_ipv4() {
            let is_its_secondary = |live: &Address| shares_network(live, address);
            if !self.promotes_secondaries {
                gone.extend(
                    self.state
                        .addresses
                        .iter()
                        .filter(|live| is_its_secondary(live))
                        .cloned(),
                );
                self.state.addresses.retain(|live| !is_its_secondary(live));
            }
        }
        for address in &gone {
            self.forget_source(address);
        }
        let promoted = self
            .state
            .addresses
            .iter()
            .find(|live| shares_network(live, address))
            .cloned();
        if let Some(promoted) = promoted {
            self.add_network_route(&promoted);
        }
    }

    fn forget_source(&mut self, gone: &Address) {
        let is_local = self
            .state
            .addresses
            .iter()
            .any(|live| live.address == gone.address);
        let has_ipv4 = self
            .addresses_of(&gone.link)
            .iter()
            .any(|live| live.address.is_ipv4());
        let network_stays = self
            .state
            .addresses
            .iter()
            .any(|live| shares_network(live, gone));
        let over_link = |live: &LiveRoute| live.link.as_deref() == Some(gone.link.as_str());
        if gone.address.is_ipv4() {
            self.state.routes.retain(|live| {
                let flushed = !has_ipv4 && live.destination.is_ipv4() && over_link(live);
                let sourceless = !is_local && live.source == Some(gone.address);
                !flushed && !sourceless
            });
        } else {
            self.state.routes.retain(|live| {
                let is_network =
                    live.protocol == KERNEL_PROTOCOL && live.destination == gone.network();
                network_stays || !is_network || !over_link(live)
            });
            for live in &mut self.state.routes {
                if live.source == Some(gone.address) {
                    live.source = None;
                }
            }
        }
    }

    fn add_network_route(&mut self, address: &Address) {
        let ipv4 = address.address.is_ipv4();
        let route = LiveRoute {
            destination: address.network(),
            table: MAIN_TABLE,
            link: Some(address.link.to_string()),
            gateway: None,
            source: ipv4.then_some(address.address),
            metric: if ipv4 { 0 } else { 256 },
            tos: 0,
            protocol: KERNEL_PROTOCOL,
            route_type: UNICAST,
        };
        let is_host = ipv4 && address.prefix_len == 32;
        // It is appended to whatever leads there already, but secondary addresses bring none.
        let is_there = |live: &LiveRoute| {
            (live.destination, &live.link, live.protocol)
                == (route.destination, &route.link, route.protocol)
        };
        if !is_host && !self.state.routes.iter().any(is_there) {
            self.state.routes.push(route);
        }
    }

    fn addresses_of(&self, name: &InterfaceName) -> Vec<Address> {
        let addresses = self.state.addresses.iter();
        addresses
            .filter(|live| live.link == *name)
            .cloned()
            .collect()
    }

    fn link(&mut self, name: &InterfaceName) -> Result<&mut LiveLink, &'static str> {
        let mut links = self.state.links.iter_mut();
        links.find(|live| live.name == *name).ok_or("ENODEV")
    }
}

fn shares_network(left: &Address, right: &Address) -> bool {
    left != right && left.link == right.link && left.network() == right.network()
}

/// The one switch that links have here.
pub(super) fn switch_of(name: &InterfaceName) -> Vec<String> {
    ["net", "ipv4", "conf", name.as_str(), "rp_filter"]
        .map(str::to_owned)
        .to_vec()
}
