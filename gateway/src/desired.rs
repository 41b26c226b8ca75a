//! This binary's policy: a checked configuration and members → the kernel state and the peers that they ask for. Pure.
//!
//! What may flow is stated in `docs/security.md`; here is how. The functions follow the order of the table's chains.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use shared::config::common::{InterfaceAddress, PortMap, PortRange, Protocol};
use shared::config::gateway::{Gateway, Publish, Role};
use shared::model::{InterfaceName, PresharedKey};
use shared::pairing;
use shared::plan::desired::protocol;
use shared::plan::ruleset::{
    Chain, ChainKind, Family, Hook, Part, Rule, Ruleset, Set, Side, VerdictMap, merge_networks,
    priority,
};
use shared::plan::{Desired, Route, Sysctl};
use shared_daemon::model::{
    Environment, Model, PeerKind, PeerModel, PresharedKeyFrom, PublishModel,
};
use shared_daemon::policy::{self, base_chain, chain, rule, verdict_rule};

use crate::claims::Claims;
use crate::members::{self, LanServers, Member, Members};
use crate::store::LanServerRecord;

/// Name of our nftables table on this host.
pub const TABLE: &str = "wg_edge";

/// Marks our link, so that a foreign one of the same name is never touched.
pub const LINK_ALIAS: &str = "wg-edge gateway";

/// Everything that `config` and `members` ask for on a host like `environment`.
pub fn model(config: &Gateway, environment: &Environment, members: &Members) -> Model {
    let claims = Claims::of(config, &members.lan_servers);
    let lan_servers = &members.lan_servers;
    let members: Vec<&Member> = members.admitted(&claims).collect();
    Model {
        interface: config.tunnel.interface.clone(),
        desired: desired(config, environment, &members),
        peers: peers(config, lan_servers, &members),
        publishes: config.publishes.iter().map(publish_model).collect(),
    }
}

fn desired(config: &Gateway, environment: &Environment, members: &[&Member]) -> Desired {
    let link = &config.tunnel.interface;
    let networks = config.lan_servers.iter().flat_map(|lan| &lan.networks);
    Desired {
        protocol: protocol::GATEWAY,
        links: vec![policy::tun_link(link, LINK_ALIAS, config.tunnel.mtu)],
        addresses: policy::addresses(link, &config.tunnel.addresses),
        routes: networks
            .copied()
            .chain(networks_outside_of_the_tunnel(config, members))
            .map(|destination| Route {
                destination,
                link: link.clone(),
                table: policy::MAIN_TABLE,
                source: policy::address_of_family(&config.tunnel.addresses, destination),
            })
            .collect(),
        rules: Vec::new(),
        sysctls: sysctls(config, environment),
        ruleset: ruleset(config, environment, members),
    }
}

/// Forwarding for the families that are published or reached. Turning it on for IPv6 makes a link ignore router
/// advertisements unless `accept_ra` is 2 (`Documentation/networking/ip-sysctl.rst`), so a WAN link that lives on them
/// is told to go on.
fn sysctls(config: &Gateway, environment: &Environment) -> Vec<Sysctl> {
    let mut sysctls = vec![policy::sysctl("net.ipv4.ip_forward", "1")];
    if carries_ipv6(config) {
        if environment.wan_accepts_router_advertisements {
            let mut path: Vec<String> = ["net", "ipv6", "conf"].map(str::to_owned).to_vec();
            path.extend([environment.wan.to_string(), "accept_ra".to_owned()]);
            sysctls.push(Sysctl {
                path,
                value: "2".to_owned(),
                of_our_link: false,
            });
        }
        sysctls.push(policy::sysctl("net.ipv6.conf.all.forwarding", "1"));
    }
    sysctls
}

fn carries_ipv6(config: &Gateway) -> bool {
    config.tunnel.addresses.iter().any(|a| a.address.is_ipv6())
        || config.publishes.iter().any(|publish| publish.vip.is_ipv6())
}

/// Networks behind members that the tunnel network does not contain. They need a route here; and since the LAN end takes
/// only the tunnel's own sources, what comes from them goes on with an address of ours.
fn networks_outside_of_the_tunnel<'a>(
    config: &'a Gateway,
    members: &'a [&Member],
) -> impl Iterator<Item = IpNetwork> + 'a {
    let networks = members.iter().flat_map(|member| &member.networks).copied();
    networks.filter(|network| {
        let addresses = config.tunnel.addresses.iter();
        let mut tunnels = addresses.map(InterfaceAddress::network);
        !tunnels.any(|tunnel| tunnel.contains(network.network()))
    })
}

/// Cryptokey routing: what each peer may send from, and what is sent to it. A LAN server without key is nobody yet.
fn peers(config: &Gateway, lan_servers: &LanServers, members: &[&Member]) -> Vec<Arc<PeerModel>> {
    let joined = members::joined(config, lan_servers);
    let joined: BTreeMap<&str, &LanServerRecord> = joined
        .map(|(lan, record)| (lan.name.as_str(), record))
        .collect();
    let lan_servers = config.lan_servers.iter().filter_map(|lan| {
        let (public_key, preshared_key) = if let Some(key) = lan.public_key {
            (key, lan.preshared_key_file.clone().into())
        } else {
            let keys = joined.get(lan.name.as_str())?;
            let preshared_key = PresharedKeyFrom::Here(keys.preshared_key.clone());
            (keys.public_key, preshared_key)
        };
        Some(PeerModel {
            name: lan.name.clone(),
            kind: PeerKind::LanServer,
            public_key,
            preshared_key,
            endpoint: None,
            allowed_ips: policy::hosts(&lan.addresses)
                .chain(lan.networks.iter().copied())
                .collect(),
            persistent_keepalive_secs: 0,
            succeeds: None,
        })
    });
    let peers = config.peers.iter().map(|peer| PeerModel {
        name: peer.name.clone(),
        kind: PeerKind::Peer,
        public_key: peer.public_key,
        preshared_key: peer.preshared_key_file.clone().into(),
        endpoint: None,
        allowed_ips: policy::hosts(&peer.addresses).collect(),
        persistent_keepalive_secs: 0,
        succeeds: None,
    });
    let members = members.iter().flat_map(|member| member.peers(member_peers));
    let of_file = lan_servers.chain(peers).map(Arc::new);
    of_file.chain(members.cloned()).collect()
}

/// A member, and when its key is about to change, its successor, which owns nothing until it is used.
fn member_peers(member: &Member) -> Vec<PeerModel> {
    let peer = |public_key, preshared_key: &Option<PresharedKey>| PeerModel {
        name: member.name.clone(),
        kind: PeerKind::Peer,
        public_key,
        preshared_key: match preshared_key {
            Some(key) => PresharedKeyFrom::Here(key.clone()),
            None => PresharedKeyFrom::Nowhere,
        },
        endpoint: None,
        allowed_ips: Vec::new(),
        persistent_keepalive_secs: 0,
        succeeds: None,
    };
    let present = PeerModel {
        allowed_ips: policy::hosts(&member.addresses)
            .chain(member.networks.iter().copied())
            .collect(),
        ..peer(member.public_key, &member.preshared_key)
    };
    let next = member.successor.as_ref().map(|next| PeerModel {
        succeeds: Some(member.public_key),
        ..peer(next.public_key, &next.preshared_key)
    });
    std::iter::once(present).chain(next).collect()
}

fn publish_model(publish: &Publish) -> PublishModel {
    PublishModel {
        name: publish.name.clone(),
        vip: publish.vip,
        protocol: publish.protocol,
        ports: publish.ports.clone(),
        source_ip: publish.source_ip,
    }
}

fn ruleset(config: &Gateway, environment: &Environment, members: &[&Member]) -> Ruleset {
    let context = Context {
        config,
        members,
        wan: &environment.wan,
        tunnel: &config.tunnel.interface,
    };
    let mut chains = vec![
        context.guard(),
        context.guard_output(),
        context.publish(),
        context.forward(),
        context.input(),
        context.output(),
        context.source_nat(),
    ];
    chains.extend(config.roles.iter().map(role_chain));
    chains.push(pairing_chain());
    let sources = config.publishes.iter().map(|publish| {
        (
            publish.name.as_str(),
            Family::of(publish.vip),
            &publish.allow,
        )
    });
    let mut sets = policy::source_sets(sources, &policy::sets_now(&config.sets, environment));
    sets.extend(context.role_networks().into_values());
    sets.extend(context.masqueraded_networks());
    Ruleset {
        table: TABLE.to_owned(),
        sets,
        maps: peer_maps(config, members),
        chains,
    }
}

/// What every chain needs to know.
struct Context<'a> {
    config: &'a Gateway,
    members: &'a [&'a Member],
    wan: &'a InterfaceName,
    tunnel: &'a InterfaceName,
}

impl Context<'_> {
    fn entering_wan(&self) -> Part {
        policy::from_link(self.wan)
    }

    fn entering(&self) -> Part {
        policy::from_link(self.tunnel)
    }

    fn leaving(&self) -> Part {
        policy::to_link(self.tunnel)
    }

    /// Before connection tracking: our own port is not tracked (nobody can shadow it, CVE-2021-3773, and a flood fills
    /// no table), tunnel addresses never arrive from the WAN, and published ports answer only those who may call.
    fn guard(&self) -> Chain {
        let mut rules = vec![rule([
            Part::DestinationIsLocal,
            policy::ports(
                Protocol::Udp,
                Side::Destination,
                self.config.tunnel.listen_port,
            ),
            Part::Notrack,
        ])];
        for address in &self.config.tunnel.addresses {
            rules.push(rule([
                self.entering_wan(),
                policy::network(Side::Source, address.network()),
                Part::Counter,
                Part::Drop,
            ]));
        }
        rules.extend(policy::guard_own_addresses(
            self.tunnel,
            &self.config.tunnel.addresses,
        ));
        rules.extend(
            self.config
                .publishes
                .iter()
                .filter_map(|p| self.guard_rule(p)),
        );
        base_chain(
            "guard",
            ChainKind::Filter,
            Hook::Prerouting,
            priority::RAW,
            rules,
        )
    }

    fn guard_rule(&self, publish: &Publish) -> Option<Rule> {
        let family = Family::of(publish.vip);
        let sets = policy::source_set_names(&publish.name, family, &publish.allow)?;
        let mut parts = vec![
            self.entering_wan(),
            Part::NetworkFamily(family),
            Part::DestinationIsLocal,
            Part::Ports {
                protocol: publish.protocol,
                side: Side::Destination,
                ports: publish.ports.iter().map(|map| map.listen).collect(),
            },
        ];
        parts.extend(sets.into_iter().map(|set| Part::AddressInSet {
            side: Side::Source,
            family,
            set,
            negated: true,
        }));
        let counter = match family {
            Family::Ipv4 => "guard_ipv4",
            Family::Ipv6 => "guard_ipv6",
        };
        parts.extend([Part::NamedCounter(counter.to_owned()), Part::Drop]);
        Some(policy::commented(parts, &publish.name))
    }

    fn guard_output(&self) -> Chain {
        base_chain(
            "guard_output",
            ChainKind::Filter,
            Hook::Output,
            priority::RAW,
            vec![rule([
                policy::ports(Protocol::Udp, Side::Source, self.config.tunnel.listen_port),
                Part::Notrack,
            ])],
        )
    }

    /// Internet → VIP. Matches the sources once more, so that it fails closed even without the guard.
    fn publish(&self) -> Chain {
        let rules = self
            .config
            .publishes
            .iter()
            .flat_map(|publish| self.publish_rules(publish))
            .collect();
        base_chain(
            "publish",
            ChainKind::Nat,
            Hook::Prerouting,
            priority::DSTNAT,
            rules,
        )
    }

    fn publish_rules(&self, publish: &Publish) -> Vec<Rule> {
        let family = Family::of(publish.vip);
        let sources = policy::source_matches(&publish.name, family, &publish.allow);
        let mut rules = Vec::new();
        for (listen, target) in dnat_targets(&publish.ports) {
            for source in &sources {
                let mut parts = vec![self.entering_wan(), Part::NetworkFamily(family)];
                parts.extend(source.clone());
                parts.extend([
                    Part::DestinationIsLocal,
                    Part::Ports {
                        protocol: publish.protocol,
                        side: Side::Destination,
                        ports: listen.clone(),
                    },
                    Part::NamedCounter(format!("publish_{}", publish.name)),
                    Part::Dnat {
                        address: publish.vip,
                        port: target,
                    },
                ]);
                rules.push(policy::commented(parts, &publish.name));
            }
        }
        rules
    }

    /// Only what we publish goes into the tunnel, only what a role allows comes out of it. Packets of other links are
    /// not our business: no policy, no rule matches them.
    ///
    /// A role decides on every packet of a peer, not on the first of each connection: what it loses, ends at once.
    fn forward(&self) -> Chain {
        let mut rules = policy::clamp_mss(self.tunnel);
        rules.extend(self.role_rules(&[self.entering(), self.leaving()]));
        rules.extend(self.answers());
        rules.push(verdict_rule(self.entering(), "refused_from_tunnel"));
        rules.push(rule([
            self.leaving(),
            Part::CtEstablishedRelated,
            Part::Accept,
        ]));
        rules.extend(self.config.publishes.iter().map(|publish| {
            let mut parts = vec![self.entering_wan(), self.leaving(), Part::CtStatusDnat];
            parts.extend(service_of(publish));
            parts.push(Part::Accept);
            policy::commented(parts, &publish.name)
        }));
        rules.push(verdict_rule(self.leaving(), "refused_to_tunnel"));
        base_chain(
            "forward",
            ChainKind::Filter,
            Hook::Forward,
            priority::FILTER,
            rules,
        )
    }

    /// What the tunnel may reach on this host: ping, and what a role names.
    fn input(&self) -> Chain {
        let mut rules = policy::accept_ping(self.tunnel).to_vec();
        rules.extend(self.role_rules(&[self.entering()]));
        rules.extend(self.answers());
        rules.push(verdict_rule(self.entering(), "refused_input"));
        base_chain(
            "input",
            ChainKind::Filter,
            Hook::Input,
            priority::FILTER,
            rules,
        )
    }

    /// A router tells a host whose packets leave by the link they came in by about the shorter way; between peers
    /// there is none.
    fn output(&self) -> Chain {
        base_chain(
            "output",
            ChainKind::Filter,
            Hook::Output,
            priority::FILTER,
            vec![rule([
                self.leaving(),
                Part::Redirect(Family::Ipv4),
                Part::Drop,
            ])],
        )
    }

    fn source_nat(&self) -> Chain {
        let rules = self
            .config
            .publishes
            .iter()
            .filter_map(|publish| {
                let translation = policy::source_translation(publish.source_ip)?;
                let mut parts = vec![self.leaving(), Part::CtStatusDnat];
                parts.extend(service_of(publish));
                parts.push(translation);
                Some(policy::commented(parts, &publish.name))
            })
            .chain(self.masqueraded_networks().into_iter().map(|set| {
                rule([
                    self.leaving(),
                    Part::AddressInSet {
                        side: Side::Source,
                        family: set.family,
                        set: set.name,
                        negated: false,
                    },
                    Part::Masquerade,
                ])
            }))
            .collect();
        base_chain(
            "source_nat",
            ChainKind::Nat,
            Hook::Postrouting,
            priority::SRCNAT,
            rules,
        )
    }

    /// What comes out of the tunnel and was asked for from elsewhere, with the ICMP errors that belong to it.
    fn answers(&self) -> [Rule; 2] {
        [
            rule([
                self.entering(),
                Part::CtDirectionReply,
                Part::CtEstablishedRelated,
                Part::Accept,
            ]),
            rule([self.entering(), Part::CtRelated, Part::Accept]),
        ]
    }

    /// By its source a packet gets to the chain of its peer's role, which accepts it or lets it fall through.
    fn role_rules(&self, links: &[Part]) -> Vec<Rule> {
        let with_links = |parts: Vec<Part>| rule(links.iter().cloned().chain(parts));
        let maps = tunnel_families(self.config).map(|family| {
            with_links(vec![Part::SourceVerdictMap {
                family,
                map: peer_map_name(family).to_owned(),
            }])
        });
        let networks = self.role_networks().into_iter().map(|((role, _), set)| {
            with_links(vec![
                Part::AddressInSet {
                    side: Side::Source,
                    family: set.family,
                    set: set.name,
                    negated: false,
                },
                Part::Jump(role_chain_name(role)),
            ])
        });
        maps.chain(networks).collect()
    }

    /// Networks behind members, by role and family.
    fn role_networks(&self) -> BTreeMap<(&str, Family), Set> {
        let mut networks: BTreeMap<(&str, Family), Vec<IpNetwork>> = BTreeMap::new();
        for member in self.members {
            if let Some(role) = role_of(self.config, member) {
                for &network in &member.networks {
                    let family = Family::of_network(network);
                    networks.entry((role, family)).or_default().push(network);
                }
            }
        }
        let set = |((role, family), networks): ((_, Family), Vec<IpNetwork>)| {
            let set = Set {
                name: format!("networks_{role}_{}", family_digit(family)),
                family,
                elements: merge_networks(networks),
            };
            ((role, family), set)
        };
        networks.into_iter().map(set).collect()
    }

    /// Networks whose packets go on with an address of ours, one set per family that has some.
    fn masqueraded_networks(&self) -> Vec<Set> {
        [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .map(|family| Set {
                name: format!("networks_behind_peers{}", family_digit(family)),
                family,
                elements: merge_networks(
                    networks_outside_of_the_tunnel(self.config, self.members)
                        .filter(|&network| Family::of_network(network) == family),
                ),
            })
            .filter(|set| !set.elements.is_empty())
            .collect()
    }
}

fn tunnel_families(config: &Gateway) -> impl Iterator<Item = Family> {
    let addresses = config.tunnel.addresses.iter();
    addresses.map(|address| Family::of(address.address))
}

/// The role of a member, if the file has it.
fn role_of<'a>(config: &Gateway, member: &'a Member) -> Option<&'a str> {
    let role = member.role.as_deref()?;
    let known = config.roles.iter().any(|known| known.name == role);
    known.then_some(role)
}

/// `ip daddr VIP tcp dport PORTS` as the packet looks after DNAT.
fn service_of(publish: &Publish) -> [Part; 2] {
    [
        policy::host(Side::Destination, publish.vip),
        Part::Ports {
            protocol: publish.protocol,
            side: Side::Destination,
            ports: publish.ports.iter().map(|map| map.target).collect(),
        },
    ]
}

/// Ports that keep their number share a rule; each port that changes needs one.
fn dnat_targets(ports: &[PortMap]) -> Vec<(Vec<PortRange>, Option<u16>)> {
    let (kept, changed): (Vec<PortMap>, Vec<PortMap>) =
        ports.iter().partition(|map| map.listen == map.target);
    let mut targets = Vec::new();
    if !kept.is_empty() {
        targets.push((kept.iter().map(|map| map.listen).collect(), None));
    }
    targets.extend(
        changed
            .iter()
            .map(|map| (vec![map.listen], Some(map.target.first))),
    );
    targets
}

const fn peer_map_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "peers4",
        Family::Ipv6 => "peers6",
    }
}

const fn family_digit(family: Family) -> char {
    match family {
        Family::Ipv4 => '4',
        Family::Ipv6 => '6',
    }
}

fn role_chain_name(role: &str) -> String {
    format!("role_{role}")
}

/// No role can have this chain: those begin with `role_`.
const PAIRING_CHAIN: &str = "pairing";

/// Address of a peer → the chain of its role: one lookup however many peers there are. There is a map for each family of
/// the tunnel even when it is empty, so that a peer that comes or goes changes an element and no rule.
fn peer_maps(config: &Gateway, members: &[&Member]) -> Vec<VerdictMap> {
    let roles = config.roles.iter();
    let chains: BTreeMap<&str, Arc<str>> = roles
        .map(|role| (role.name.as_str(), role_chain_name(&role.name).into()))
        .collect();
    let pairing = Arc::from(PAIRING_CHAIN);
    let of_role = |role: &Option<String>| chains.get(role.as_deref()?);
    let of_file = config.peers.iter();
    let of_file = of_file.map(|peer| (of_role(&peer.role), &peer.addresses));
    let of_members = members.iter().map(|member| {
        let chain = if member.is_invited {
            Some(&pairing)
        } else {
            of_role(&member.role)
        };
        (chain, &member.addresses)
    });
    let jumps: Vec<(&Arc<str>, &Vec<IpAddr>)> = of_file
        .chain(of_members)
        .filter_map(|(chain, addresses)| Some((chain?, addresses)))
        .collect();
    let map = |family| {
        let addresses = jumps.iter().flat_map(|(chain, addresses)| {
            let addresses = addresses.iter().filter(|a| Family::of(**a) == family);
            addresses.map(|&address| (address, Arc::clone(chain)))
        });
        let mut elements: Vec<(IpAddr, Arc<str>)> = addresses.collect();
        elements.sort_by_key(|(address, _)| *address);
        VerdictMap {
            name: peer_map_name(family).to_owned(),
            family,
            elements,
        }
    };
    let mut families: Vec<Family> = tunnel_families(config).collect();
    families.sort_unstable();
    families.dedup();
    families.into_iter().map(map).collect()
}

/// What a role may reach; what falls through is dropped by the chain that jumped here.
fn role_chain(role: &Role) -> Chain {
    let rules = role
        .allow
        .iter()
        .map(|service| rule(policy::service(service).into_iter().chain([Part::Accept])))
        .collect();
    chain(&role_chain_name(&role.name), rules)
}

/// What an invited LAN host may reach. The chain is there without one, too, so that an invitation changes an element and no
/// rule.
fn pairing_chain() -> Chain {
    let port = policy::ports(Protocol::Udp, Side::Destination, pairing::PORT);
    let rules = vec![rule([Part::DestinationIsLocal, port, Part::Accept])];
    chain(PAIRING_CHAIN, rules)
}

#[cfg(test)]
mod tests;
