//! Routes that lead our packets elsewhere, and the kernel's own look at where packets come from.
use std::net::IpAddr;

use shared::api::plan::PlanWarning;
use shared::config::common::SourceIp;
use shared::plan::actual::{MAIN_TABLE, UNICAST};
use shared::plan::desired::protocol;
use shared::plan::host::WayTo;
use shared::plan::ruleset::Family;
use shared::plan::{Actual, Desired, FlowKind, Host};
use shared_os::sysctl;

use super::Asked;
use super::path::Named;

/// Values of `net.ipv4.conf.*.rp_filter` (`Documentation/networking/ip-sysctl.rst`).
const STRICT: u32 = 1;
const LOOSE: u32 = 2;

/// Destinations on the LAN that no route of the LAN leads to: the tunnel network covers them, or the default route.
pub(crate) fn missing(asked: &Asked<'_>, host: &Host) -> Vec<PlanWarning> {
    // On a gateway such destinations are in the tunnel.
    if asked.desired.protocol != protocol::LAN_SERVER {
        return Vec::new();
    }
    let tunnel = asked.settings.interface.as_str();
    let flows = asked.expected.flows.iter();
    let flows = flows.filter(|flow| flow.kind == FlowKind::FromTunnel);
    let missing = flows.filter_map(|flow| {
        let destination = flow.destination?;
        let network = network_of(destination);
        let text = match host.way_to(destination) {
            WayTo::Here => return None,
            WayTo::By(route) if route.link.as_deref() == Some(tunnel) => format!(
                "{}: {destination} would be sent back into {tunnel}, since no route is more specific than {}",
                flow.name, route.destination
            ),
            WayTo::By(route)
                if route.destination.prefix() == 0 && flow.source_ip == SourceIp::Preserve =>
            {
                format!(
                    "{}: {destination} is reached by the default route alone, so its answers will not come back by this host",
                    flow.name
                )
            }
            WayTo::By(_) => return None,
            WayTo::Nowhere => format!("{}: there is no route to {destination}", flow.name),
        };
        Some(PlanWarning {
            name: "more_specific_route_missing".to_owned(),
            subject: destination.to_string(),
            text: format!("{text}; it needs one to its link, as by `ip route add {network} dev LINK`"),
            remedy: None,
        })
    });
    let mut found: Vec<PlanWarning> = Vec::new();
    for warning in missing {
        if !found.iter().any(|other| other.subject == warning.subject) {
            found.push(warning);
        }
    }
    found
}

/// Addresses that stand for callers and are not this host's: whoever answers asks in vain who has them.
pub(crate) fn elsewhere(asked: &Asked<'_>, host: &Host) -> Vec<PlanWarning> {
    let mut found: Vec<PlanWarning> = Vec::new();
    for flow in &asked.expected.flows {
        let SourceIp::Pool(pool) = flow.source_ip else {
            continue;
        };
        let towards = flow.destination.map(|destination| host.way_to(destination));
        let link = match &towards {
            Some(WayTo::By(route)) => route.link.as_deref(),
            Some(WayTo::Here | WayTo::Nowhere) | None => None,
        };
        let link = link.unwrap_or("LINK");
        for address in pool.addresses() {
            let subject = address.to_string();
            let is_here = matches!(host.way_to(address), WayTo::Here);
            if is_here || found.iter().any(|other| other.subject == subject) {
                continue;
            }
            let length = Family::of(address).bits();
            let lost = match flow.destination {
                Some(destination) if is_asked_for(host, destination, address) => {
                    "to it find nobody"
                }
                Some(_) | None => "come back only if somebody routes them here",
            };
            found.push(PlanWarning {
                name: "source_address_missing".to_owned(),
                subject,
                text: format!(
                    "{}: {address} of `source_ip` is no address of this host: answers {lost}",
                    flow.name
                ),
                remedy: Some(format!("ip address add {address}/{length} dev {link}")),
            });
        }
    }
    found
}

/// Whether who is at `destination` asks his own network for the address, where only this host would answer.
pub(crate) fn is_asked_for(host: &Host, destination: IpAddr, address: IpAddr) -> bool {
    let (WayTo::By(there), WayTo::By(here)) = (host.way_to(destination), host.way_to(address))
    else {
        return false;
    };
    here.gateway.is_none() && here.link == there.link
}

/// The network that an address most likely lies in.
fn network_of(address: IpAddr) -> ipnetwork::IpNetwork {
    let length = if address.is_ipv4() { 24 } else { 64 };
    let network = ipnetwork::IpNetwork::new(address, length);
    network
        .and_then(|network| ipnetwork::IpNetwork::new(network.network(), length))
        .unwrap_or_else(|_| address.into())
}

/// Routes of others that take a part of a network that a gateway reaches through the tunnel.
pub(crate) fn stolen(desired: &Desired, actual: &Actual) -> Vec<PlanWarning> {
    if desired.protocol != protocol::GATEWAY {
        return Vec::new();
    }
    let ours = |link: Option<&str>| {
        let mut links = desired.links.iter();
        links.any(|ours| Some(ours.name.as_str()) == link)
    };
    let foreign = actual.routes.iter().filter(|route| {
        route.table == MAIN_TABLE && route.route_type == UNICAST && !ours(route.link.as_deref())
    });
    foreign
        .filter_map(|route| {
            let taken = desired.routes.iter().find(|wanted| {
                wanted.table == MAIN_TABLE
                    && route.destination.prefix() > wanted.destination.prefix()
                    && wanted.destination.contains(route.destination.network())
            })?;
            Some(PlanWarning {
                name: "more_specific_route".to_owned(),
                subject: route.destination.to_string(),
                text: format!(
                    "`{route}` takes a part of {}, which is behind the tunnel",
                    taken.destination
                ),
                remedy: Some(format!("ip route delete {route}")),
            })
        })
        .collect()
}

/// The filter on a link, once `desired` is in place: the greater of the link's and of `all`.
pub(crate) fn reverse_path_filter(desired: &Desired, link: &str) -> u32 {
    let path = |link: &str| ["net", "ipv4", "conf", link, "rp_filter"].map(str::to_owned);
    let live = |link: &str| sysctl::read(&path(link)).ok()?.value;
    let wanted = desired
        .sysctls
        .iter()
        .find(|sysctl| sysctl.path == path(link));
    // A link that is not there yet begins with the default.
    let of_link = wanted.map(|sysctl| sysctl.value.clone());
    let of_link = of_link.or_else(|| live(link)).or_else(|| live("default"));
    let number = |value: Option<String>| value.and_then(|value| value.parse().ok());
    let of_link: u32 = number(of_link).unwrap_or_default();
    of_link.max(number(live("all")).unwrap_or_default())
}

/// Packets whose source the kernel does not believe: without a route back by the link that they came in by (strict), or
/// without any (loose).
pub(crate) fn filtered(
    paths: &[Named],
    host: &Host,
    filter: impl Fn(&str) -> u32,
) -> Vec<PlanWarning> {
    let mut found: Vec<PlanWarning> = Vec::new();
    for named in paths {
        let path = &named.path;
        let (Some(input), Some(source), Family::Ipv4) = (&path.input, path.source, path.family)
        else {
            continue;
        };
        let link = input.name.as_str();
        let back = match host.way_to(source) {
            WayTo::By(route) => route.link.as_deref(),
            WayTo::Here | WayTo::Nowhere => None,
        };
        let (text, remedy) = match (filter(link), back) {
            (STRICT, Some(back)) if back != link => (
                format!(
                    "{}: the kernel drops what {source} sends by {link}, since the way back leads by {back} and the \
                     reverse path filter of {link} is strict",
                    named.name
                ),
                Some(format!("sysctl -w net.ipv4.conf.{link}.rp_filter=2")),
            ),
            (STRICT | LOOSE, None) => (
                format!(
                    "{}: the kernel drops what {source} sends by {link}, since this host has no route back to it; a \
                     default route is enough",
                    named.name
                ),
                None,
            ),
            _ => continue,
        };
        let warning = PlanWarning {
            name: "reverse_path_filter".to_owned(),
            subject: link.to_owned(),
            text,
            remedy,
        };
        if !found.iter().any(|other| other.subject == warning.subject) {
            found.push(warning);
        }
    }
    found
}
