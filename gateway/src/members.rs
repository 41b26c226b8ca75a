//! Peers of the API, as far as they may connect: what [`crate::desired`] adds to the peers of the file.
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnetwork::IpNetwork;
use shared::model::{PresharedKey, PublicKey};
use shared_daemon::model::PeerModel;
use uuid::Uuid;

use crate::claims::{Claim, Claims};

/// All of them. Cheap to clone: a change makes a new list of the same members.
#[derive(Debug, Clone, Default)]
pub struct Members(pub Arc<Vec<Arc<Member>>>);

impl Members {
    /// Those that the file leaves a place for: what it claims is its own.
    pub fn admitted<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = &'a Member> {
        let members = self.0.iter().map(AsRef::as_ref);
        members.filter(|member| claims.against(&member.claim()).is_empty())
    }
}

/// A peer of the API that may connect.
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
