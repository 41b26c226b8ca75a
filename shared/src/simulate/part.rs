//! One match or statement of a rule. The only place that knows what each does; what the kernel does is in
//! `net/netfilter/nft_*.c`, named where it isn't plain.
use std::net::IpAddr;

use super::host::{Host, Own};
use super::packet::{Icmp, Packet, Payload};
use crate::config::common::PortRange;
use crate::model::InterfaceName;
use crate::plan::Ruleset;
use crate::plan::ruleset::{AddressRange, Family, Part, Side};

/// What rules look at and change.
#[derive(Debug)]
pub(super) struct Subject<'h> {
    pub(super) host: &'h Host,
    pub(super) input: Option<&'h InterfaceName>,
    pub(super) output: Option<&'h InterfaceName>,
    pub(super) packet: Packet,
    /// The packet's mark.
    pub(super) mark: u32,
    pub(super) tracking: Tracking,
}

/// What connection tracking says of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// It has not looked at it yet.
    NotYet,
    /// It will not, by `notrack`.
    Untracked,
    /// It belongs to this connection.
    Tracked(Tracked),
}

/// A connection from where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracked {
    /// Whether this is its first packet.
    pub(super) is_new: bool,
    /// Whether it comes from the end that did not open it.
    pub(super) is_reply: bool,
    pub(super) mark: u32,
    /// `IPS_DST_NAT`: its destination was changed.
    pub(super) has_dnat: bool,
}

/// What comes of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// The next part.
    Goes,
    /// The rule ends here: a match that fails, `NFT_BREAK`.
    Fails,
    /// A verdict.
    Is(Verdict),
}

/// A verdict, and what a reader should know of it beside the text of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept(Option<String>),
    Drop,
    Return,
    Jump { chain: String, by_map: bool },
}

/// The ports that a part looks at: to it, all others are alike.
pub(super) fn ports(part: &Part) -> &[PortRange] {
    match part {
        Part::Ports { ports, .. } => ports,
        Part::InputInterface { .. }
        | Part::OutputInterface { .. }
        | Part::Address { .. }
        | Part::AddressInSet { .. }
        | Part::NetworkFamily(_)
        | Part::TransportProtocol(_)
        | Part::EchoRequest(_)
        | Part::Redirect(_)
        | Part::DestinationIsLocal
        | Part::SourceNotRoutedVia(_)
        | Part::CtEstablishedRelated
        | Part::CtRelated
        | Part::CtDirectionReply
        | Part::CtNew
        | Part::CtInvalid
        | Part::CtStatusDnat
        | Part::CtMark { .. }
        | Part::SetCtMark { .. }
        | Part::SetMarkFromCt { .. }
        | Part::ClampMss
        | Part::Notrack
        | Part::Counter
        | Part::NamedCounter(_)
        | Part::Dnat { .. }
        | Part::Masquerade
        | Part::Snat(_)
        | Part::SourceVerdictMap { .. }
        | Part::Accept
        | Part::Drop
        | Part::Return
        | Part::Jump(_) => &[],
    }
}

impl Subject<'_> {
    pub(super) fn part(&mut self, ruleset: &Ruleset, part: &Part) -> Effect {
        match part {
            Part::InputInterface { name, negated } => compare(self.input == Some(name), *negated),
            Part::OutputInterface { name, negated } => compare(self.output == Some(name), *negated),
            Part::Address {
                side,
                network,
                negated,
            } => self.address(*side, Family::of_network(*network), *negated, |address| {
                network.contains(address)
            }),
            Part::AddressInSet {
                side,
                family,
                set,
                negated,
            } => self.address(*side, *family, *negated, |address| {
                let set = ruleset.sets.iter().find(|known| known.name == *set);
                set.is_some_and(|set| set.elements.iter().any(|n| n.contains(address)))
            }),
            Part::NetworkFamily(family) => when(self.packet.family() == *family),
            Part::Ports {
                protocol,
                side,
                ports,
            } => {
                let port = self.packet.port(*side);
                let listed = |port| ports.iter().any(|r| (r.first..=r.last).contains(&port));
                when(self.packet.protocol() == Some(*protocol) && port.is_some_and(listed))
            }
            Part::TransportProtocol(protocol) => when(self.packet.protocol() == Some(*protocol)),
            Part::EchoRequest(family) => self.icmp(*family, Icmp::EchoRequest),
            Part::Redirect(family) => self.icmp(*family, Icmp::Redirect),
            Part::DestinationIsLocal => when(self.host.is_local(self.packet.destination)),
            // Without the packet's mark, and no link at all for addresses of the host itself (`nft_fib4_eval`).
            Part::SourceNotRoutedVia(link) => {
                when(self.host.link_towards(self.packet.source) != Some(link))
            }
            // There are no packets of other connections here, which alone are `related`.
            Part::CtEstablishedRelated => when(self.tracked().is_some_and(|ct| !ct.is_new)),
            Part::CtRelated => Effect::Fails,
            Part::CtDirectionReply => when(self.tracked().is_some_and(|ct| ct.is_reply)),
            Part::CtNew => when(self.tracked().is_some_and(|ct| ct.is_new)),
            // A packet without connection is invalid before tracking has looked (`nft_ct_get_eval`).
            Part::CtInvalid => when(self.tracking == Tracking::NotYet),
            Part::CtStatusDnat => when(self.tracked().is_some_and(|ct| ct.has_dnat)),
            Part::CtMark {
                mask,
                value,
                negated,
            } => match self.tracked() {
                Some(ct) => compare(ct.mark & mask == *value, *negated),
                None => Effect::Fails,
            },
            Part::SetCtMark { keep, value } => match &mut self.tracking {
                Tracking::Tracked(ct) => {
                    ct.mark = (ct.mark & keep) | value;
                    Effect::Goes
                }
                // Bits that stay have to be read first.
                Tracking::NotYet | Tracking::Untracked => when(keep & !value == 0),
            },
            Part::SetMarkFromCt { mask } => match self.tracked() {
                Some(ct) => {
                    self.mark = ct.mark & mask;
                    Effect::Goes
                }
                None => Effect::Fails,
            },
            Part::ClampMss => match self.packet.payload {
                Payload::Tcp { syn, .. } => when(syn),
                Payload::Udp { .. } | Payload::Icmp(_) => Effect::Fails,
            },
            Part::Notrack => {
                // What is tracked stays so (`nft_notrack_eval`).
                if self.tracking == Tracking::NotYet {
                    self.tracking = Tracking::Untracked;
                }
                Effect::Goes
            }
            Part::Counter | Part::NamedCounter(_) => Effect::Goes,
            Part::Dnat { address, port } => self.dnat(*address, *port),
            Part::Masquerade => self.masquerade(),
            Part::Snat(addresses) => self.snat(*addresses),
            Part::SourceVerdictMap { family, map } => self.look_up(ruleset, *family, map),
            Part::Accept => Effect::Is(Verdict::Accept(None)),
            Part::Drop => Effect::Is(Verdict::Drop),
            Part::Return => Effect::Is(Verdict::Return),
            Part::Jump(chain) => Effect::Is(Verdict::Jump {
                chain: chain.clone(),
                by_map: false,
            }),
        }
    }

    fn tracked(&self) -> Option<Tracked> {
        match self.tracking {
            Tracking::Tracked(ct) => Some(ct),
            Tracking::NotYet | Tracking::Untracked => None,
        }
    }

    /// A comparison in the header of a family fails in the other one, also when it is negated.
    fn address(
        &self,
        side: Side,
        family: Family,
        negated: bool,
        matches: impl FnOnce(IpAddr) -> bool,
    ) -> Effect {
        if self.packet.family() != family {
            return Effect::Fails;
        }
        compare(matches(self.packet.address(side)), negated)
    }

    fn icmp(&self, family: Family, message: Icmp) -> Effect {
        when(self.packet.family() == family && self.packet.payload == Payload::Icmp(message))
    }

    /// Skips packets of the other family (`nft_nat_inet_eval`), and ends the chain as `accept` does.
    fn dnat(&mut self, address: IpAddr, port: Option<u16>) -> Effect {
        if self.packet.family() != Family::of(address) {
            return Effect::Goes;
        }
        let before = self.packet;
        self.packet.rewrite(Side::Destination, address, port);
        if let Tracking::Tracked(ct) = &mut self.tracking {
            ct.has_dnat |= self.packet != before;
        }
        Effect::Is(Verdict::Accept(None))
    }

    /// Takes the address of the link over which the packet leaves (`nf_nat_masquerade_ipv4`).
    fn masquerade(&mut self) -> Effect {
        let Some(link) = self.output else {
            return Effect::Is(Verdict::Drop);
        };
        let note = match self.host.own_address(link, self.packet.destination) {
            Own::Address(own) => {
                self.packet.rewrite(Side::Source, own, None);
                format!("the source is {own} now")
            }
            Own::Unknown => "the source is an address of this host now".to_owned(),
            Own::None => return Effect::Is(Verdict::Drop),
        };
        Effect::Is(Verdict::Accept(Some(note)))
    }

    /// Skips packets of the other family, as [`Self::dnat`] does. Which of the addresses is taken hangs on a number that the kernel
    /// draws at boot (`nf_nat_hash_rnd`); the first one stands for them.
    fn snat(&mut self, addresses: AddressRange) -> Effect {
        if self.packet.family() != addresses.family() {
            return Effect::Goes;
        }
        self.packet.rewrite(Side::Source, addresses.first(), None);
        let note = if addresses.count() == 1 {
            format!("the source is {addresses} now")
        } else {
            format!("the source is one of {addresses} now")
        };
        Effect::Is(Verdict::Accept(Some(note)))
    }

    fn look_up(&self, ruleset: &Ruleset, family: Family, map: &str) -> Effect {
        if self.packet.family() != family {
            return Effect::Fails;
        }
        let map = ruleset.maps.iter().find(|known| known.name == map);
        let element = map.and_then(|map| {
            let place = map
                .elements
                .binary_search_by_key(&self.packet.source, |(address, _)| *address);
            map.elements.get(place.ok()?)
        });
        element.map_or(Effect::Fails, |(_, chain)| {
            Effect::Is(Verdict::Jump {
                chain: chain.to_string(),
                by_map: true,
            })
        })
    }
}

const fn when(matches: bool) -> Effect {
    if matches { Effect::Goes } else { Effect::Fails }
}

const fn compare(matches: bool, negated: bool) -> Effect {
    when(matches != negated)
}
