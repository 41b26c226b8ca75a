//! Whether an open connection goes on when a host gets another configuration: the packets that follow, in both directions,
//! through the rules of before and of after. What neither lets through was not open, whatever connection tracking holds.
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::host::Destination;
use super::packet::Packet;
use super::part;
use super::passage::{Connection, End, Entry, Step};
use super::walk::TunnelEnd;
use crate::config::common::PortRange;
use crate::model::InterfaceName;
use crate::plan::ruleset::Side;

/// One end with its configuration of now and another one.
#[derive(Debug)]
pub struct Transition {
    before: TunnelEnd,
    after: TunnelEnd,
    /// Ports that a rule of either looks at.
    ports: BTreeSet<PortRange>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its packets don't pass the tunnel, or not even now.
    NotOurs,
    /// It goes on.
    Stays,
    /// It ends.
    Cut {
        /// What ends it.
        cause: Cause,
        /// The peer that called, if one did.
        caller: Option<String>,
        /// The peer behind which the callee is.
        callee: Option<String>,
    },
}

/// What ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A rule drops its packets.
    Rule {
        /// Chain.
        chain: String,
        /// The rule, as `nft` lists it.
        rule: String,
    },
    /// An address of it belongs to another peer of the tunnel, or to none: cryptokey routing drops its packets.
    Peer,
    /// Its packets have another way, or none.
    Route,
}

/// Where packets come from, or go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here,
    Link(InterfaceName),
}

/// The two sides of a connection, as they are now.
struct Sides {
    caller: Place,
    callee: Place,
}

impl Transition {
    /// Both ends are to know the routes of their host.
    pub fn new(before: TunnelEnd, after: TunnelEnd) -> Self {
        let chains = [&before, &after].map(|end| &end.host.ruleset.chains);
        let rules = chains.into_iter().flatten().flat_map(|chain| &chain.rules);
        let parts = rules.flat_map(|rule| &rule.parts);
        let ports = parts.flat_map(part::ports).copied().collect();
        Self {
            before,
            after,
            ports,
        }
    }

    /// A connection that fares as this one does, and as all others do that differ only in ports that no rule looks at.
    #[must_use]
    pub fn representative(&self, connection: &Connection) -> Connection {
        Connection {
            original: self.without_ports(connection.original),
            answer: self.without_ports(connection.answer),
            ..*connection
        }
    }

    fn without_ports(&self, mut packet: Packet) -> Packet {
        for side in [Side::Source, Side::Destination] {
            let is_named = |port| {
                let mut ranges = self.ports.iter();
                ranges.any(|range| (range.first..=range.last).contains(&port))
            };
            if packet.port(side).is_some_and(|port| !is_named(port)) {
                // No range has port 0.
                packet.rewrite(side, packet.address(side), Some(0));
            }
        }
        packet
    }

    /// What becomes of a connection.
    pub fn fate(&self, connection: &Connection) -> Fate {
        let Some(sides) = self.sides(connection) else {
            return Fate::NotOurs;
        };
        let caller_address = connection.original.source;
        let callee_address = connection.answer.source;
        let tunnel = &self.before.tunnel;
        let (caller, callee) = (
            (&sides.caller, caller_address),
            (&sides.callee, callee_address),
        );
        let peer_of = |(place, address): (&Place, IpAddr)| match place {
            Place::Link(link) if link == tunnel => Some(owner(&self.before, address)),
            Place::Link(_) | Place::Here => None,
        };
        let peers = [caller, callee].map(peer_of);
        if peers.iter().all(Option::is_none) || peers.contains(&Some(None)) {
            return Fate::NotOurs;
        }
        let cause = [caller, callee]
            .into_iter()
            .zip(&peers)
            .find_map(|((_, address), peer)| {
                let peer = peer.as_ref()?;
                (owner(&self.after, address) != *peer).then_some(Cause::Peer)
            })
            .or_else(|| self.obstacle(connection, &sides));
        let [caller, callee] = peers.map(|peer| peer.flatten().map(str::to_owned));
        match cause {
            None => Fate::Stays,
            Some(cause) => Fate::Cut {
                cause,
                caller,
                callee,
            },
        }
    }

    /// The answers are looked at first: where the callee is, routes tell; where the caller is, perhaps only the mark of the
    /// connection does, which rules give to its answers.
    fn sides(&self, connection: &Connection) -> Option<Sides> {
        let host = &self.before.host;
        let callee = match host.route(connection.answer.source, 0) {
            Destination::Local => Place::Here,
            Destination::Link(link) => Place::Link(link.clone()),
            Destination::Nowhere => return None,
        };
        let caller = pass(&self.before, &callee, connection.answer, connection).ok()?;
        let reached = pass(&self.before, &caller, connection.original, connection).ok()?;
        (reached == callee).then_some(Sides { caller, callee })
    }

    /// What is in the way afterwards.
    fn obstacle(&self, connection: &Connection, sides: &Sides) -> Option<Cause> {
        let caller = self.afterwards(&sides.caller);
        let callee = self.afterwards(&sides.callee);
        let ways = [
            (&caller, connection.original, &callee),
            (&callee, connection.answer, &caller),
        ];
        ways.into_iter().find_map(|(from, packet, to)| {
            match pass(&self.after, from, packet, connection) {
                Ok(reached) if reached == *to => None,
                Ok(_) => Some(Cause::Route),
                Err(cause) => Some(cause),
            }
        })
    }

    /// The tunnel may get another name.
    fn afterwards(&self, place: &Place) -> Place {
        match place {
            Place::Link(link) if *link == self.before.tunnel => {
                Place::Link(self.after.tunnel.clone())
            }
            Place::Link(_) | Place::Here => place.clone(),
        }
    }
}

fn owner(end: &TunnelEnd, address: IpAddr) -> Option<&str> {
    end.owner(address).map(|(peer, _)| peer.name.as_str())
}

/// Where a packet of a connection gets to.
fn pass(
    end: &TunnelEnd,
    from: &Place,
    packet: Packet,
    connection: &Connection,
) -> Result<Place, Cause> {
    let entry = match from {
        Place::Here => Entry::Own,
        Place::Link(link) => Entry::Link(link),
    };
    let passage = end.host.pass(entry, packet, Some(connection));
    match passage.end {
        End::Delivered(_) => Ok(Place::Here),
        End::Sent { link, .. } => Ok(Place::Link(link)),
        End::Dropped(_) => Err(Cause::Route),
        End::DroppedByRule => Err(passage.steps.into_iter().next_back().map_or(
            Cause::Route,
            |Step { chain, rule, .. }| Cause::Rule { chain, rule },
        )),
    }
}
