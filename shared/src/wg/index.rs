//! Receiver indices: which peer a message from the network is for.
//!
//! The engine numbers the sessions of a peer with 8 bits under 24 bits that we choose. They are random, so an observer
//! can't count peers or guess an index. What remains: sessions of one peer are linkable until its engine is rebuilt.
use super::peer_table::PeerSlot;

/// The upper 24 bits of the indices of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexPrefix(u32);

impl IndexPrefix {
    pub(super) const fn of(index: u32) -> Self {
        Self(index >> 8)
    }

    /// The 24 bits as a number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }
}

/// Open addressing with linear probing; prefixes are random, so they are their own hash.
#[derive(Debug)]
pub(super) struct IndexTable {
    /// A power of two of entries, at most half of them filled.
    entries: Vec<Option<(IndexPrefix, PeerSlot)>>,
    filled: usize,
}

impl IndexTable {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![None; 64],
            filled: 0,
        }
    }

    /// Draw a prefix that nobody has.
    pub(super) fn allocate(&mut self, peer: PeerSlot) -> IndexPrefix {
        loop {
            let prefix = IndexPrefix(random_u32() >> 8);
            if self.find(prefix).is_none() {
                self.insert(prefix, peer);
                return prefix;
            }
        }
    }

    pub(super) fn find(&self, prefix: IndexPrefix) -> Option<PeerSlot> {
        for entry in self.probe(prefix) {
            match self.entries.get(entry).copied().flatten() {
                Some((found, peer)) if found == prefix => return Some(peer),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    fn insert(&mut self, prefix: IndexPrefix, peer: PeerSlot) {
        if (self.filled + 1) * 2 > self.entries.len() {
            let doubled = vec![None; self.entries.len() * 2];
            let old = std::mem::replace(&mut self.entries, doubled);
            self.filled = 0;
            for (prefix, peer) in old.into_iter().flatten() {
                self.insert(prefix, peer);
            }
        }
        for place in self.probe(prefix) {
            if let Some(entry @ None) = self.entries.get_mut(place) {
                *entry = Some((prefix, peer));
                self.filled += 1;
                return;
            }
        }
    }

    /// Forget a prefix. What stands behind it in the same cluster is inserted anew, so that probing never meets a hole.
    pub(super) fn release(&mut self, prefix: IndexPrefix) {
        let mut places = self.probe(prefix);
        let found = places.find(
            |&place| matches!(self.entries.get(place), Some(Some((found, _))) if *found == prefix),
        );
        let Some(place) = found else { return };
        self.take(place);
        for place in places {
            let Some((prefix, peer)) = self.take(place) else {
                break;
            };
            self.insert(prefix, peer);
        }
    }

    fn take(&mut self, place: usize) -> Option<(IndexPrefix, PeerSlot)> {
        let taken = self.entries.get_mut(place)?.take();
        self.filled -= usize::from(taken.is_some());
        taken
    }

    /// Every place, beginning with the one where the prefix should be.
    fn probe(&self, prefix: IndexPrefix) -> impl Iterator<Item = usize> + use<> {
        let mask = self.entries.len() - 1;
        let home = prefix.0 as usize;
        (0..=mask).map(move |step| (home + step) & mask)
    }
}

/// A number that nobody can foretell.
pub(super) fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn table_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0_u32..400), 0..1500)) {
            let mut table = IndexTable::new();
            let mut model = BTreeMap::new();
            for (place, (insert, number)) in steps.into_iter().enumerate() {
                // Few distinct home places, so that clusters grow and wrap around the end.
                let prefix = IndexPrefix((number % 20) * 64 + 60 + (number / 20) * 4096);
                let peer = PeerSlot::new(u32::try_from(place).unwrap());
                if insert && !model.contains_key(&number) {
                    table.insert(prefix, peer);
                    model.insert(number, (prefix, peer));
                } else if !insert {
                    table.release(prefix);
                    model.remove(&number);
                }
                prop_assert_eq!(table.filled, model.len());
            }
            for number in 0..400 {
                let prefix = IndexPrefix((number % 20) * 64 + 60 + (number / 20) * 4096);
                prop_assert_eq!(table.find(prefix), model.get(&number).map(|&(_, peer)| peer));
            }
        }
    }
}
