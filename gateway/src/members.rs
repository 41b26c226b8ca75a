//! What the API has made, as far as it may connect: what [`crate::desired`] adds to the peers of the file.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnetwork::IpNetwork;
use shared::config::gateway::{Gateway, LanServerPeer};
use shared::model::{PresharedKey, PublicKey};
use shared_daemon::model::PeerModel;
use uuid::Uuid;

use crate::claims::{Claim, Claims};
use crate::store::LanServerRecord;

/// LAN servers that have joined by a token, by name.
pub type LanServers = BTreeMap<String, LanServerRecord>;

/// All of them. Cheap to clone: a change makes a new list of the same members.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
    /// Peers and invited LAN hosts.
    pub peers: Arc<Vec<Arc<Member>>>,
    /// Keys for LAN servers that the file gives none.
    pub lan_servers: Arc<LanServers>,
}

/// LAN servers that have no key in the file and have joined. A key that the file has given to another since is none.
pub fn joined<'a>(
    config: &'a Gateway,
    lan_servers: &'a LanServers,
) -> impl Iterator<Item = (&'a LanServerPeer, &'a LanServerRecord)> {
    let of_file = |key: &PublicKey| {
        let mut peers = config.peers.iter();
        let mut lans = config.lan_servers.iter();
        peers.any(|peer| peer.public_key == *key) || lans.any(|lan| lan.public_key == Some(*key))
    };
    let waiting = config.lan_servers.iter();
    let waiting = waiting.filter(|lan| lan.public_key.is_none());
    let joined = waiting.filter_map(|lan| Some((lan, lan_servers.get(&lan.name)?)));
    joined.filter(move |(_, record)| !of_file(&record.public_key))
}

impl Members {
    /// Those that the file leaves a place for: what it claims is its own.
    pub fn admitted<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = &'a Member> {
        let members = self.peers.iter().map(AsRef::as_ref);
        members.filter(|member| claims.against(&member.claim()).is_empty())
    }
}

/// A peer of the API, or an invited LAN host, that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Identifier.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// Its tunnel addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks behind it.
    pub networks: Vec<IpNetwork>,
    /// Name of its role; one that the file does not have reaches nothing.
    pub role: Option<String>,
    /// Whether it is an invited LAN host: it may call the pairing service, and nothing else.
    pub is_invited: bool,
    /// The key that replaces the present one as soon as it is used.
    pub successor: Option<Successor>,
    /// What it is to the device.
    pub models: PeerModels,
}

/// What a member is to the device: made once, and the same in every model, so that of thousands of peers only the few that
/// changed are compared. No part of what a member is.
#[derive(Debug, Default)]
pub struct PeerModels(OnceLock<Vec<Arc<PeerModel>>>);

impl Clone for PeerModels {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for PeerModels {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for PeerModels {}

/// The next key of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The key.
    pub public_key: PublicKey,
    /// Its preshared key.
    pub preshared_key: Option<PresharedKey>,
}

impl Member {
    /// What it is to the device, as `make` said when it was first asked.
    pub fn peers(&self, make: fn(&Self) -> Vec<PeerModel>) -> &[Arc<PeerModel>] {
        let made = || make(self).into_iter().map(Arc::new).collect();
        self.models.0.get_or_init(made)
    }

    /// The keys under which it may connect.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        let next = self.successor.as_ref().map(|next| &next.public_key);
        std::iter::once(&self.public_key).chain(next)
    }

    /// What it claims for itself.
    pub fn claim(&self) -> Claim<'_> {
        Claim {
            name: &self.name,
            public_key: &self.public_key,
            next_public_key: self.successor.as_ref().map(|next| &next.public_key),
            addresses: &self.addresses,
            networks: &self.networks,
        }
    }
}
