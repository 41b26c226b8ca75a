//! How the device differs from the peers that it should have.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use shared::api::plan::{Action, PlannedChange};
use shared::model::{PresharedKey, PublicKey};
use shared::wg::{DeviceStatus, PeerStatus};

use crate::model::{PeerModel, PresharedKeyFrom};
use crate::reconcile::PresharedKeys;

/// Peers that go are taken out before the kernel's state changes, others come after it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) before: Vec<PlannedChange>,
    pub(super) after: Vec<PlannedChange>,
}

/// What the device is to be told. Where a peer is, is none of it: it may roam.
pub(super) fn changes(
    peers: &[Arc<PeerModel>],
    preshared_keys: &PresharedKeys,
    device: Option<&DeviceStatus>,
) -> Changes {
    let live = device.iter().flat_map(|device| &device.peers);
    let live: BTreeMap<PublicKey, &PeerStatus> = live.map(|peer| (peer.public_key, peer)).collect();
    let wanted: BTreeSet<PublicKey> = peers.iter().map(|peer| peer.public_key).collect();
    // Which of a key and its successor has the networks by now only the device knows.
    let in_rotation: BTreeSet<PublicKey> = peers
        .iter()
        .filter_map(|peer| Some([peer.public_key, peer.succeeds?]))
        .flatten()
        .collect();
    let gone = live
        .values()
        .filter(|peer| !wanted.contains(&peer.public_key));
    let before = gone.map(|peer| PlannedChange {
        kind: "peer".to_owned(),
        action: Action::Remove,
        subject: format!("peer {}", peer.public_key),
        detail: format!("reaches {}", list(&peer.allowed_ips)),
    });
    let after = peers.iter().filter_map(|peer| {
        let (action, detail) = match live.get(&peer.public_key) {
            None => (Action::Add, format!("reaches {}", list(&peer.allowed_ips))),
            Some(live) => {
                let rotates = in_rotation.contains(&peer.public_key);
                (
                    Action::Change,
                    differences(peer, live, preshared_keys, rotates)?,
                )
            }
        };
        Some(PlannedChange {
            kind: "peer".to_owned(),
            action,
            subject: format!("peer {}", peer.name),
            detail,
        })
    });
    Changes {
        before: before.collect(),
        after: after.collect(),
    }
}

/// `None` when there are none.
fn differences(
    peer: &PeerModel,
    live: &PeerStatus,
    preshared_keys: &PresharedKeys,
    rotates: bool,
) -> Option<String> {
    let mut found = Vec::new();
    let wanted: BTreeSet<IpNetwork> = peer.allowed_ips.iter().copied().collect();
    let has: BTreeSet<IpNetwork> = live.allowed_ips.iter().copied().collect();
    if !rotates {
        let gains: Vec<IpNetwork> = wanted.difference(&has).copied().collect();
        let loses: Vec<IpNetwork> = has.difference(&wanted).copied().collect();
        if !gains.is_empty() {
            found.push(format!("gains {}", list(&gains)));
        }
        if !loses.is_empty() {
            found.push(format!("loses {}", list(&loses)));
        }
    }
    let keepalive = live.persistent_keepalive_secs.unwrap_or_default();
    if peer.persistent_keepalive_secs != keepalive {
        let wanted = peer.persistent_keepalive_secs;
        found.push(format!("keepalive {wanted} s, was {keepalive} s"));
    }
    if preshared_key(peer, preshared_keys) != live.preshared_key.as_ref() {
        found.push("another preshared key".to_owned());
    }
    (!found.is_empty()).then(|| found.join("; "))
}

fn preshared_key<'a>(
    peer: &'a PeerModel,
    preshared_keys: &'a PresharedKeys,
) -> Option<&'a PresharedKey> {
    match &peer.preshared_key {
        PresharedKeyFrom::Nowhere => None,
        PresharedKeyFrom::File(file) => preshared_keys.get(file),
        PresharedKeyFrom::Here(key) => Some(key),
    }
}

/// The first few of them.
fn list(networks: &[IpNetwork]) -> String {
    const SHOWN: usize = 6;
    let shown = networks.iter().take(SHOWN).map(ToString::to_string);
    let shown: Vec<String> = shown.collect();
    match networks.len().saturating_sub(SHOWN) {
        _ if networks.is_empty() => "nothing".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PeerKind;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn peer(number: u8, networks: &[&str]) -> PeerModel {
        PeerModel {
            name: format!("peer-{number}"),
            kind: PeerKind::Peer,
            public_key: key(number),
            preshared_key: PresharedKeyFrom::Nowhere,
            endpoint: None,
            allowed_ips: networks.iter().map(|n| n.parse().unwrap()).collect(),
            persistent_keepalive_secs: 25,
            succeeds: None,
        }
    }

    fn live(number: u8, networks: &[&str]) -> PeerStatus {
        PeerStatus {
            public_key: key(number),
            preshared_key: None,
            endpoint: Some("192.0.2.1:5".parse().unwrap()),
            persistent_keepalive_secs: Some(25),
            allowed_ips: networks.iter().map(|n| n.parse().unwrap()).collect(),
            latest_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    fn planned(wanted: Vec<PeerModel>, live: Vec<PeerStatus>) -> Vec<String> {
        let wanted: Vec<_> = wanted.into_iter().map(Arc::new).collect();
        let device = DeviceStatus {
            private_key: None,
            listen_port: 1,
            fwmark: 0,
            peers: live,
        };
        let changes = changes(&wanted, &PresharedKeys::new(), Some(&device));
        let all = changes.before.iter().chain(&changes.after);
        all.map(|change| {
            let sign = change.action.sign();
            format!("{sign} {}: {}", change.subject, change.detail)
        })
        .collect()
    }

    #[test]
    fn a_device_as_it_should_be_is_told_nothing_wherever_its_peers_are() {
        let networks = ["10.0.0.1/32", "10.1.0.0/16"];
        let turned = ["10.1.0.0/16", "10.0.0.1/32"];
        assert_eq!(
            planned(vec![peer(1, &networks)], vec![live(1, &turned)]),
            [""; 0]
        );
    }

    #[test]
    fn who_goes_comes_first_and_who_changes_says_what() {
        let mut wanted = peer(2, &["10.0.0.2/32"]);
        wanted.persistent_keepalive_secs = 0;
        wanted.preshared_key = PresharedKeyFrom::Here(PresharedKey::from_bytes([7; 32]));
        let said = planned(
            vec![wanted, peer(3, &[])],
            vec![live(1, &["10.0.0.1/32"]), live(2, &["10.0.0.9/32"])],
        );
        let gone = format!("- peer {}: reaches 10.0.0.1/32", key(1));
        assert_eq!(
            said,
            [
                &gone,
                "~ peer peer-2: gains 10.0.0.2/32; loses 10.0.0.9/32; keepalive 0 s, was 25 s; another preshared key",
                "+ peer peer-3: reaches nothing",
            ]
        );
    }

    #[test]
    fn a_rotation_under_way_is_no_change() {
        let mut next = peer(2, &["10.0.0.1/32"]);
        next.succeeds = Some(key(1));
        let wanted = || vec![peer(1, &["10.0.0.1/32"]), next.clone()];
        let before = vec![live(1, &["10.0.0.1/32"]), live(2, &[])];
        let after = vec![live(1, &[]), live(2, &["10.0.0.1/32"])];
        assert_eq!(planned(wanted(), before), [""; 0]);
        assert_eq!(planned(wanted(), after), [""; 0]);
    }
}
