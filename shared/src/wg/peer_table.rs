//! The peers of a device, by slot and by public key.
use std::collections::BTreeMap;

use super::peer::Peer;
use crate::model::PublicKey;

/// The place of a peer; reused after the peer was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerSlot(u32);

impl PeerSlot {
    #[cfg(test)]
    pub(super) const fn new(slot: u32) -> Self {
        Self(slot)
    }

    #[cfg(test)]
    pub(super) const fn get(self) -> u32 {
        self.0
    }
}

#[derive(Debug, Default)]
pub(super) struct PeerTable {
    /// Boxed: a peer is large and holes should be small.
    peers: Vec<Option<Box<Peer>>>,
    free: Vec<PeerSlot>,
    by_key: BTreeMap<PublicKey, PeerSlot>,
}

impl PeerTable {
    pub(super) fn get(&self, slot: PeerSlot) -> Option<&Peer> {
        self.peers.get(slot.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.peers.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, key: &PublicKey) -> Option<PeerSlot> {
        self.by_key.get(key).copied()
    }

    pub(super) fn insert(&mut self, peer: Peer) -> PeerSlot {
        let key = peer.public_key;
        let slot = if let Some(slot) = self.free.pop() {
            slot
        } else {
            self.peers.push(None);
            PeerSlot(u32::try_from(self.peers.len() - 1).expect("memory ends before 2^32 peers"))
        };
        if let Some(hole) = self.peers.get_mut(slot.0 as usize) {
            *hole = Some(Box::new(peer));
        }
        self.by_key.insert(key, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: PeerSlot) -> Option<Box<Peer>> {
        let peer = self.peers.get_mut(slot.0 as usize)?.take()?;
        self.by_key.remove(&peer.public_key);
        self.free.push(slot);
        Some(peer)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (&PublicKey, PeerSlot)> {
        self.by_key.iter().map(|(key, &slot)| (key, slot))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter_map(Option::as_deref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerSlot, &mut Peer)> {
        let peers = (0..).map(PeerSlot).zip(&mut self.peers);
        peers.filter_map(|(slot, peer)| Some((slot, peer.as_deref_mut()?)))
    }
}
