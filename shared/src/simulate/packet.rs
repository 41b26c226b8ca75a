//! A packet as rules see it.
use std::net::IpAddr;

use crate::config::common::Protocol;
use crate::plan::ruleset::{Family, Side};

/// A whole packet; fragments are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Source.
    pub source: IpAddr,
    /// Destination, of the family of the source.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// TCP.
    Tcp {
        /// Port of the source.
        source_port: u16,
        /// Port of the destination.
        destination_port: u16,
        /// Whether the flag SYN is set: in the first packet of either direction.
        syn: bool,
    },
    /// UDP.
    Udp {
        /// Port of the source.
        source_port: u16,
        /// Port of the destination.
        destination_port: u16,
    },
    /// ICMP, or its like in a packet of IPv6.
    Icmp(Icmp),
}

/// Messages of ICMP that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Icmp {
    /// The question of ping.
    EchoRequest,
    /// Its answer.
    EchoReply,
    /// There is a shorter way.
    Redirect,
}

impl Packet {
    /// The first packet of a connection.
    pub const fn opening(protocol: Protocol, from: (IpAddr, u16), to: (IpAddr, u16)) -> Self {
        let (source_port, destination_port) = (from.1, to.1);
        Self {
            source: from.0,
            destination: to.0,
            payload: match protocol {
                Protocol::Tcp => Payload::Tcp {
                    source_port,
                    destination_port,
                    syn: true,
                },
                Protocol::Udp => Payload::Udp {
                    source_port,
                    destination_port,
                },
            },
        }
    }

    /// A later packet of an open connection.
    #[must_use]
    pub const fn later(protocol: Protocol, from: (IpAddr, u16), to: (IpAddr, u16)) -> Self {
        let mut packet = Self::opening(protocol, from, to);
        if let Payload::Tcp { syn, .. } = &mut packet.payload {
            *syn = false;
        }
        packet
    }

    /// Whether it has addresses, protocol and ports of another, as connection tracking compares them.
    pub(super) fn is_of_same_tuple(&self, other: &Self) -> bool {
        let what = |packet: &Self| match packet.payload {
            Payload::Tcp { .. } | Payload::Udp { .. } => None,
            Payload::Icmp(message) => Some(message),
        };
        let tuple = |packet: &Self| {
            let ports = [Side::Source, Side::Destination].map(|side| packet.port(side));
            (packet.protocol(), ports, what(packet))
        };
        self.source == other.source
            && self.destination == other.destination
            && tuple(self) == tuple(other)
    }

    /// Family of its addresses.
    pub const fn family(&self) -> Family {
        Family::of(self.source)
    }

    /// One of its addresses.
    pub const fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        }
    }

    /// Its transport protocol, if that is one with ports.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self.payload {
            Payload::Tcp { .. } => Some(Protocol::Tcp),
            Payload::Udp { .. } => Some(Protocol::Udp),
            Payload::Icmp(_) => None,
        }
    }

    /// One of its ports, if it has some.
    pub const fn port(&self, side: Side) -> Option<u16> {
        match (self.payload, side) {
            (Payload::Tcp { source_port, .. } | Payload::Udp { source_port, .. }, Side::Source) => {
                Some(source_port)
            }
            (
                Payload::Tcp {
                    destination_port, ..
                }
                | Payload::Udp {
                    destination_port, ..
                },
                Side::Destination,
            ) => Some(destination_port),
            (Payload::Icmp(_), _) => None,
        }
    }

    /// Give it another address and, where one is said, another port.
    pub(super) fn rewrite(&mut self, side: Side, address: IpAddr, port: Option<u16>) {
        match side {
            Side::Source => self.source = address,
            Side::Destination => self.destination = address,
        }
        let Some(port) = port else { return };
        match (&mut self.payload, side) {
            (Payload::Tcp { source_port, .. } | Payload::Udp { source_port, .. }, Side::Source) => {
                *source_port = port;
            }
            (
                Payload::Tcp {
                    destination_port, ..
                }
                | Payload::Udp {
                    destination_port, ..
                },
                Side::Destination,
            ) => *destination_port = port,
            (Payload::Icmp(_), _) => {}
        }
    }

    /// The packet that answers it.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            payload: match self.payload {
                Payload::Tcp {
                    source_port,
                    destination_port,
                    syn,
                } => Payload::Tcp {
                    source_port: destination_port,
                    destination_port: source_port,
                    syn,
                },
                Payload::Udp {
                    source_port,
                    destination_port,
                } => Payload::Udp {
                    source_port: destination_port,
                    destination_port: source_port,
                },
                Payload::Icmp(Icmp::EchoRequest) => Payload::Icmp(Icmp::EchoReply),
                Payload::Icmp(other) => Payload::Icmp(other),
            },
        }
    }
}
