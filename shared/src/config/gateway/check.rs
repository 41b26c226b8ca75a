//! What has to fit together in `gateway.toml`. A field that could not be read is left out of every comparison, and so is
//! a network that was refused: its consequences are no mistakes of their own.
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use super::draft::{Draft, PublishDraft};
use crate::config::address::{self, Shown, family_name};
use crate::config::check::{self, Owned, Taken, list, owned};
use crate::config::cloudflare;
use crate::config::common::{Endpoint, PortRange, Protocol, Service, SourceIp};
use crate::config::document::nearest;
use crate::config::policy_test::{self, Peers};
use crate::config::report::{Located, Report};
use crate::config::value::Quoted;
use crate::plan::ruleset::Family;

/// Reports everything that contradicts something else.
pub(super) fn check(report: &Report<'_>, draft: &Draft) {
    let networks = Networks::of(report, draft);
    links(report, draft);
    check::mtu(
        report,
        &draft.tunnel,
        (draft.publishes.items.iter())
            .filter_map(|publish| publish.vip.as_ref().ok())
            .map(|vip| vip.value),
    );
    endpoint(report, draft, &networks);
    identities(report, draft, &networks);
    admin(report, draft, &networks);
    publishes(report, draft, &networks);
    roles(report, draft, &networks);
    check::sets(report, &draft.sets);
    draft.refresh.check(report, &draft.sets);
    let names = draft
        .identities()
        .filter_map(|peer| peer.name.as_ref().ok());
    let names: Vec<&str> = names.map(|name| name.value.as_str()).collect();
    policy_test::check(report, &draft.tests.items, &draft.sets, Peers::Of(&names));
}

/// The networks of the file that are not refused.
struct Networks<'d> {
    ours: Vec<IpAddr>,
    tunnel: Vec<IpNetwork>,
    /// Whether `ours` and `tunnel` are all, so that "none of them" can be said.
    tunnel_known: bool,
    lan: Vec<Owned<'d, IpNetwork>>,
    lan_known: bool,
}

impl<'d> Networks<'d> {
    /// Reports networks that can't be what they claim to be.
    fn of(report: &Report<'_>, draft: &'d Draft) -> Self {
        let mut networks = Self {
            ours: Vec::new(),
            tunnel: Vec::new(),
            tunnel_known: false,
            lan: Vec::new(),
            lan_known: draft.lan_servers.complete.is_ok(),
        };
        networks.take_tunnel(report, draft);
        for server in &draft.lan_servers.items {
            networks.lan_known &= server.networks.complete.is_ok();
            for lan in owned(&server.identity.label, &server.networks) {
                if let Some(problem) = networks.lan_problem(lan.value) {
                    report.error(lan.at, format!("{}: {problem}", lan.owner));
                    networks.lan_known = false;
                } else {
                    networks.lan.push(lan);
                }
            }
        }
        check::disjoint(report, networks.lan.clone());
        networks
    }

    fn take_tunnel(&mut self, report: &Report<'_>, draft: &Draft) {
        let Ok(tunnel) = &draft.tunnel else { return };
        self.tunnel_known = tunnel.addresses.complete.is_ok();
        for address in &tunnel.addresses.items {
            let ours = address.value.address;
            let network = address.value.network();
            self.ours.push(ours);
            if address::is_single(network) {
                let example = if network.is_ipv4() { 16 } else { 64 };
                report.error(
                    address.at,
                    format!(
                        "[tunnel]: {ours} alone leaves no address for peers; \
                         write the tunnel network's length, e.g. \"{ours}/{example}\""
                    ),
                );
                self.tunnel_known = false;
            } else if network.prefix() == 0 {
                let message = "[tunnel]: the tunnel network can't be the whole internet; \
                               write a longer prefix, e.g. /16";
                report.error(address.at, message);
                self.tunnel_known = false;
            } else {
                self.tunnel.push(network);
            }
        }
    }

    fn lan_problem(&self, network: IpNetwork) -> Option<String> {
        let swallowed = self
            .tunnel
            .iter()
            .find(|&&inner| address::covers(network, inner));
        let ours = self.ours.iter().find(|&&ours| network.contains(ours));
        let in_tunnel = self
            .tunnel
            .iter()
            .any(|&outer| address::covers(outer, network));
        let shown = Shown(network);
        if network.prefix() == 0 {
            Some(format!(
                "{shown} is the whole internet; name the networks of the LAN"
            ))
        } else if let Some(inner) = swallowed {
            Some(format!(
                "{shown} covers the tunnel network {inner}; name the networks of the LAN more narrowly"
            ))
        } else if let Some(ours) = ours {
            Some(format!(
                "{shown} contains {ours}, the gateway's own address; \
                 name the networks of the LAN more narrowly"
            ))
        } else if self.tunnel_known && !in_tunnel && !address::is_private(network) {
            Some(format!(
                "{shown} is not private: its traffic would be drawn into the tunnel; LAN networks are \
                 private (RFC 1918, RFC 6598, RFC 4193) or inside the tunnel network"
            ))
        } else {
            None
        }
    }

    fn lan_around(&self, address: IpAddr) -> Option<&Owned<'d, IpNetwork>> {
        self.lan.iter().find(|lan| lan.value.contains(address))
    }

    fn tunnel_around(&self, address: IpAddr) -> Option<IpNetwork> {
        let mut networks = self.tunnel.iter().copied();
        networks.find(|network| network.contains(address))
    }
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
                format!(
                    "`{name}` is the interface of [wan] and of [tunnel]; \
                     the tunnel makes a link of its own, name it differently"
                ),
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
                format!(
                    "[wan]: peers dial port {dialled}, but the tunnel listens on {ours}; \
                     right only if something in front translates it"
                ),
            );
        }
    }
}

/// Datagrams to an endpoint inside the tunnel would be sent through the tunnel.
fn endpoint(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>) {
    let Some(Ok(endpoint)) = draft.wan.as_ref().ok().map(|wan| &wan.endpoint) else {
        return;
    };
    let Endpoint::Address(socket) = endpoint.value else {
        return;
    };
    let ip = socket.ip();
    let lan = networks.lan_around(ip).map(|lan| lan.value);
    if let Some(network) = networks.tunnel_around(ip).or(lan) {
        report.error(
            endpoint.at,
            format!(
                "[wan]: {ip} is inside {network}, which is reached through the tunnel; \
                 write the gateway's public address"
            ),
        );
    }
}

fn identities(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>) {
    let identities: Vec<_> = draft.identities().collect();
    check::unique_identities(report, &identities, draft.keys());
    for server in &draft.lan_servers.items {
        if let (Ok(None), Ok(Some(file))) =
            (&server.public_key, &server.identity.preshared_key_file)
        {
            let label = &server.identity.label;
            report.error(
                file.at,
                format!(
                    "{label}: `preshared_key_file` goes with a `public_key`; write that, too, or leave \
                     both out: a LAN host that joins by a token gets a preshared key of its own"
                ),
            );
        }
    }
    for peer in identities {
        for address in &peer.addresses.items {
            if let Some(problem) = peer_address_problem(address.value, networks) {
                report.error(
                    address.at,
                    format!("{}: {} {problem}", peer.label, address.value),
                );
            }
        }
    }
}

fn peer_address_problem(address: IpAddr, networks: &Networks<'_>) -> Option<String> {
    let tunnel = networks.tunnel_around(address);
    if networks.ours.contains(&address) {
        return Some("is the gateway's own address; take another one".to_owned());
    }
    if let Some(lan) = networks.lan_around(address) {
        return Some(format!(
            "is inside {}, a network of {}; peers have addresses outside the LAN networks",
            Shown(lan.value),
            lan.owner
        ));
    }
    match tunnel {
        Some(network) if address::is_reserved_in(address, network) => Some(format!(
            "is not an address of a host in {network}; take another one"
        )),
        None if networks.tunnel_known => {
            let tunnel = list(networks.tunnel.iter().copied());
            Some(format!(
                "is outside the tunnel network; take one from {tunnel}"
            ))
        }
        Some(_) | None => None,
    }
}

fn admin(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>) {
    let Ok(admin) = &draft.admin else { return };
    let Ok(Some(listen)) = &admin.listen else {
        return;
    };
    let (label, ip, at) = (&admin.label, listen.value.ip(), listen.at);
    if networks.tunnel_known && !networks.ours.contains(&ip) {
        let example = networks.ours.first().map_or_else(String::new, |&ours| {
            format!("; write \"{}\"", SocketAddr::new(ours, listen.value.port()))
        });
        report.error(
            listen.at,
            format!(
                "{label}: {ip} is not our address in the tunnel, \
                 and the admin API is never offered elsewhere{example}"
            ),
        );
    }
    let listen = listen.value;
    let mut services = (draft.roles.items.iter()).flat_map(|role| &role.allow.items);
    let is_allowed = services.any(|service| {
        let Service {
            network,
            ports,
            protocol,
        } = service.value;
        let is_port = (ports.first..=ports.last).contains(&listen.port());
        protocol == Protocol::Tcp && is_port && network.contains(ip)
    });
    if draft.roles.complete.is_ok() && !is_allowed {
        report.warn(
            at,
            format!(
                "{label}: no role allows \"{listen}/tcp\", so no peer reaches the admin API; add it to one"
            ),
        );
    }
    if let Ok(Located { value: false, at }) = admin.tokens {
        report.warn(
            at,
            format!(
                "{label}: without tokens every peer that reaches {listen} manages this gateway"
            ),
        );
    }
}

fn publishes(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>) {
    let publishes = &draft.publishes.items;
    let names =
        (publishes.iter()).filter_map(|publish| check::named(&publish.label, &publish.name));
    check::unique_names(report, names.collect());
    for publish in publishes {
        vip(report, draft, networks, publish);
        callers(report, draft, publish);
        own_port(report, draft, publish);
        source_ip(report, networks, publish);
    }
    let mut taken = Vec::new();
    for publish in publishes {
        if let (Ok(vip), Ok(protocol)) = (&publish.vip, &publish.protocol) {
            let space = (protocol.value, Family::of(vip.value));
            taken.extend(publish.ports.items.iter().map(|entry| Owned {
                owner: publish.label.as_str(),
                value: Taken {
                    space,
                    ports: entry.value.listen,
                },
                at: entry.at,
            }));
        }
    }
    check::ports_free(report, taken, |(protocol, family), ports| {
        format!("{} port {ports}/{protocol}", family_name(family))
    });
}

fn vip(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>, publish: &PublishDraft) {
    let Ok(vip) = publish.vip else { return };
    let (label, address) = (&publish.label, vip.value);
    let ours = networks.ours.iter().map(|&ours| ("the gateway", ours));
    if let Some(owner) = check::owner_of(address, ours, draft.identities()) {
        report.error(
            vip.at,
            format!(
                "{label}: {address} is the tunnel address of {owner}; \
                 a VIP is an address behind a LAN server"
            ),
        );
        return;
    }
    match networks.lan_around(address) {
        Some(lan) if address::is_reserved_in(address, lan.value) => {
            let network = lan.value;
            report.error(
                vip.at,
                format!("{label}: {address} is not an address of a host in {network}; correct it"),
            );
        }
        None if networks.lan_known => {
            let lans = list(networks.lan.iter().map(|lan| lan.value));
            report.error(
                vip.at,
                format!(
                    "{label}: {address} is in no network of a LAN server ({lans}); \
                     correct it or add its network to `networks`"
                ),
            );
        }
        Some(_) | None => {}
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
    if allow.any {
        let listen = publish.ports.items.iter().map(|entry| entry.value.listen);
        let message = check::open_to_everybody(protocol, listen);
        report.warn(allow.at, format!("{label}: {message}"));
    }
    if allow.is_only(cloudflare::SET_NAME) {
        what_cloudflare_forwards(report, publish, protocol, allow.at);
    }
}

fn what_cloudflare_forwards(
    report: &Report<'_>,
    publish: &PublishDraft,
    protocol: Protocol,
    allow_at: usize,
) {
    let label = &publish.label;
    if protocol == Protocol::Udp {
        let message =
            "Cloudflare's proxy never forwards UDP, so nobody can call this; list who may";
        report.warn(allow_at, format!("{label}: {message}"));
        return;
    }
    for entry in &publish.ports.items {
        let PortRange { first, last } = entry.value.listen;
        if first != last || !cloudflare::PROXIED_PORTS.contains(&first) {
            let listen = entry.value.listen;
            report.warn(
                entry.at,
                format!(
                    "{label}: Cloudflare forwards to port {listen} only where an Origin Rule \
                     or Spectrum says so"
                ),
            );
        }
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
    for entry in &publish.ports.items {
        let PortRange { first, last } = entry.value.listen;
        if (first..=last).contains(&own.value) {
            let (label, own) = (&publish.label, own.value);
            report.error(
                entry.at,
                format!(
                    "{label}: port {own}/udp is the tunnel's own `listen_port`; publish another one"
                ),
            );
        }
    }
}

/// This end has one address of a family in the tunnel.
fn source_ip(report: &Report<'_>, networks: &Networks<'_>, publish: &PublishDraft) {
    let (Ok(vip), Ok(source_ip)) = (&publish.vip, &publish.source_ip) else {
        return;
    };
    let family = Family::of(vip.value);
    match source_ip.value {
        SourceIp::Preserve => {}
        SourceIp::Masquerade => {
            let has_family = networks.ours.iter().any(|&ours| Family::of(ours) == family);
            if networks.tunnel_known && !has_family {
                let (label, family) = (&publish.label, family_name(family));
                report.error(
                    source_ip.at,
                    format!(
                        "{label}: the VIP is {family}, but the tunnel has no {family} address to masquerade with; \
                         add one to `address` of [tunnel] or preserve the source"
                    ),
                );
            }
        }
        SourceIp::Pool(_) => {
            let label = &publish.label;
            report.error(
                source_ip.at,
                format!(
                    "{label}: the LAN host has addresses that stand for callers; write \"preserve\" here, and them in \
                     its lan-server.toml"
                ),
            );
        }
    }
}

fn roles(report: &Report<'_>, draft: &Draft, networks: &Networks<'_>) {
    let roles = &draft.roles.items;
    let names: Vec<_> = (roles.iter())
        .filter_map(|role| check::named(&role.label, &role.name))
        .collect();
    for role in roles {
        check::services_disjoint(report, owned(&role.label, &role.allow).collect());
        reach(report, networks, &role.label, &role.allow.items);
    }
    let all_known = draft.roles.complete.is_ok() && roles.iter().all(|role| role.name.is_ok());
    for peer in &draft.peers.items {
        let Ok(Some(role)) = &peer.role else { continue };
        if !all_known || names.iter().any(|name| name.value == role.value) {
            continue;
        }
        let near = nearest(&role.value, names.iter().map(|name| name.value));
        let remedy = near.map_or_else(
            || "add a [[role]] with that name".to_owned(),
            |near| format!("did you mean \"{near}\"?"),
        );
        let (label, unknown) = (&peer.identity.label, Quoted::text(&role.value));
        report.error(
            role.at,
            format!("{label}: there is no role {unknown}; {remedy}"),
        );
    }
    check::unique_names(report, names);
}

/// A role reaches only LAN networks and the tunnel network: to anything else there is no route.
fn reach(report: &Report<'_>, networks: &Networks<'_>, label: &str, services: &[Located<Service>]) {
    if !networks.lan_known || !networks.tunnel_known {
        return;
    }
    let lans = networks.lan.iter().map(|lan| lan.value);
    let reachable: Vec<_> = lans.chain(networks.tunnel.iter().copied()).collect();
    for service in services {
        let network = service.value.network;
        if !reachable
            .iter()
            .any(|&outer| address::covers(outer, network))
        {
            let (network, reachable) = (Shown(network), list(reachable.iter().copied()));
            report.error(
                service.at,
                format!(
                    "{label}: {network} is in no LAN network and not in the tunnel network ({reachable}); \
                     correct it or add its network to `networks`"
                ),
            );
        }
    }
}
