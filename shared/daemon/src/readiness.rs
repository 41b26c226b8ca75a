//! Whether the daemon does what its configuration asks for, and whether that leads anywhere; looked at when somebody asks and at
//! most once a second: who may ask without a token must not be able to keep the daemon busy.
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::api::probe::{Probe, ProbeState};
use shared::wg::DeviceStatus;
use shared_datapath::Control;
use tokio::sync::{Mutex, watch};

use crate::drift::Record;
use crate::error::chain;
use crate::model::{Model, PeerKind, PeerModel};
use crate::plane::Plane;
use crate::product::Product;
use crate::reconcile::Kernel;
use crate::report::is_online;

/// How long an answer is given again.
const KEPT: Duration = Duration::from_secs(1);

/// What is wrong when everything of ours is in place and nobody gets anywhere.
pub const NO_PATH: &str = "no published service answers: `doctor` names the hop that fails";

/// What is wrong now, in sentences; empty when nothing is.
pub type Problems = Arc<[String]>;

/// Knows where to look, and what was found last.
#[derive(Debug)]
pub struct Readiness<P: Product> {
    plane: Arc<Mutex<Plane<P>>>,
    control: Control,
    kernel: Arc<Mutex<Kernel>>,
    model: watch::Receiver<Arc<Model>>,
    drifts: Arc<Record>,
    last: Mutex<Option<(Instant, Problems)>>,
}

impl<P: Product> Readiness<P> {
    /// Nothing is looked at yet.
    pub async fn new(plane: &Arc<Mutex<Plane<P>>>, drifts: Arc<Record>) -> Self {
        let held = plane.lock().await;
        Self {
            plane: Arc::clone(plane),
            control: held.control().clone(),
            kernel: Arc::clone(held.kernel()),
            model: held.subscribe(),
            drifts,
            last: Mutex::new(None),
        }
    }

    /// What is wrong: as it is now, or as it was within the last second.
    pub async fn problems(self: &Arc<Self>) -> Problems {
        if let Some(known) = fresh(self.last.lock().await.as_ref()) {
            return known;
        }
        // In a task of its own: it is finished, and its answer kept, also when the caller has gone meanwhile.
        let this = Arc::clone(self);
        let looked = tokio::spawn(async move { this.look_once().await });
        looked
            .await
            .unwrap_or_else(|error| [format!("the look at the kernel failed: {error}")].into())
    }

    /// Something was put right: what was seen before does not count.
    pub async fn forget(&self) {
        *self.last.lock().await = None;
    }

    /// One look for all who ask at the same time.
    async fn look_once(&self) -> Problems {
        let mut last = self.last.lock().await;
        if let Some(known) = fresh(last.as_ref()) {
            return known;
        }
        let problems: Problems = self.look().await.into();
        *last = Some((Instant::now(), Arc::clone(&problems)));
        problems
    }

    async fn look(&self) -> Vec<String> {
        let mut problems = self.deviations().await;
        if !problems.is_empty() {
            problems.extend(self.drifts.problems());
        }
        problems.extend(self.data_plane().await);
        problems
    }

    /// How the kernel differs from what is desired, looked at now.
    pub async fn deviations(&self) -> Vec<String> {
        let model = Arc::clone(&self.model.borrow());
        let found = self.kernel.lock().await.deviations(&model.desired).await;
        if found.is_empty() {
            return found;
        }
        // A change may have been under way. The second look waits until it is done, and keeps the next one out.
        let plane = self.plane.lock().await;
        let mut kernel = plane.kernel().lock().await;
        kernel.deviations(&plane.model().desired).await
    }

    /// Unless the worker answers, and where we dial a gateway and keep the session up, it is up. As it is now.
    pub async fn data_plane(&self) -> Option<String> {
        let model = Arc::clone(&self.model.borrow());
        let gateways: Vec<&PeerModel> = gateways(&model).collect();
        if gateways.is_empty() {
            return self.control.counters().await.err().map(|e| chain(&e));
        }
        match self.control.status().await {
            Ok(device) => no_session(&gateways, &device),
            Err(error) => Some(chain(&error)),
        }
    }
}

fn fresh(last: Option<&(Instant, Problems)>) -> Option<Problems> {
    let (at, problems) = last?;
    (at.elapsed() < KEPT).then(|| Arc::clone(problems))
}

/// Whether all that is published was tried and nothing of it answers. That some services are down is for their owners to see to: this
/// host is still the right place for the others.
pub fn has_no_path(probes: &[Probe]) -> bool {
    let mut states = probes.iter().map(|probe| probe.state);
    !probes.is_empty() && states.all(|state| state == ProbeState::Down)
}

/// Gateways with which there always is a session: without keepalives an idle one ends, and nothing is wrong.
fn gateways(model: &Model) -> impl Iterator<Item = &PeerModel> {
    let peers = model.peers.iter().map(AsRef::as_ref);
    peers.filter(|peer| peer.kind == PeerKind::Gateway && peer.persistent_keepalive_secs > 0)
}

/// What to say when there is a session with none of them.
fn no_session(gateways: &[&PeerModel], device: &DeviceStatus) -> Option<String> {
    let is_up = |gateway: &&PeerModel| {
        let mut peers = device.peers.iter();
        peers.any(|peer| peer.public_key == gateway.public_key && is_online(peer))
    };
    if gateways.iter().any(is_up) {
        return None;
    }
    let names: Vec<&str> = gateways.iter().map(|peer| peer.name.as_str()).collect();
    Some(format!(
        "there is no session with the gateway {}: look at its endpoint, the keys of both ends, and UDP on the way",
        names.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::model::{PrivateKey, PublicKey};
    use shared::wg::PeerStatus;

    use super::*;
    use crate::model::PresharedKeyFrom;

    fn key(number: u8) -> PublicKey {
        PrivateKey::from_bytes([number; 32]).public_key()
    }

    fn gateway(name: &str, number: u8) -> PeerModel {
        PeerModel {
            name: name.to_owned(),
            kind: PeerKind::Gateway,
            public_key: key(number),
            preshared_key: PresharedKeyFrom::Nowhere,
            endpoint: None,
            allowed_ips: Vec::new(),
            persistent_keepalive_secs: 25,
            succeeds: None,
        }
    }

    fn device(ages: &[(u8, Option<u64>)]) -> DeviceStatus {
        let peers = ages.iter().map(|&(number, age)| PeerStatus {
            public_key: key(number),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: Vec::new(),
            latest_handshake: age.map(Duration::from_secs),
            rx_bytes: 0,
            tx_bytes: 0,
        });
        DeviceStatus {
            private_key: None,
            listen_port: 51820,
            fwmark: 0,
            peers: peers.collect(),
        }
    }

    #[test]
    fn one_service_that_answers_is_a_path() {
        use ProbeState::{Down, Unknown, Up};
        for (states, is_none) in [
            (&[][..], false),
            (&[Down], true),
            (&[Down, Down], true),
            (&[Down, Up], false),
            (&[Down, Unknown], false),
        ] {
            let probe = |&state: &ProbeState| Probe {
                publish: "ingress".to_owned(),
                vip: "10.17.5.30".parse().unwrap(),
                port: 443,
                state,
                since: None,
                checked_at: None,
                connect_milliseconds: None,
                error: None,
            };
            let probes: Vec<Probe> = states.iter().map(probe).collect();
            assert_eq!(has_no_path(&probes), is_none, "{states:?}");
        }
    }

    #[test]
    fn one_session_with_one_gateway_is_enough() {
        let (first, second) = (gateway("vps1", 1), gateway("vps2", 2));
        let both = [&first, &second];
        for (ages, is_well) in [
            (vec![(1, Some(179)), (2, None)], true),
            (vec![(1, Some(180)), (2, None)], false),
            (vec![(3, Some(1))], false),
        ] {
            let said = no_session(&both, &device(&ages));
            assert_eq!(said.is_none(), is_well, "{ages:?}: {said:?}");
        }
        let said = no_session(&both, &device(&[])).unwrap();
        assert!(said.contains("vps1 or vps2"), "{said}");
    }
}
