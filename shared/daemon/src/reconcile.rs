//! Desired state → kernel, in the one order that fails closed: paths that are no longer wanted go, then the ruleset
//! changes, then new paths come, then peers. Everything is read back.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nft::Nftables;
use shared::config::common::Endpoint;
use shared::model::{PresharedKey, PublicKey};
use shared::plan::{Actual, Change, Changes, Conflict, Desired, Route, difference};
use shared::wg::{AllowedIpChange, DeviceChange, PeerChange};
use shared_datapath::Control;
use shared_os::netlink::Netlink;
use shared_os::sysctl::{self, Remembered, Restored};
use tracing::{debug, info};

use crate::endpoints::Endpoints;
use crate::error::Failure;
use crate::model::{Model, PeerModel, PresharedKeyFrom};

/// The kernel as this daemon holds it.
#[derive(Debug)]
pub struct Kernel {
    netlink: Netlink,
    nftables: Nftables,
    remembered: Remembered,
}

impl Kernel {
    /// Open the sockets; `state_dir` remembers the switches of others.
    pub fn open(state_dir: &std::path::Path) -> Result<Self, Failure> {
        Ok(Self {
            netlink: Netlink::open().map_err(|error| Failure::environment(&error))?,
            nftables: Nftables::open().map_err(|error| Failure::environment(&error))?,
            remembered: Remembered::open(state_dir)
                .map_err(|error| Failure::environment(&error))?,
        })
    }

    /// Links, addresses and routes.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The ruleset.
    pub fn nftables(&mut self) -> &mut Nftables {
        &mut self.nftables
    }

    /// Make the kernel hold what is desired, and prove it.
    ///
    /// # Errors
    /// What the kernel refused, or what still differs afterwards.
    pub async fn reconcile(&mut self, desired: &Desired) -> Result<Vec<Conflict>, Failure> {
        let taken = |changes: &Changes, _: &Actual| {
            let mut conflicts = changes.conflicts.iter();
            conflicts
                .find(|conflict| matches!(conflict, Conflict::LinkTaken(_)))
                .map(ToString::to_string)
        };
        self.reconcile_unless(desired, taken).await
    }

    /// Touches nothing when there is an objection to what it would do.
    async fn reconcile_unless(
        &mut self,
        desired: &Desired,
        objection: impl Fn(&Changes, &Actual) -> Option<String>,
    ) -> Result<Vec<Conflict>, Failure> {
        let actual = self
            .netlink
            .read(desired)
            .await
            .map_err(|error| Failure::other(&error))?;
        let changes = difference(desired, &actual);
        if let Some(objection) = objection(&changes, &actual) {
            return Err(Failure::Environment(objection));
        }
        self.apply(&changes.before_ruleset).await?;
        let applied = self
            .nftables
            .replace(&desired.ruleset)
            .map_err(|error| Failure::other(&error))?;
        info!(table = %desired.ruleset.table, ?applied, "ruleset in place");
        self.apply(&changes.after_ruleset).await?;
        self.verify(desired).await?;
        Ok(changes.conflicts)
    }

    /// From one desired state that is in place to another. When only elements of sets and maps differ, the kernel gets
    /// just these; anything else is reconciled.
    ///
    /// # Errors
    /// As [`reconcile`](Self::reconcile).
    pub async fn update(&mut self, from: &Desired, to: &Desired) -> Result<(), Failure> {
        let same_but_ruleset = from.protocol == to.protocol
            && from.links == to.links
            && from.addresses == to.addresses
            && from.routes == to.routes
            && from.rules == to.rules
            && from.sysctls == to.sysctls;
        let done = same_but_ruleset
            && self
                .nftables
                .change_elements(&from.ruleset, &to.ruleset)
                .map_err(|error| Failure::other(&error))?;
        if !done {
            self.reconcile_unless(to, |changes, actual| objection(from, to, changes, actual))
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn apply(&mut self, changes: &[Change]) -> Result<(), Failure> {
        for change in changes {
            debug!(%change, "applying");
            if let Change::SetSysctl { sysctl, was } = change {
                self.remembered
                    .note(sysctl, was.as_deref())
                    .map_err(|error| Failure::other(&error))?;
            }
            self.netlink
                .apply(change)
                .await
                .map_err(|error| Failure::other(&error))?;
        }
        Ok(())
    }

    async fn verify(&mut self, desired: &Desired) -> Result<(), Failure> {
        let actual = self
            .netlink
            .read(desired)
            .await
            .map_err(|error| Failure::other(&error))?;
        let left: Vec<String> = difference(desired, &actual)
            .iter()
            .map(ToString::to_string)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "the kernel took the changes but does not show them; still missing: {}",
            left.join("; ")
        )))
    }

    /// Remove everything of ours; goes on after an error and tells them all.
    pub async fn remove(&mut self, desired: &Desired) -> Result<(), Failure> {
        let mut errors = Vec::new();
        match self.netlink.read(desired).await {
            Ok(actual) => {
                for change in shared::plan::removal(desired, &actual) {
                    info!(%change, "removing");
                    if let Err(error) = self.netlink.apply(&change).await {
                        errors.push(crate::error::chain(&error));
                    }
                }
            }
            Err(error) => errors.push(crate::error::chain(&error)),
        }
        // The table goes last: until the link is gone it keeps the tunnel closed.
        match self.nftables.remove(&desired.ruleset.table) {
            Ok(true) => info!(table = %desired.ruleset.table, "table removed"),
            Ok(false) => {}
            Err(error) => errors.push(crate::error::chain(&error)),
        }
        errors.extend(self.restore_sysctls());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::Other(errors.join("\n")))
        }
    }

    /// What could not be put back.
    fn restore_sysctls(&mut self) -> Vec<String> {
        let outcomes = match self.remembered.restore() {
            Ok(outcomes) => outcomes,
            Err(error) => return vec![crate::error::chain(&error)],
        };
        let mut errors = Vec::new();
        for outcome in outcomes {
            match outcome {
                Restored::Back { path, value } => {
                    info!(sysctl = path.join("."), value, "put back");
                }
                Restored::LeftAlone { path, value } => {
                    info!(
                        sysctl = path.join("."),
                        ?value,
                        "changed by someone else, left alone"
                    );
                }
                Restored::Failed(error) => errors.push(crate::error::chain(&error)),
            }
        }
        errors
    }
}

/// Whether the switches that are not of our own links are as desired, or may be set by us. To be asked before anything is
/// made: forwarding is the last thing that a start switches on.
///
/// # Errors
/// All that are missing, one a line.
pub fn check_sysctls(desired: &Desired) -> Result<(), Failure> {
    let of_others = desired.sysctls.iter().filter(|sysctl| !sysctl.of_our_link);
    let refusals: Vec<String> = of_others
        .filter_map(|sysctl| sysctl::check(sysctl).err())
        .map(|error| crate::error::chain(&error))
        .collect();
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(Failure::Environment(refusals.join("\n")))
    }
}

/// Why the routes that `to` adds to `from` can't be had.
fn objection(from: &Desired, to: &Desired, changes: &Changes, actual: &Actual) -> Option<String> {
    let is_new = |route: &Route| !from.routes.contains(route);
    let mut conflicts = changes.conflicts.iter();
    let conflict = conflicts.find(|conflict| match conflict {
        Conflict::RouteTaken { wanted, .. } => is_new(wanted),
        Conflict::LinkTaken(_) => true,
    });
    conflict.map(ToString::to_string).or_else(|| {
        let mut added = to.routes.iter().filter(|route| is_new(route));
        added.find_map(|wanted| {
            let neighbours = actual.neighbours_taken_by(wanted)?;
            Some(format!(
                "{} can't be routed over {}: the hosts next to this one are there, `{neighbours}`",
                wanted.destination, wanted.link
            ))
        })
    })
}

/// Preshared keys by the file they stand in.
pub type PresharedKeys = BTreeMap<PathBuf, PresharedKey>;

/// Make the device hold exactly the peers of `model`. A peer that stays keeps its session; an endpoint that did not
/// change since `previous` is left where the peer roamed to. At start there is no `previous`; `last_endpoints` tells
/// where peers were that come and whose address is not in the configuration.
pub async fn apply_peers(
    control: &Control,
    model: &Model,
    previous: Option<&Model>,
    preshared_keys: &PresharedKeys,
    last_endpoints: &Endpoints,
) -> Result<(), Failure> {
    let mut change = all_peers(model, previous, preshared_keys);
    let known = previous.iter().flat_map(|model| &model.peers);
    let known = by_key(known.map(AsRef::as_ref));
    for peer in &mut change.peers {
        if !known.contains_key(&peer.public_key) && peer.endpoint.is_none() {
            peer.endpoint = last_endpoints.of(&peer.public_key);
            // At a start all are called, once packets may pass.
            peer.initiate_handshake = previous.is_some() && peer.endpoint.is_some();
        }
    }
    match control.apply(change).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::other(&error)),
    }
}

/// Makes the device hold exactly the peers of `model`, an endpoint that did not change since `previous` left where it is.
pub fn all_peers(
    model: &Model,
    previous: Option<&Model>,
    preshared_keys: &PresharedKeys,
) -> DeviceChange {
    let before = previous.iter().flat_map(|model| &model.peers);
    let before = by_key(before.map(AsRef::as_ref));
    let peers = model.peers.iter().map(|peer| {
        let before = before.get(&peer.public_key).copied();
        peer_change(peer, before, preshared_keys)
    });
    DeviceChange {
        replace_peers: true,
        peers: peers.collect(),
        ..DeviceChange::default()
    }
}

/// Peers that were in the device a moment ago and come back without their session are called where they were: else they
/// would notice only by not being answered.
pub fn call_again(change: &mut DeviceChange, left_at: &BTreeMap<PublicKey, SocketAddr>) {
    for peer in &mut change.peers {
        if let (None, Some(&endpoint)) = (peer.endpoint, left_at.get(&peer.public_key)) {
            peer.endpoint = Some(endpoint);
            peer.initiate_handshake = true;
        }
    }
}

/// What to do with the device, before and after the kernel's state changes.
#[derive(Debug, Default)]
pub struct PeerChanges {
    /// Peers that go, and networks that peers lose.
    pub removals: DeviceChange,
    /// Peers that come, and what else changes.
    pub additions: DeviceChange,
}

/// From the peers of one model to those of another: only what differs.
pub fn peer_changes(from: &Model, to: &Model, preshared_keys: &PresharedKeys) -> PeerChanges {
    // Of thousands of peers nearly all are the very same in both: only the others are looked at.
    let kept: HashSet<_> = from.peers.iter().map(Arc::as_ptr).collect();
    let come: Vec<&PeerModel> = not_in(&kept, to).collect();
    let kept: HashSet<_> = to.peers.iter().map(Arc::as_ptr).collect();
    let gone: Vec<&PeerModel> = not_in(&kept, from).collect();
    let (before, after) = (by_key(gone.iter().copied()), by_key(come.iter().copied()));
    let resent = relatives(&before, &after);
    let mut changes = PeerChanges::default();
    for peer in gone {
        let removal = match after.get(&peer.public_key) {
            None => PeerChange {
                remove: true,
                ..PeerChange::new(peer.public_key)
            },
            Some(kept) => {
                let lost: Vec<AllowedIpChange> = peer
                    .allowed_ips
                    .iter()
                    .filter(|network| !kept.allowed_ips.contains(network))
                    .map(|&network| AllowedIpChange {
                        network,
                        remove: true,
                    })
                    .collect();
                if lost.is_empty() {
                    continue;
                }
                PeerChange {
                    update_only: true,
                    allowed_ips: lost,
                    ..PeerChange::new(peer.public_key)
                }
            }
        };
        changes.removals.peers.push(removal);
    }
    for peer in come {
        let known = before.get(&peer.public_key).copied();
        if known != Some(peer) || resent.contains(&peer.public_key) {
            let change = peer_change(peer, known, preshared_keys);
            changes.additions.peers.push(change);
        }
    }
    changes
}

/// Keys of which one succeeds the other, when either changes: which of the two owns the networks by now only the device
/// knows, so both are told anew. An unchanged successor that is in use takes over again with its next data message.
///
/// Both come from one member, so when one of them is made anew, the other is.
fn relatives(
    before: &BTreeMap<PublicKey, &PeerModel>,
    after: &BTreeMap<PublicKey, &PeerModel>,
) -> BTreeSet<PublicKey> {
    let changed = |key: &PublicKey| before.get(key) != after.get(key);
    let peers = before.values().chain(after.values());
    peers
        .filter_map(|peer| Some((peer.public_key, peer.succeeds?)))
        .filter(|(next, present)| changed(next) || changed(present))
        .flat_map(|(next, present)| [next, present])
        .collect()
}

/// Peers of a model that are not the very ones that are known.
fn not_in<'a>(
    known: &HashSet<*const PeerModel>,
    model: &'a Model,
) -> impl Iterator<Item = &'a PeerModel> {
    let peers = model.peers.iter();
    let others = peers.filter(|peer| !known.contains(&Arc::as_ptr(peer)));
    others.map(AsRef::as_ref)
}

fn by_key<'a>(peers: impl Iterator<Item = &'a PeerModel>) -> BTreeMap<PublicKey, &'a PeerModel> {
    peers.map(|peer| (peer.public_key, peer)).collect()
}

fn peer_change(
    peer: &PeerModel,
    before: Option<&PeerModel>,
    preshared_keys: &PresharedKeys,
) -> PeerChange {
    const NONE: PresharedKey = PresharedKey::from_bytes([0; shared::model::key::KEY_LEN]);
    let endpoint_changed = before.is_none_or(|before| before.endpoint != peer.endpoint);
    let preshared_key = match &peer.preshared_key {
        PresharedKeyFrom::Nowhere => NONE,
        PresharedKeyFrom::File(file) => preshared_keys.get(file).cloned().unwrap_or(NONE),
        PresharedKeyFrom::Here(key) => key.clone(),
    };
    PeerChange {
        preshared_key: Some(preshared_key),
        endpoint: match peer.endpoint {
            Some(Endpoint::Address(address)) if endpoint_changed => Some(address),
            Some(Endpoint::Address(_) | Endpoint::Name { .. }) | None => None,
        },
        persistent_keepalive_secs: Some(peer.persistent_keepalive_secs),
        replace_allowed_ips: true,
        succeeds: Some(peer.succeeds),
        allowed_ips: peer
            .allowed_ips
            .iter()
            .map(|&network| AllowedIpChange {
                network,
                remove: false,
            })
            .collect(),
        ..PeerChange::new(peer.public_key)
    }
}

#[cfg(test)]
mod tests;
