//! Matches and targets of iptables, which `iptables-nft` keeps as they are where nftables has none of its own: a name and a
//! structure of the kernel's `include/uapi/linux/netfilter/xt_*.h`.
use std::ops::RangeInclusive;

use super::instruction::Translation;

/// A match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// `-m comment`: it always matches.
    Comment,
    /// `-m conntrack --ctstate`, `-m state`.
    State { mask: States, inverted: bool },
    /// `-m addrtype`: bits by `RTN_*`; 0 asks for none.
    AddressType {
        source: u16,
        destination: u16,
        inverted: [bool; 2],
    },
    /// `-m tcp`, `-m udp`, `-m multiport`.
    Ports {
        side: Side,
        ranges: Vec<RangeInclusive<u16>>,
        inverted: bool,
    },
    /// Several ports, each with its side.
    All(Vec<Match>),
    /// One that we don't know.
    Unknown(String),
}

/// Which port of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
    Either,
}

/// Bits of a state mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) established: bool,
    pub(crate) new: bool,
    pub(crate) untracked: bool,
    pub(crate) source_nat: bool,
    pub(crate) destination_nat: bool,
}

/// What a target does to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetEnd {
    /// The rule is done, the next one follows.
    Continues,
    /// `REJECT`.
    Rejects,
    /// Addresses are translated, which ends the chain.
    Translates(Translation),
    /// It can't be said.
    Unknown,
}

/// What a target of this name does.
pub(crate) fn end_of(target: &str) -> TargetEnd {
    match target {
        "REJECT" => TargetEnd::Rejects,
        "SNAT" | "MASQUERADE" => TargetEnd::Translates(Translation::Source),
        "DNAT" | "REDIRECT" => TargetEnd::Translates(Translation::Destination),
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CONNMARK" | "CONNSECMARK" | "CT" | "DSCP" | "LOG"
        | "MARK" | "NFLOG" | "NOTRACK" | "RATEEST" | "SECMARK" | "SET" | "TCPMSS"
        | "TCPOPTSTRIP" | "TEE" | "TOS" | "TRACE" | "TTL" | "HL" => TargetEnd::Continues,
        _ => TargetEnd::Unknown,
    }
}

/// Reads a match.
pub(crate) fn decode(name: &str, revision: u32, info: &[u8]) -> Match {
    let known = match (name, revision) {
        ("comment", _) => Some(Match::Comment),
        ("conntrack", 2 | 3) => conntrack(info),
        ("state", 0) => state(info),
        ("addrtype", 1) => address_type(info),
        ("tcp", 0) => tcp(info),
        ("udp", 0) => udp(info),
        ("multiport", 1) => multiport(info),
        _ => None,
    };
    known.unwrap_or_else(|| Match::Unknown(name.to_owned()))
}

/// `struct xt_conntrack_mtinfo2` and `…3`: six addresses with masks (128 bytes), two times, protocol and ports, then these.
fn conntrack(info: &[u8]) -> Option<Match> {
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATE_MASK: usize = 150;
    /// `XT_CONNTRACK_STATE`, and the flag that says that it was written as `-m state`.
    const STATE: u16 = 1;
    const STATE_ALIAS: u16 = 1 << 13;
    if half(info, MATCH_FLAGS)? & !STATE_ALIAS != STATE {
        return None;
    }
    let mask = half(info, STATE_MASK)?;
    Some(Match::State {
        mask: States {
            established: mask & (1 << 1) != 0,
            new: mask & (1 << 3) != 0,
            source_nat: mask & (1 << 6) != 0,
            destination_nat: mask & (1 << 7) != 0,
            untracked: mask & (1 << 8) != 0,
        },
        inverted: half(info, INVERT_FLAGS)? & STATE != 0,
    })
}

/// `struct xt_state_info`.
fn state(info: &[u8]) -> Option<Match> {
    let mask = half(info, if cfg!(target_endian = "little") { 0 } else { 2 })?;
    Some(Match::State {
        mask: States {
            established: mask & (1 << 1) != 0,
            new: mask & (1 << 3) != 0,
            untracked: mask & (1 << 6) != 0,
            ..States::default()
        },
        inverted: false,
    })
}

/// `struct xt_addrtype_info_v1`.
fn address_type(info: &[u8]) -> Option<Match> {
    const FLAGS: usize = 4;
    const INVERT_SOURCE: u32 = 1;
    const INVERT_DESTINATION: u32 = 2;
    let flags = u32::from_ne_bytes(info.get(FLAGS..FLAGS + 4)?.try_into().ok()?);
    // Others ask for addresses of one link alone.
    (flags & !(INVERT_SOURCE | INVERT_DESTINATION) == 0).then_some(())?;
    Some(Match::AddressType {
        source: half(info, 0)?,
        destination: half(info, 2)?,
        inverted: [flags & INVERT_SOURCE != 0, flags & INVERT_DESTINATION != 0],
    })
}

/// `struct xt_tcp`.
fn tcp(info: &[u8]) -> Option<Match> {
    const OPTION: usize = 8;
    const FLAG_MASK: usize = 9;
    const INVERTED: usize = 11;
    let asks_for_more = *info.get(OPTION)? != 0 || *info.get(FLAG_MASK)? != 0;
    (!asks_for_more).then_some(())?;
    both_ports(info, *info.get(INVERTED)?)
}

/// `struct xt_udp`.
fn udp(info: &[u8]) -> Option<Match> {
    const INVERTED: usize = 8;
    both_ports(info, *info.get(INVERTED)?)
}

/// Two ranges: of the source, of the destination.
fn both_ports(info: &[u8], inverted: u8) -> Option<Match> {
    let range = |at, side, bit| {
        Some(Match::Ports {
            side,
            ranges: vec![half(info, at)?..=half(info, at + 2)?],
            inverted: inverted & bit != 0,
        })
    };
    Some(Match::All(vec![
        range(0, Side::Source, 1)?,
        range(4, Side::Destination, 2)?,
    ]))
}

/// `struct xt_multiport_v1`.
fn multiport(info: &[u8]) -> Option<Match> {
    const COUNT: usize = 1;
    const PORTS: usize = 2;
    const IS_FIRST_OF_RANGE: usize = PORTS + 2 * MOST;
    const INVERTED: usize = IS_FIRST_OF_RANGE + MOST;
    const MOST: usize = 15;
    let count = usize::from(*info.get(COUNT)?).min(MOST);
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < count {
        let first = half(info, PORTS + 2 * at)?;
        let is_range = *info.get(IS_FIRST_OF_RANGE + at)? != 0;
        at += usize::from(is_range);
        ranges.push(first..=half(info, PORTS + 2 * at)?);
        at += 1;
    }
    Some(Match::Ports {
        side: match info.first()? {
            0 => Side::Source,
            1 => Side::Destination,
            _ => Side::Either,
        },
        ranges,
        inverted: *info.get(INVERTED)? != 0,
    })
}

/// Two bytes in the order of this machine.
fn half(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            name in prop::sample::select(vec!["conntrack", "state", "addrtype", "tcp", "udp", "multiport"]),
            revision in 0_u32..4, info in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(name, revision, &info);
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(decode("owner", 1, &[]), Match::Unknown("owner".to_owned()));
        assert_eq!(end_of("TARPIT"), TargetEnd::Unknown);
    }
}
