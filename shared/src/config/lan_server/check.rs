//! What has to fit together in `lan-server.toml`. A field that could not be read is left out of every comparison.
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::draft::{Draft, GatewayDraft, PublishDraft};
use crate::config::address;
use crate::config::check::{self, Owned, Taken, list, owned};
use crate::config::common::SourceIp;
use crate::config::document::{Located, Report};
use crate::config::fields::TunnelDraft;
use crate::config::value::Quoted;
use crate::plan::ruleset::Family;

/// Reports everything that contradicts something else.
pub(super) fn check(report: &Report<'_>, draft: &Draft) {
    gateways(report, draft);
    for publish in &draft.publishes.items {
        vip(report, draft, publish);
        callers(report, draft, publish);
    }
    names_and_ports(report, draft);
    let services = draft
        .access
        .items
        .iter()
        .flat_map(|access| owned(&access.label, &access.to));
    check::services_disjoint(report, services.collect());
    let users = draft
        .publishes
        .items
        .iter()
        .filter_map(|publish| publish.from.as_ref().ok());
    check::sets(report, &draft.sets, &users.collect::<Vec<_>>());
}

fn gateways(report: &Report<'_>, draft: &Draft) {
    let gateways = &draft.gateways;
    let identities: Vec<_> = (gateways.items.iter())
        .map(|gateway| &gateway.identity)
        .collect();
    check::unique_identities(report, &identities);
    if gateways.items.is_empty() && gateways.complete.is_ok() {
        report.error(
            gateways.at,
            "there is no [[gateway]]; name the gateway that this host dials",
        );
    }
    for gateway in gateways.items.iter().skip(1) {
        let label = &gateway.identity.label;
        report.error(
            gateway.at,
            format!("{label}: this version runs one gateway; remove the second [[gateway]]"),
        );
    }
    for gateway in &gateways.items {
        gateway_addresses(report, gateway);
        if let Ok(tunnel) = &draft.tunnel {
            our_addresses(report, tunnel, gateway);
        }
        if let Ok(Located { value: 0, at }) = gateway.persistent_keepalive_secs {
            let label = &gateway.identity.label;
            report.warn(at, format!("{label}: without keepalives a NAT or firewall in front of this host forgets the tunnel when it is idle, and the gateway can't reach it"));
        }
    }
}

fn gateway_addresses(report: &Report<'_>, gateway: &GatewayDraft) {
    for address in &gateway.identity.addresses.items {
        inside(
            report,
            &gateway.identity.label,
            address.value,
            address.at,
            gateway,
        );
    }
}

fn our_addresses(report: &Report<'_>, tunnel: &TunnelDraft, gateway: &GatewayDraft) {
    for ours in &tunnel.addresses.items {
        let address = ours.value.address;
        inside(report, "[tunnel]", address, ours.at, gateway);
        let theirs = &gateway.identity.addresses.items;
        if theirs.iter().any(|theirs| theirs.value == address) {
            let label = &gateway.identity.label;
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
fn inside(report: &Report<'_>, label: &str, address: IpAddr, at: usize, gateway: &GatewayDraft) {
    let networks = &gateway.networks;
    let network = networks
        .items
        .iter()
        .find(|network| network.value.contains(address));
    match network {
        Some(network) if address::is_reserved_in(address, network.value) => {
            let network = network.value;
            report.error(
                at,
                format!(
                    "{label}: {address} is not an address of a host in {network}; take another one"
                ),
            );
        }
        Some(_) => {}
        None if networks.complete.is_err() => {}
        None => {
            let owner = &gateway.identity.label;
            let networks = list(networks.items.iter().map(|network| network.value));
            report.error(at, format!("{label}: {address} is outside `network` of {owner} ({networks}); correct one of them"));
        }
    }
}

fn names_and_ports(report: &Report<'_>, draft: &Draft) {
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
    let taken = publishes.iter().flat_map(|publish| {
        let space = match (&publish.vip, &publish.protocol) {
            (Ok(vip), Ok(protocol)) => Some((vip.value, protocol.value)),
            (Err(_), _) | (_, Err(_)) => None,
        };
        space.into_iter().flat_map(move |space| {
            publish.ports.items.iter().map(move |ports| Owned {
                owner: publish.label.as_str(),
                value: Taken {
                    space,
                    ports: ports.value,
                },
                at: ports.at,
            })
        })
    });
    check::ports_free(report, taken.collect(), |(vip, protocol)| {
        format!("{protocol} port of {vip},")
    });
}

fn vip(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let Ok(vip) = &publish.vip else { return };
    let ours = draft
        .tunnel
        .iter()
        .flat_map(|tunnel| &tunnel.addresses.items);
    let ours = ours.map(|ours| ("this host", ours.value.address));
    let gateways = draft.gateways.items.iter().flat_map(|gateway| {
        let identity = &gateway.identity;
        identity
            .addresses
            .items
            .iter()
            .map(|address| (identity.label.as_str(), address.value))
    });
    if let Some((owner, address)) = ours
        .chain(gateways)
        .find(|&(_, address)| address == vip.value)
    {
        let label = &publish.label;
        report.error(vip.at, format!("{label}: {address} is the tunnel address of {owner}; a VIP is an address on the LAN"));
    }
}

fn callers(report: &Report<'_>, draft: &Draft, publish: &PublishDraft) {
    let (label, Ok(from)) = (&publish.label, &publish.from) else {
        return;
    };
    let Ok(source_ip) = publish.source_ip.map(|source_ip| source_ip.value) else {
        return;
    };
    // Masquerading gateways call from an address of any family they have; only preserved sources keep the VIP's family.
    let family = publish.vip.as_ref().ok().map(|vip| Family::of(vip.value));
    check::sources(report, label, &draft.sets, from, family);
    if source_ip == SourceIp::Masquerade {
        return;
    }
    if from.any {
        report.warn(from.at, format!("{label}: whoever takes over the gateway can then call with any public source address; list the sources if they are known"));
    }
    let mut reported = None;
    for (at, network) in check::named_networks(&draft.sets, from) {
        // One finding per entry: a set can hold many such networks.
        if reported == Some(at) {
            continue;
        }
        let why = unpreservable(draft, network);
        if let Some(why) = why {
            report.error(at, format!("{label}: {network} {why}; such a source must never come out of the tunnel; take it out or write source_ip = \"masquerade\""));
            reported = Some(at);
        }
    }
}

/// Why callers from a network can't keep their addresses: they would be taken for hosts of this site.
fn unpreservable(draft: &Draft, network: IpNetwork) -> Option<String> {
    let overlapping = |other: &IpNetwork| address::overlap(*other, network);
    let tunnel = draft
        .gateways
        .items
        .iter()
        .flat_map(|gateway| &gateway.networks.items);
    if let Some(tunnel) = tunnel.map(|tunnel| tunnel.value).find(overlapping) {
        return Some(format!("overlaps the tunnel network {tunnel}"));
    }
    let vips = draft
        .publishes
        .items
        .iter()
        .filter_map(|publish| publish.vip.as_ref().ok());
    if let Some(vip) = vips.map(|vip| vip.value).find(|&vip| network.contains(vip)) {
        return Some(format!("contains the VIP {vip}"));
    }
    address::not_public(network).map(|special| format!("overlaps {special}, which is not public"))
}
