//! The control plane's one way to change anything: configuration and members → model → kernel and device, or back to what
//! was. Whoever wants a change holds the lock on the [`Plane`] until it is done; the data plane goes on meanwhile.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use shared::model::PublicKey;
use shared::plan::Conflict;
use shared::wg::{DeviceChange, PeerStatus};
use shared_datapath::Control;
use tokio::sync::{Mutex, watch};
use tracing::error;

use crate::applies::Applies;
use crate::endpoints::Endpoints;
use crate::error::Failure;
use crate::model::{Environment, Model};
use crate::product::{Product, Settings};
use crate::reconcile::{self, Kernel, PresharedKeys};

/// What a daemon holds, and in which state.
#[derive(Debug)]
pub struct Plane<P: Product> {
    kernel: Arc<Mutex<Kernel>>,
    control: Control,
    settings: Settings,
    environment: Environment,
    config: Arc<P::Config>,
    members: P::Members,
    preshared_keys: PresharedKeys,
    model: Arc<Model>,
    taken: watch::Sender<Arc<Model>>,
    applies: Arc<Applies>,
    departed: Vec<PeerStatus>,
    /// Where the peers were that the last change took out of the device: one that comes back by the next is called there.
    left_at: BTreeMap<PublicKey, SocketAddr>,
}

/// What a plane is made from: everything is in place already.
#[derive(Debug)]
pub struct InPlace<P: Product> {
    /// The kernel, reconciled.
    pub kernel: Arc<Mutex<Kernel>>,
    /// The device with its peers.
    pub control: Control,
    /// The configuration, as far as the daemon itself is concerned.
    pub settings: Settings,
    /// The host.
    pub environment: Environment,
    /// The configuration.
    pub config: P::Config,
    /// What was added to it.
    pub members: P::Members,
    /// Keys that the configuration names files for.
    pub preshared_keys: PresharedKeys,
    /// What follows from all of these.
    pub model: Model,
}

/// A configuration that is to take the place of the present one.
#[derive(Debug)]
pub struct Next<P: Product> {
    /// The configuration, as far as the daemon itself is concerned.
    pub settings: Settings,
    /// The host.
    pub environment: Environment,
    /// The configuration.
    pub config: Arc<P::Config>,
    /// Keys that it names files for.
    pub preshared_keys: PresharedKeys,
    /// What follows, with the members of now.
    pub model: Model,
}

impl<P: Product> Plane<P> {
    /// Start from what is in place.
    pub fn new(now: InPlace<P>) -> Self {
        let model = Arc::new(now.model);
        Self {
            kernel: now.kernel,
            control: now.control,
            settings: now.settings,
            environment: now.environment,
            config: Arc::new(now.config),
            members: now.members,
            preshared_keys: now.preshared_keys,
            taken: watch::Sender::new(Arc::clone(&model)),
            model,
            applies: Arc::default(),
            departed: Vec::new(),
            left_at: BTreeMap::new(),
        }
    }

    /// The configuration that runs.
    pub fn config(&self) -> &Arc<P::Config> {
        &self.config
    }

    /// Settings that run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The host as it was when the configuration was taken.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What is added to the configuration.
    pub fn members(&self) -> &P::Members {
        &self.members
    }

    /// Keys that the configuration names files for.
    pub fn preshared_keys(&self) -> &PresharedKeys {
        &self.preshared_keys
    }

    /// What is in place.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The kernel, for who reads its counters.
    pub fn kernel(&self) -> &Arc<Mutex<Kernel>> {
        &self.kernel
    }

    /// The device.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How often something was put in place. Whoever reloads counts that itself: a file that can't be read never gets here.
    pub fn applies(&self) -> &Arc<Applies> {
        &self.applies
    }

    /// Peers that [`change_members`](Self::change_members) took out of the device since this was last asked, as they were
    /// in their last moment; also when the change failed later.
    pub fn take_departed(&mut self) -> Vec<PeerStatus> {
        std::mem::take(&mut self.departed)
    }

    /// Every model that is taken, from the present one on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Model>> {
        self.taken.subscribe()
    }

    /// Take other members. Costs what differs, not what there is; no peer that stays as it is notices.
    ///
    /// # Errors
    /// What the kernel refused; the members of before are in place again.
    pub async fn change_members(&mut self, members: P::Members) -> Result<(), Failure> {
        let model = P::model(&self.config, &self.environment, &members);
        self.change_model(model).await?;
        self.members = members;
        Ok(())
    }

    /// Let the set `cloudflare` stand for these networks. Costs what differs; no session notices.
    ///
    /// # Errors
    /// What the kernel refused; the networks of before are in place again.
    pub async fn change_cloudflare(&mut self, networks: Vec<IpNetwork>) -> Result<(), Failure> {
        let environment = Environment {
            cloudflare: networks,
            ..self.environment.clone()
        };
        let model = P::model(&self.config, &environment, &self.members);
        self.change_model(model).await?;
        self.environment = environment;
        Ok(())
    }

    /// Step to this model, or back to the present one.
    async fn change_model(&mut self, model: Model) -> Result<(), Failure> {
        let stepped = self.step_to(&model).await;
        self.applies.count(stepped.is_ok());
        if let Err(failure) = stepped {
            let settings = self.settings.clone();
            self.go_back(&settings).await;
            return Err(failure);
        }
        self.set_model(model);
        Ok(())
    }

    /// Peers that go, kernel state, peers that come: at no moment may a peer do what neither of the two models allows.
    async fn step_to(&mut self, model: &Model) -> Result<(), Failure> {
        let mut changes = reconcile::peer_changes(&self.model, model, &self.preshared_keys);
        reconcile::call_again(&mut changes.additions, &std::mem::take(&mut self.left_at));
        let mut departed = self.apply(changes.removals).await?;
        let left_at = departed
            .iter()
            .filter_map(|peer| Some((peer.public_key, peer.endpoint?)));
        self.left_at = left_at.collect();
        self.departed.append(&mut departed);
        if self.model.desired != model.desired {
            let mut kernel = self.kernel.lock().await;
            kernel.update(&self.model.desired, &model.desired).await?;
        }
        self.apply(changes.additions).await.map(drop)
    }

    /// Take another configuration, and put right what others have changed meanwhile.
    ///
    /// # Errors
    /// What the kernel refused, or a port that is in use; the configuration of before is in place again.
    pub async fn reload(
        &mut self,
        next: Next<P>,
        last_endpoints: &Endpoints,
    ) -> Result<Vec<Conflict>, Failure> {
        let attempt = async {
            self.apply(socket_change(&self.settings, &next.settings))
                .await?;
            let conflicts = self
                .kernel
                .lock()
                .await
                .reconcile(&next.model.desired)
                .await?;
            reconcile::apply_peers(
                &self.control,
                &next.model,
                Some(&self.model),
                &next.preshared_keys,
                last_endpoints,
            )
            .await?;
            Ok(conflicts)
        };
        match attempt.await {
            Ok(conflicts) => {
                self.settings = next.settings;
                self.environment = next.environment;
                self.config = next.config;
                self.preshared_keys = next.preshared_keys;
                self.set_model(next.model);
                Ok(conflicts)
            }
            Err(failure) => {
                self.go_back(&next.settings).await;
                Err(failure)
            }
        }
    }

    fn set_model(&mut self, model: Model) {
        self.model = Arc::new(model);
        self.taken.send_replace(Arc::clone(&self.model));
    }

    /// From wherever an attempt with the settings `tried` has ended to what runs.
    async fn go_back(&mut self, tried: &Settings) {
        let left_at = std::mem::take(&mut self.left_at);
        let attempt = async {
            self.apply(socket_change(tried, &self.settings)).await?;
            self.kernel
                .lock()
                .await
                .reconcile(&self.model.desired)
                .await?;
            let mut change =
                reconcile::all_peers(&self.model, Some(&self.model), &self.preshared_keys);
            reconcile::call_again(&mut change, &left_at);
            self.apply(change).await.map(drop)
        };
        if let Err(failure) = attempt.await {
            error!(%failure, "can't go back to the running configuration");
        }
    }

    async fn apply(&self, change: DeviceChange) -> Result<Vec<PeerStatus>, Failure> {
        if change.is_empty() {
            return Ok(Vec::new());
        }
        self.control
            .apply(change)
            .await
            .map_err(|error| Failure::environment(&error))
    }
}

/// What differs for the sockets. A port that stays is not named: naming 0 would open new sockets.
fn socket_change(from: &Settings, to: &Settings) -> DeviceChange {
    DeviceChange {
        listen_port: (from.listen_port != to.listen_port).then_some(to.listen_port),
        fwmark: (from.fwmark != to.fwmark).then_some(to.fwmark),
        ..DeviceChange::default()
    }
}
