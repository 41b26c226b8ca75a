//! What has to fit together in `gateway.toml`. A field that could not be read is left out of every comparison.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::draft::{Draft, PublishDraft};
use crate::config::address::{self, family_name};
use crate::config::check::{self, Owned, Taken, list, owned};
use crate::config::cloudflare;
use crate::config::common::{Endpoint, PortRange, Protocol, SourceIp};
use crate::config::document::{Located, Report, nearest};
use crate::config::fields::{IdentityDraft, TunnelDraft};
use crate::config::value::Quoted;
use crate::plan::ruleset::Family;

/// Reports everything that contradicts something else.
pub(super) fn check(report: &Report<'_>, draft: &Draft) {
    links(report, draft);
    if let Ok(tunnel) = &draft.tunnel {
        room_for_peers(report, tunnel);
        for identity in draft.identities() {
            peer_addresses(report, draft, tunnel, identity);
        }
        lan_networks(report, draft, tunnel);
        admin(report, draft, tunnel);
    }
    check::unique_identities(report, &draft.identities().collect::<Vec<_>>());
    check::disjoint(report, lan_networks_of(draft).collect());
    publishes(report, draft);
    roles(report, draft);
    let users = draft
        .publishes
        .items
        .iter()
        .filter_map(|publish| publish.allow.as_ref().ok());
    check::sets(report, &draft.sets, &users.collect::<Vec<_>>());
}

/// The links and ports of this host.
fn links(report: &Report<'_>, draft: &Draft) {
    let (Ok(wan), Ok(tunnel)) = (&draft.wan, &draft.tunnel) else {
        return;
    };
    if let (Ok(wan), Ok(tunnel)) = (&wan.interface, &tunnel.interface) {
        if wan.value.as_ref() == Some(&tunnel.value) {
            let name = &tunnel.value;
            report.error(
                tunnel.at.max(wan.at),
                format!("`{name}` is the interface of [wan] and of [tunnel]; the tunnel makes a link of its own, name it differently"),
            );
        }
    }
    if let (Ok(endpoint), Ok(listen_port)) = (&wan.endpoint, &tunnel.listen_port) {
        let dialled = match &endpoint.value {
            Endpoint::Address(socket) => socket.port(),
            Endpoint::Name { port, .. } => *port,
        };
        if dialled != listen_port.value {
            let ours = listen_port.value;
            report.warn(
                endpoint.at,
                format!("[wan]: peers dial port {dialled}, but the tunnel listens on {ours}; right only if something in front translates it"),
            );
        }
    }
}

fn room_for_peers(report: &Report<'_>, tunnel: &TunnelDraft) {
    for address in &tunnel.addresses.items {
        let network = address.value.network();
        let longest = if network.is_ipv4() { 32 } else { 128 };
        if network.prefix() == longest {
            let example = if network.is_ipv4() { 16 } else { 64 };
            let ours = address.value.address;
            report.error(
                address.at,
                format!("[tunnel]: {ours} alone leaves no address for peers; write the tunnel network's length, e.g. \"{ours}/{example}\""),
            );
        } else if network.prefix() == 0 {
            report.error(
                address.at,
                "[tunnel]: the tunnel network can't be the whole internet; write a longer prefix, e.g. /16",
            );
        }
    }
}

fn lan_networks_of(draft: &Draft) -> impl Iterator<Item = Owned<'_, IpNetwork>> {
    let servers = draft.lan_servers.items.iter();
    servers.flat_map(|server| owned(&server.identity.label, &server.networks))
}

/// Whether every LAN network is known, so that one can say "none of them".
fn lan_networks_known(draft: &Draft) -> bool {
    let servers = &draft.lan_servers;
    servers.complete.is_ok()
        && servers
            .items
            .iter()
            .all(|server| server.networks.complete.is_ok())
}

fn peer_addresses(report: &Report<'_>, draft: &Draft, tunnel: &TunnelDraft, peer: &IdentityDraft) {
    let networks = check::networks_of(&tunnel.addresses.items);
    for &Located { value: address, at } in &peer.addresses.items {
        let label = &peer.label;
        let network = networks.iter().find(|network| network.contains(address));
        if tunnel
            .addresses
            .items
            .iter()
            .any(|ours| ours.value.address == address)
        {
            report.error(
                at,
                format!("{label}: {address} is the gateway's own address; take another one"),
            );
        } else if let Some(network) = network.filter(|&&n| address::is_reserved_in(address, n)) {
            report.error(
                at,
                format!(
                    "{label}: {address} is not an address of a host in {network}; take another one"
                ),
            );
        } else if network.is_none() && tunnel.addresses.complete.is_ok() {
            let networks = list(networks.iter().copied());
            report.error(
                at,
                format!(
                    "{label}: {address} is outside the tunnel network; take one from {networks}"
                ),
            );
        }
        if let Some(lan) = check::network_of(address, lan_networks_of(draft)) {
            let (network, owner) = (lan.value, lan.owner);
            report.error(
                at,
                format!("{label}: {address} is inside {network}, a network of {owner}; peers have addresses outside the LAN networks"),
            );
        }
    }
}

fn lan_networks(report: &Report<'_>, draft: &Draft, tunnel: &TunnelDraft) {
    let tunnel_networks = check::networks_of(&tunnel.addresses.items);
    for Owned {
        owner,
        value: network,
        at,
    } in lan_networks_of(draft)
    {
        let swallowed = tunnel_networks
            .iter()
            .find(|&&inner| address::covers(network, inner));
        let ours =
            (tunnel.addresses.items.iter()).find(|ours| network.contains(ours.value.address));
        let within = tunnel_networks
            .iter()
            .any(|&outer| address::covers(outer, network));
        let message = if network.prefix() == 0 {
            format!("{network} is the whole internet; name the networks of the LAN")
        } else if let Some(inner) = swallowed {
            format!(
                "{network} covers the tunnel network {inner}; name the networks of the LAN more narrowly"
            )
        } else if let Some(ours) = ours {
            let ours = ours.value.address;
            format!(
                "{network} contains {ours}, the gateway's own address; name the networks of the LAN more narrowly"
            )
        } else if tunnel.addresses.complete.is_ok() && !within && !address::is_private(network) {
            format!(
                "{network} is not private: its traffic would be drawn into the tunnel; LAN networks are private (RFC 1918, RFC 6598, RFC 4193) or inside the tunnel network"
            )
        } else {
            continue;
        };
        report.error(at, format!("{owner}: {message}"));
    }
}

fn admin(report: &Report<'_>, draft: &Draft, tunnel: &TunnelDraft) {
    let Ok(admin) = &draft.admin else { return };
    let Ok(Some(listen)) = &admin.listen else {
        return;
    };
    let ours: Vec<IpAddr> = (tunnel.addresses.items.iter())
        .map(|ours| ours.value.address)
        .collect();
    let ip = listen.value.ip();
    if tunnel.addresses.complete.is_ok() && !ours.contains(&ip) {
        let example = ours.first().map_or_else(String::new, |&address| {
            let socket = std::net::SocketAddr::new(address, listen.value.port());
            format!("; write \"{socket}\"")
        });
        report.error(
            listen.at,
            format!("{}: {ip} is not our address in the tunnel, and the admin API is never offered elsewhere{example}", admin.label),
        );
    }
    if let Ok(Located { value: false, at }) = admin.tokens {
        report.warn(
            at,
            format!(
                "{}: without tokens every peer that reaches {} manages this gateway",
                admin.label, listen.value
            ),
        );
    }
}

fn publishes(report: &Report<'_>, draft: &Draft) {
    let publishes = &draft.publishes.items;
    let names = publishes.iter().filter_map(|publish| {
        let name = publish.name.as_ref().ok()?;
        Some(Owned {
            owner: publish.label.as_str(),
            value: name.value.as_str(),
            at: name.at,
        })
    });
    check::unique(report, names.collect(), |name| {
        format!("the name {}", Quoted::text(name))
    });
    for publish in publishes {
        vip(report, draft, publish);
        callers(report, draft, publish);
        own_port(report, draft, publish);
        masquerade(report, draft, publish);
    }
    let taken = publishes.iter().flat_map(|publish| {
        let space = match (&publish.vip, &publish.protocol) {
            (Ok(vip), Ok(protocol)) => Some((protocol.value, Family::of(vip.value))),
            (Err(_), _) | (_, Err(_)) => None,
        };
        space.into_iter().flat_map(move |space| {
            publish.ports.items.iter().map(move |ports| Owned {
                owner: publish.label.as_str(),
                value: Taken {
                    space,
                    ports: ports.value.listen,
                },
                at: ports.at,
            })
        })
    });
    check::ports_free(report, taken.collect(), |(protocol, family)| {
        format!("{} {protocol} port", family_name(family))
    });
}

fn vip(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let (label, Ok(vip)) = (&publish.label, &publish.vip) else {
        return;
    };
    let ours = draft
        .tunnel
        .iter()
        .flat_map(|tunnel| &tunnel.addresses.items);
    let gateway = ours.map(|ours| ("the gateway", ours.value.address));
    let peers = draft.identities().flat_map(|peer| {
        peer.addresses
            .items
            .iter()
            .map(|address| (peer.label.as_str(), address.value))
    });
    if let Some((owner, _)) = gateway
        .chain(peers)
        .find(|&(_, address)| address == vip.value)
    {
        let vip_address = vip.value;
        report.error(vip.at, format!("{label}: {vip_address} is the tunnel address of {owner}; a VIP is an address behind a LAN server"));
    } else if lan_networks_known(draft)
        && check::network_of(vip.value, lan_networks_of(draft)).is_none()
    {
        let networks = list(lan_networks_of(draft).map(|network| network.value));
        let vip_address = vip.value;
        report.error(
            vip.at,
            format!("{label}: {vip_address} is in no network of a LAN server ({networks}); correct it or add its network to `networks`"),
        );
    }
}

fn callers(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let (label, Ok(allow)) = (&publish.label, &publish.allow) else {
        return;
    };
    let family = publish.vip.as_ref().ok().map(|vip| Family::of(vip.value));
    check::sources(report, label, &draft.sets, allow, family);
    let Ok(protocol) = publish.protocol.map(|protocol| protocol.value) else {
        return;
    };
    let listen = || publish.ports.items.iter().map(|ports| ports.value.listen);
    if allow.any {
        check::warn_if_open(report, label, allow.at, protocol, listen());
    }
    let only_cloudflare = allow.networks.is_empty()
        && !allow.sets.is_empty()
        && allow
            .sets
            .iter()
            .all(|set| set.value == cloudflare::SET_NAME);
    if !only_cloudflare {
        return;
    }
    if protocol == Protocol::Udp {
        report.warn(allow.at, format!("{label}: Cloudflare's proxy never forwards UDP, so nobody can call this; list who may"));
        return;
    }
    let unproxied = |ports: &PortRange| {
        ports.first != ports.last || !cloudflare::PROXIED_PORTS.contains(&ports.first)
    };
    for ports in publish
        .ports
        .items
        .iter()
        .filter(|ports| unproxied(&ports.value.listen))
    {
        let listen = ports.value.listen;
        report.warn(
            ports.at,
            format!("{label}: Cloudflare forwards to port {listen} only where an Origin Rule or Spectrum says so"),
        );
    }
}

fn own_port(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let Ok(tunnel) = &draft.tunnel else { return };
    let (Ok(own), Ok(protocol)) = (&tunnel.listen_port, &publish.protocol) else {
        return;
    };
    if protocol.value != Protocol::Udp {
        return;
    }
    for ports in &publish.ports.items {
        let PortRange { first, last } = ports.value.listen;
        if (first..=last).contains(&own.value) {
            let (label, own) = (&publish.label, own.value);
            report.error(
                ports.at,
                format!(
                    "{label}: udp port {own} is the tunnel's own `listen_port`; publish another one"
                ),
            );
        }
    }
}

fn masquerade(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let (Ok(vip), Ok(tunnel)) = (&publish.vip, &draft.tunnel) else {
        return;
    };
    let Ok(Located {
        value: SourceIp::Masquerade,
        at,
    }) = publish.source_ip
    else {
        return;
    };
    let family = Family::of(vip.value);
    let has_family =
        (tunnel.addresses.items.iter()).any(|ours| Family::of(ours.value.address) == family);
    if tunnel.addresses.complete.is_ok() && !has_family {
        let (label, family) = (&publish.label, family_name(family));
        report.error(
            at,
            format!("{label}: the VIP is {family}, but the tunnel has no {family} address to masquerade with; add one to `address` of [tunnel] or preserve the source"),
        );
    }
}

fn roles(report: &Report<'_>, draft: &Draft) {
    let roles = &draft.roles.items;
    let names = || {
        roles.iter().filter_map(|role| {
            let name = role.name.as_ref().ok()?;
            Some(Owned {
                owner: role.label.as_str(),
                value: name.value.as_str(),
                at: name.at,
            })
        })
    };
    check::unique(report, names().collect(), |name| {
        format!("the name {}", Quoted::text(name))
    });
    for role in roles {
        check::services_disjoint(report, owned(&role.label, &role.allow).collect());
        reach(report, draft, &role.label, &role.allow.items);
    }
    let all_known = draft.roles.complete.is_ok() && roles.iter().all(|role| role.name.is_ok());
    for peer in &draft.peers.items {
        let Ok(Some(role)) = &peer.role else { continue };
        if !all_known || names().any(|name| name.value == role.value) {
            continue;
        }
        let label = &peer.identity.label;
        let remedy = nearest(&role.value, names().map(|name| name.value)).map_or_else(
            || "add a [[role]] with that name".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        report.error(
            role.at,
            format!(
                "{label}: there is no role {}; {remedy}",
                Quoted::text(&role.value)
            ),
        );
    }
}

/// A role reaches only LAN networks and the tunnel network: to anything else there is no route.
fn reach(
    report: &Report<'_>,
    draft: &Draft,
    label: &str,
    services: &[Located<crate::config::common::Service>],
) {
    let Ok(tunnel) = &draft.tunnel else { return };
    if !lan_networks_known(draft) || tunnel.addresses.complete.is_err() {
        return;
    }
    let tunnel_networks = check::networks_of(&tunnel.addresses.items);
    let reachable: Vec<_> = lan_networks_of(draft)
        .map(|lan| lan.value)
        .chain(tunnel_networks)
        .collect();
    for service in services {
        let network = service.value.network;
        if !reachable
            .iter()
            .any(|&outer| address::covers(outer, network))
        {
            let networks = list(reachable.iter().copied());
            report.error(
                service.at,
                format!("{label}: {network} is in no LAN network and not in the tunnel network ({networks}); correct it or add its network to `networks`"),
            );
        }
    }
}
