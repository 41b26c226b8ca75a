//! What has to fit together in `lan-server.toml`. A field that could not be read is left out of every comparison.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::draft::{Draft, GatewayDraft, PublishDraft};
use crate::config::address::{self, Shown, family_name};
use crate::config::check::{self, Owned, Taken, list, owned};
use crate::config::common::{Endpoint, SourceIp};
use crate::config::policy_test::{self, Peers};
use crate::config::report::{Field, Located, Report};
use crate::plan::ruleset::Family;

/// Reports everything that contradicts something else.
pub(super) fn check(report: &Report<'_>, draft: &Draft) {
    gateways(report, draft);
    check::mtu(
        report,
        &draft.tunnel,
        (draft.publishes.items.iter())
            .filter_map(|publish| publish.vip.as_ref().ok())
            .map(|vip| vip.value),
    );
    publishes(report, draft);
    for access in &draft.access.items {
        let called: Vec<_> = (access.to.items.iter())
            .map(|service| service.value.network)
            .collect();
        pool(report, draft, &access.label, &access.source_ip, &called);
    }
    let services = (draft.access.items.iter()).flat_map(|access| owned(&access.label, &access.to));
    check::services_disjoint(report, services.collect());
    check::sets(report, &draft.sets);
    draft.refresh.check(report, &draft.sets);
    policy_test::check(report, &draft.tests.items, &draft.sets, Peers::NotHere);
}

fn gateways(report: &Report<'_>, draft: &Draft) {
    let gateways = &draft.gateways;
    let identities: Vec<_> = (gateways.items.iter())
        .map(|gateway| &gateway.identity)
        .collect();
    let keys = gateways.items.iter();
    let keys = keys.filter_map(|g| check::keyed(&g.identity, g.public_key.as_ref().ok()));
    check::unique_identities(report, &identities, keys.collect());
    if gateways.items.is_empty() && gateways.complete.is_ok() {
        let message = "there is no [[gateway]]; name the gateway that this host dials";
        report.error(gateways.at, message);
    }
    for gateway in gateways.items.iter().skip(1) {
        let label = &gateway.identity.label;
        report.error(
            gateway.at,
            format!("{label}: this version runs one gateway; keep one [[gateway]]"),
        );
    }
    for gateway in &gateways.items {
        for theirs in &gateway.identity.addresses.items {
            inside(report, &gateway.identity.label, *theirs, gateway);
        }
        our_addresses(report, draft, gateway);
        endpoint(report, gateway);
        if let Ok(Located { value: 0, at }) = gateway.persistent_keepalive_secs {
            let label = &gateway.identity.label;
            report.warn(
                at,
                format!(
                    "{label}: without keepalives a NAT or firewall in front of this host forgets \
                     the tunnel when it is idle, and the gateway can't reach it"
                ),
            );
        }
    }
}

fn our_addresses(report: &Report<'_>, draft: &Draft, gateway: &GatewayDraft) {
    let Ok(tunnel) = &draft.tunnel else { return };
    for ours in &tunnel.addresses.items {
        let ours = ours.map(|ours| ours.address);
        inside(report, "[tunnel]", ours, gateway);
        let theirs = &gateway.identity.addresses.items;
        if theirs.iter().any(|theirs| theirs.value == ours.value) {
            let (address, label) = (ours.value, &gateway.identity.label);
            report.error(
                ours.at,
                format!(
                    "[tunnel]: {address} is the address of {label}; this host needs one of its own"
                ),
            );
        }
    }
}

/// Both ends live in the tunnel network, and not on its first or last address.
fn inside(report: &Report<'_>, label: &str, address: Located<IpAddr>, gateway: &GatewayDraft) {
    let Located { value: address, at } = address;
    let networks = &gateway.networks;
    match networks
        .items
        .iter()
        .find(|network| network.value.contains(address))
    {
        Some(network) if address::is_reserved_in(address, network.value) => {
            let network = network.value;
            report.error(
                at,
                format!(
                    "{label}: {address} is not an address of a host in {network}; take another one"
                ),
            );
        }
        None if networks.complete.is_ok() => {
            let owner = &gateway.identity.label;
            let networks = list(networks.items.iter().map(|network| network.value));
            report.error(
                at,
                format!(
                    "{label}: {address} is outside `network` of {owner} ({networks}); correct one of them"
                ),
            );
        }
        Some(_) | None => {}
    }
}

/// Datagrams to an endpoint inside the tunnel would be sent through the tunnel.
fn endpoint(report: &Report<'_>, gateway: &GatewayDraft) {
    let Ok(endpoint) = &gateway.endpoint else {
        return;
    };
    let Endpoint::Address(socket) = endpoint.value else {
        return;
    };
    let mut networks = gateway.networks.items.iter().map(|network| network.value);
    if let Some(network) = networks.find(|network| network.contains(socket.ip())) {
        let (label, ip) = (&gateway.identity.label, socket.ip());
        report.error(
            endpoint.at,
            format!(
                "{label}: {ip} is inside {network}, which is reached through the tunnel; \
                 write the gateway's public address"
            ),
        );
    }
}

fn publishes(report: &Report<'_>, draft: &Draft) {
    let publishes = &draft.publishes.items;
    let names =
        (publishes.iter()).filter_map(|publish| check::named(&publish.label, &publish.name));
    check::unique_names(report, names.collect());
    let mut taken = Vec::new();
    for publish in publishes {
        vip(report, draft, publish);
        callers(report, draft, publish);
        if let Ok(vip) = publish.vip {
            pool(
                report,
                draft,
                &publish.label,
                &publish.source_ip,
                &[vip.value.into()],
            );
        }
        if let (Ok(vip), Ok(protocol)) = (&publish.vip, &publish.protocol) {
            let space = (vip.value, protocol.value);
            taken.extend(publish.ports.items.iter().map(|entry| Owned {
                owner: publish.label.as_str(),
                value: Taken {
                    space,
                    ports: entry.value,
                },
                at: entry.at,
            }));
        }
    }
    check::ports_free(report, taken, |(vip, protocol), ports| {
        format!("port {ports}/{protocol} of {vip}")
    });
}

fn vip(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let Ok(vip) = publish.vip else { return };
    let ours = (draft.tunnel.iter())
        .flat_map(|tunnel| &tunnel.addresses.items)
        .map(|ours| ("this host", ours.value.address));
    let gateways = (draft.gateways.items.iter()).map(|gateway| &gateway.identity);
    if let Some(owner) = check::owner_of(vip.value, ours, gateways) {
        let (label, address) = (&publish.label, vip.value);
        report.error(
            vip.at,
            format!("{label}: {address} is the tunnel address of {owner}; a VIP is an address on the LAN"),
        );
    }
}

fn callers(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let (label, Ok(from)) = (&publish.label, &publish.from) else {
        return;
    };
    let family = publish.vip.as_ref().ok().map(|vip| Family::of(vip.value));
    check::sources(report, label, &draft.sets, from, family);
    if publish.source_ip.map(|source_ip| source_ip.value) != Ok(SourceIp::Preserve) {
        return;
    }
    if from.any {
        report.warn(
            from.at,
            format!(
                "{label}: whoever takes over the gateway can then call with any public source address; \
                 list the sources if they are known"
            ),
        );
    }
    let mut reported = None; // one finding per entry: a set can hold many such networks
    for (at, network) in check::named_networks(&draft.sets, from) {
        if reported == Some(at) {
            continue;
        }
        if let Some(why) = unpreservable(draft, network) {
            let network = Shown(network);
            report.error(
                at,
                format!(
                    "{label}: {network} {why}; such a source must never come out of the tunnel; \
                     take it out or write source_ip = \"masquerade\""
                ),
            );
            reported = Some(at);
        }
    }
}

/// Addresses of this host that stand for callers are on the LAN, where answers find them.
fn pool(
    report: &Report<'_>,
    draft: &Draft,
    label: &str,
    source_ip: &Field<SourceIp>,
    called: &[IpNetwork],
) {
    let Ok(Located {
        value: SourceIp::Pool(pool),
        at,
    }) = *source_ip
    else {
        return;
    };
    let mut families = called.iter().map(|&called| Family::of_network(called));
    if let Some(other) = families.find(|&called| called != pool.family()) {
        let (first, family, other) = (pool.first(), family_name(pool.family()), family_name(other));
        report.error(
            at,
            format!(
                "{label}: {first} is {family}, but what is called is {other}; write {other} addresses, \
                 or an entry of its own for it"
            ),
        );
        return;
    }
    let vips = (draft.publishes.items.iter()).filter_map(|publish| publish.vip.as_ref().ok());
    let vips: Vec<IpAddr> = vips.map(|vip| vip.value).collect();
    for address in pool.addresses() {
        let gateways = (draft.gateways.items.iter()).map(|gateway| &gateway.identity);
        let owner = check::owner_of(address, std::iter::empty(), gateways);
        let owner = owner.map(|owner| format!("the tunnel address of {owner}"));
        let vip = || vips.contains(&address).then(|| "a VIP".to_owned());
        if let Some(what) = owner.or_else(vip) {
            let message = format!("{label}: {address} is {what}; write addresses of this host");
            report.error(at, message);
            return;
        }
    }
}

/// Why callers from a network can't keep their addresses: they would be taken for hosts of this site.
fn unpreservable(draft: &Draft, network: IpNetwork) -> Option<String> {
    let mut tunnel = (draft.gateways.items.iter()).flat_map(|gateway| &gateway.networks.items);
    if let Some(tunnel) = tunnel.find(|tunnel| address::overlap(tunnel.value, network)) {
        return Some(format!("overlaps the tunnel network {}", tunnel.value));
    }
    let mut vips = (draft.publishes.items.iter()).filter_map(|publish| publish.vip.as_ref().ok());
    if let Some(vip) = vips.find(|vip| network.contains(vip.value)) {
        return Some(format!("contains the VIP {}", vip.value));
    }
    let special = address::not_public(network)?;
    Some(if address::covers(special, network) {
        "is not public".to_owned()
    } else {
        format!("contains {special}, which is not public")
    })
}
