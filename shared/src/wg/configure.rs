//! Changes of configuration, with the meaning they have for `wg set`, `wg setconf` and `wg syncconf`. Setting what is
//! set already changes nothing, so sessions live through a reload.
use std::collections::BTreeSet;
use std::time::Instant;

use ipnetwork::IpNetwork;

use super::allowed_ips::Owner;
use super::device::LocalIdentity;
use super::peer::Peer;
use super::peer_table::PeerSlot;
use super::{AllowedIpChange, Device, DeviceChange, PeerChange, TransmitQueue};
use crate::model::PrivateKey;

impl Device {
    /// Change configuration; `listen_port` and `fwmark` are the socket owner's business and ignored here.
    pub fn apply_change(&mut self, change: &DeviceChange, out: &mut TransmitQueue, now: Instant) {
        if let Some(key) = &change.private_key {
            self.set_private_key(key.as_ref(), now);
        }
        if change.replace_peers {
            self.keep_only(&change.peers);
        }
        for peer in &change.peers {
            self.change_peer(peer, now);
        }
        self.handle_timeout(out, now); // keepalives that were switched on are due now
    }

    fn set_private_key(&mut self, key: Option<&PrivateKey>, now: Instant) {
        let current = self.identity.as_ref();
        if current.map(|identity| identity.noise.private_key()) == key {
            return;
        }
        self.identity = key.map(LocalIdentity::new);
        if let Some(slot) = self.own_slot() {
            self.remove_peer(slot);
        }
        self.rebuild_engines(now);
    }

    /// A device can't be its own peer.
    fn own_slot(&self) -> Option<PeerSlot> {
        let identity = self.identity.as_ref()?;
        self.peers.find(identity.noise.public_key())
    }

    /// End all sessions. Engines are made anew when they are needed; for persistent keepalive that is now.
    pub(super) fn rebuild_engines(&mut self, now: Instant) {
        for (slot, peer) in self.peers.iter_mut() {
            if let Some(prefix) = peer.discard_engine() {
                self.indices.release(prefix);
            }
            peer.restart(now);
            self.schedule
                .update(slot, peer.next_deadline(), &mut peer.scheduled);
        }
    }

    fn keep_only(&mut self, wanted: &[PeerChange]) {
        let wanted: BTreeSet<_> = wanted.iter().map(|peer| &peer.public_key).collect();
        let unwanted: Vec<PeerSlot> = self
            .peers
            .slots()
            .filter(|(key, _)| !wanted.contains(key))
            .map(|(_, slot)| slot)
            .collect();
        for slot in unwanted {
            self.remove_peer(slot);
        }
    }

    fn change_peer(&mut self, change: &PeerChange, now: Instant) {
        let known = self.peers.find(&change.public_key);
        if change.remove {
            if let Some(slot) = known {
                self.remove_peer(slot);
            }
            return;
        }
        let Some(slot) = known.or_else(|| self.add_peer(change)) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if let Some(key) = &change.preshared_key {
            if let Some(prefix) = peer.set_preshared_key(key, now) {
                self.indices.release(prefix);
            }
        }
        if let Some(endpoint) = change.endpoint {
            peer.set_endpoint(endpoint, now);
        }
        if let Some(predecessor) = change.succeeds {
            peer.succeeds = predecessor;
        }
        if change.replace_allowed_ips {
            self.clear_allowed_ips(slot);
        }
        for allowed_ip in &change.allowed_ips {
            self.change_allowed_ip(slot, *allowed_ip);
        }
        if let (Some(secs), Some(peer)) =
            (change.persistent_keepalive_secs, self.peers.get_mut(slot))
        {
            peer.set_persistent_keepalive(secs, now);
        }
        if change.initiate_handshake {
            if let Some(peer) = self.peers.get_mut(slot).filter(|p| p.has_endpoint()) {
                peer.request_handshake(now);
            }
        }
        self.reschedule(slot);
    }

    fn add_peer(&mut self, change: &PeerChange) -> Option<PeerSlot> {
        let is_self = self
            .identity
            .as_ref()
            .is_some_and(|identity| *identity.noise.public_key() == change.public_key);
        if change.update_only || is_self {
            return None;
        }
        let sequence = self.draw_sequence();
        Some(self.peers.insert(Peer::new(change.public_key, sequence)))
    }

    fn remove_peer(&mut self, slot: PeerSlot) {
        let Some(mut peer) = self.peers.remove(slot) else {
            return;
        };
        self.schedule.remove(slot, &mut peer.scheduled);
        for &network in peer.allowed_ips.values() {
            self.allowed_ips.remove(network);
        }
        if let Some(prefix) = peer.discard_engine() {
            self.indices.release(prefix);
        }
    }

    fn clear_allowed_ips(&mut self, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        for network in std::mem::take(&mut peer.allowed_ips).into_values() {
            self.allowed_ips.remove(network);
        }
    }

    fn change_allowed_ip(&mut self, slot: PeerSlot, change: AllowedIpChange) {
        let Ok(network) = IpNetwork::new(change.network.network(), change.network.prefix()) else {
            return;
        };
        let owner = self.allowed_ips.owner_of(network);
        let is_ours = owner.is_some_and(|owner| owner.peer == slot);
        if is_ours != change.remove {
            return; // ours already, or nothing of ours to remove
        }
        if let Some(owner) = owner {
            if let Some(loser) = self.peers.get_mut(owner.peer) {
                loser.allowed_ips.remove(&owner.sequence);
            }
        }
        if change.remove {
            self.allowed_ips.remove(network);
            return;
        }
        let sequence = self.draw_sequence();
        if let Some(winner) = self.peers.get_mut(slot) {
            winner.allowed_ips.insert(sequence, network);
            self.allowed_ips.insert(
                network,
                Owner {
                    peer: slot,
                    sequence,
                },
            );
        }
    }

    /// A peer that replaces another has sent its first data message: what the other owned is now its own. Packets of the
    /// other are refused from here on; its session may end by itself.
    pub(super) fn take_over_allowed_ips(&mut self, slot: PeerSlot) {
        let Some(predecessor) = self.peers.get_mut(slot).and_then(|p| p.succeeds.take()) else {
            return;
        };
        let Some(old) = self.peers.find(&predecessor) else {
            return;
        };
        let networks: Vec<IpNetwork> = match self.peers.get_mut(old) {
            Some(peer) => peer.allowed_ips.values().copied().collect(),
            None => return,
        };
        for network in networks {
            let change = AllowedIpChange {
                network,
                remove: false,
            };
            self.change_allowed_ip(slot, change);
        }
    }

    fn draw_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }
}
