//! What is held in memory: the snapshot of the store, indexed. It changes by the same [`Change`]s as the store does, and each
//! of them can be undone until the store has it.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use shared::api::audit::AuditEntry;
use shared::model::PublicKey;
use uuid::Uuid;

use crate::members::LanServers;
use crate::store::{
    Change, IdempotentAnswer, InviteRecord, LanServerRecord, PeerRecord, Snapshot, TokenRecord,
    UsageRecord,
};

/// Everything that the API has made.
#[derive(Debug, Default)]
pub struct State {
    peers: BTreeMap<Uuid, Arc<PeerRecord>>,
    names: BTreeMap<String, Uuid>,
    keys: BTreeMap<PublicKey, Uuid>,
    addresses: BTreeMap<IpAddr, Uuid>,
    networks: BTreeMap<IpNetwork, Uuid>,
    tokens: BTreeMap<String, Arc<TokenRecord>>,
    /// Their keys and addresses are among those of peers, under their own identifiers.
    invites: BTreeMap<Uuid, Arc<InviteRecord>>,
    lan_servers: Arc<LanServers>,
    released: BTreeMap<IpAddr, Timestamp>,
    answers: BTreeMap<(String, String), IdempotentAnswer>,
    usage: BTreeMap<Uuid, UsageRecord>,
    audit_head: Option<AuditEntry>,
}

/// What takes one change back.
#[derive(Debug)]
pub enum Undo {
    /// There was this peer, or none.
    Peer(Uuid, Option<Arc<PeerRecord>>, Option<UsageRecord>),
    /// There was this token, or none.
    Token(String, Option<Arc<TokenRecord>>),
    /// There was this invitation, or none.
    Invite(Uuid, Option<Arc<InviteRecord>>),
    /// The LAN server had joined with these keys, or not at all.
    LanServer(String, Option<LanServerRecord>),
    /// It was released at this time, or not.
    Released(IpAddr, Option<Timestamp>),
    /// There was this answer, or none.
    Answer((String, String), Option<IdempotentAnswer>),
    /// There was this usage, or none.
    Usage(Uuid, Option<UsageRecord>),
    /// This was the head.
    AuditHead(Option<AuditEntry>),
}

impl State {
    /// What the store holds.
    pub fn of(snapshot: Snapshot) -> Self {
        let mut state = Self {
            usage: snapshot.usage,
            released: snapshot.released_addresses,
            audit_head: snapshot.audit_head,
            ..Self::default()
        };
        for peer in snapshot.peers {
            state.put_peer(peer.id, Some(Arc::new(peer)));
        }
        for invite in snapshot.invites {
            state.put_invite(invite.id, Some(Arc::new(invite)));
        }
        let lan_servers = snapshot.lan_servers.into_iter();
        state.lan_servers = Arc::new(lan_servers.map(|l| (l.name.clone(), l)).collect());
        for token in snapshot.tokens {
            state.tokens.insert(token.id.clone(), Arc::new(token));
        }
        for answer in snapshot.idempotent_answers {
            let key = (answer.actor.clone(), answer.key.clone());
            state.answers.insert(key, answer);
        }
        state
    }

    /// All peers by identifier, which is by age.
    pub fn peers(&self) -> &BTreeMap<Uuid, Arc<PeerRecord>> {
        &self.peers
    }

    /// All tokens.
    pub fn tokens(&self) -> &BTreeMap<String, Arc<TokenRecord>> {
        &self.tokens
    }

    /// All invitations by identifier, which is by age.
    pub fn invites(&self) -> &BTreeMap<Uuid, Arc<InviteRecord>> {
        &self.invites
    }

    /// LAN servers that have joined.
    pub fn lan_servers(&self) -> &Arc<LanServers> {
        &self.lan_servers
    }

    /// Who has this name.
    pub fn by_name(&self, name: &str) -> Option<Uuid> {
        self.names.get(name).copied()
    }

    /// Who has this key, now or next.
    pub fn by_key(&self, key: &PublicKey) -> Option<Uuid> {
        self.keys.get(key).copied()
    }

    /// Who but `except` has this address, itself or in a network.
    pub fn by_address(&self, address: IpAddr, except: Option<Uuid>) -> Option<Uuid> {
        let holder = self.addresses.get(&address).copied();
        let holder = holder.filter(|&holder| Some(holder) != except);
        holder.or_else(|| self.by_network(IpNetwork::from(address), except))
    }

    /// Addresses of peers from this one on, in their order.
    pub fn addresses_from(&self, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.addresses.range(address..).map(|(&taken, _)| taken)
    }

    /// Who but `except` has a network that overlaps with this one: one around it, or one inside of it. The networks of
    /// one peer may lie in each other.
    pub fn by_network(&self, network: IpNetwork, except: Option<Uuid>) -> Option<Uuid> {
        let around = (0..=network.prefix())
            .filter_map(|prefix| IpNetwork::new(network.network(), prefix).ok())
            .filter_map(|wider| self.networks.get(&first_of(wider)));
        let inside = self.networks.range(first_of(network)..);
        let inside = inside
            .take_while(|(theirs, _)| network.contains(theirs.network()))
            .map(|(_, holder)| holder);
        around
            .chain(inside)
            .find(|holder| Some(**holder) != except)
            .copied()
    }

    /// Who but `except` has an address inside of this network.
    pub fn address_within(&self, network: IpNetwork, except: Option<Uuid>) -> Option<Uuid> {
        let within = self.addresses.range(network.network()..);
        within
            .take_while(|(address, _)| network.contains(**address))
            .map(|(_, &holder)| holder)
            .find(|holder| Some(*holder) != except)
    }

    /// Whether a peer gave this address back later than `since`.
    pub fn is_released_since(&self, address: IpAddr, since: Timestamp) -> bool {
        self.released.get(&address).is_some_and(|&at| at > since)
    }

    /// Addresses that were given back at `until` or before.
    pub fn released_until(&self, until: Timestamp) -> Vec<IpAddr> {
        let old = self.released.iter().filter(|(_, at)| **at <= until);
        old.map(|(&address, _)| address).collect()
    }

    /// The answer that was given to this actor under this key.
    pub fn answer(&self, actor: &str, key: &str) -> Option<&IdempotentAnswer> {
        self.answers.get(&(actor.to_owned(), key.to_owned()))
    }

    /// Answers of `until` or before, and the oldest of the others when there are more than `most`.
    pub fn answers_to_forget(&self, until: Timestamp, most: usize) -> Vec<(String, String)> {
        let too_many = self.answers.len().saturating_sub(most);
        let mut by_age: Vec<_> = self.answers.iter().map(|(k, a)| (a.at, k)).collect();
        if too_many > 0 {
            by_age.sort_unstable();
        }
        let old = by_age.into_iter().enumerate();
        old.filter(|(place, (at, _))| *place < too_many || *at <= until)
            .map(|(_, (_, key))| key.clone())
            .collect()
    }

    /// What peers have moved until it was last written down.
    pub fn usage(&self) -> &BTreeMap<Uuid, UsageRecord> {
        &self.usage
    }

    /// The last entry of the audit log.
    pub fn audit_head(&self) -> Option<&AuditEntry> {
        self.audit_head.as_ref()
    }

    /// Make one change.
    pub fn apply(&mut self, change: &Change) -> Undo {
        match change {
            Change::PutPeer(peer) => {
                let usage = self.usage.get(&peer.id).copied();
                let was = self.put_peer(peer.id, Some(Arc::new(peer.clone())));
                Undo::Peer(peer.id, was, usage)
            }
            Change::DeletePeer(id) => {
                let usage = self.usage.remove(id);
                Undo::Peer(*id, self.put_peer(*id, None), usage)
            }
            Change::PutUsage(id, usage) => Undo::Usage(*id, self.usage.insert(*id, *usage)),
            Change::DeleteUsage(id) => Undo::Usage(*id, self.usage.remove(id)),
            Change::PutToken(token) => {
                let was = self
                    .tokens
                    .insert(token.id.clone(), Arc::new(token.clone()));
                Undo::Token(token.id.clone(), was)
            }
            Change::DeleteToken(id) => Undo::Token(id.clone(), self.tokens.remove(id)),
            Change::PutInvite(invite) => {
                let was = self.put_invite(invite.id, Some(Arc::new(invite.clone())));
                Undo::Invite(invite.id, was)
            }
            Change::DeleteInvite(id) => Undo::Invite(*id, self.put_invite(*id, None)),
            Change::PutLanServer(lan_server) => {
                let name = lan_server.name.clone();
                let lan_servers = Arc::make_mut(&mut self.lan_servers);
                let was = lan_servers.insert(name.clone(), lan_server.clone());
                Undo::LanServer(name, was)
            }
            Change::DeleteLanServer(name) => {
                let was = Arc::make_mut(&mut self.lan_servers).remove(name);
                Undo::LanServer(name.clone(), was)
            }
            Change::ReleaseAddress(address, at) => {
                Undo::Released(*address, self.released.insert(*address, *at))
            }
            Change::ForgetReleased(address) => {
                Undo::Released(*address, self.released.remove(address))
            }
            Change::PutIdempotentAnswer(answer) => {
                let key = (answer.actor.clone(), answer.key.clone());
                let was = self.answers.insert(key.clone(), answer.clone());
                Undo::Answer(key, was)
            }
            Change::DeleteIdempotentAnswer { actor, key } => {
                let key = (actor.clone(), key.clone());
                let was = self.answers.remove(&key);
                Undo::Answer(key, was)
            }
            Change::Audit(entry) => Undo::AuditHead(self.audit_head.replace(entry.clone())),
        }
    }

    /// Take a change back. Changes are undone in the reverse of the order in which they were made.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Peer(id, peer, usage) => {
                self.put_peer(id, peer);
                restore(&mut self.usage, id, usage);
            }
            Undo::Token(id, token) => restore(&mut self.tokens, id, token),
            Undo::Invite(id, invite) => {
                self.put_invite(id, invite);
            }
            Undo::LanServer(name, was) => {
                restore(Arc::make_mut(&mut self.lan_servers), name, was);
            }
            Undo::Released(address, at) => restore(&mut self.released, address, at),
            Undo::Answer(key, answer) => restore(&mut self.answers, key, answer),
            Undo::Usage(id, usage) => restore(&mut self.usage, id, usage),
            Undo::AuditHead(head) => self.audit_head = head,
        }
    }

    /// Put a peer in the place of what was there; returns that.
    fn put_peer(&mut self, id: Uuid, peer: Option<Arc<PeerRecord>>) -> Option<Arc<PeerRecord>> {
        let was = self.peers.remove(&id);
        if let Some(was) = &was {
            self.names.remove(&was.name);
            for key in keys(was) {
                self.keys.remove(key);
            }
            for address in &was.addresses {
                self.addresses.remove(address);
            }
            for network in &was.networks {
                self.networks.remove(network);
            }
        }
        if let Some(peer) = peer {
            self.names.insert(peer.name.clone(), id);
            self.keys.extend(keys(&peer).map(|&key| (key, id)));
            self.addresses
                .extend(peer.addresses.iter().map(|&a| (a, id)));
            self.networks.extend(peer.networks.iter().map(|&n| (n, id)));
            self.peers.insert(id, peer);
        }
        was
    }
}

impl State {
    /// Put an invitation in the place of what was there; returns that.
    fn put_invite(
        &mut self,
        id: Uuid,
        invite: Option<Arc<InviteRecord>>,
    ) -> Option<Arc<InviteRecord>> {
        let was = self.invites.remove(&id);
        if let Some(was) = &was {
            self.keys.remove(&was.public_key);
            self.addresses.remove(&was.address);
        }
        if let Some(invite) = invite {
            self.keys.insert(invite.public_key, id);
            self.addresses.insert(invite.address, id);
            self.invites.insert(id, invite);
        }
        was
    }
}

/// A network under its own address, which is how it is stored.
fn first_of(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn keys(peer: &PeerRecord) -> impl Iterator<Item = &PublicKey> {
    let next = peer.rotation.as_ref().map(|rotation| &rotation.public_key);
    std::iter::once(&peer.public_key).chain(next)
}

fn restore<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
