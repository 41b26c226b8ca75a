//! Sets and verdict maps of others: whether a value is in them.
use std::cmp::Ordering;

use super::bits::{Bits, Truth};
use crate::set::INTERVAL;
use crate::sys::{ElementTarget, SetEntry, SetHeader};

/// nft packs the types of a concatenation into its number, six bits each (`TYPE_BITS` of its `include/datatype.h`).
const TYPE_BITS: u32 = 6;

/// A set with its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignSet {
    /// Lengths of the fields of a key that are compared one by one; `None` when they are not known.
    fields: Option<Vec<usize>>,
    is_interval: bool,
    entries: Vec<SetEntry>,
}

/// What a lookup finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) truth: Truth,
    /// What the elements that may be the one lead to.
    pub(crate) targets: Vec<&'a ElementTarget>,
}

impl ForeignSet {
    pub(crate) fn new(header: &SetHeader, mut entries: Vec<SetEntry>) -> Self {
        // At the same key an interval ends before the next one begins.
        entries.sort_by(|left, right| (&left.key, !left.ends).cmp(&(&right.key, !right.ends)));
        Self {
            fields: fields(header.key_type, header.key_len),
            is_interval: header.flags & INTERVAL != 0,
            entries,
        }
    }

    /// Bytes of a key, where the elements tell.
    pub(crate) fn key_len(&self) -> Option<usize> {
        let entries = self.entries.iter();
        entries
            .filter(|entry| !entry.catch_all)
            .map(|entry| entry.key.len())
            .next()
    }

    /// Looks a value up.
    pub(crate) fn find(&self, value: &Bits) -> Found<'_> {
        let is_of_ranges = self.entries.iter().any(|entry| entry.last.is_some());
        let mut found = if self.is_interval && !is_of_ranges {
            self.find_in_intervals(value)
        } else {
            self.find_one_by_one(value)
        };
        let mut others = self.entries.iter().filter(|entry| entry.catch_all);
        if let (Truth::No | Truth::Maybe, Some(other)) = (found.truth, others.next()) {
            found.truth = Truth::Yes;
            found.targets.extend(&other.target);
        }
        found
    }

    /// Boundaries: the last one up to the value says whether it lies inside.
    fn find_in_intervals(&self, value: &Bits) -> Found<'_> {
        let entries = || self.entries.iter().filter(|entry| !entry.catch_all);
        let mut last: Option<&SetEntry> = None;
        for entry in entries() {
            match value.compare(&entry.key) {
                Some(Ordering::Less) => break,
                Some(Ordering::Equal | Ordering::Greater) => last = Some(entry),
                None => {
                    let starts = entries().filter(|entry| !entry.ends);
                    return Found {
                        truth: Truth::Maybe,
                        targets: starts.filter_map(|entry| entry.target.as_ref()).collect(),
                    };
                }
            }
        }
        let inside = last.filter(|entry| !entry.ends);
        Found {
            truth: Truth::of(inside.is_some()),
            targets: inside
                .into_iter()
                .filter_map(|entry| entry.target.as_ref())
                .collect(),
        }
    }

    fn find_one_by_one(&self, value: &Bits) -> Found<'_> {
        let mut found = Found {
            truth: Truth::No,
            targets: Vec::new(),
        };
        for entry in self.entries.iter().filter(|entry| !entry.catch_all) {
            match self.is_in(value, entry) {
                Truth::No => {}
                Truth::Maybe => {
                    found.truth = Truth::Maybe;
                    found.targets.extend(&entry.target);
                }
                Truth::Yes => {
                    return Found {
                        truth: Truth::Yes,
                        targets: entry.target.iter().collect(),
                    };
                }
            }
        }
        found
    }

    /// An element is a value, or a range in each of its fields.
    fn is_in(&self, value: &Bits, entry: &SetEntry) -> Truth {
        let Some(last) = &entry.last else {
            return value.equals(&entry.key);
        };
        let Some(fields) = &self.fields else {
            return Truth::Maybe;
        };
        let mut start = 0;
        let mut inside = Truth::Yes;
        for len in fields {
            let bytes = start..start + len;
            let (Some(from), Some(to)) = (entry.key.get(bytes.clone()), last.get(bytes)) else {
                return Truth::Maybe;
            };
            inside = inside.and(is_between(&value.part(start, *len), from, to));
            start += len;
        }
        inside
    }
}

/// Whether a value lies between two others, both included.
pub(crate) fn is_between(value: &Bits, first: &[u8], last: &[u8]) -> Truth {
    let at_least = value.compare(first).map(Ordering::is_ge);
    let at_most = value.compare(last).map(Ordering::is_le);
    let truth = |known: Option<bool>| known.map_or(Truth::Maybe, Truth::of);
    truth(at_least).and(truth(at_most))
}

/// The lengths of a key's fields in registers, whole words each; `None` with a type that we don't know.
fn fields(key_type: u32, key_len: u32) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    let mut types = key_type;
    while types != 0 {
        lengths.push(match types & ((1 << TYPE_BITS) - 1) {
            // ipv4_addr, inet_proto, inet_service, mark
            7 | 12 | 13 | 19 => 4,
            // ipv6_addr, ifname
            8 | 41 => 16,
            // ether_addr
            9 => 8,
            _ => return None,
        });
        types >>= TYPE_BITS;
    }
    // The first field stands in the highest bits.
    lengths.reverse();
    let is_whole = lengths.iter().sum::<usize>() == usize::try_from(key_len).ok()?;
    is_whole.then_some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ipv4_addr . inet_service`.
    const ADDRESS_AND_PORT: u32 = (0x07 << TYPE_BITS) | 0x0d;

    fn entry(key: &[u8], last: Option<&[u8]>, ends: bool) -> SetEntry {
        SetEntry {
            key: key.to_vec(),
            last: last.map(<[u8]>::to_vec),
            ends,
            catch_all: key.is_empty(),
            target: None,
        }
    }

    fn set(key_type: u32, key_len: u32, flags: u32, entries: Vec<SetEntry>) -> ForeignSet {
        let header = SetHeader {
            name: "s".to_owned(),
            flags,
            key_type,
            key_len,
            data_type: None,
            size: None,
            userdata: Vec::new(),
        };
        ForeignSet::new(&header, entries)
    }

    #[test]
    fn an_interval_begins_with_its_first_key_and_ends_before_the_next_boundary() {
        let entries = vec![
            entry(&[0, 8], None, true),
            entry(&[0, 5], None, false),
            entry(&[0, 5], None, true),
            entry(&[0, 2], None, false),
            entry(&[0, 0], None, true),
        ];
        let ports = set(13, 2, INTERVAL, entries);
        for (port, truth) in [
            (0, Truth::No),
            (2, Truth::Yes),
            (5, Truth::Yes),
            (7, Truth::Yes),
            (8, Truth::No),
        ] {
            assert_eq!(ports.find(&Bits::known(&[0, port])).truth, truth, "{port}");
        }
        assert_eq!(ports.find(&Bits::unknown(2)).truth, Truth::Maybe);
    }

    #[test]
    fn ranges_of_several_fields_are_looked_at_field_by_field() {
        // ipv4_addr . inet_service { 10.0.0.0/8 . 80-90 }
        let key = [10, 0, 0, 0, 0, 80, 0, 0];
        let last = [10, 255, 255, 255, 0, 90, 0, 0];
        let services = set(
            ADDRESS_AND_PORT,
            8,
            INTERVAL,
            vec![entry(&key, Some(&last), false)],
        );
        let is_in = |address: u8, port: u8| {
            services
                .find(&Bits::known(&[address, 1, 2, 3, 0, port, 0, 0]))
                .truth
        };
        assert_eq!(is_in(10, 85), Truth::Yes);
        assert_eq!(is_in(10, 91), Truth::No);
        assert_eq!(is_in(11, 85), Truth::No);
        let mut half = Bits::unknown(8);
        half.put(4, &Bits::known(&[0, 91, 0, 0]));
        assert_eq!(services.find(&half).truth, Truth::No);
    }

    #[test]
    fn a_set_without_elements_has_nothing_and_a_catch_all_has_everything() {
        assert_eq!(
            set(7, 4, 0, Vec::new()).find(&Bits::unknown(4)).truth,
            Truth::No
        );
        let all = set(7, 4, 0, vec![entry(&[], None, false)]);
        assert_eq!(all.find(&Bits::unknown(4)).truth, Truth::Yes);
    }
}
