//! The way of a call through both ends and the tunnel between them, and the way of its answer back. The first packet of the
//! call stands for all that follow it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::host::Host;
use super::packet::Packet;
use super::passage::{Connection, End, Entry};
use crate::api::trace::{Outcome, Trace, TraceStep};
use crate::config::address::not_public;
use crate::config::common::InterfaceAddress;
use crate::config::policy_test::Target;
use crate::model::InterfaceName;
use crate::plan::ruleset::{AddressRange, Family};

/// Port of the caller: one of those that RFC 6335 leaves to whoever calls. No rule of ours looks at it.
const CALLER_PORT: u16 = 50_000;

/// Where the search for a stranger begins: documentation addresses (RFC 5737, RFC 3849), which are nobody's.
const FIRST_STRANGER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FIRST_STRANGER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What the walk calls the gateway.
const GATEWAY: &str = "gateway";

/// The ends that are known.
#[derive(Debug, Clone)]
pub enum Site {
    /// As the gateway sees it.
    Gateway {
        /// The gateway.
        end: TunnelEnd,
        /// Its link to the internet. An address that is reached by no other one is taken for one of its own there.
        wan: InterfaceName,
        /// LAN servers whose configuration is known.
        lan: Vec<LanEnd>,
    },
    /// A LAN server alone: what comes out of the tunnel.
    LanServer(LanEnd),
}

/// An end of the tunnel.
#[derive(Debug, Clone)]
pub struct TunnelEnd {
    /// Rules, addresses and routes.
    pub host: Host,
    /// Link of the tunnel.
    pub tunnel: InterfaceName,
    /// The peers of its WireGuard device.
    pub peers: Vec<Peer>,
}

/// A peer, for cryptokey routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// Whether LAN networks are behind it, with rules of their own.
    pub is_lan_server: bool,
    /// Allowed IPs.
    pub networks: Vec<IpNetwork>,
}

/// A LAN server.
#[derive(Debug, Clone)]
pub struct LanEnd {
    /// Its name on the gateway; its own file does not tell.
    pub name: Option<String>,
    /// The end.
    pub end: TunnelEnd,
}

impl TunnelEnd {
    /// All networks that are named, but for those that mean everybody.
    fn named_networks(&self) -> impl Iterator<Item = IpNetwork> {
        let sets = self.host.ruleset.sets.iter().flat_map(|set| &set.elements);
        let peers = self.peers.iter().flat_map(|peer| &peer.networks);
        let all = sets.chain(peers).copied();
        all.filter(|network| network.prefix() > 0)
    }

    /// The peer with the longest network that contains the address, as the device finds it.
    pub fn owner(&self, address: IpAddr) -> Option<(&Peer, IpNetwork)> {
        let networks = self.peers.iter().flat_map(|peer| {
            let networks = peer.networks.iter();
            networks.map(move |network| (peer, *network))
        });
        let fitting = networks.filter(|(_, network)| network.contains(address));
        fitting.max_by_key(|(_, network)| network.prefix())
    }
}

impl LanEnd {
    fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("lan-server {name}"),
            None => "lan-server".to_owned(),
        }
    }
}

/// Where a packet has arrived, and what is needed for its answer.
struct Arrival<'h> {
    packet: Packet,
    entry: Entry<'h>,
    connection: Option<Connection>,
}

impl Site {
    /// Somebody of the internet: an address that none of these ends names in a set or as a peer's network.
    pub fn stranger(&self, family: Family) -> IpAddr {
        let (own, lan) = match self {
            Self::Gateway { end, lan, .. } => (Some(end), lan.as_slice()),
            Self::LanServer(lan) => (None, std::slice::from_ref(lan)),
        };
        let ends = || own.into_iter().chain(lan.iter().map(|lan| &lan.end));
        let named: Vec<IpNetwork> = ends().flat_map(TunnelEnd::named_networks).collect();
        let mut address = match family {
            Family::Ipv4 => IpAddr::V4(FIRST_STRANGER_IPV4),
            Family::Ipv6 => IpAddr::V6(FIRST_STRANGER_IPV6),
        };
        let taken = |address: IpAddr| {
            let mut named = named.iter().copied();
            let named = named.find(|network| network.contains(address));
            named.or_else(|| not_public(address.into()))
        };
        while let Some(next) = taken(address).and_then(|network| AddressRange::of(network).after())
        {
            address = next;
        }
        address
    }

    /// The way of a call. `from` and `to` are of one family.
    pub fn trace(&self, from: IpAddr, to: Target) -> Trace {
        let packet = Packet::opening(to.protocol, (from, CALLER_PORT), (to.address, to.port));
        let mut way = Way::default();
        let arrived = match self {
            Self::Gateway { end, wan, lan } => way.by_gateway(end, wan, lan, packet),
            Self::LanServer(lan) => way.by_lan_server(lan, packet),
        };
        let (allowed, reason) = match arrived {
            Ok(()) => (true, way.accepted_by()),
            Err(reason) => (false, reason),
        };
        Trace {
            from,
            to: to.to_string(),
            allowed,
            reason,
            steps: way.steps,
            not_looked_at: way.not_looked_at,
        }
    }
}

/// A way under way; why it ends early is an `Err`.
#[derive(Debug, Default)]
struct Way {
    steps: Vec<TraceStep>,
    is_answer: bool,
    not_looked_at: Option<String>,
}

impl Way {
    fn by_gateway(
        &mut self,
        end: &TunnelEnd,
        wan: &InterfaceName,
        lan: &[LanEnd],
        call: Packet,
    ) -> Result<(), String> {
        let host = with_internet(end, wan, call);
        let caller = end.owner(call.source);
        let entry = if host.is_local(call.source) {
            Entry::Own
        } else if let Some((peer, network)) = caller {
            self.tunnel(GATEWAY, call.source, peer, network);
            Entry::Link(&end.tunnel)
        } else {
            self.route(GATEWAY, format!("{} calls by {}", call.source, told(wan)));
            Entry::Link(wan)
        };
        let there = self.pass(GATEWAY, &host, entry, call, None)?;
        let Some(connection) = there.connection else {
            return Ok(()); // untracked: no rule depends on which packet it is
        };
        let by_tunnel = matches!(there.entry, Entry::Link(link) if *link == end.tunnel);
        let called = if by_tunnel {
            end.owner(there.packet.destination)
        } else {
            None
        };
        let answer = match called {
            Some((peer, network)) => {
                self.tunnel(GATEWAY, there.packet.destination, peer, network);
                let answer = self.beyond(peer, lan, there.packet)?;
                self.is_answer = true;
                match end.owner(answer.source) {
                    Some((owner, _)) if owner.name == peer.name => answer,
                    Some(_) | None => {
                        return Err(format!(
                            "the answer comes from {}, which is no network of {}",
                            answer.source, peer.name
                        ));
                    }
                }
            }
            None if by_tunnel => {
                let destination = there.packet.destination;
                return Err(format!("no peer of the gateway has {destination}"));
            }
            None => there.packet.reversed(),
        };
        self.is_answer = true;
        let back = self.pass(GATEWAY, &host, there.entry, answer, Some(&connection))?;
        let back_by_tunnel = matches!(back.entry, Entry::Link(link) if *link == end.tunnel);
        let to_caller = end
            .owner(back.packet.destination)
            .map(|(peer, _)| &peer.name);
        let is_with_caller = match entry {
            Entry::Own => matches!(back.entry, Entry::Own),
            Entry::Link(link) if *link == end.tunnel => {
                back_by_tunnel && to_caller == caller.map(|(peer, _)| &peer.name)
            }
            Entry::Link(_) => !back_by_tunnel && matches!(back.entry, Entry::Link(_)),
        };
        answers(call, back.packet, is_with_caller)
    }

    /// Behind a peer of the gateway. Returns the answer as it comes out of the tunnel.
    fn beyond(&mut self, peer: &Peer, lan: &[LanEnd], call: Packet) -> Result<Packet, String> {
        let known = lan.iter().find(|lan| lan.name.as_ref() == Some(&peer.name));
        if let Some(lan) = known {
            return self.there_and_back(lan, call);
        }
        if peer.is_lan_server {
            self.not_looked_at = Some(peer.name.clone());
        }
        Ok(call.reversed())
    }

    fn by_lan_server(&mut self, lan: &LanEnd, call: Packet) -> Result<(), String> {
        let answer = self.there_and_back(lan, call)?;
        answers(call, answer, true)
    }

    /// Out of the tunnel into the LAN, and the answer back into the tunnel.
    fn there_and_back(&mut self, lan: &LanEnd, call: Packet) -> Result<Packet, String> {
        let label = lan.label();
        let end = &lan.end;
        let Some((peer, network)) = end.owner(call.source) else {
            let source = call.source;
            return Err(format!(
                "{label} takes nothing from {source} out of the tunnel: it is neither in the tunnel network nor in \
                 the `from` of a publish"
            ));
        };
        self.tunnel(&label, call.source, peer, network);
        let there = self.pass(&label, &end.host, Entry::Link(&end.tunnel), call, None)?;
        if matches!(there.entry, Entry::Link(link) if *link == end.tunnel) {
            let destination = there.packet.destination;
            return Err(format!("{label} has {destination} only by the tunnel"));
        }
        self.is_answer = true;
        let connection = there.connection.as_ref();
        let answer = there.packet.reversed();
        let back = self.pass(&label, &end.host, there.entry, answer, connection)?;
        let by_tunnel = matches!(back.entry, Entry::Link(link) if *link == end.tunnel);
        let destination = back.packet.destination;
        match end.owner(destination).filter(|_| by_tunnel) {
            Some((peer, network)) => {
                self.tunnel(&label, destination, peer, network);
                Ok(back.packet)
            }
            None => Err(format!(
                "the answer to {destination} does not go into the tunnel on {label}"
            )),
        }
    }

    /// Through one host. The entry of what comes back is where the packet has gone.
    fn pass<'h>(
        &mut self,
        label: &str,
        host: &'h Host,
        entry: Entry<'_>,
        packet: Packet,
        known: Option<&Connection>,
    ) -> Result<Arrival<'h>, String> {
        let passage = host.pass(entry, packet, known);
        let steps = passage.steps.into_iter().map(|step| TraceStep {
            end: label.to_owned(),
            answer: self.is_answer,
            place: step.chain,
            text: step.rule,
            outcome: step.outcome,
            note: step.note,
        });
        self.steps.extend(steps);
        let subject = if self.is_answer { "the answer is " } else { "" };
        match passage.end {
            End::DroppedByRule => Err(match self.steps.last() {
                Some(step) => format!("{subject}dropped by rule {}", of_chain(step)),
                None => format!("{subject}dropped on {label}"),
            }),
            End::Dropped(reason) => {
                self.step(label, "route", reason.clone(), Outcome::Drop);
                Err(format!("{subject}dropped on {label}: {reason}"))
            }
            End::Delivered(packet) => {
                let text = format!("{} is this host", packet.destination);
                self.route(label, text);
                Ok(Arrival {
                    packet,
                    entry: Entry::Own,
                    connection: passage.connection,
                })
            }
            End::Sent { link, packet } => {
                let destination = packet.destination;
                self.route(
                    label,
                    format!("{destination} is reached by {}", told(&link)),
                );
                // The name as the host itself has it.
                let link = host.link_named(&link);
                Ok(Arrival {
                    packet,
                    entry: link.map_or(Entry::Own, Entry::Link),
                    connection: passage.connection,
                })
            }
        }
    }

    fn tunnel(&mut self, label: &str, address: IpAddr, peer: &Peer, network: IpNetwork) {
        let of = if network.prefix() == Family::of(address).bits() {
            String::new()
        } else {
            format!(" ({network})")
        };
        let text = format!("{address} belongs to {}{of}", peer.name);
        self.step(label, "tunnel", text, Outcome::GoesOn);
    }

    fn route(&mut self, label: &str, text: String) {
        self.step(label, "route", text, Outcome::GoesOn);
    }

    fn step(&mut self, label: &str, place: &str, text: String, outcome: Outcome) {
        self.steps.push(TraceStep {
            end: label.to_owned(),
            answer: self.is_answer,
            place: place.to_owned(),
            text,
            outcome,
            note: None,
        });
    }

    /// The rule that let the call pass last.
    fn accepted_by(&self) -> String {
        let mut accepting = self.steps.iter().rev();
        let accepting = accepting.find(|step| step.outcome == Outcome::Accept && !step.answer);
        accepting.map_or_else(
            || "no rule of ours stops it".to_owned(),
            |step| format!("accepted by rule {}", of_chain(step)),
        )
    }
}

fn of_chain(step: &TraceStep) -> String {
    let TraceStep {
        end, place, text, ..
    } = step;
    format!("`{text}` of chain {place} on {end}")
}

/// A link for a reader.
fn told(link: &InterfaceName) -> String {
    if *link == InterfaceName::of_default_route() {
        "the link of the default route".to_owned()
    } else {
        link.to_string()
    }
}

/// The gateway with the internet behind its link: the default route leads there, and what nothing else leads to is an address
/// of the gateway there, unless it is called out of the tunnel.
fn with_internet(end: &TunnelEnd, wan: &InterfaceName, call: Packet) -> Host {
    let called = call.destination;
    let host = end.host.clone();
    let is_elsewhere = host.is_local(called) || host.link_towards(called).is_some();
    let from_tunnel = end.owner(call.source).is_some() || host.is_local(call.source);
    let host = if is_elsewhere || from_tunnel {
        host
    } else {
        let prefix_len = Family::of(called).bits();
        let address = InterfaceAddress {
            address: called,
            prefix_len,
        };
        host.with_address(wan, address)
    };
    [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .fold(host.with_anonymous_link(wan), |host, family| {
            host.with_route(family.everything(), wan)
        })
}

/// Whether what comes back is the answer to what was called, and comes to who has called.
fn answers(call: Packet, answer: Packet, is_with_caller: bool) -> Result<(), String> {
    let (from, to) = (call.source, call.destination);
    if answer == call.reversed() && is_with_caller {
        Ok(())
    } else {
        let (source, destination) = (answer.source, answer.destination);
        Err(format!(
            "the answer of {to} to {from} comes back as one of {source} to {destination}, or by another way"
        ))
    }
}
