//! Relations between several values, common to both files.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{self, Shown};
use super::common::{PortRange, Protocol, Service};
use super::fields::{IdentityDraft, TunnelDraft};
use super::report::{Field, List, Located, Report, Reported};
use super::sources::{Sets, SourcesDraft};
use super::value::Quoted;
use crate::model::PublicKey;
use crate::plan::ruleset::Family;

/// Something that belongs to a table of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned<'d, T> {
    pub(super) owner: &'d str,
    pub(super) value: T,
    pub(super) at: usize,
}

/// Every element of a list as property of `owner`.
pub(super) fn owned<'d, T: Copy>(
    owner: &'d str,
    list: &'d List<Located<T>>,
) -> impl Iterator<Item = Owned<'d, T>> {
    list.items.iter().map(move |item| Owned {
        owner,
        value: item.value,
        at: item.at,
    })
}

/// Refuses the second and later owners of the same value; `what` names it without showing secrets.
fn unique<T: Ord>(report: &Report<'_>, values: Vec<Owned<'_, T>>, what: impl Fn(&T) -> String) {
    let mut first: BTreeMap<T, (&str, usize)> = BTreeMap::new();
    for Owned { owner, value, at } in values {
        if let Some((other, other_at)) = first.get(&value) {
            let line = report.line(*other_at);
            let what = what(&value);
            report.error(
                at,
                format!(
                    "{owner}: {what} is already that of {other} on line {line}; take another one"
                ),
            );
        } else {
            first.insert(value, (owner, at));
        }
    }
}

/// The name of a table, if it could be read.
pub(super) fn named<'d>(owner: &'d str, name: &'d Field<String>) -> Option<Owned<'d, &'d str>> {
    name.as_ref().ok().map(|name| Owned {
        owner,
        value: name.value.as_str(),
        at: name.at,
    })
}

/// Refuses names that stand twice.
pub(super) fn unique_names(report: &Report<'_>, names: Vec<Owned<'_, &str>>) {
    unique(report, names, |name| {
        format!("the name {}", Quoted::text(name))
    });
}

/// The key of a peer, if it has one and that could be read.
pub(super) fn keyed<'d>(
    owner: &'d IdentityDraft,
    key: Option<&Located<PublicKey>>,
) -> Option<Owned<'d, PublicKey>> {
    key.map(|key| Owned {
        owner: owner.label.as_str(),
        value: key.value,
        at: key.at,
    })
}

/// Names, keys and addresses of peers are those of one peer only.
pub(super) fn unique_identities(
    report: &Report<'_>,
    identities: &[&IdentityDraft],
    keys: Vec<Owned<'_, PublicKey>>,
) {
    let names = (identities.iter()).filter_map(|peer| named(&peer.label, &peer.name));
    unique_names(report, names.collect());
    // The key stays out of the message: it might be a private one that was pasted twice.
    unique(report, keys, |_| "this public key".to_owned());
    let addresses = identities
        .iter()
        .flat_map(|peer| owned(&peer.label, &peer.addresses));
    unique(report, addresses.collect(), |address| {
        format!("the address {address}")
    });
}

/// Refuses networks that share addresses. Networks are nested or disjoint, so in the order of (first address, length)
/// each one has only to be compared with the widest one before it.
pub(super) fn disjoint(report: &Report<'_>, mut networks: Vec<Owned<'_, IpNetwork>>) {
    networks.sort_by_key(|network| (network.value, network.at));
    let mut widest: Option<Owned<'_, IpNetwork>> = None;
    for network in networks {
        match widest {
            Some(wide) if address::covers(wide.value, network.value) => {
                report_overlap(report, wide, network);
            }
            Some(_) | None => widest = Some(network),
        }
    }
}

fn report_overlap(report: &Report<'_>, a: Owned<'_, IpNetwork>, b: Owned<'_, IpNetwork>) {
    let (earlier, later) = if a.at <= b.at { (a, b) } else { (b, a) };
    let of_whom = if earlier.owner == later.owner {
        String::new()
    } else {
        format!(" of {}", earlier.owner)
    };
    let line = report.line(earlier.at);
    report.error(
        later.at,
        format!(
            "{}: {} overlaps {}{of_whom} on line {line}; keep one of them",
            later.owner,
            Shown(later.value),
            Shown(earlier.value)
        ),
    );
}

/// A key of the space in which ports may not be taken twice, and the ports taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<K> {
    pub(super) space: K,
    pub(super) ports: PortRange,
}

/// Refuses ports taken twice in the same space; `what` says what is taken. In the order of the first port each entry has
/// only to be compared with the one before it that reaches farthest.
pub(super) fn ports_free<K: Ord + Copy>(
    report: &Report<'_>,
    mut taken: Vec<Owned<'_, Taken<K>>>,
    what: impl Fn(K, PortRange) -> String,
) {
    taken.sort_by_key(|entry| (entry.value.space, entry.value.ports, entry.at));
    let mut farthest: Option<Owned<'_, Taken<K>>> = None;
    for entry in taken {
        let before = farthest.filter(|far| far.value.space == entry.value.space);
        match before {
            Some(far) if far.value.ports.last >= entry.value.ports.first => {
                let (earlier, later) = if far.at <= entry.at {
                    (far, entry)
                } else {
                    (entry, far)
                };
                let what = what(later.value.space, later.value.ports);
                let line = report.line(earlier.at);
                let owner = earlier.owner;
                report.error(
                    later.at,
                    format!(
                        "{}: {what} is already taken by {owner} on line {line}; take another one",
                        later.owner
                    ),
                );
                if entry.value.ports.last > far.value.ports.last {
                    farthest = Some(entry);
                }
            }
            Some(_) | None => farthest = Some(entry),
        }
    }
}

/// Refuses services that share an address and port: they would be two rules for the same packet.
pub(super) fn services_disjoint(report: &Report<'_>, services: Vec<Owned<'_, Service>>) {
    let mut seen: Vec<Owned<'_, Service>> = Vec::new();
    for service in services {
        let Service {
            network,
            ports,
            protocol,
        } = service.value;
        let double = seen.iter().find(|earlier| {
            earlier.value.protocol == protocol
                && earlier.value.ports.first <= ports.last
                && ports.first <= earlier.value.ports.last
                && address::overlap(earlier.value.network, network)
        });
        if let Some(earlier) = double {
            let line = report.line(earlier.at);
            report.error(
                service.at,
                format!(
                    "{}: {} overlaps {} on line {line}; keep one of them",
                    service.owner, service.value, earlier.value
                ),
            );
        }
        seen.push(service);
    }
}

/// Who has an address in the tunnel: one of `ours`, or a peer.
pub(super) fn owner_of<'d>(
    address: IpAddr,
    mut ours: impl Iterator<Item = (&'d str, IpAddr)>,
    mut peers: impl Iterator<Item = &'d IdentityDraft>,
) -> Option<&'d str> {
    if let Some((owner, _)) = ours.find(|&(_, ours)| ours == address) {
        return Some(owner);
    }
    let has_it = |peer: &&IdentityDraft| peer.addresses.items.iter().any(|a| a.value == address);
    peers.find(has_it).map(|peer| peer.label.as_str())
}

/// Networks for a message.
pub(super) fn list(networks: impl IntoIterator<Item = IpNetwork>) -> String {
    let texts: Vec<_> = networks
        .into_iter()
        .map(|network| Shown(network).to_string())
        .collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

/// Looks up the sets of `allow` or `from`, refuses networks named twice and a list without a network of the VIP's family.
pub(super) fn sources(
    report: &Report<'_>,
    label: &str,
    sets: &Sets,
    sources: &SourcesDraft,
    family: Option<Family>,
) {
    sets.look_up(report, label, sources);
    disjoint(
        report,
        (sources.networks.iter())
            .map(|network| Owned {
                owner: label,
                value: network.value,
                at: network.at,
            })
            .collect(),
    );
    let known = (sources.sets.iter()).all(|set| sets.is_known(&set.value));
    let Some(family) = family.filter(|_| known && !sources.any && sources.complete.is_ok()) else {
        return;
    };
    let mut networks = named_networks(sets, sources);
    if !networks.any(|(_, network)| Family::of_network(network) == family) {
        let name = address::family_name(family);
        report.error(
            sources.at,
            format!(
                "{label}: the VIP is {name}, but no {name} network is listed here; \
                 add one, or nobody gets in"
            ),
        );
    }
}

/// Every network of `sources`, those of sets included, with the place where it is named.
pub(super) fn named_networks<'d>(
    sets: &'d Sets,
    sources: &'d SourcesDraft,
) -> impl Iterator<Item = (usize, IpNetwork)> + 'd {
    let of_sets = sources.sets.iter().flat_map(|set| {
        let networks = sets.networks(&set.value).unwrap_or_default();
        networks.into_iter().map(move |network| (set.at, network))
    });
    let literal = sources
        .networks
        .iter()
        .map(|network| (network.at, network.value));
    of_sets.chain(literal)
}

/// No set of the file holds an address twice.
pub(super) fn sets(report: &Report<'_>, sets: &Sets) {
    for (name, networks) in sets.defined() {
        let label = format!("set {}", Quoted::text(name));
        disjoint(report, owned(&label, networks).collect());
    }
}

/// Warns of a service that everybody may call, and of a few more than of others.
pub(super) fn open_to_everybody(
    protocol: Protocol,
    ports: impl Iterator<Item = PortRange>,
) -> String {
    const DELICATE: [(u16, &str); 4] = [
        (22, "SSH"),
        (2379, "etcd"),
        (6443, "the Kubernetes API"),
        (10250, "the kubelet"),
    ];
    let ports: Vec<_> = ports.collect();
    let published = |port| (ports.iter()).any(|range| (range.first..=range.last).contains(&port));
    let delicate = DELICATE
        .iter()
        .find(|&&(port, _)| protocol == Protocol::Tcp && published(port));
    match delicate {
        Some((port, service)) => format!(
            "port {port} ({service}) is open to everybody; a role gives it to tunnel peers only"
        ),
        None => "open to everybody, not only through Cloudflare".to_owned(),
    }
}

/// The least MTU of a link that carries IPv6 (RFC 8200 §5); the kernel takes IPv6 off links with less.
const LEAST_IPV6_MTU: u16 = 1280;

/// Reports an MTU that is too small for the IPv6 that the file asks for.
pub(super) fn mtu(
    report: &Report<'_>,
    tunnel: &Result<TunnelDraft, Reported>,
    vips: impl Iterator<Item = IpAddr>,
) {
    let Ok(tunnel) = tunnel else { return };
    let Ok(Located { value: mtu, at }) = tunnel.mtu else {
        return;
    };
    let own = tunnel.addresses.items.iter().map(|own| own.value.address);
    if mtu < LEAST_IPV6_MTU && own.chain(vips).any(|address| address.is_ipv6()) {
        report.error(
            at,
            format!(
                "[tunnel]: `mtu` is {mtu}, but IPv6 needs {LEAST_IPV6_MTU}; \
                 raise it, or leave IPv6 out of the tunnel"
            ),
        );
    }
}
