//! This binary's policy: a checked configuration → the kernel state and the peers that it asks for. Pure.
//!
//! What may flow is stated in `docs/security.md`; here is how. The functions follow the order of the table's chains.
use std::collections::BTreeMap;
use std::net::IpAddr;

use shared::config::common::{PortMap, PortRange, Protocol, SourceIp};
use shared::config::gateway::{Gateway, Publish, Role};
use shared::model::InterfaceName;
use shared::plan::desired::protocol;
use shared::plan::ruleset::{
    Chain, ChainKind, Family, Hook, Part, Rule, Ruleset, Side, VerdictMap, priority,
};
use shared::plan::{Desired, Route, Sysctl};
use shared_daemon::model::{Environment, Model, PeerKind, PeerModel, PublishModel};
use shared_daemon::policy::{self, base_chain, chain, rule, verdict_rule};

/// Name of our nftables table on this host.
pub const TABLE: &str = "wg_edge";

/// Marks our link, so that a foreign one of the same name is never touched.
pub const LINK_ALIAS: &str = "wg-edge gateway";

/// Everything that `config` asks for on a host like `environment`.
pub fn model(config: &Gateway, environment: &Environment) -> Model {
    Model {
        interface: config.tunnel.interface.clone(),
        desired: desired(config, environment),
        peers: peers(config),
        publishes: config.publishes.iter().map(publish_model).collect(),
    }
}

fn desired(config: &Gateway, environment: &Environment) -> Desired {
    let link = &config.tunnel.interface;
    let lan_networks = config.lan_servers.iter().flat_map(|lan| &lan.networks);
    Desired {
        protocol: protocol::GATEWAY,
        links: vec![policy::tun_link(link, LINK_ALIAS, config.tunnel.mtu)],
        addresses: policy::addresses(link, &config.tunnel.addresses),
        routes: lan_networks
            .map(|&destination| Route {
                destination,
                link: link.clone(),
                table: policy::MAIN_TABLE,
                source: policy::address_of_family(&config.tunnel.addresses, destination),
            })
            .collect(),
        rules: Vec::new(),
        sysctls: sysctls(config, environment),
        ruleset: ruleset(config, environment),
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

/// Cryptokey routing: what each peer may send from, and what is sent to it.
fn peers(config: &Gateway) -> Vec<PeerModel> {
    let lan_servers = config.lan_servers.iter().map(|lan| PeerModel {
        name: lan.name.clone(),
        kind: PeerKind::LanServer,
        public_key: lan.public_key,
        preshared_key_file: lan.preshared_key_file.clone(),
        endpoint: None,
        allowed_ips: policy::hosts(&lan.addresses)
            .chain(lan.networks.iter().copied())
            .collect(),
        persistent_keepalive_secs: 0,
    });
    let peers = config.peers.iter().map(|peer| PeerModel {
        name: peer.name.clone(),
        kind: PeerKind::Peer,
        public_key: peer.public_key,
        preshared_key_file: peer.preshared_key_file.clone(),
        endpoint: None,
        allowed_ips: policy::hosts(&peer.addresses).collect(),
        persistent_keepalive_secs: 0,
    });
    lan_servers.chain(peers).collect()
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

fn ruleset(config: &Gateway, environment: &Environment) -> Ruleset {
    let context = Context {
        config,
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
    let sources = config.publishes.iter().map(|publish| {
        (
            publish.name.as_str(),
            Family::of(publish.vip),
            &publish.allow,
        )
    });
    Ruleset {
        table: TABLE.to_owned(),
        sets: policy::source_sets(sources, &config.sets),
        maps: peer_maps(config),
        chains,
    }
}

/// What every chain needs to know.
struct Context<'a> {
    config: &'a Gateway,
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
    fn forward(&self) -> Chain {
        let mut rules = policy::clamp_mss(self.tunnel);
        rules.push(rule([
            self.entering(),
            Part::CtEstablishedRelated,
            Part::Accept,
        ]));
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
        for family in [Family::Ipv4, Family::Ipv6] {
            if let Some(role) = self.role_of_source(family) {
                rules.push(rule([self.entering(), self.leaving(), role]));
            }
        }
        rules.push(verdict_rule(self.entering(), "refused_from_tunnel"));
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
        let mut rules = vec![rule([
            self.entering(),
            Part::CtEstablishedRelated,
            Part::Accept,
        ])];
        rules.extend(policy::accept_ping(self.tunnel));
        for family in [Family::Ipv4, Family::Ipv6] {
            if let Some(role) = self.role_of_source(family) {
                rules.push(rule([self.entering(), role]));
            }
        }
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
            .filter(|publish| publish.source_ip == SourceIp::Masquerade)
            .map(|publish| {
                let mut parts = vec![self.leaving(), Part::CtStatusDnat];
                parts.extend(service_of(publish));
                parts.push(Part::Masquerade);
                policy::commented(parts, &publish.name)
            })
            .collect();
        base_chain(
            "source_nat",
            ChainKind::Nat,
            Hook::Postrouting,
            priority::SRCNAT,
            rules,
        )
    }

    fn role_of_source(&self, family: Family) -> Option<Part> {
        let used = self.config.peers.iter().any(|peer| {
            peer.role.is_some() && peer.addresses.iter().any(|&a| Family::of(a) == family)
        });
        used.then(|| Part::SourceVerdictMap {
            family,
            map: peer_map_name(family).to_owned(),
        })
    }
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

fn role_chain_name(role: &str) -> String {
    format!("role_{role}")
}

/// Address of a peer → the chain of its role: one lookup however many peers there are.
fn peer_maps(config: &Gateway) -> Vec<VerdictMap> {
    let mut maps: BTreeMap<Family, BTreeMap<IpAddr, String>> = BTreeMap::new();
    for peer in &config.peers {
        let Some(role) = &peer.role else { continue };
        for &address in &peer.addresses {
            maps.entry(Family::of(address))
                .or_default()
                .insert(address, role_chain_name(role));
        }
    }
    maps.into_iter()
        .map(|(family, elements)| VerdictMap {
            name: peer_map_name(family).to_owned(),
            family,
            elements: elements.into_iter().collect(),
        })
        .collect()
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

#[cfg(test)]
mod tests;
