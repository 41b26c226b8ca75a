//! The policy of the LAN end: a checked configuration → the kernel state and the peers that it asks for. Pure.
//!
//! A crate of its own, since `lan-server` puts it in place and `gateway` asks it what the other end would let through.
//!
//! The LAN end decides for itself what the tunnel may reach: a stolen gateway can call published services and nothing
//! else. What may flow is stated in `docs/security.md`; here is how.
pub mod simulate;

use std::sync::Arc;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use shared::config::common::{AddressSet, PortMap, Service, Sources};
use shared::config::lan_server::{Access, Gateway, LanServer, Publish};
use shared::model::InterfaceName;
use shared::plan::desired::protocol;
use shared::plan::ruleset::{
    Chain, ChainKind, Family, Hook, Part, Rule, Ruleset, Set, Side, priority,
};
use shared::plan::{Desired, Route, RoutingRule, Sysctl};
use shared_daemon::model::{Environment, Model, PeerKind, PeerModel, PublishModel};
use shared_daemon::policy::{self, base_chain, chain, rule, verdict_rule};

/// Name of our nftables table on this host; another than the gateway's, so that both ends can live on one machine.
pub const TABLE: &str = "wg_edge_lan";

/// Marks our link, so that a foreign one of the same name is never touched.
pub const LINK_ALIAS: &str = "wg-edge lan-server";

/// Bits of the packet and connection mark that are ours; they say by which gateway a connection came in.
pub const MARK_MASK: u32 = 0x3f00_0000;

/// Mark of the first gateway; the next ones count up in these bits.
const FIRST_GATEWAY_MARK: u32 = 0x0100_0000;

/// Routing table and rule priority of the first gateway; the next ones count up.
pub const FIRST_TABLE: u32 = 17_001;

/// Chain that decides what comes out of the tunnel, whether it is forwarded or ends on this host.
const FROM_TUNNEL: &str = "from_tunnel";

/// Sources that never come from the internet (RFC 6890 and multicast): with preserved addresses they would look like
/// hosts, pods or services of this LAN.
const NEVER_PUBLIC_IPV4: [(Ipv4Addr, u8); 8] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Likewise for IPv6: unspecified and loopback, unique local, link local, multicast.
const NEVER_PUBLIC_IPV6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::UNSPECIFIED, 127),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Everything that `config` asks for on a host like `environment`.
pub fn model(config: &LanServer, environment: &Environment) -> Model {
    let sets = policy::sets_now(&config.sets, environment);
    Model {
        interface: config.tunnel.interface.clone(),
        desired: desired(config, &sets),
        peers: config
            .gateways
            .iter()
            .map(|g| Arc::new(peer(config, &sets, g)))
            .collect(),
        publishes: config.publishes.iter().map(publish_model).collect(),
    }
}

fn desired(config: &LanServer, sets: &[AddressSet]) -> Desired {
    let link = &config.tunnel.interface;
    Desired {
        protocol: protocol::LAN_SERVER,
        links: vec![policy::tun_link(link, LINK_ALIAS, config.tunnel.mtu)],
        addresses: policy::addresses(link, &config.tunnel.addresses),
        routes: routes(config),
        rules: families(config)
            .map(|family| RoutingRule {
                ipv6: family == Family::Ipv6,
                priority: FIRST_TABLE,
                mark: FIRST_GATEWAY_MARK,
                mask: MARK_MASK,
                table: FIRST_TABLE,
            })
            .collect(),
        sysctls: sysctls(config),
        ruleset: ruleset(config, sets),
    }
}

/// The families that come out of the tunnel.
fn families(config: &LanServer) -> impl Iterator<Item = Family> {
    let ipv6 = config.tunnel.addresses.iter().any(|a| a.address.is_ipv6())
        || config.publishes.iter().any(|publish| publish.vip.is_ipv6());
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .filter(move |&family| family == Family::Ipv4 || ipv6)
}

/// The tunnel network by the main table, where more specific LAN networks win; answers to callers with preserved
/// addresses by a table of their own.
fn routes(config: &LanServer) -> Vec<Route> {
    let link = &config.tunnel.interface;
    let networks = config.gateways.iter().flat_map(|gateway| &gateway.networks);
    let tunnel = networks.map(|&destination| Route {
        destination,
        link: link.clone(),
        table: policy::MAIN_TABLE,
        source: policy::address_of_family(&config.tunnel.addresses, destination),
    });
    let answers = families(config).map(|family| Route {
        destination: policy::everything(family),
        link: link.clone(),
        table: FIRST_TABLE,
        source: None,
    });
    tunnel.chain(answers).collect()
}

/// Loose reverse path filter on our link: the way back to a preserved source leads, without the mark, over the link of
/// the default route (RFC 3704 §2.4; `Documentation/networking/ip-sysctl.rst`: the larger of `all` and the link's counts).
fn sysctls(config: &LanServer) -> Vec<Sysctl> {
    let mut sysctls = vec![
        policy::link_sysctl("ipv4", &config.tunnel.interface, "rp_filter", "2"),
        policy::sysctl("net.ipv4.ip_forward", "1"),
    ];
    if families(config).any(|family| family == Family::Ipv6) {
        sysctls.push(policy::sysctl("net.ipv6.conf.all.forwarding", "1"));
    }
    sysctls
}

/// Cryptokey routing accepts the tunnel network and the sources that a publish names, so that not even the
/// authenticated gateway can send from elsewhere.
fn peer(config: &LanServer, sets: &[AddressSet], gateway: &Gateway) -> PeerModel {
    let sources = config
        .publishes
        .iter()
        .flat_map(|publish| policy::source_networks(&publish.from, sets, Family::of(publish.vip)));
    let mut allowed_ips = gateway.networks.clone();
    allowed_ips.extend(sources);
    PeerModel {
        name: gateway.name.clone(),
        kind: PeerKind::Gateway,
        public_key: gateway.public_key,
        preshared_key: gateway.preshared_key_file.clone().into(),
        succeeds: None,
        endpoint: Some(gateway.endpoint.clone()),
        allowed_ips: shared::plan::ruleset::merge_networks(allowed_ips),
        persistent_keepalive_secs: gateway.persistent_keepalive_secs,
    }
}

fn publish_model(publish: &Publish) -> PublishModel {
    PublishModel {
        name: publish.name.clone(),
        vip: publish.vip,
        protocol: publish.protocol,
        ports: publish
            .ports
            .iter()
            .map(|&ports| PortMap {
                listen: ports,
                target: ports,
            })
            .collect(),
        source_ip: publish.source_ip,
    }
}

fn ruleset(config: &LanServer, sets: &[AddressSet]) -> Ruleset {
    let context = Context {
        config,
        tunnel: &config.tunnel.interface,
    };
    let mut chains = vec![
        context.guard(),
        context.connmark(),
        connmark_output(),
        context.forward(),
        context.input(),
        context.tunnel_services(),
    ];
    chains.extend(config.publishes.iter().map(|p| context.publish(p)));
    chains.push(context.source_nat());
    Ruleset {
        table: TABLE.to_owned(),
        sets: nft_sets(config, sets),
        maps: Vec::new(),
        chains,
    }
}

fn nft_sets(config: &LanServer, sets: &[AddressSet]) -> Vec<Set> {
    let entries = config.publishes.iter().map(|publish| {
        (
            publish.name.as_str(),
            Family::of(publish.vip),
            &publish.from,
        )
    });
    let mut sets = policy::source_sets(entries, sets);
    for family in [Family::Ipv4, Family::Ipv6] {
        let needed = config
            .publishes
            .iter()
            .any(|p| p.from == Sources::Any && Family::of(p.vip) == family);
        if needed {
            sets.push(never_public(family));
        }
    }
    sets
}

const fn never_public_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "never_public4",
        Family::Ipv6 => "never_public6",
    }
}

fn never_public(family: Family) -> Set {
    let elements: Vec<IpNetwork> = match family {
        Family::Ipv4 => NEVER_PUBLIC_IPV4
            .into_iter()
            .filter_map(|(address, len)| Ipv4Network::new(address, len).ok())
            .map(IpNetwork::V4)
            .collect(),
        Family::Ipv6 => NEVER_PUBLIC_IPV6
            .into_iter()
            .filter_map(|(address, len)| Ipv6Network::new(address, len).ok())
            .map(IpNetwork::V6)
            .collect(),
    };
    Set {
        name: never_public_name(family).to_owned(),
        family,
        elements,
    }
}

/// What every chain needs to know.
struct Context<'a> {
    config: &'a LanServer,
    tunnel: &'a InterfaceName,
}

impl Context<'_> {
    fn entering(&self) -> Part {
        policy::from_link(self.tunnel)
    }

    fn leaving(&self) -> Part {
        policy::to_link(self.tunnel)
    }

    fn guard(&self) -> Chain {
        base_chain(
            "guard",
            ChainKind::Filter,
            Hook::Prerouting,
            priority::RAW,
            policy::guard_own_addresses(self.tunnel, &self.config.tunnel.addresses),
        )
    }

    /// Remember by which tunnel a connection came in; send its answers back by the same one.
    fn connmark(&self) -> Chain {
        let rules = vec![
            rule([
                self.entering(),
                Part::CtNew,
                Part::SetCtMark {
                    keep: !MARK_MASK,
                    value: FIRST_GATEWAY_MARK,
                },
            ]),
            rule([
                Part::InputInterface {
                    name: self.tunnel.clone(),
                    negated: true,
                },
                came_by_tunnel(),
                Part::SetMarkFromCt { mask: MARK_MASK },
            ]),
        ];
        base_chain(
            "connmark",
            ChainKind::Filter,
            Hook::Prerouting,
            priority::MANGLE,
            rules,
        )
    }

    /// Packets of other links are not our business: no policy, no rule matches them.
    fn forward(&self) -> Chain {
        let mut rules = policy::clamp_mss(self.tunnel);
        rules.extend(self.refuse_own_sources());
        rules.extend([
            self.accept_answers_and_more(),
            rule([self.leaving(), Part::CtEstablishedRelated, Part::Accept]),
            rule([self.entering(), Part::Jump(FROM_TUNNEL.to_owned())]),
            verdict_rule(self.entering(), "refused_from_tunnel"),
            verdict_rule(self.leaving(), "refused_to_tunnel"),
        ]);
        base_chain(
            "forward",
            ChainKind::Filter,
            Hook::Forward,
            priority::FILTER,
            rules,
        )
    }

    /// The gateway may ping this end; a VIP that this host holds is reached like one behind it.
    fn input(&self) -> Chain {
        let mut rules = self.refuse_own_sources();
        rules.push(self.accept_answers_and_more());
        rules.extend(self.accept_answers_to_this_host());
        for gateway in &self.config.gateways {
            rules.extend(gateway.addresses.iter().map(|&address| {
                rule([
                    self.entering(),
                    policy::host(Side::Source, address),
                    Part::EchoRequest(Family::of(address)),
                    Part::Accept,
                ])
            }));
        }
        rules.extend([
            rule([self.entering(), Part::Jump(FROM_TUNNEL.to_owned())]),
            verdict_rule(self.entering(), "refused_input"),
        ]);
        base_chain(
            "input",
            ChainKind::Filter,
            Hook::Input,
            priority::FILTER,
            rules,
        )
    }

    /// A source of the tunnel network whose way back does not lead into the tunnel belongs to one of this host's own
    /// networks, which the tunnel network may cover. First of all, so that not even an established connection of the
    /// LAN can be joined from the tunnel.
    fn refuse_own_sources(&self) -> Vec<Rule> {
        self.tunnel_networks()
            .map(|network| {
                rule([
                    self.entering(),
                    policy::network(Side::Source, network),
                    Part::SourceNotRoutedVia(self.tunnel.clone()),
                    Part::NamedCounter("refused_own_source".to_owned()),
                    Part::Drop,
                ])
            })
            .collect()
    }

    /// What belongs to a connection that came in by the tunnel, and to no other.
    fn accept_answers_and_more(&self) -> Rule {
        rule([
            self.entering(),
            Part::CtEstablishedRelated,
            came_by_tunnel(),
            Part::Accept,
        ])
    }

    /// What this host itself asked for inside the tunnel. Only there: its connections to the internet go elsewhere, and
    /// a preserved source must not be able to join them.
    fn accept_answers_to_this_host(&self) -> Vec<Rule> {
        self.tunnel_networks()
            .map(|network| {
                rule([
                    self.entering(),
                    policy::network(Side::Source, network),
                    Part::CtEstablishedRelated,
                    Part::Accept,
                ])
            })
            .collect()
    }

    /// Destinations first: each published service has a chain that looks at the source. Then what tunnel peers may
    /// reach.
    fn tunnel_services(&self) -> Chain {
        let mut rules: Vec<Rule> = self
            .config
            .publishes
            .iter()
            .map(|publish| {
                let mut parts = service_of(publish).to_vec();
                parts.push(Part::Jump(publish_chain_name(publish)));
                policy::commented(parts, &publish.name)
            })
            .collect();
        for network in self.tunnel_networks() {
            let services = self.config.access.iter().flat_map(|access| &access.to);
            rules.extend(
                services
                    .filter(|service| same_family(service, network))
                    .map(|service| {
                        let source = policy::network(Side::Source, network);
                        rule(
                            [source]
                                .into_iter()
                                .chain(policy::service(service))
                                .chain([Part::Accept]),
                        )
                    }),
            );
        }
        chain(FROM_TUNNEL, rules)
    }

    /// Who may call a published service: the gateway itself, and the sources that are listed.
    fn publish(&self, publish: &Publish) -> Chain {
        let family = Family::of(publish.vip);
        let gateways = self.config.gateways.iter().flat_map(|g| &g.addresses);
        let mut rules: Vec<Rule> = gateways
            .filter(|&&address| Family::of(address) == family)
            .map(|&address| rule([policy::host(Side::Source, address), Part::Accept]))
            .collect();
        if publish.from == Sources::Any {
            rules.push(rule([
                Part::AddressInSet {
                    side: Side::Source,
                    family,
                    set: never_public_name(family).to_owned(),
                    negated: true,
                },
                Part::NamedCounter(format!("publish_{}", publish.name)),
                Part::Accept,
            ]));
        } else {
            let sources = policy::source_matches(&publish.name, family, &publish.from);
            rules.extend(sources.into_iter().map(|mut parts| {
                parts.extend([
                    Part::NamedCounter(format!("publish_{}", publish.name)),
                    Part::Accept,
                ]);
                rule(parts)
            }));
        }
        chain(&publish_chain_name(publish), rules)
    }

    /// By connection mark, not by link: on the postrouting hook a packet no longer says where it came from.
    fn source_nat(&self) -> Chain {
        let mut rules: Vec<Rule> = Vec::new();
        for publish in &self.config.publishes {
            if let Some(translation) = policy::source_translation(publish.source_ip) {
                let mut parts = vec![self.not_to_tunnel(), came_by_tunnel()];
                parts.extend(service_of(publish));
                parts.push(translation);
                rules.push(policy::commented(parts, &publish.name));
            }
        }
        for network in self.tunnel_networks() {
            for access in &self.config.access {
                rules.extend(self.access_snat(access, network));
            }
        }
        base_chain(
            "source_nat",
            ChainKind::Nat,
            Hook::Postrouting,
            priority::SRCNAT,
            rules,
        )
    }

    fn access_snat(&self, access: &Access, network: IpNetwork) -> Vec<Rule> {
        let Some(translation) = policy::source_translation(access.source_ip) else {
            return Vec::new();
        };
        let services = access.to.iter();
        services
            .filter(|service| same_family(service, network))
            .map(|service| {
                let mut parts = vec![
                    self.not_to_tunnel(),
                    came_by_tunnel(),
                    policy::network(Side::Source, network),
                ];
                parts.extend(policy::service(service));
                parts.push(translation.clone());
                rule(parts)
            })
            .collect()
    }

    fn not_to_tunnel(&self) -> Part {
        Part::OutputInterface {
            name: self.tunnel.clone(),
            negated: true,
        }
    }

    fn tunnel_networks(&self) -> impl Iterator<Item = IpNetwork> {
        let gateways = self.config.gateways.iter();
        gateways.flat_map(|gateway| gateway.networks.iter().copied())
    }
}

/// [`Context::connmark`] for answers of a VIP that this host itself holds.
fn connmark_output() -> Chain {
    let rules = vec![rule([
        came_by_tunnel(),
        Part::SetMarkFromCt { mask: MARK_MASK },
    ])];
    base_chain(
        "connmark_output",
        ChainKind::Route,
        Hook::Output,
        priority::MANGLE,
        rules,
    )
}

/// `ct mark & MASK == GATEWAY`.
const fn came_by_tunnel() -> Part {
    Part::CtMark {
        mask: MARK_MASK,
        value: FIRST_GATEWAY_MARK,
        negated: false,
    }
}

fn publish_chain_name(publish: &Publish) -> String {
    format!("publish_{}", publish.name)
}

fn service_of(publish: &Publish) -> [Part; 2] {
    [
        policy::host(Side::Destination, publish.vip),
        Part::Ports {
            protocol: publish.protocol,
            side: Side::Destination,
            ports: publish.ports.clone(),
        },
    ]
}

fn same_family(service: &Service, network: IpNetwork) -> bool {
    Family::of_network(service.network) == Family::of_network(network)
}

#[cfg(test)]
mod tests;
