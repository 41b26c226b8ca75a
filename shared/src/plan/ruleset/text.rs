//! A [`Ruleset`] in the syntax of nft, laid out as `nft list table` prints it.
//!
//! The text leaves out `flags owner,persist`: nft 1.0.6 (Debian 12) can't parse `persist`, and a table that `nft -f` made
//! as its owner would vanish when nft exits, since the owner is the netlink socket. The `nft` crate sets both flags on
//! the socket that it keeps.
use std::fmt;

use ipnetwork::IpNetwork;

use super::{
    BaseChain, Chain, ChainKind, Family, Hook, Part, Rule, Ruleset, Set, Side, VerdictMap,
    merged_ports, priority,
};
use crate::config::common::{PortRange, Protocol};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        let mut blocks: Vec<String> = Vec::new();
        blocks.extend(
            self.counters()
                .iter()
                .map(|name| format!("\tcounter {name} {{\n\t}}\n")),
        );
        blocks.extend(self.sets.iter().map(ToString::to_string));
        blocks.extend(self.maps.iter().map(ToString::to_string));
        blocks.extend(self.chains.iter().map(ToString::to_string));
        f.write_str(&blocks.join("\n"))?;
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\tset {} {{\n\t\ttype {}\n\t\tflags interval",
            self.name,
            self.family.datatype()
        )?;
        elements(f, self.family, &self.ranges())?;
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for VerdictMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\tmap {} {{\n\t\ttype {} : verdict",
            self.name,
            self.family.datatype()
        )?;
        let jumps: Vec<_> = self
            .elements
            .iter()
            .map(|(key, chain)| format!("{key} : jump {chain}"))
            .collect();
        elements(f, self.family, &jumps)?;
        writeln!(f, "\t}}")
    }
}

/// nft breaks the line after two IPv4 elements and after each IPv6 element.
fn elements(
    f: &mut fmt::Formatter<'_>,
    family: Family,
    elements: &[impl fmt::Display],
) -> fmt::Result {
    let per_line = match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 1,
    };
    for (index, element) in elements.iter().enumerate() {
        f.write_str(match index {
            0 => "\t\telements = { ",
            i if i % per_line == 0 => ",\n\t\t\t     ",
            _ => ", ",
        })?;
        write!(f, "{element}")?;
    }
    if elements.is_empty() {
        Ok(())
    } else {
        f.write_str(" }\n")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = &self.base {
            writeln!(f, "\t\t{base}")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "type {} hook {} priority ",
            self.kind.name(),
            self.hook.name()
        )?;
        write_priority(f, self.hook, self.priority)?;
        f.write_str("; policy accept;")
    }
}

/// nft names a priority by the nearest standard one within ±10 (`prio2str` in its `src/rule.c`).
fn write_priority(f: &mut fmt::Formatter<'_>, hook: Hook, value: i32) -> fmt::Result {
    let nearest = NAMED_PRIORITIES
        .iter()
        .filter(|(_, _, only)| only.is_none_or(|only| only == hook))
        .map(|(named, name, _)| (i64::from(value) - i64::from(*named), name))
        .find(|(offset, _)| offset.abs() <= 10);
    match nearest {
        Some((0, name)) => f.write_str(name),
        Some((offset, name)) if offset > 0 => write!(f, "{name} + {offset}"),
        Some((offset, name)) => write!(f, "{name} - {}", -offset),
        None => write!(f, "{value}"),
    }
}

/// Priority, its name, and the hook to which the name is restricted.
const NAMED_PRIORITIES: [(i32, &str, Option<Hook>); 6] = [
    (priority::RAW, "raw", None),
    (priority::MANGLE, "mangle", None),
    (priority::DSTNAT, "dstnat", Some(Hook::Prerouting)),
    (priority::FILTER, "filter", None),
    (50, "security", None),
    (priority::SRCNAT, "srcnat", Some(Hook::Postrouting)),
];

impl ChainKind {
    /// Name in nft's syntax, and in the kernel's `NFTA_CHAIN_TYPE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

impl Hook {
    /// Name in nft's syntax.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl Family {
    /// nft's type of an address: `ipv4_addr`.
    const fn datatype(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
        }
    }

    /// nft's header name: `ip`.
    const fn header(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    /// nft's value of `meta nfproto`.
    const fn nfproto(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Rule {
    /// The parts without the protocol matches that a later match implies: nft lists `meta nfproto ipv4 iifname "edge0"
    /// ip saddr 10.0.0.1` as `iifname "edge0" ip saddr 10.0.0.1`, and that is how the rule is written, too.
    pub fn essential_parts(&self) -> impl Iterator<Item = &Part> {
        let rest = |index: usize| self.parts.get(index + 1..).unwrap_or_default();
        let parts = self.parts.iter().enumerate();
        parts
            .filter(move |(index, part)| !part.is_implied_by(rest(*index)))
            .map(|(_, part)| part)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for part in self.essential_parts() {
            write!(f, "{space}{part}")?;
            space = " ";
        }
        match &self.comment {
            Some(comment) => write!(f, "{space}comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Part {
    /// The IP version that must be known before this part can be looked at.
    pub const fn implied_family(&self) -> Option<Family> {
        if let Self::Address { network, .. } = self {
            return Some(Family::of_network(*network));
        }
        if let Self::AddressInSet { family, .. }
        | Self::EchoRequest(family)
        | Self::Redirect(family)
        | Self::SourceVerdictMap { family, .. } = self
        {
            return Some(*family);
        }
        None
    }

    /// The transport protocol that must be known before this part can be looked at.
    pub const fn implied_protocol(&self) -> Option<Protocol> {
        if let Self::Ports { protocol, .. } = self {
            return Some(*protocol);
        }
        if matches!(self, Self::ClampMss) {
            Some(Protocol::Tcp)
        } else {
            None
        }
    }

    /// Whether nothing but matches stands between this protocol match and one that implies it.
    fn is_implied_by(&self, rest: &[Self]) -> bool {
        // `ClampMss` begins with a match on TCP.
        let mut matches = rest
            .iter()
            .take_while(|p| p.is_match() || p.implied_protocol().is_some());
        if let Self::NetworkFamily(family) = self {
            return matches.any(|p| p.implied_family() == Some(*family));
        }
        if let Self::TransportProtocol(protocol) = self {
            return matches.any(|p| p.implied_protocol() == Some(*protocol));
        }
        false
    }

    /// Whether the part only looks at the packet.
    pub const fn is_match(&self) -> bool {
        match self {
            Self::InputInterface { .. }
            | Self::OutputInterface { .. }
            | Self::Address { .. }
            | Self::AddressInSet { .. }
            | Self::NetworkFamily(_)
            | Self::Ports { .. }
            | Self::TransportProtocol(_)
            | Self::EchoRequest(_)
            | Self::Redirect(_)
            | Self::DestinationIsLocal
            | Self::SourceNotRoutedVia(_)
            | Self::CtEstablishedRelated
            | Self::CtRelated
            | Self::CtDirectionReply
            | Self::CtNew
            | Self::CtInvalid
            | Self::CtStatusDnat
            | Self::CtMark { .. }
            | Self::SourceVerdictMap { .. } => true,
            Self::SetCtMark { .. }
            | Self::SetMarkFromCt { .. }
            | Self::ClampMss
            | Self::Notrack
            | Self::Counter
            | Self::NamedCounter(_)
            | Self::Dnat { .. }
            | Self::Masquerade
            | Self::Snat(_)
            | Self::Accept
            | Self::Drop
            | Self::Return
            | Self::Jump(_) => false,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputInterface { name, negated } => {
                write!(f, "iifname {}\"{name}\"", not_equal(*negated))
            }
            Self::OutputInterface { name, negated } => {
                write!(f, "oifname {}\"{name}\"", not_equal(*negated))
            }
            Self::Address {
                side,
                network,
                negated,
            } => write_address(f, *side, *network, *negated),
            Self::AddressInSet {
                side,
                family,
                set,
                negated,
            } => {
                write!(
                    f,
                    "{} {} {}@{set}",
                    family.header(),
                    addr(*side),
                    not_equal(*negated)
                )
            }
            Self::NetworkFamily(family) => write!(f, "meta nfproto {}", family.nfproto()),
            Self::Ports {
                protocol,
                side,
                ports,
            } => {
                write!(f, "{protocol} {} ", port(*side))?;
                write_ports(f, &merged_ports(ports))
            }
            Self::TransportProtocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::EchoRequest(Family::Ipv4) => f.write_str("icmp type echo-request"),
            Self::EchoRequest(Family::Ipv6) => f.write_str("icmpv6 type echo-request"),
            Self::Redirect(Family::Ipv4) => f.write_str("icmp type redirect"),
            Self::Redirect(Family::Ipv6) => f.write_str("icmpv6 type nd-redirect"),
            Self::DestinationIsLocal => f.write_str("fib daddr type local"),
            Self::SourceNotRoutedVia(link) => write!(f, "fib saddr oifname != \"{link}\""),
            Self::CtEstablishedRelated => f.write_str("ct state established,related"),
            Self::CtRelated => f.write_str("ct state related"),
            Self::CtDirectionReply => f.write_str("ct direction reply"),
            Self::CtNew => f.write_str("ct state new"),
            Self::CtInvalid => f.write_str("ct state invalid"),
            Self::CtStatusDnat => f.write_str("ct status dnat"),
            Self::CtMark {
                mask,
                value,
                negated,
            } => write_ct_mark(f, *mask, *value, *negated),
            Self::SetCtMark { keep, value } => write_set_ct_mark(f, *keep, *value),
            Self::SetMarkFromCt { mask: u32::MAX } => f.write_str("meta mark set ct mark"),
            Self::SetMarkFromCt { mask } => write!(f, "meta mark set ct mark & 0x{mask:08x}"),
            Self::ClampMss => f.write_str("tcp flags syn tcp option maxseg size set rt mtu"),
            Self::Notrack => f.write_str("notrack"),
            Self::Counter => f.write_str("counter"),
            Self::NamedCounter(name) => write!(f, "counter name \"{name}\""),
            Self::Dnat { address, port } => {
                write!(f, "dnat {} to ", Family::of(*address).header())?;
                match (address, port) {
                    (_, None) => write!(f, "{address}"),
                    (_, Some(port)) if address.is_ipv4() => write!(f, "{address}:{port}"),
                    (_, Some(port)) => write!(f, "[{address}]:{port}"),
                }
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Snat(addresses) => {
                write!(f, "snat {} to {addresses}", addresses.family().header())
            }
            Self::SourceVerdictMap { family, map } => {
                write!(f, "{} saddr vmap @{map}", family.header())
            }
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

const fn not_equal(negated: bool) -> &'static str {
    if negated { "!= " } else { "" }
}

const fn addr(side: Side) -> &'static str {
    match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    }
}

const fn port(side: Side) -> &'static str {
    match side {
        Side::Source => "sport",
        Side::Destination => "dport",
    }
}

fn write_address(
    f: &mut fmt::Formatter<'_>,
    side: Side,
    network: IpNetwork,
    negated: bool,
) -> fmt::Result {
    let family = Family::of_network(network);
    write!(
        f,
        "{} {} {}{}",
        family.header(),
        addr(side),
        not_equal(negated),
        network.network()
    )?;
    if network.prefix() < family.bits() {
        write!(f, "/{}", network.prefix())?;
    }
    Ok(())
}

fn write_ports(f: &mut fmt::Formatter<'_>, ports: &[PortRange]) -> fmt::Result {
    match ports {
        [one] => write!(f, "{one}"),
        several => {
            let texts: Vec<_> = several.iter().map(ToString::to_string).collect();
            write!(f, "{{ {} }}", texts.join(", "))
        }
    }
}

/// nft lists a mask of leading ones as a prefix, and no mask when all bits count.
fn write_ct_mark(f: &mut fmt::Formatter<'_>, mask: u32, value: u32, negated: bool) -> fmt::Result {
    match mask.leading_ones() {
        32 => write!(f, "ct mark {}0x{value:08x}", not_equal(negated)),
        ones if ones == mask.count_ones() => {
            write!(f, "ct mark {}0x{value:08x}/{ones}", not_equal(negated))
        }
        _ if negated => write!(f, "ct mark & 0x{mask:08x} != 0x{value:08x}"),
        _ => write!(f, "ct mark & 0x{mask:08x} == 0x{value:08x}"),
    }
}

/// The kernel keeps `(mark & MASK) ^ XOR`, from which nft can't tell a kept bit from a set one: it lists every set bit
/// as kept, too.
fn write_set_ct_mark(f: &mut fmt::Formatter<'_>, keep: u32, value: u32) -> fmt::Result {
    match (keep | value, keep & !value, value) {
        (_, 0, _) => write!(f, "ct mark set 0x{value:08x}"),
        (u32::MAX, _, 0) => f.write_str("ct mark set ct mark"),
        (u32::MAX, _, _) => write!(f, "ct mark set ct mark | 0x{value:08x}"),
        (mask, _, 0) => write!(f, "ct mark set ct mark & 0x{mask:08x}"),
        (mask, _, _) => write!(f, "ct mark set ct mark & 0x{mask:08x} | 0x{value:08x}"),
    }
}

#[cfg(test)]
mod tests;
