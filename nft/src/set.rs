//! Sets and maps as plain data: what is wanted and what was read meet in the same form.
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nftnl_sys::libc;
use shared::config::common::PortRange;
use shared::plan::ruleset::{AddressRange, Family, Set, VerdictMap, merged_ports};

use crate::expr::verdict_bits;
use crate::sys::{Element, ElementTarget, SetHeader};

/// The name that asks the kernel to name an anonymous set.
pub(crate) const ANONYMOUS_NAME: &str = "__set%d";

pub(crate) const ANONYMOUS: u32 = libc::NFT_SET_ANONYMOUS.unsigned_abs();
pub(crate) const CONSTANT: u32 = libc::NFT_SET_CONSTANT.unsigned_abs();
pub(crate) const INTERVAL: u32 = libc::NFT_SET_INTERVAL.unsigned_abs();
pub(crate) const MAP: u32 = libc::NFT_SET_MAP.unsigned_abs();

/// What the elements of a set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Address(Family),
    /// `inet_service`.
    Port,
    /// Something that we never create, by nft's number of the type.
    Other(u32),
}

impl Key {
    /// nft's number of the type (`enum datatypes` of its `include/datatype.h`).
    const fn number(self) -> u32 {
        match self {
            Self::Address(Family::Ipv4) => 7,
            Self::Address(Family::Ipv6) => 8,
            Self::Port => 13,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            7 => Self::Address(Family::Ipv4),
            8 => Self::Address(Family::Ipv6),
            13 => Self::Port,
            other => Self::Other(other),
        }
    }

    /// Bytes of a key; 0 for one that we never create.
    pub(crate) const fn len(self) -> u32 {
        match self {
            Self::Address(Family::Ipv4) => 4,
            Self::Address(Family::Ipv6) => 16,
            Self::Port => 2,
            Self::Other(_) => 0,
        }
    }
}

/// A set or verdict map with its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetState {
    /// [`ANONYMOUS_NAME`] for an anonymous set.
    pub(crate) name: String,
    /// `NFT_SET_*`.
    pub(crate) flags: u32,
    pub(crate) key: Key,
    pub(crate) elements: BTreeSet<Element>,
}

impl SetState {
    /// A named interval set: `set cf4 { type ipv4_addr; flags interval; … }`.
    pub(crate) fn of_addresses(set: &Set) -> Self {
        let bounds = set
            .ranges()
            .into_iter()
            .map(|range| (octets(range.first()), range.after().map(octets)));
        Self {
            name: set.name.clone(),
            flags: INTERVAL,
            key: Key::Address(set.family),
            elements: interval_elements(bounds),
        }
    }

    /// A named verdict map: `map peers4 { type ipv4_addr : verdict; … }`.
    pub(crate) fn of_verdicts(map: &VerdictMap) -> Self {
        let element = |(address, chain): &(IpAddr, Arc<str>)| Element {
            key: octets(*address),
            starts: true,
            open: false,
            target: Some(ElementTarget {
                verdict: verdict_bits(libc::NFT_JUMP),
                chain: Some(chain.to_string()),
            }),
        };
        Self {
            name: map.name.clone(),
            flags: MAP,
            key: Key::Address(map.family),
            elements: map.elements.iter().map(element).collect(),
        }
    }

    /// An anonymous set of ports: `{ 53, 3000-3010 }`.
    pub(crate) fn of_ports(ports: &[PortRange]) -> Self {
        let ports = merged_ports(ports);
        let key = |port: u16| port.to_be_bytes().to_vec();
        let (flags, elements) = if ports.iter().all(|p| p.first == p.last) {
            (
                0,
                ports.iter().map(|p| value_element(key(p.first))).collect(),
            )
        } else {
            let bounds = ports
                .iter()
                .map(|p| (key(p.first), p.last.checked_add(1).map(key)));
            (INTERVAL, interval_elements(bounds))
        };
        Self {
            name: ANONYMOUS_NAME.to_owned(),
            flags: flags | ANONYMOUS | CONSTANT,
            key: Key::Port,
            elements,
        }
    }

    /// From the two dumps that describe a set.
    pub(crate) fn from_dump(
        header: &SetHeader,
        elements: impl IntoIterator<Item = Element>,
    ) -> Self {
        let anonymous = header.flags & ANONYMOUS != 0;
        Self {
            name: if anonymous {
                ANONYMOUS_NAME.to_owned()
            } else {
                header.name.clone()
            },
            flags: header.flags,
            key: Key::from_number(header.key_type),
            elements: elements.into_iter().collect(),
        }
    }

    /// What the message that creates it says.
    pub(crate) fn header(&self) -> SetHeader {
        let anonymous = self.flags & ANONYMOUS != 0;
        SetHeader {
            name: self.name.clone(),
            flags: self.flags,
            key_type: self.key.number(),
            key_len: self.key.len(),
            data_type: (self.flags & MAP != 0).then_some(libc::NFT_DATA_VERDICT),
            size: anonymous.then(|| u32::try_from(self.elements.len()).unwrap_or(u32::MAX)),
            userdata: byte_order_records(self.flags & MAP != 0),
        }
    }

    /// Whether an element change can turn one into the other.
    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        (&self.name, self.flags, self.key) == (&other.name, other.flags, other.key)
    }

    /// The elements without the marker that says "nothing before the first interval": `nft` puts it in front of the
    /// elements of a set that it creates, but it means nothing.
    pub(crate) fn meaning(&self) -> impl Iterator<Item = &Element> {
        self.elements
            .iter()
            .filter(|e| e.starts || e.key.iter().any(|byte| *byte != 0))
    }

    /// The elements in groups that are added and deleted as a whole: an interval with both its ends.
    ///
    /// An end that two states have in common must not stay when its start goes: the kernel then takes a new start
    /// before it for an overlap (`nft_rbtree_insert`).
    pub(crate) fn groups(&self) -> BTreeSet<Vec<&Element>> {
        let mut groups: Vec<Vec<&Element>> = Vec::new();
        for element in &self.elements {
            match groups.last_mut() {
                Some(group)
                    if !element.starts && group.len() == 1 && group.iter().all(|e| e.starts) =>
                {
                    group.push(element);
                }
                Some(_) | None => groups.push(vec![element]),
            }
        }
        groups.into_iter().collect()
    }

    /// An interval set of addresses as ranges; `None` if it is something else or its elements make no intervals.
    pub(crate) fn ranges(&self) -> Option<Vec<AddressRange>> {
        if self.flags & (INTERVAL | MAP) != INTERVAL {
            return None;
        }
        let mut ranges = Vec::new();
        let mut start: Option<IpAddr> = None;
        for element in self.meaning() {
            let address = address(&element.key)?;
            match (element.starts, start) {
                (true, None) => start = Some(address),
                (false, Some(first)) => {
                    ranges.push(AddressRange::new(first, before(address)?)?);
                    start = None;
                }
                (true, Some(_)) | (false, None) => return None,
            }
        }
        if let Some(first) = start {
            ranges.push(AddressRange::new(first, last_of(Family::of(first)))?);
        }
        Some(ranges)
    }

    /// A verdict map of addresses as address and chain; `None` if it is something else.
    pub(crate) fn jumps(&self) -> Option<Vec<(IpAddr, String)>> {
        let jump = |element: &Element| {
            let target = element.target.as_ref()?;
            Some((address(&element.key)?, target.chain.clone()?))
        };
        (self.flags & MAP != 0).then(|| self.elements.iter().map(jump).collect())?
    }
}

fn value_element(key: Vec<u8>) -> Element {
    Element {
        key,
        starts: true,
        open: false,
        target: None,
    }
}

/// The ends of intervals as the kernel wants them: each start, and the first key after each interval.
fn interval_elements(
    bounds: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for (first, after) in bounds {
        // Like nft: a set that doesn't begin with the first key gets an end there.
        let zero = vec![0; first.len()];
        if elements.is_empty() && first != zero {
            elements.insert(Element {
                starts: false,
                ..value_element(zero)
            });
        }
        let open = after.is_none();
        elements.insert(Element {
            open,
            ..value_element(first)
        });
        elements.extend(after.map(|key| Element {
            starts: false,
            ..value_element(key)
        }));
    }
    elements
}

/// nft's records on the byte order of keys and data (`NFTNL_UDATA_SET_KEYBYTEORDER`, `…_DATABYTEORDER`), without which
/// it can't list the elements: 2 is big endian; verdicts have none, 0.
fn byte_order_records(map: bool) -> Vec<u8> {
    let record = |kind: u8, order: u32| [&[kind, 4], order.to_ne_bytes().as_slice()].concat();
    let mut records = record(0, 2);
    if map {
        records.extend(record(1, 0));
    }
    records
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(key).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(key).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).checked_sub(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).checked_sub(1)?).into(),
    })
}

fn last_of(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from(u32::MAX).into(),
        Family::Ipv6 => Ipv6Addr::from(u128::MAX).into(),
    }
}
