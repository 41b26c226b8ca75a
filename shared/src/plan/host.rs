//! The rest of the host, as far as it decides where our packets go.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::actual::{LOCAL_TABLE, LiveRoute, MAIN_TABLE, UNICAST};
use super::ruleset::Family;
use super::{Address, Desired, Route};
use crate::model::InterfaceName;

/// `RTN_LOCAL`: a route to this host itself.
const LOCAL: u8 = 2;

/// Links and routes, whoever made them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Indexes of links by name.
    pub links: BTreeMap<String, u32>,
    /// Routes of the tables `local` and `main`.
    pub routes: Vec<LiveRoute>,
}

/// Where packets to an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayTo<'a> {
    /// To this host.
    Here,
    /// By this route.
    By(&'a LiveRoute),
    /// Nowhere: there is no route, or one that refuses.
    Nowhere,
}

impl Host {
    /// As it will be once `desired` is in place: our own routes and addresses of now count for nothing.
    #[must_use]
    pub fn with(mut self, desired: &Desired) -> Self {
        let ours = |route: &LiveRoute| {
            let mut links = desired.links.iter();
            let is_ours = |link: &str| links.any(|ours| ours.name.as_str() == link);
            route.link.as_deref().is_some_and(is_ours) || route.protocol == desired.protocol
        };
        self.routes.retain(|route| !ours(route));
        let wanted = desired.routes.iter();
        let wanted = wanted.filter(|route| route.table == MAIN_TABLE);
        self.routes
            .extend(wanted.map(|route| planned(route, desired.protocol)));
        for address in &desired.addresses {
            self.routes.extend(of_address(address));
        }
        self
    }

    /// Where packets to this address go: of the most specific routes the one with the lowest metric. Rules other than the
    /// kernel's own are not looked at.
    pub fn way_to(&self, address: IpAddr) -> WayTo<'_> {
        let best = |table: u32| {
            let routes = self.routes.iter();
            let matching = routes
                .filter(|route| route.table == table && route.tos == 0)
                .filter(|route| route.destination.contains(address));
            matching
                .min_by_key(|route| (std::cmp::Reverse(route.destination.prefix()), route.metric))
        };
        match best(LOCAL_TABLE).or_else(|| best(MAIN_TABLE)) {
            Some(route) if route.route_type == LOCAL => WayTo::Here,
            Some(route) if route.route_type == UNICAST => WayTo::By(route),
            Some(_) | None => WayTo::Nowhere,
        }
    }

    /// Own addresses with their links.
    pub fn addresses(&self) -> impl Iterator<Item = (InterfaceName, IpAddr)> + '_ {
        let own = self.routes.iter().filter(|route| {
            let bits = Family::of_network(route.destination).bits();
            route.table == LOCAL_TABLE
                && route.route_type == LOCAL
                && route.destination.prefix() == bits
        });
        own.filter_map(|route| Some((link_of(route)?, route.destination.ip())))
    }

    /// Links and destinations of the table `main`, of which the first counts where several are equally specific.
    pub fn main_routes(&self) -> impl Iterator<Item = (InterfaceName, IpNetwork)> + '_ {
        let main = self.routes.iter().filter(|route| {
            route.table == MAIN_TABLE && route.route_type == UNICAST && route.tos == 0
        });
        let mut main: Vec<&LiveRoute> = main.collect();
        main.sort_by_key(|route| route.metric);
        main.into_iter()
            .filter_map(|route| Some((link_of(route)?, route.destination)))
    }

    /// The link that packets to this address go out by.
    pub fn link_to(&self, address: IpAddr) -> Option<&str> {
        match self.way_to(address) {
            WayTo::By(route) => route.link.as_deref(),
            WayTo::Here | WayTo::Nowhere => None,
        }
    }
}

/// `None` for several links, and for a name that ours can't have.
fn link_of(route: &LiveRoute) -> Option<InterfaceName> {
    route.link.as_deref()?.parse().ok()
}

fn planned(route: &Route, protocol: u8) -> LiveRoute {
    LiveRoute {
        destination: route.destination,
        table: route.table,
        link: Some(route.link.to_string()),
        gateway: None,
        source: route.source,
        metric: route.metric(),
        tos: 0,
        protocol,
        route_type: UNICAST,
    }
}

/// What the kernel makes of an address: itself, and its network.
fn of_address(address: &Address) -> [LiveRoute; 2] {
    let network = Route {
        destination: address.network(),
        link: address.link.clone(),
        table: MAIN_TABLE,
        source: None,
    };
    let network = planned(&network, super::actual::KERNEL_PROTOCOL);
    let itself = LiveRoute {
        destination: address.address.into(),
        table: LOCAL_TABLE,
        route_type: LOCAL,
        ..network.clone()
    };
    [itself, network]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ruleset;
    use crate::plan::desired::{Link, protocol};

    fn route(destination: &str, link: &str, metric: u32) -> LiveRoute {
        let route = Route {
            destination: destination.parse().unwrap(),
            link: link.parse().unwrap(),
            table: MAIN_TABLE,
            source: None,
        };
        LiveRoute {
            metric,
            ..planned(&route, 3)
        }
    }

    fn desired() -> Desired {
        Desired {
            protocol: protocol::LAN_SERVER,
            links: vec![Link {
                name: "edge0".parse().unwrap(),
                alias: String::new(),
                mtu: 1420,
                txqueuelen: 500,
            }],
            addresses: vec![Address {
                link: "edge0".parse().unwrap(),
                address: "10.17.0.2".parse().unwrap(),
                prefix_len: 32,
            }],
            routes: vec![Route {
                destination: "10.17.0.0/16".parse().unwrap(),
                link: "edge0".parse().unwrap(),
                table: MAIN_TABLE,
                source: None,
            }],
            rules: Vec::new(),
            sysctls: Vec::new(),
            ruleset: Ruleset {
                table: String::new(),
                sets: Vec::new(),
                maps: Vec::new(),
                chains: Vec::new(),
            },
        }
    }

    #[test]
    fn the_most_specific_route_wins_and_then_the_lower_metric() {
        let host = Host {
            links: BTreeMap::new(),
            routes: vec![
                route("0.0.0.0/0", "eth0", 100),
                route("10.17.5.0/24", "virbr1", 20),
                route("10.17.5.0/24", "virbr2", 10),
                route("10.17.9.0/24", "edge0", 0),
            ],
        };
        let host = host.with(&desired());
        let link = |address: &str| host.link_to(address.parse().unwrap());
        assert_eq!(link("10.17.5.30"), Some("virbr2"));
        // A route of ours that is no longer wanted is gone by then.
        assert_eq!(link("10.17.9.1"), Some("edge0"));
        assert_eq!(link("192.0.2.1"), Some("eth0"));
        assert_eq!(host.way_to("10.17.0.2".parse().unwrap()), WayTo::Here);
        assert_eq!(host.way_to("2001:db8::1".parse().unwrap()), WayTo::Nowhere);
    }
}
