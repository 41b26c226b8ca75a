//! What the policies of both ends are built from. Pure.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use shared::config::cloudflare;
use shared::config::common::{
    AddressSet, InterfaceAddress, PortRange, Protocol, Service, SourceIp, Sources,
};
use shared::model::InterfaceName;
use shared::plan::ruleset::{
    BaseChain, Chain, ChainKind, Family, Hook, Part, Rule, Set, Side, merge_networks,
};
use shared::plan::{Address, Link, Sysctl};

use crate::model::Environment;

/// Number of the kernel's main routing table (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// TUN queue in packets. Each may be a super-packet of 64 KiB, so a long queue is seconds of delay, and a short one costs
/// throughput of many streams.
pub const TUN_QUEUE_PACKETS: u32 = 128;

/// Our TUN link.
pub fn tun_link(name: &InterfaceName, alias: &str, mtu: u16) -> Link {
    Link {
        name: name.clone(),
        alias: alias.to_owned(),
        mtu: u32::from(mtu),
        txqueuelen: TUN_QUEUE_PACKETS,
    }
}

/// Addresses of our link.
pub fn addresses(link: &InterfaceName, addresses: &[InterfaceAddress]) -> Vec<Address> {
    addresses
        .iter()
        .map(|address| Address {
            link: link.clone(),
            address: address.address,
            prefix_len: address.prefix_len,
        })
        .collect()
}

/// Our address of the family of `network`: what this host uses as source towards it.
pub fn address_of_family(addresses: &[InterfaceAddress], network: IpNetwork) -> Option<IpAddr> {
    addresses
        .iter()
        .map(|address| address.address)
        .find(|&address| Family::of(address) == Family::of_network(network))
}

/// Addresses as networks of full length.
pub fn hosts(addresses: &[IpAddr]) -> impl Iterator<Item = IpNetwork> {
    addresses.iter().copied().map(IpNetwork::from)
}

/// A switch that is not of our link; `key` as `sysctl` writes it.
pub fn sysctl(key: &str, value: &str) -> Sysctl {
    Sysctl {
        path: key.split('.').map(str::to_owned).collect(),
        value: value.to_owned(),
        of_our_link: false,
    }
}

/// A switch of our link: `net.FAMILY.conf.LINK.KEY`.
pub fn link_sysctl(family: &str, link: &InterfaceName, key: &str, value: &str) -> Sysctl {
    Sysctl {
        path: ["net", family, "conf", link.as_str(), key]
            .map(str::to_owned)
            .to_vec(),
        value: value.to_owned(),
        of_our_link: true,
    }
}

/// A rule without comment.
pub fn rule(parts: impl IntoIterator<Item = Part>) -> Rule {
    Rule {
        parts: parts.into_iter().collect(),
        comment: None,
    }
}

/// A rule that says for which entry of the configuration it stands.
pub fn commented(parts: impl IntoIterator<Item = Part>, comment: &str) -> Rule {
    Rule {
        parts: parts.into_iter().collect(),
        comment: Some(comment.to_owned()),
    }
}

/// What gives a connection another source, if it gets one.
pub const fn source_translation(source_ip: SourceIp) -> Option<Part> {
    match source_ip {
        SourceIp::Preserve => None,
        SourceIp::Masquerade => Some(Part::Masquerade),
        SourceIp::Pool(addresses) => Some(Part::Snat(addresses)),
    }
}

/// `MATCH counter name COUNTER drop`.
pub fn verdict_rule(part: Part, counter: &str) -> Rule {
    rule([part, Part::NamedCounter(counter.to_owned()), Part::Drop])
}

/// A chain that others jump to.
pub fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        base: None,
        rules,
    }
}

/// A chain at a hook. Its policy is always `accept`: what is not ours is not our business.
pub fn base_chain(
    name: &str,
    kind: ChainKind,
    hook: Hook,
    priority: i32,
    rules: Vec<Rule>,
) -> Chain {
    Chain {
        name: name.to_owned(),
        base: Some(BaseChain {
            kind,
            hook,
            priority,
        }),
        rules,
    }
}

/// `iifname "LINK"`.
pub fn from_link(link: &InterfaceName) -> Part {
    Part::InputInterface {
        name: link.clone(),
        negated: false,
    }
}

/// `oifname "LINK"`.
pub fn to_link(link: &InterfaceName) -> Part {
    Part::OutputInterface {
        name: link.clone(),
        negated: false,
    }
}

/// `ip daddr ADDRESS`.
pub fn host(side: Side, address: IpAddr) -> Part {
    network(side, IpNetwork::from(address))
}

/// `ip saddr NETWORK`.
pub fn network(side: Side, network: IpNetwork) -> Part {
    Part::Address {
        side,
        network,
        negated: false,
    }
}

/// `tcp dport PORT`.
pub fn ports(protocol: Protocol, side: Side, port: u16) -> Part {
    Part::Ports {
        protocol,
        side,
        ports: vec![PortRange {
            first: port,
            last: port,
        }],
    }
}

/// `ip daddr NETWORK tcp dport PORTS`.
pub fn service(service: &Service) -> [Part; 2] {
    [
        network(Side::Destination, service.network),
        Part::Ports {
            protocol: service.protocol,
            side: Side::Destination,
            ports: vec![service.ports],
        },
    ]
}

/// Our tunnel addresses answer to the tunnel and to this host, not to whoever stands before another link: the kernel
/// takes a packet for any address of its own on any link (RFC 1122 §3.3.4.2, weak host model; CVE-2019-14899).
pub fn guard_own_addresses(link: &InterfaceName, addresses: &[InterfaceAddress]) -> Vec<Rule> {
    let not_from = |name: InterfaceName| Part::InputInterface {
        name,
        negated: true,
    };
    addresses
        .iter()
        .map(|address| {
            rule([
                not_from(link.clone()),
                not_from(InterfaceName::loopback()),
                host(Side::Destination, address.address),
                Part::NamedCounter("refused_wrong_link".to_owned()),
                Part::Drop,
            ])
        })
        .collect()
}

/// TCP through our link never needs more than the path carries, even where ICMP is lost: both directions.
pub fn clamp_mss(link: &InterfaceName) -> Vec<Rule> {
    vec![
        rule([to_link(link), Part::ClampMss]),
        rule([from_link(link), Part::ClampMss]),
    ]
}

/// Whoever is in the tunnel may ping this end: the first thing an operator tries.
pub fn accept_ping(link: &InterfaceName) -> [Rule; 2] {
    [Family::Ipv4, Family::Ipv6]
        .map(|family| rule([from_link(link), Part::EchoRequest(family), Part::Accept]))
}

/// The sets of a configuration as they are now: `cloudflare` changes while the configuration stays.
pub fn sets_now(sets: &[AddressSet], environment: &Environment) -> Vec<AddressSet> {
    let now = |set: &AddressSet| AddressSet {
        name: set.name.clone(),
        networks: if set.name == cloudflare::SET_NAME {
            environment.cloudflare.clone()
        } else {
            set.networks.clone()
        },
    };
    sets.iter().map(now).collect()
}

/// Name of the nft set that holds the addresses of one family of a named set.
fn named_set(name: &str, family: Family) -> String {
    let base = match name {
        cloudflare::SET_NAME => "cf".to_owned(),
        other => format!("set_{other}_"),
    };
    base + suffix(family)
}

/// Name of the nft set that holds the networks written into the entry `owner` itself.
fn own_set(owner: &str, family: Family) -> String {
    format!("from_{owner}_{}", suffix(family))
}

const fn suffix(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "4",
        Family::Ipv6 => "6",
    }
}

/// The nft sets that the sources of entry `owner` refer to; `None` when anyone may call.
pub fn source_set_names(owner: &str, family: Family, sources: &Sources) -> Option<Vec<String>> {
    match sources {
        Sources::Any => None,
        Sources::Listed { sets, networks } => {
            let mut names: Vec<String> = sets.iter().map(|set| named_set(set, family)).collect();
            if networks.iter().any(|&n| Family::of_network(n) == family) {
                names.push(own_set(owner, family));
            }
            Some(names)
        }
    }
}

/// The ways in which a packet can come from one of `sources`: one list of matches each, none when nobody may call.
pub fn source_matches(owner: &str, family: Family, sources: &Sources) -> Vec<Vec<Part>> {
    let Some(sets) = source_set_names(owner, family, sources) else {
        return vec![Vec::new()];
    };
    sets.into_iter()
        .map(|set| {
            vec![Part::AddressInSet {
                side: Side::Source,
                family,
                set,
                negated: false,
            }]
        })
        .collect()
}

/// The nft sets that entries refer to, each once, in the order of their names.
pub fn source_sets<'a>(
    entries: impl IntoIterator<Item = (&'a str, Family, &'a Sources)>,
    sets: &[AddressSet],
) -> Vec<Set> {
    let mut made: BTreeMap<String, Set> = BTreeMap::new();
    let mut add = |name: String, family: Family, networks: &[IpNetwork]| {
        let of_family = networks
            .iter()
            .copied()
            .filter(|&network| Family::of_network(network) == family);
        made.entry(name.clone()).or_insert_with(|| Set {
            name,
            family,
            elements: merge_networks(of_family),
        });
    };
    for (owner, family, sources) in entries {
        let Sources::Listed {
            sets: names,
            networks,
        } = sources
        else {
            continue;
        };
        for name in names {
            let known = sets.iter().find(|set| set.name == *name);
            let networks = known.map_or(&[][..], |set| &set.networks);
            add(named_set(name, family), family, networks);
        }
        if networks.iter().any(|&n| Family::of_network(n) == family) {
            add(own_set(owner, family), family, networks);
        }
    }
    made.into_values().collect()
}

/// Networks of `sources` of one family, for cryptokey routing; everything for `any`.
pub fn source_networks(sources: &Sources, sets: &[AddressSet], family: Family) -> Vec<IpNetwork> {
    match sources {
        Sources::Any => vec![everything(family)],
        Sources::Listed {
            sets: names,
            networks,
        } => {
            let named = sets
                .iter()
                .filter(|set| names.contains(&set.name))
                .flat_map(|set| &set.networks);
            let all = named.chain(networks).copied();
            merge_networks(all.filter(|&network| Family::of_network(network) == family))
        }
    }
}

/// `0.0.0.0/0` or `::/0`.
pub fn everything(family: Family) -> IpNetwork {
    family.everything()
}
