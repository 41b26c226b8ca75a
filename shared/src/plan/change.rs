//! One change of kernel state, as data that reads like the command that would make it.
use std::fmt;

use super::{Address, Link, LinkKind, LiveLink, LiveRoute, LiveRule, Route, RoutingRule, Sysctl};
use crate::model::InterfaceName;

/// The way from actual to desired, in the order in which it is to be applied. The ruleset goes between the two lists:
/// paths that are no longer wanted are closed before it changes, new ones open only when it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Removals: rules, routes, addresses, links.
    pub before_ruleset: Vec<Change>,
    /// Additions, from the link up to forwarding, which comes last. A route that changes is removed here, right before
    /// its successor is added.
    pub after_ruleset: Vec<Change>,
    /// What is wanted and can't be had because something foreign stands in its place. Nothing in the two lists touches
    /// it, so it persists until the operator decides.
    pub conflicts: Vec<Conflict>,
}

impl Changes {
    /// All changes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.before_ruleset.iter().chain(&self.after_ruleset)
    }

    /// Whether there is nothing to change. Says nothing about [`conflicts`](Self::conflicts).
    pub fn is_empty(&self) -> bool {
        self.before_ruleset.is_empty() && self.after_ruleset.is_empty()
    }
}

/// One change. `Display` gives the command that would make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make a TUN link. Only the data path can do that: it makes the link when it opens the device.
    AddLink(Link),
    /// Remove a link with everything on it.
    RemoveLink {
        /// Name.
        name: InterfaceName,
        /// Its alias, checked again before it is removed.
        alias: String,
    },
    /// Mark a link as ours.
    SetLinkAlias {
        /// Name.
        name: InterfaceName,
        /// New alias.
        alias: String,
    },
    /// Set the largest packet.
    SetLinkMtu {
        /// Name.
        name: InterfaceName,
        /// Bytes.
        mtu: u32,
        /// What it was; `None` on a link that does not exist yet.
        was: Option<u32>,
    },
    /// Set the length of the queue.
    SetLinkTxQueueLen {
        /// Name.
        name: InterfaceName,
        /// Packets.
        txqueuelen: u32,
        /// What it was; `None` on a link that does not exist yet.
        was: Option<u32>,
    },
    /// Bring a link up.
    SetLinkUp {
        /// Name.
        name: InterfaceName,
    },
    /// Add an address.
    AddAddress(Address),
    /// Remove an address.
    RemoveAddress(Address),
    /// Add a route.
    AddRoute {
        /// The route.
        route: Route,
        /// Our number: see [`protocol`](super::desired::protocol).
        protocol: u8,
    },
    /// Remove exactly this route.
    RemoveRoute(LiveRoute),
    /// Add a policy routing rule.
    AddRule {
        /// The rule.
        rule: RoutingRule,
        /// Our number: see [`protocol`](super::desired::protocol).
        protocol: u8,
    },
    /// Remove a policy routing rule.
    RemoveRule(LiveRule),
    /// Set a kernel switch.
    SetSysctl {
        /// Path and new value.
        sysctl: Sysctl,
        /// What it was; `None` when the kernel has no such switch (yet).
        was: Option<String>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink(link) => write!(f, "ip tuntap add dev {} mode tun", link.name),
            Self::RemoveLink { name, .. } => write!(f, "ip link delete dev {name}"),
            Self::SetLinkAlias { name, alias } => {
                write!(f, "ip link set dev {name} alias \"{alias}\"")
            }
            Self::SetLinkMtu { name, mtu, was } => {
                write!(f, "ip link set dev {name} mtu {mtu}")?;
                write_was(f, was.as_ref())
            }
            Self::SetLinkTxQueueLen {
                name,
                txqueuelen,
                was,
            } => {
                write!(f, "ip link set dev {name} txqueuelen {txqueuelen}")?;
                write_was(f, was.as_ref())
            }
            Self::SetLinkUp { name } => write!(f, "ip link set dev {name} up"),
            Self::AddAddress(address) => {
                // Without it the address may be tentative when the next line wants it as a source.
                let nodad = if address.address.is_ipv6() {
                    " nodad"
                } else {
                    ""
                };
                write!(f, "ip address add {address}{nodad}")
            }
            Self::RemoveAddress(address) => write!(f, "ip address delete {address}"),
            Self::AddRoute { route, protocol } => write_added_route(f, route, *protocol),
            Self::RemoveRoute(route) => write!(f, "ip route delete {route}"),
            Self::AddRule { rule, protocol } => {
                write!(f, "{} add {rule} protocol {protocol}", ip_rule(*rule))
            }
            Self::RemoveRule(live) => write_removed_rule(f, *live),
            Self::SetSysctl { sysctl, was } => {
                write!(f, "{sysctl}")?;
                write_was(f, was.as_ref())
            }
        }
    }
}

/// Why a part of what is wanted can't be had without touching what is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A foreign link has the name.
    LinkTaken(LiveLink),
    /// A foreign route leads to the same destination; the kernel does not take both.
    RouteTaken {
        /// Our route.
        wanted: Route,
        /// Theirs.
        by: LiveRoute,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkTaken(LiveLink {
                name, kind, alias, ..
            }) => {
                write!(
                    f,
                    "the interface name {name} is taken by a link that is not ours (kind {kind}, "
                )?;
                if alias.is_empty() {
                    f.write_str("no alias)")?;
                } else {
                    write!(f, "alias {alias:?})")?;
                }
                match kind {
                    LinkKind::Tun => write!(
                        f,
                        ": choose another `interface` in [tunnel], or remove it with `ip link delete dev {name}`"
                    ),
                    LinkKind::Other(_) => f.write_str(": choose another `interface` in [tunnel]"),
                }
            }
            Self::RouteTaken { wanted, by } => write!(
                f,
                "{} can't be routed over {}: there is already a route that is not ours, `{by}`; remove it with \
                 `ip route delete {by}`, or give it another metric",
                wanted.destination, wanted.link
            ),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix_len, self.link)
    }
}

/// As `ip route` lists it.
impl fmt::Display for LiveRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // include/uapi/linux/rtnetlink.h, RTN_*; unicast is not written.
        match self.route_type {
            6 => f.write_str("blackhole ")?,
            7 => f.write_str("unreachable ")?,
            8 => f.write_str("prohibit ")?,
            9 => f.write_str("throw ")?,
            _ => {}
        }
        write!(f, "{}", self.destination)?;
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        write!(f, " table {} proto {}", self.table, self.protocol)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl fmt::Display for RoutingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pref {}", self.priority)?;
        if (self.mark, self.mask) != (0, 0) {
            write!(f, " fwmark {:#x}/{:#x}", self.mark, self.mask)?;
        }
        write!(f, " lookup {}", self.table)
    }
}

/// `sysctl -w net.ipv4.ip_forward=1`; with slashes where a part holds a dot, as sysctl(8) takes it.
impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted = self.path.iter().any(|part| part.contains('.'));
        let separator = if dotted { "/" } else { "." };
        write!(f, "sysctl -w {}={}", self.path.join(separator), self.value)
    }
}

fn write_was(f: &mut fmt::Formatter<'_>, was: Option<&impl fmt::Display>) -> fmt::Result {
    was.map_or(Ok(()), |was| write!(f, "  # was {was}"))
}

fn write_added_route(f: &mut fmt::Formatter<'_>, route: &Route, protocol: u8) -> fmt::Result {
    let Route {
        destination,
        link,
        table,
        source,
    } = route;
    write!(
        f,
        "ip route add {destination} dev {link} table {table} proto {protocol}"
    )?;
    source.map_or(Ok(()), |source| write!(f, " src {source}"))
}

fn write_removed_rule(f: &mut fmt::Formatter<'_>, live: LiveRule) -> fmt::Result {
    let LiveRule {
        rule,
        protocol,
        plain,
    } = live;
    write!(f, "{} delete {rule} protocol {protocol}", ip_rule(rule))?;
    if !plain {
        f.write_str("  # has further selectors")?;
    }
    Ok(())
}

const fn ip_rule(rule: RoutingRule) -> &'static str {
    if rule.ipv6 { "ip -6 rule" } else { "ip rule" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::actual::UNICAST;

    #[test]
    fn changes_read_like_the_commands_that_make_them() {
        let name: InterfaceName = "edge0".parse().unwrap();
        let address = Address {
            link: name.clone(),
            address: "fd17::1".parse().unwrap(),
            prefix_len: 64,
        };
        let route = Route {
            destination: "10.17.5.0/24".parse().unwrap(),
            link: name.clone(),
            table: 254,
            source: Some("10.17.0.1".parse().unwrap()),
        };
        let foreign = LiveRoute {
            destination: "0.0.0.0/0".parse().unwrap(),
            table: 51_820,
            link: Some("eth0".to_owned()),
            gateway: Some("192.0.2.1".parse().unwrap()),
            source: None,
            metric: 100,
            tos: 0x10,
            protocol: 4,
            route_type: UNICAST,
        };
        let blackhole = LiveRoute {
            link: None,
            gateway: None,
            metric: 0,
            tos: 0,
            route_type: 6,
            ..foreign.clone()
        };
        let rule = RoutingRule {
            ipv6: true,
            priority: 5182,
            mark: 0x0100_0000,
            mask: 0x3f00_0000,
            table: 51_820,
        };
        let live = LiveRule {
            rule: RoutingRule {
                mark: 0,
                mask: 0,
                ipv6: false,
                ..rule
            },
            protocol: 3,
            plain: false,
        };
        let sysctl = Sysctl {
            path: ["net", "ipv4", "ip_forward"].map(str::to_owned).to_vec(),
            value: "1".to_owned(),
            of_our_link: false,
        };
        let dotted = Sysctl {
            path: ["net", "ipv4", "conf", "eth0.100", "rp_filter"]
                .map(str::to_owned)
                .to_vec(),
            value: "2".to_owned(),
            of_our_link: false,
        };
        let mtu = |was| Change::SetLinkMtu {
            name: name.clone(),
            mtu: 1420,
            was,
        };
        for (change, line) in [
            (
                mtu(Some(1500)),
                "ip link set dev edge0 mtu 1420  # was 1500",
            ),
            (mtu(None), "ip link set dev edge0 mtu 1420"),
            (
                Change::AddAddress(address.clone()),
                "ip address add fd17::1/64 dev edge0 nodad",
            ),
            (
                Change::RemoveAddress(address),
                "ip address delete fd17::1/64 dev edge0",
            ),
            (
                Change::AddRoute {
                    route,
                    protocol: 175,
                },
                "ip route add 10.17.5.0/24 dev edge0 table 254 proto 175 src 10.17.0.1",
            ),
            (
                Change::RemoveRoute(foreign),
                "ip route delete 0.0.0.0/0 tos 0x10 via 192.0.2.1 dev eth0 table 51820 proto 4 metric 100",
            ),
            (
                Change::RemoveRoute(blackhole),
                "ip route delete blackhole 0.0.0.0/0 table 51820 proto 4",
            ),
            (
                Change::AddRule {
                    rule,
                    protocol: 175,
                },
                "ip -6 rule add pref 5182 fwmark 0x1000000/0x3f000000 lookup 51820 protocol 175",
            ),
            (
                Change::RemoveRule(live),
                "ip rule delete pref 5182 lookup 51820 protocol 3  # has further selectors",
            ),
            (
                Change::SetSysctl {
                    sysctl,
                    was: Some("0".to_owned()),
                },
                "sysctl -w net.ipv4.ip_forward=1  # was 0",
            ),
            (
                Change::SetSysctl {
                    sysctl: dotted,
                    was: None,
                },
                "sysctl -w net/ipv4/conf/eth0.100/rp_filter=2",
            ),
        ] {
            assert_eq!(change.to_string(), line);
        }
    }
}
