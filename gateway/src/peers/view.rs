//! How the API shows peers: of the file and of its own, with what is known of them now. Readers take the view of the moment
//! and never wait for a change.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use shared::api::peer::{Connection, ManagedBy, Peer, PeerState, Rotation, Usage};
use shared::config::gateway::Gateway;
use shared::config::gateway::Peer as FilePeer;
use shared::model::PublicKey;
use uuid::Uuid;

use super::meter::{Seen, quota_used};
use super::state::State;
use crate::claims::Claims;
use crate::members::{LanServers, Member, PeerModels, Successor};
use crate::store::{InviteRecord, PeerRecord, TokenRecord, UsageRecord};

/// Names of peers of the file become identifiers in this namespace: the same peer keeps its identifier.
const FILE_NAMESPACE: Uuid = Uuid::from_u128(0x0d9b_73b1_0a5c_4d0e_9a55_5d1f_7f1c_2e57);

/// Everything that readers see, as of one moment.
#[derive(Debug)]
pub struct View {
    /// The file.
    pub config: Arc<Gateway>,
    /// What it claims.
    pub claims: Arc<Claims>,
    /// Key of this gateway; `None` when the device has none.
    pub own_key: Option<PublicKey>,
    /// Peers of the API.
    pub peers: BTreeMap<Uuid, Arc<PeerRecord>>,
    /// Tokens.
    pub tokens: BTreeMap<String, Arc<TokenRecord>>,
    /// Invitations.
    pub invites: BTreeMap<Uuid, Arc<InviteRecord>>,
    /// LAN servers that have joined.
    pub lan_servers: Arc<LanServers>,
    /// Keys of peers of the file.
    pub file_keys: Arc<BTreeMap<PublicKey, Uuid>>,
}

/// What is known of a peer beside its definition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live {
    /// What it has moved.
    pub usage: UsageRecord,
    /// Where it is.
    pub seen: Seen,
}

/// Identifier of a peer of the file.
pub fn file_id(name: &str) -> Uuid {
    Uuid::new_v5(&FILE_NAMESPACE, name.as_bytes())
}

impl View {
    /// As of now.
    pub fn new(config: Arc<Gateway>, own_key: Option<PublicKey>, state: &State) -> Self {
        let keys = config.peers.iter();
        let keys = keys.map(|peer| (peer.public_key, file_id(&peer.name)));
        Self {
            claims: Arc::new(Claims::of(&config, state.lan_servers())),
            file_keys: Arc::new(keys.collect()),
            own_key,
            peers: state.peers().clone(),
            tokens: state.tokens().clone(),
            invites: state.invites().clone(),
            lan_servers: Arc::clone(state.lan_servers()),
            config,
        }
    }

    /// As of now, and what follows from file and LAN servers as before when those are the same.
    #[must_use]
    pub fn next(&self, config: Arc<Gateway>, own_key: Option<PublicKey>, state: &State) -> Self {
        if !Arc::ptr_eq(&config, &self.config) || *state.lan_servers() != self.lan_servers {
            return Self::new(config, own_key, state);
        }
        Self {
            config,
            claims: Arc::clone(&self.claims),
            own_key,
            peers: state.peers().clone(),
            tokens: state.tokens().clone(),
            invites: state.invites().clone(),
            lan_servers: Arc::clone(&self.lan_servers),
            file_keys: Arc::clone(&self.file_keys),
        }
    }

    /// The peer of the file with this identifier.
    pub fn file_peer(&self, id: Uuid) -> Option<&FilePeer> {
        let mut peers = self.config.peers.iter();
        peers.find(|peer| file_id(&peer.name) == id)
    }

    /// The peer of the file that has this key.
    pub fn file_holder(&self, key: &PublicKey) -> Option<Uuid> {
        self.file_keys.get(key).copied()
    }

    /// Whether the file gives this key to anybody, a LAN server among others.
    pub fn is_of_file(&self, key: &PublicKey) -> bool {
        self.claims.has_key(key)
    }

    /// One peer, of the API or of the file.
    pub fn peer(&self, id: Uuid, live: impl Fn(Uuid) -> Live, now: Timestamp) -> Option<Peer> {
        match self.peers.get(&id) {
            Some(record) => Some(self.api_peer(record, live(id), now)),
            None => self.file_peer(id).map(|peer| of_file(peer, live(id))),
        }
    }

    /// A peer of the API.
    pub fn api_peer(&self, record: &PeerRecord, live: Live, now: Timestamp) -> Peer {
        let mut problems: Vec<String> = self
            .claims
            .against(&member(record).claim())
            .into_iter()
            .map(|refusal| refusal.detail)
            .collect();
        let shadowed = !problems.is_empty();
        if let Some(role) = &record.role {
            if !self.config.roles.iter().any(|known| known.name == *role) {
                problems.push(format!(
                    "the configuration file has no role {role:?} any more, so it reaches nothing"
                ));
            }
        }
        let state = if shadowed {
            PeerState::Shadowed
        } else {
            state(record, &live.usage, now)
        };
        Peer {
            id: record.id,
            name: record.name.clone(),
            managed_by: ManagedBy::Api,
            public_key: record.public_key.to_string(),
            has_preshared_key: record.preshared_key.is_some(),
            addresses: record.addresses.clone(),
            networks: record.networks.iter().map(ToString::to_string).collect(),
            role: record.role.clone(),
            enabled: record.enabled,
            expires_at: record.expires_at,
            quota_bytes: record.quota_bytes,
            labels: record.labels.clone(),
            created_at: Some(record.created_at),
            updated_at: Some(record.updated_at),
            rotation: record.rotation.as_ref().map(|rotation| Rotation {
                public_key: rotation.public_key.to_string(),
                until: rotation.until,
            }),
            state,
            problems,
            connection: connection(live),
            usage: usage(&live.usage),
        }
    }

    /// All peers, those of the file first.
    pub fn all(&self, live: impl Fn(Uuid) -> Live, now: Timestamp) -> Vec<Peer> {
        let file = self.config.peers.iter();
        let file = file.map(|peer| of_file(peer, live(file_id(&peer.name))));
        let api = self.peers.values();
        let api = api.map(|record| self.api_peer(record, live(record.id), now));
        file.chain(api).collect()
    }

    /// The gateway's tunnel addresses.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.config.tunnel.addresses.iter().map(|a| a.address)
    }
}

/// Whether a peer of the API may connect, and if not, why. What the file claims is not looked at.
pub fn state(record: &PeerRecord, usage: &UsageRecord, now: Timestamp) -> PeerState {
    if !record.enabled {
        PeerState::Disabled
    } else if record.expires_at.is_some_and(|at| at <= now) {
        PeerState::Expired
    } else if record
        .quota_bytes
        .is_some_and(|quota| quota_used(usage) >= quota)
    {
        PeerState::OverQuota
    } else {
        PeerState::Active
    }
}

/// A peer as a member, should it be allowed to connect.
pub fn member(record: &PeerRecord) -> Member {
    Member {
        id: record.id,
        name: record.name.clone(),
        public_key: record.public_key,
        preshared_key: record.preshared_key.clone(),
        addresses: record.addresses.clone(),
        networks: record.networks.clone(),
        role: record.role.clone(),
        is_invited: false,
        successor: record.rotation.as_ref().map(|rotation| Successor {
            public_key: rotation.public_key,
            preshared_key: rotation.preshared_key.clone(),
        }),
        models: PeerModels::default(),
    }
}

/// An invitation as a member. Its name is none that a peer can have.
pub fn invited(invite: &InviteRecord) -> Member {
    Member {
        id: invite.id,
        name: format!("{} (invited)", invite.lan_server),
        public_key: invite.public_key,
        preshared_key: Some(invite.preshared_key.clone()),
        addresses: vec![invite.address],
        networks: Vec::new(),
        role: None,
        is_invited: true,
        successor: None,
        models: PeerModels::default(),
    }
}

fn of_file(peer: &FilePeer, live: Live) -> Peer {
    Peer {
        id: file_id(&peer.name),
        name: peer.name.clone(),
        managed_by: ManagedBy::File,
        public_key: peer.public_key.to_string(),
        has_preshared_key: peer.preshared_key_file.is_some(),
        addresses: peer.addresses.clone(),
        networks: Vec::new(),
        role: peer.role.clone(),
        enabled: true,
        expires_at: None,
        quota_bytes: None,
        labels: BTreeMap::new(),
        created_at: None,
        updated_at: None,
        rotation: None,
        state: PeerState::Active,
        problems: Vec::new(),
        connection: connection(live),
        usage: usage(&live.usage),
    }
}

fn connection(live: Live) -> Connection {
    Connection {
        online: live.seen.online,
        endpoint: live.seen.endpoint,
        latest_handshake_at: live.usage.latest_handshake_at,
    }
}

fn usage(usage: &UsageRecord) -> Usage {
    Usage {
        rx_bytes: usage.rx_bytes,
        tx_bytes: usage.tx_bytes,
        quota_used_bytes: quota_used(usage),
        counted_since: usage.counted_since,
    }
}
