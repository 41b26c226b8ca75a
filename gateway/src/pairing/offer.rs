//! What a LAN host is told: the part of the configuration that concerns its networks. Pure.
use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use shared::config::cloudflare;
use shared::config::common::{InterfaceAddress, PortRange, Service, SourceIp, Sources};
use shared::config::gateway::{Gateway, LanServerPeer};
use shared::pairing::{Offer, Publish};

/// To the LAN host that becomes `lan`.
pub(super) fn offer(config: &Gateway, lan: &LanServerPeer) -> Offer {
    let tunnel = &config.tunnel;
    let is_there = |network: IpNetwork| {
        let mut networks = lan.networks.iter();
        networks.any(|lan| covers(*lan, network))
    };
    let published = config.publishes.iter();
    let published = published.filter(|publish| is_there(IpNetwork::from(publish.vip)));
    let (preserved, masqueraded): (Vec<_>, Vec<_>) =
        published.partition(|publish| publish.source_ip == SourceIp::Preserve);
    let masqueraded = masqueraded.into_iter().flat_map(|publish| {
        publish.ports.iter().map(|map| Service {
            network: IpNetwork::from(publish.vip),
            ports: map.target,
            protocol: publish.protocol,
        })
    });
    let of_roles = config.roles.iter().flat_map(|role| &role.allow).copied();
    let of_roles = of_roles.filter(|service| is_there(service.network));
    let access = disjoint(of_roles.chain(masqueraded).collect());
    let mut sets = BTreeSet::new();
    let publishes = preserved.iter().map(|publish| {
        let from = match &publish.allow {
            Sources::Any => vec!["any".to_owned()],
            Sources::Listed {
                sets: names,
                networks,
            } => {
                sets.extend(names);
                let networks = networks.iter().map(ToString::to_string);
                names.iter().cloned().chain(networks).collect()
            }
        };
        let ports: BTreeSet<PortRange> = publish.ports.iter().map(|map| map.target).collect();
        Publish {
            name: publish.name.clone(),
            vip: publish.vip,
            protocol: publish.protocol.to_string(),
            ports: ports.iter().map(ToString::to_string).collect(),
            from,
        }
    });
    let publishes = publishes.collect();
    Offer {
        name: lan.name.clone(),
        addresses: lan.addresses.clone(),
        gateway_addresses: tunnel.addresses.iter().map(|own| own.address).collect(),
        tunnel_networks: tunnel
            .addresses
            .iter()
            .map(|own| InterfaceAddress::network(own).to_string())
            .collect(),
        networks: lan.networks.iter().map(ToString::to_string).collect(),
        mtu: tunnel.mtu,
        publishes,
        access: access.iter().map(ToString::to_string).collect(),
        sets: sets_of(config, &sets),
    }
}

/// The built-in set has the same networks on both ends unless the file has its own list.
fn sets_of(config: &Gateway, names: &BTreeSet<&String>) -> BTreeMap<String, Vec<String>> {
    let named = config.sets.iter().filter(|set| names.contains(&set.name));
    let own = named
        .filter(|set| set.name != cloudflare::SET_NAME || set.networks != cloudflare::networks());
    own.map(|set| {
        let networks = set.networks.iter().map(ToString::to_string);
        (set.name.clone(), networks.collect())
    })
    .collect()
}

/// Roles may share services; on the LAN end each stands once. What is in a wider network already, is left out of the narrower.
fn disjoint(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_by_key(|service| (service.network.prefix(), *service));
    let mut kept: Vec<Service> = Vec::new();
    for service in services {
        let wider = kept.iter().filter(|wider| {
            wider.protocol == service.protocol && covers(wider.network, service.network)
        });
        let mut rest = vec![service.ports];
        for wider in wider {
            rest = rest
                .into_iter()
                .flat_map(|ports| without(ports, wider.ports))
                .collect();
        }
        kept.extend(rest.into_iter().map(|ports| Service { ports, ..service }));
    }
    kept.sort_unstable();
    kept
}

/// The ports of one range that are not in the other: none, one or two ranges.
fn without(ports: PortRange, taken: PortRange) -> impl Iterator<Item = PortRange> {
    let range = |first: u32, last: u32| {
        let first = u16::try_from(first).ok()?;
        let last = u16::try_from(last).ok()?;
        (first <= last).then_some(PortRange { first, last })
    };
    let (first, last) = (u32::from(ports.first), u32::from(ports.last));
    let (taken_first, taken_last) = (u32::from(taken.first), u32::from(taken.last));
    // Ports are never 0, so nothing is lost by the saturation.
    let below = range(first, last.min(taken_first.saturating_sub(1)));
    let above = range(first.max(taken_last + 1), last);
    below.into_iter().chain(above)
}

fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Gateway {
        let text = format!(
            r#"
[wan]
endpoint = "203.0.113.10:51820"

[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]
mtu = 1400

[[lan_server]]
name = "home"
address = ["10.17.0.2", "fd17::2"]
networks = ["10.17.4.0/24", "10.17.5.0/24"]

[[lan_server]]
name = "office"
address = "10.17.0.3"
networks = ["10.17.6.0/24"]

[sets]
office = ["198.51.100.0/24"]
unused = ["192.0.2.0/24"]
{more}
"#
        );
        match Gateway::parse(&text, "gateway.toml") {
            Ok(parsed) => parsed.config,
            Err(errors) => panic!("{errors}"),
        }
    }

    fn of(more: &str) -> Offer {
        let config = config(more);
        offer(&config, &config.lan_servers[0])
    }

    #[test]
    fn a_lan_host_is_told_what_concerns_its_networks() {
        let offer = of(r#"
[[publish]]
name = "ingress"
vip = "10.17.5.30"
protocol = "tcp"
ports = [80, "8443:443"]
allow = ["cloudflare", "office", "192.0.2.0/25"]

[[publish]]
name = "elsewhere"
vip = "10.17.6.30"
protocol = "tcp"
ports = [81]
allow = ["unused"]

[[publish]]
name = "masqueraded"
vip = "10.17.5.31"
protocol = "udp"
ports = ["5000:53"]
allow = ["any"]
source_ip = "masquerade"

[[role]]
name = "kube-admin"
allow = ["10.17.5.10:6443/tcp", "10.17.6.1:22/tcp"]
"#);
        assert_eq!(offer.name, "home");
        assert_eq!(offer.mtu, 1400);
        assert_eq!(offer.tunnel_networks, ["10.17.0.0/16", "fd17::/64"]);
        assert_eq!(offer.publishes.len(), 1, "{offer:?}");
        let publish = &offer.publishes[0];
        assert_eq!(publish.ports, ["80", "443"], "ports of the VIP");
        assert_eq!(publish.from, ["cloudflare", "office", "192.0.2.0/25"]);
        assert_eq!(offer.access, ["10.17.5.10:6443/tcp", "10.17.5.31:53/udp"]);
        let sets: Vec<&String> = offer.sets.keys().collect();
        assert_eq!(
            sets,
            ["office"],
            "not the built-in one, and not one that it does not need"
        );
    }

    #[test]
    fn a_list_of_cloudflares_networks_in_the_file_is_told() {
        let publish = r#"
cloudflare = ["173.245.48.0/20"]

[[publish]]
name = "ingress"
vip = "10.17.5.30"
protocol = "tcp"
ports = [443]
allow = ["cloudflare"]
"#;
        assert_eq!(of(publish).sets["cloudflare"], ["173.245.48.0/20"]);
    }

    #[test]
    fn services_of_several_roles_share_no_port() {
        let offer = of(r#"
[[role]]
name = "one"
allow = ["10.17.5.10:6443/tcp", "10.17.4.0/24:8000-8100/tcp"]

[[role]]
name = "two"
allow = ["10.17.5.10:6443/tcp", "10.17.5.10:6443/udp", "10.17.4.7:7990-8200/tcp", "10.17.4.8:8050/tcp"]
"#);
        assert_eq!(
            offer.access,
            [
                "10.17.4.0/24:8000-8100/tcp",
                "10.17.4.7:7990-7999/tcp",
                "10.17.4.7:8101-8200/tcp",
                "10.17.5.10:6443/tcp",
                "10.17.5.10:6443/udp",
            ]
        );
    }
}
