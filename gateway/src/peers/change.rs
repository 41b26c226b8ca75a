//! Requests → changes of the state, checked against what the file claims and what other peers have. Pure but for the random
//! numbers, which the caller brings.
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};
use shared::api::peer::{CreatePeer, PatchPeer, RotatePeer};
use shared::api::problem::FieldError;
use shared::config::gateway::Gateway;
use shared::model::{PrivateKey, PublicKey};
use uuid::Uuid;

use super::allocate::{next_free, taken_until};
use super::check::{Check, Keys};
use super::error::RequestError;
use super::state::State;
use super::view::file_id;
use crate::claims::{Claim, Claims, Field, Refusal};
use crate::store::{Change, PeerRecord, RotationRecord, UsageRecord};

/// An address that was given back is not given out again for this long: no UDP flow of its last holder is left in connection
/// tracking then (`nf_conntrack_udp_timeout_stream`).
pub const ADDRESS_REST: SignedDuration = SignedDuration::from_secs(120);
/// How long the old key goes on when the new one is not used.
const DEFAULT_OVERLAP_SECS: u64 = 86_400;
/// Longest overlap: a year.
const MAX_OVERLAP_SECS: u64 = 31_557_600;

/// What requests are checked against.
#[derive(Debug)]
pub struct Context<'a> {
    /// What the API has made, with the requests before this one.
    pub state: &'a State,
    /// The file.
    pub config: &'a Gateway,
    /// What it claims.
    pub claims: &'a Claims,
    /// Key of the gateway itself.
    pub own_key: Option<PublicKey>,
    /// The address that was allocated last, for each family.
    pub last_allocated: &'a [Option<IpAddr>; 2],
    /// The time.
    pub now: Timestamp,
}

/// What a request comes to.
#[derive(Debug)]
pub struct Made {
    /// The peer as it will be.
    pub peer: Arc<PeerRecord>,
    /// What to change.
    pub changes: Vec<Change>,
    /// The client's private key, when it was made here.
    pub private_key: Option<PrivateKey>,
}

/// Where 32 random bytes come from.
pub type Random<'a> = &'a mut dyn FnMut() -> [u8; 32];

impl<'a> Context<'a> {
    /// A peer of the API. One of the file can't be changed here.
    pub fn peer(&self, id: Uuid) -> Result<&'a Arc<PeerRecord>, RequestError> {
        if let Some(peer) = self.state.peers().get(&id) {
            return Ok(peer);
        }
        let mut of_file = self.config.peers.iter();
        match of_file.find(|peer| file_id(&peer.name) == id) {
            Some(peer) => Err(RequestError::Conflict {
                code: "managed_by_file",
                detail: format!(
                    "the peer {} is defined in the configuration file",
                    peer.name
                ),
                errors: Vec::new(),
                hint: Some("change its [[peer]] there and reload the daemon (SIGHUP)".to_owned()),
            }),
            None => Err(RequestError::NotFound("peer")),
        }
    }

    /// `POST /v1/peers`.
    pub fn create(
        &self,
        id: Uuid,
        request: &CreatePeer,
        random: Random<'_>,
    ) -> Result<Made, RequestError> {
        let mut check = Check::default();
        check.name("/name", &request.name);
        let keys = check.keys(
            request.public_key.as_deref(),
            request.generate_key,
            request.preshared_key.as_deref(),
            random,
        );
        let addresses = request
            .addresses
            .as_ref()
            .map(|texts| check.addresses("/addresses", texts));
        let networks = check.networks("/networks", &request.networks);
        self.check_role(&mut check, request.role.as_deref());
        let expires_at = check.expiry(
            request.expires_at.as_deref(),
            request.expires_in_seconds,
            self.now,
        );
        let quota_bytes = check.quota("/quota_bytes", request.quota_bytes);
        check.labels(&request.labels);
        let (Some(keys), true) = (keys, check.errors.is_empty()) else {
            return Err(RequestError::Invalid(check.errors));
        };
        let addresses = match addresses {
            Some(addresses) => addresses,
            None => self.allocate()?,
        };
        let Keys {
            public_key,
            private_key,
            preshared_key,
        } = keys;
        let peer = PeerRecord {
            id,
            revision: 1,
            name: request.name.clone(),
            public_key,
            preshared_key,
            addresses,
            networks,
            role: request.role.clone(),
            enabled: request.enabled.unwrap_or(true),
            expires_at,
            quota_bytes,
            labels: request.labels.clone(),
            created_at: self.now,
            updated_at: self.now,
            rotation: None,
        };
        self.check_claim(&peer, None)?;
        let usage = UsageRecord {
            counted_since: Some(self.now),
            ..UsageRecord::default()
        };
        let forget = peer.addresses.iter().map(|&a| Change::ForgetReleased(a));
        let changes = [Change::PutPeer(peer.clone()), Change::PutUsage(id, usage)];
        Ok(Made {
            changes: changes.into_iter().chain(forget).collect(),
            peer: Arc::new(peer),
            private_key,
        })
    }

    /// `PATCH /v1/peers/{id}`.
    pub fn patch(&self, before: &PeerRecord, patch: &PatchPeer) -> Result<Made, RequestError> {
        let mut check = Check::default();
        let mut peer = before.clone();
        if let Some(name) = &patch.name {
            check.name("/name", name);
            peer.name.clone_from(name);
        }
        if let Some(addresses) = &patch.addresses {
            peer.addresses = check.addresses("/addresses", addresses);
        }
        if let Some(networks) = &patch.networks {
            let texts = networks.as_deref().unwrap_or_default();
            peer.networks = check.networks("/networks", texts);
        }
        if let Some(role) = &patch.role {
            self.check_role(&mut check, role.as_deref());
            peer.role.clone_from(role);
        }
        peer.enabled = patch.enabled.unwrap_or(before.enabled);
        if let Some(expires_at) = &patch.expires_at {
            peer.expires_at = expires_at
                .as_ref()
                .and_then(|text| check.time("/expires_at", text, self.now));
        }
        if let Some(quota) = patch.quota_bytes {
            peer.quota_bytes = check.quota("/quota_bytes", quota);
        }
        match &patch.labels {
            None => {}
            Some(None) => peer.labels.clear(),
            Some(Some(labels)) => {
                for (key, value) in labels {
                    match value {
                        Some(value) => peer.labels.insert(key.clone(), value.clone()),
                        None => peer.labels.remove(key),
                    };
                }
                check.labels(&peer.labels);
            }
        }
        if !check.errors.is_empty() {
            return Err(RequestError::Invalid(check.errors));
        }
        self.check_claim(&peer, Some(before))?;
        Ok(self.put(before, peer))
    }

    /// `POST /v1/peers/{id}/rotate`. A key that was to come and was never used gives way to this one.
    pub fn rotate(
        &self,
        before: &PeerRecord,
        request: &RotatePeer,
        random: Random<'_>,
    ) -> Result<Made, RequestError> {
        let mut check = Check::default();
        let keys = check.keys(
            request.public_key.as_deref(),
            request.generate_key,
            request.preshared_key.as_deref(),
            random,
        );
        let overlap = request.overlap_seconds.unwrap_or(DEFAULT_OVERLAP_SECS);
        if overlap > MAX_OVERLAP_SECS {
            let detail = format!("0 to {MAX_OVERLAP_SECS} seconds are wanted");
            check.refuse("/overlap_seconds", detail);
        }
        if keys
            .as_ref()
            .is_some_and(|k| k.public_key == before.public_key)
        {
            check.refuse("/public_key", "is the key that the peer has already");
        }
        let (Some(keys), true) = (keys, check.errors.is_empty()) else {
            return Err(RequestError::Invalid(check.errors));
        };
        let mut peer = before.clone();
        if overlap == 0 {
            peer.public_key = keys.public_key;
            peer.preshared_key = keys.preshared_key;
            peer.rotation = None;
        } else {
            let span = SignedDuration::from_secs(i64::try_from(overlap).unwrap_or(i64::MAX));
            peer.rotation = Some(RotationRecord {
                public_key: keys.public_key,
                preshared_key: keys.preshared_key,
                until: self.now.checked_add(span).unwrap_or(Timestamp::MAX),
            });
        }
        self.check_claim(&peer, Some(before))?;
        Ok(Made {
            private_key: keys.private_key,
            ..self.put(before, peer)
        })
    }

    /// The new key has been used, or the old one's time is up.
    pub fn finish_rotation(&self, before: &PeerRecord) -> Option<Made> {
        let mut peer = before.clone();
        let rotation = peer.rotation.take()?;
        peer.public_key = rotation.public_key;
        peer.preshared_key = rotation.preshared_key;
        Some(self.put(before, peer))
    }

    /// `POST /v1/peers/{id}/reset-usage`: what was moved until now does not count for the quota.
    pub fn reset_usage(&self, before: &PeerRecord, usage: UsageRecord) -> Made {
        let begun = UsageRecord {
            quota_base_bytes: usage.rx_bytes.saturating_add(usage.tx_bytes),
            counted_since: Some(self.now),
            ..usage
        };
        let mut made = self.put(before, before.clone());
        made.changes.push(Change::PutUsage(before.id, begun));
        made
    }

    /// `DELETE /v1/peers/{id}`.
    pub fn delete(&self, before: &PeerRecord) -> Vec<Change> {
        let release = before.addresses.iter();
        let release = release.map(|&address| Change::ReleaseAddress(address, self.now));
        std::iter::once(Change::DeletePeer(before.id))
            .chain(release)
            .collect()
    }

    fn put(&self, before: &PeerRecord, mut peer: PeerRecord) -> Made {
        peer.revision = before.revision + 1;
        peer.updated_at = self.now;
        let lost = before
            .addresses
            .iter()
            .filter(|a| !peer.addresses.contains(a));
        let won = peer
            .addresses
            .iter()
            .filter(|a| !before.addresses.contains(a));
        let changes = std::iter::once(Change::PutPeer(peer.clone()))
            .chain(lost.map(|&a| Change::ReleaseAddress(a, self.now)))
            .chain(won.map(|&a| Change::ForgetReleased(a)))
            .collect();
        Made {
            peer: Arc::new(peer),
            changes,
            private_key: None,
        }
    }

    fn check_role(&self, check: &mut Check, role: Option<&str>) {
        let Some(role) = role else { return };
        if !self.config.roles.iter().any(|known| known.name == role) {
            let known: Vec<&str> = self.config.roles.iter().map(|r| r.name.as_str()).collect();
            let known = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            check.refuse(
                "/role",
                format!("the configuration file has no such [[role]]; {known}"),
            );
        }
    }

    /// One address of each family of the tunnel.
    pub(super) fn allocate(&self) -> Result<Vec<IpAddr>, RequestError> {
        let rested = self.now.checked_sub(ADDRESS_REST).unwrap_or(Timestamp::MIN);
        let lans = self.config.lan_servers.iter();
        let lans = lans.flat_map(|lan| &lan.networks);
        let taken_until = |address: IpAddr| {
            let is_kept = || {
                self.claims.check_address(address).is_err()
                    || self.state.is_released_since(address, rested)
            };
            taken_until(lans.clone(), self.state, address).or_else(|| is_kept().then_some(address))
        };
        let allocate = |&network: &IpNetwork| {
            let last = self.last_allocated.get(usize::from(network.is_ipv6()));
            next_free(network, last.copied().flatten(), taken_until).ok_or_else(|| {
                RequestError::Conflict {
                    code: "addresses_exhausted",
                    detail: format!("no address of {network} is free"),
                    errors: Vec::new(),
                    hint: Some(format!(
                        "remove peers (an address rests for {} s), or ask for an address",
                        ADDRESS_REST.as_secs()
                    )),
                }
            })
        };
        self.claims.tunnel_networks().iter().map(allocate).collect()
    }

    /// Whether all that `peer` wants is free: of the file, of the gateway, of other peers. What it had `before` stays its
    /// own, even when the file has claimed it meanwhile.
    fn check_claim(
        &self,
        peer: &PeerRecord,
        before: Option<&PeerRecord>,
    ) -> Result<(), RequestError> {
        let next = peer.rotation.as_ref().map(|rotation| &rotation.public_key);
        let claim = Claim {
            name: &peer.name,
            public_key: &peer.public_key,
            next_public_key: next,
            addresses: &peer.addresses,
            networks: &peer.networks,
        };
        let mut refusals = self.claims.against(&claim);
        if let Some(before) = before {
            refusals.retain(|refusal| is_new(refusal.field, peer, before));
        }
        self.against_peers(&claim, peer.id, &mut refusals);
        if refusals.is_empty() {
            return Ok(());
        }
        // What nobody could have is no matter of who has it.
        let impossible = refusals.iter().filter(|refusal| !refusal.taken);
        let impossible: Vec<FieldError> = impossible.map(field_error).collect();
        if !impossible.is_empty() {
            return Err(RequestError::Invalid(impossible));
        }
        let errors: Vec<FieldError> = refusals.iter().map(field_error).collect();
        match refusals.first() {
            Some(refusal) => Err(RequestError::Conflict {
                code: match refusal.field {
                    Field::Name => "name_taken",
                    Field::PublicKey => "public_key_taken",
                    Field::Address(_) => "address_taken",
                    Field::Network(_) => "network_taken",
                },
                detail: refusal.detail.clone(),
                errors,
                hint: None,
            }),
            None => Err(RequestError::Invalid(errors)),
        }
    }

    fn against_peers(&self, claim: &Claim<'_>, id: Uuid, refusals: &mut Vec<Refusal>) {
        let other = |holder: Option<Uuid>| holder.filter(|&holder| holder != id);
        let name_of = |id: Uuid| {
            let peer = self.state.peers().get(&id);
            peer.map_or("another", |peer| peer.name.as_str())
        };
        let mut refuse = |field, detail| {
            refusals.push(Refusal {
                field,
                detail,
                taken: true,
            });
        };
        if other(self.state.by_name(claim.name)).is_some() {
            refuse(
                Field::Name,
                format!("another peer has the name {:?}", claim.name),
            );
        }
        let keys = [Some(claim.public_key), claim.next_public_key];
        for key in keys.into_iter().flatten() {
            if let Some(holder) = other(self.state.by_key(key)) {
                let detail = format!("the peer {} has this key", name_of(holder));
                refuse(Field::PublicKey, detail);
            }
            if self.own_key == Some(*key) {
                refuse(Field::PublicKey, "this is the gateway's own key".to_owned());
            }
        }
        for (place, &address) in claim.addresses.iter().enumerate() {
            if let Some(holder) = self.state.by_address(address, Some(id)) {
                let detail = format!("the peer {} has {address}", name_of(holder));
                refuse(Field::Address(place), detail);
            }
        }
        for (place, &network) in claim.networks.iter().enumerate() {
            let holder = self.state.by_network(network, Some(id));
            let holder = holder.or_else(|| self.state.address_within(network, Some(id)));
            if let Some(holder) = holder {
                let detail = format!(
                    "{network} overlaps with what the peer {} has",
                    name_of(holder)
                );
                refuse(Field::Network(place), detail);
            }
        }
    }
}

/// Whether this part of a peer is not what it was.
fn is_new(field: Field, peer: &PeerRecord, before: &PeerRecord) -> bool {
    match field {
        Field::Name => peer.name != before.name,
        Field::PublicKey => {
            peer.public_key != before.public_key || peer.rotation != before.rotation
        }
        Field::Address(place) => peer
            .addresses
            .get(place)
            .is_none_or(|address| !before.addresses.contains(address)),
        Field::Network(place) => peer
            .networks
            .get(place)
            .is_none_or(|network| !before.networks.contains(network)),
    }
}

fn field_error(refusal: &Refusal) -> FieldError {
    FieldError {
        pointer: match refusal.field {
            Field::Name => "/name".to_owned(),
            Field::PublicKey => "/public_key".to_owned(),
            Field::Address(place) => format!("/addresses/{place}"),
            Field::Network(place) => format!("/networks/{place}"),
        },
        detail: refusal.detail.clone(),
    }
}

#[cfg(test)]
mod tests;
