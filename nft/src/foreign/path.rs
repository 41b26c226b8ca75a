//! A packet of ours on its way through the hooks, as far as it is known beforehand.
use std::net::IpAddr;

use shared::config::common::Protocol;
use shared::model::InterfaceName;
use shared::plan::ruleset::{Family, Hook, priority};

use super::bits::Bits;
use super::instruction::Source;
use super::remedy::Purpose;

/// Where connection tracking begins (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK: i32 = -200;
/// `RTN_UNICAST` and `RTN_LOCAL`.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
/// The index of a link that is not there yet: none that is has it.
const NO_INDEX: u32 = 0x7fff_ffff;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: InterfaceName,
    /// Number; `None` for one that is not there yet.
    pub index: Option<u32>,
}

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// The first of its connection.
    New,
    /// An answer to one that was let through.
    Answer,
    /// Connection tracking was told to leave it alone.
    Untracked,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through this host.
    Forwarded,
    /// To this host.
    Received,
}

/// A packet: what stands in it where it is forwarded or received. `None` is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What it is to us.
    pub purpose: Purpose,
    /// Where it goes.
    pub way: Way,
    /// Where it comes in.
    pub input: Option<Link>,
    /// Where it goes out.
    pub output: Option<Link>,
    /// Family.
    pub family: Family,
    /// Protocol.
    pub protocol: Protocol,
    /// Source.
    pub source: Option<IpAddr>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination.
    pub destination: Option<IpAddr>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Its connection.
    pub tracking: Tracking,
    /// Of a connection that DNAT sends on: the port that was called, on an address of this host.
    pub called_port: Option<u16>,
    /// Whether a source address of ours takes the place of the caller's.
    pub masqueraded: bool,
    /// Index of the link that packets to the source go out by; `None` is not known.
    pub way_back: Option<u32>,
}

impl Path {
    /// The hooks that it passes where others may stand in its way.
    pub(crate) const fn hooks(&self) -> &'static [Hook] {
        match self.way {
            Way::Forwarded => &[Hook::Prerouting, Hook::Forward, Hook::Postrouting],
            Way::Received => &[Hook::Prerouting, Hook::Input],
        }
    }

    /// What is known of it for a chain of this hook and priority: addresses and ports are those of before and after NAT.
    pub(crate) fn at(&self, hook: Hook, at: i32) -> Packet<'_> {
        let mut packet = Packet {
            path: self,
            input: self.input.as_ref(),
            output: self.output.as_ref(),
            source: self.source,
            source_port: self.source_port,
            destination: self.destination,
            destination_port: self.destination_port,
            destination_type: Some(match self.way {
                Way::Forwarded => UNICAST,
                Way::Received => LOCAL,
            }),
            tracking: Some(self.tracking),
            is_translated: Some(self.called_port.is_some()),
        };
        match hook {
            Hook::Prerouting => packet.before_routing(at),
            // Whether a packet still says where it came in, depends on the kernel.
            Hook::Postrouting => packet.after_routing(at),
            Hook::Input | Hook::Forward | Hook::Output => {}
        }
        if matches!(self.way, Way::Received) {
            packet.output = None;
        }
        packet
    }
}

/// A packet at one place.
#[derive(Debug, Clone)]
pub(crate) struct Packet<'a> {
    path: &'a Path,
    input: Option<&'a Link>,
    output: Option<&'a Link>,
    source: Option<IpAddr>,
    source_port: Option<u16>,
    destination: Option<IpAddr>,
    destination_port: Option<u16>,
    destination_type: Option<u8>,
    /// `None` before connection tracking has seen it.
    pub(crate) tracking: Option<Tracking>,
    /// Whether DNAT was done for its connection; `None` is not known.
    pub(crate) is_translated: Option<bool>,
}

impl Packet<'_> {
    fn before_routing(&mut self, at: i32) {
        self.output = None;
        // Whoever has the priority of NAT may come before or after it.
        let before_nat = at <= priority::DSTNAT;
        let certainly = at < priority::DSTNAT;
        if at <= CONNTRACK && self.path.tracking != Tracking::Untracked {
            self.tracking = None;
        }
        if at <= priority::RAW && self.path.tracking == Tracking::Untracked {
            self.tracking = None;
        }
        match (self.path.tracking, self.path.called_port) {
            (Tracking::New, Some(called)) if before_nat => {
                let is_same = self.destination_port == Some(called);
                self.destination = None;
                self.destination_port = (certainly || is_same).then_some(called);
                self.destination_type = certainly.then_some(LOCAL);
                self.is_translated = certainly.then_some(false);
            }
            // The destination of an answer is put back here.
            (Tracking::Answer, _) if before_nat && self.path.masqueraded => {
                self.destination = None;
                self.destination_port = None;
                self.destination_type = None;
            }
            (Tracking::New | Tracking::Answer | Tracking::Untracked, _) => {}
        }
    }

    fn after_routing(&mut self, at: i32) {
        self.input = None;
        if at < priority::SRCNAT {
            return;
        }
        let is_changed = match self.path.tracking {
            Tracking::New => self.path.masqueraded,
            Tracking::Answer => self.path.called_port.is_some(),
            Tracking::Untracked => false,
        };
        if is_changed {
            self.source = None;
            self.source_port = None;
        }
    }

    pub(crate) const fn ports(&self) -> [Option<u16>; 2] {
        [self.source_port, self.destination_port]
    }

    /// `RTN_*` of source and destination.
    pub(crate) fn address_types(&self) -> [Option<u8>; 2] {
        [self.source.map(|_| UNICAST), self.destination_type]
    }

    /// The value that a register gets; `Err` when the rule ends because there is none.
    pub(crate) fn load(&self, source: &Source) -> Result<Bits, NoValue> {
        Ok(match source {
            Source::Payload { base, offset, len } => {
                let (offset, len) = (*offset as usize, *len as usize);
                match base {
                    1 => self.network_header().part(offset, len),
                    2 => self.transport_header().part(offset, len),
                    _ => Bits::unknown(len),
                }
            }
            Source::Meta(key) => self.meta(*key),
            Source::Ct { key, .. } => return self.ct(*key),
            Source::Fib { result, flags } => self.fib(*result, *flags),
            Source::Other(_) => Bits::unknown(LONGEST),
        })
    }

    fn protocol_number(&self) -> u8 {
        match self.path.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// RFC 791 §3.1, RFC 8200 §3: version, protocol, addresses, and that it is whole.
    fn network_header(&self) -> Bits {
        let address = |address: Option<IpAddr>, len| match address {
            Some(IpAddr::V4(address)) => Bits::known(&address.octets()),
            Some(IpAddr::V6(address)) => Bits::known(&address.octets()),
            None => Bits::unknown(len),
        };
        match self.path.family {
            Family::Ipv4 => {
                let mut header = Bits::unknown(60);
                header.put(0, &Bits::partly(&[0x40], &[0xf0]));
                // Flags and fragment offset, but for *don't fragment*.
                header.put(6, &Bits::partly(&[0, 0], &[0xbf, 0xff]));
                header.put(9, &Bits::known(&[self.protocol_number()]));
                header.put(12, &address(self.source, 4));
                header.put(16, &address(self.destination, 4));
                header
            }
            Family::Ipv6 => {
                let mut header = Bits::unknown(40);
                header.put(0, &Bits::partly(&[0x60], &[0xf0]));
                header.put(6, &Bits::known(&[self.protocol_number()]));
                header.put(8, &address(self.source, 16));
                header.put(24, &address(self.destination, 16));
                header
            }
        }
    }

    fn transport_header(&self) -> Bits {
        /// Where TCP has its flags (RFC 9293 §3.1), and the one of the first segment.
        const TCP_FLAGS: usize = 13;
        const SYN: u8 = 0x02;
        let port =
            |port: Option<u16>| port.map_or(Bits::unknown(2), |p| Bits::known(&p.to_be_bytes()));
        let mut header = Bits::unknown(60);
        header.put(0, &port(self.source_port));
        header.put(2, &port(self.destination_port));
        if self.path.protocol == Protocol::Tcp && self.path.tracking == Tracking::New {
            header.put(TCP_FLAGS, &Bits::partly(&[SYN], &[0x3f]));
        }
        header
    }

    /// `NFT_META_*`.
    fn meta(&self, key: u32) -> Bits {
        const ETHERTYPE_IPV4: u16 = 0x0800;
        const ETHERTYPE_IPV6: u16 = 0x86dd;
        const NFPROTO_IPV4: u8 = 2;
        const NFPROTO_IPV6: u8 = 10;
        /// `PACKET_HOST`.
        const TO_US: u8 = 0;
        let is_ipv4 = self.path.family == Family::Ipv4;
        match key {
            1 if is_ipv4 => Bits::known(&ETHERTYPE_IPV4.to_be_bytes()),
            1 => Bits::known(&ETHERTYPE_IPV6.to_be_bytes()),
            4 => index(self.input),
            5 => index(self.output),
            6 => name(self.input),
            7 => name(self.output),
            15 => Bits::known(&[if is_ipv4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }]),
            16 => Bits::known(&[self.protocol_number()]),
            19 => Bits::known(&[TO_US]),
            _ => Bits::unknown(LONGEST),
        }
    }

    /// `NFT_CT_*`.
    fn ct(&self, key: u32) -> Result<Bits, NoValue> {
        const STATE: u32 = 0;
        /// `NF_CT_STATE_BIT(…)` and `NF_CT_STATE_UNTRACKED_BIT`.
        const ESTABLISHED: u32 = 1 << 1;
        const NEW: u32 = 1 << 3;
        const UNTRACKED: u32 = 1 << 6;
        /// `IPS_DST_NAT`.
        const DESTINATION_NAT: u32 = 1 << 5;
        let Some(tracking) = self.tracking else {
            return Ok(Bits::unknown(LONGEST));
        };
        let state = match tracking {
            Tracking::New => NEW,
            Tracking::Answer => ESTABLISHED,
            Tracking::Untracked => UNTRACKED,
        };
        match key {
            STATE => Ok(Bits::known(&state.to_ne_bytes())),
            _ if tracking == Tracking::Untracked => Err(NoValue),
            // Direction: that of the caller, or of the one who answers.
            1 => Ok(Bits::known(&[u8::from(tracking == Tracking::Answer)])),
            2 => Ok(match self.is_translated {
                Some(true) => Bits::partly(
                    &DESTINATION_NAT.to_ne_bytes(),
                    &DESTINATION_NAT.to_ne_bytes(),
                ),
                Some(false) => Bits::partly(&[0; 4], &DESTINATION_NAT.to_ne_bytes()),
                None => Bits::unknown(4),
            }),
            10 => Ok(Bits::known(&[self.protocol_number()])),
            _ => Ok(Bits::unknown(LONGEST)),
        }
    }

    /// `fib`: the type of the destination, and whether the source is reached by the link that the packet came in by.
    fn fib(&self, result: u32, flags: u32) -> Bits {
        const SOURCE: u32 = 1;
        const DESTINATION: u32 = 1 << 1;
        const MARK: u32 = 1 << 2;
        const INPUT: u32 = 1 << 3;
        const PRESENT: u32 = 1 << 5;
        const RESULT_LINK: u32 = 1;
        const RESULT_TYPE: u32 = 3;
        let by_link = flags & (MARK | INPUT | PRESENT);
        match (result, flags & !(MARK | INPUT | PRESENT)) {
            (RESULT_TYPE, DESTINATION) if by_link & INPUT == 0 => match self.destination_type {
                Some(kind) => Bits::known(&u32::from(kind).to_ne_bytes()),
                None => Bits::unknown(4),
            },
            (RESULT_LINK, SOURCE) if by_link & INPUT != 0 => {
                let input = self.input.map(|link| link.index.unwrap_or(NO_INDEX));
                match (input, self.path.way_back) {
                    (Some(input), Some(back)) => {
                        let found = if input == back { input } else { 0 };
                        let found = if by_link & PRESENT != 0 {
                            u32::from(found != 0)
                        } else {
                            found
                        };
                        Bits::known(&found.to_ne_bytes())
                    }
                    _ => Bits::unknown(4),
                }
            }
            _ => Bits::unknown(LONGEST),
        }
    }
}

/// There is no such value for this packet: the rule does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoValue;

/// The most that a register holds.
const LONGEST: usize = 16;

fn index(link: Option<&Link>) -> Bits {
    link.map_or(Bits::unknown(4), |link| {
        Bits::known(&link.index.unwrap_or(NO_INDEX).to_ne_bytes())
    })
}

/// `IFNAMSIZ` bytes, filled up with zeros.
fn name(link: Option<&Link>) -> Bits {
    let mut name = Bits::unknown(LONGEST);
    if let Some(link) = link {
        name.put(0, &Bits::known(&[0; LONGEST]));
        name.put(0, &Bits::known(link.name.as_str().as_bytes()));
    }
    name
}
