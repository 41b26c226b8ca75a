//! What a daemon knows of itself.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use nft::Ownership;
use shared::api::apply::Apply;
use shared::api::diagnosis::{Diagnosis, ProbeRequest};
use shared::api::drift::Drift;
use shared::api::plan::{Plan, PlanRequest};
use shared::api::policy::CloudflareRanges;
use shared::api::probe::{Probe, ProbeState};
use shared::api::status::{Interface, Peer, Publish, Status};
use shared::api::trace::Trace;
use shared::config::common::PortMap;
use shared::config::policy_test::{CallerName, Target};
use shared::model::PublicKey;
use shared::plan::ruleset::Family;
use shared::wg::{DeviceStatus, PeerStatus};
use shared_datapath::Control;
use tokio::sync::{Mutex, Notify, watch};
use tracing::warn;

use crate::applies::Applies;
use crate::doctor::rounds::Rounds;
use crate::error::Failure;
use crate::history::{History, Window};
use crate::model::{Model, PeerKind, PeerModel, PublishModel};
use crate::obstacles::Obstacles;
use crate::plane::Plane;
use crate::probe::Probes;
use crate::product::{Product, Settings};
use crate::readiness::{NO_PATH, Problems, Readiness, has_no_path};
use crate::reconcile::Kernel;
use crate::status::Reporter;
use crate::{apply, cli, cloudflare, doctor, drift, plan, pressure, simulation};

/// A session is refused when its handshake is older (whitepaper §6.1, Reject-After-Time).
const ONLINE_FOR: Duration = Duration::from_secs(180);

/// Firewall counters whose name begins so count connections of a published service; the others what was refused.
const PUBLISH_COUNTER: &str = "publish_";

/// How often it is looked whether the tunnel is up.
const TUNNEL_INTERVAL: Duration = Duration::from_millis(20);

/// The daemon's knowledge, from where it is.
#[derive(Debug)]
pub struct Report<P: Product> {
    plane: Arc<Mutex<Plane<P>>>,
    config_path: PathBuf,
    readiness: Arc<Readiness<P>>,
    obstacles: Obstacles<P>,
    control: Control,
    kernel: Arc<Mutex<Kernel>>,
    model: watch::Receiver<Arc<Model>>,
    applies: Arc<Applies>,
    records: Records,
    source_ports: pressure::Looks,
    /// Beside the plane, whose lock a change may hold: readers never wait for a writer.
    settings: RwLock<Settings>,
    host: String,
    started_at: SystemTime,
    examining: Mutex<()>,
    asked: Notify,
    rounds: Rounds,
    history: History,
}

/// What those found who look by themselves.
#[derive(Debug)]
pub struct Records {
    /// Whether published services answer.
    pub probes: Arc<Probes>,
    /// What others have changed.
    pub drifts: Arc<drift::Record>,
    /// Cloudflare's networks.
    pub ranges: Arc<cloudflare::Record>,
    /// What became of the latest configuration on trial.
    pub apply: apply::Latest,
}

impl<P: Product> Report<P> {
    /// Everything is asked for anew each time, but for [`Readiness`].
    pub async fn new(
        plane: &Arc<Mutex<Plane<P>>>,
        config_path: PathBuf,
        records: Records,
        started_at: SystemTime,
    ) -> Self {
        let readiness = Arc::new(Readiness::new(plane, Arc::clone(&records.drifts)).await);
        let of_report = Arc::clone(plane);
        let plane = plane.lock().await;
        let obstacles = Obstacles::new(&of_report, &plane);
        Self {
            plane: of_report,
            config_path,
            readiness,
            obstacles,
            control: plane.control().clone(),
            kernel: Arc::clone(plane.kernel()),
            model: plane.subscribe(),
            applies: Arc::clone(plane.applies()),
            records,
            source_ports: pressure::Looks::default(),
            settings: RwLock::new(plane.settings().clone()),
            host: host_name(),
            started_at,
            examining: Mutex::default(),
            asked: Notify::new(),
            rounds: Rounds::default(),
            history: History::default(),
        }
    }

    /// A configuration was taken, or put back: these settings run, and what was seen of the kernel before does not count.
    pub async fn look_again(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        self.records.drifts.make_peace();
        self.readiness.forget().await;
        self.obstacles.forget().await;
    }

    /// Wait until the tunnel is up, as far as this end has a say in it, and `patience` at most.
    pub async fn tunnel_is_up(&self, patience: Duration) {
        let up = async {
            while self.readiness.data_plane().await.is_some() {
                tokio::time::sleep(TUNNEL_INTERVAL).await;
            }
        };
        let _up_or_late = tokio::time::timeout(patience, up).await;
        self.readiness.forget().await;
    }

    /// What is wrong now with what is ours, as `/readyz` knows it.
    pub async fn problems_now(&self) -> Problems {
        self.readiness.problems().await
    }

    /// And with the path.
    async fn problems_of_path(&self) -> Problems {
        let problems = self.readiness.problems().await;
        if !has_no_path(&self.probes_now()) {
            return problems;
        }
        let more = [NO_PATH.to_owned()];
        problems.iter().cloned().chain(more).collect()
    }

    /// What is remembered of the status.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The latest attempts at published services.
    pub fn probes_now(&self) -> Vec<Probe> {
        let model = Arc::clone(&self.model.borrow());
        self.records.probes.of(&model.publishes)
    }

    fn latest_apply(&self) -> Option<Apply> {
        let latest = self.records.apply.lock();
        latest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn publishes_now(&self) -> Vec<Publish> {
        let model = Arc::clone(&self.model.borrow());
        let firewall = self.firewall(&model).await;
        self.publishes_of(&model, &firewall)
    }

    fn publishes_of(&self, model: &Model, firewall: &BTreeMap<String, u64>) -> Vec<Publish> {
        let publishes = model.publishes.iter();
        publishes
            .map(|of| Publish {
                health: self.records.probes.health(of),
                ..publish(of, firewall)
            })
            .collect()
    }

    fn ranges(&self) -> CloudflareRanges {
        let settings = self.settings.read();
        let settings = settings.unwrap_or_else(PoisonError::into_inner);
        self.records.ranges.report(&settings.cloudflare)
    }

    async fn collect(&self) -> Result<Status, Failure> {
        let model = Arc::clone(&self.model.borrow());
        let device = self
            .control
            .status()
            .await
            .map_err(|error| Failure::other(&error))?;
        let counters = self
            .control
            .counters()
            .await
            .map_err(|error| Failure::other(&error))?;
        let problems = self.problems_of_path().await.to_vec();
        let firewall = self.firewall(&model).await;
        let ranges = self.ranges();
        let conntrack = pressure::conntrack().unwrap_or_else(|error| {
            warn!(error = %crate::error::chain(&error), "can't read how full the table of connections is");
            None
        });
        let source_ports = self.source_ports.look(conntrack).await;
        let warnings = conntrack.and_then(pressure::warning).into_iter();
        let warnings = warnings.chain(source_ports.iter().map(pressure::source_ports_warning));
        Ok(Status {
            product: P::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.clone(),
            pid: std::process::id(),
            started_at: humantime::format_rfc3339_seconds(self.started_at).to_string(),
            reported_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            ready: problems.is_empty(),
            problems,
            warnings: warnings.collect(),
            obstacles: self.obstacles.now().await.to_vec(),
            firewall_protected: self.firewall_protected().await,
            interface: self.interface(&model, &device).await?,
            peers: peers(&device, &model),
            publishes: self.publishes_of(&model, &firewall),
            probes: self.records.probes.of(&model.publishes),
            faults: self.rounds.faults(),
            cloudflare_ranges_as_of: ranges.as_of,
            cloudflare_refresh: ranges.refresh,
            refused_packets: firewall
                .into_iter()
                .filter(|(name, _)| !name.starts_with(PUBLISH_COUNTER))
                .collect(),
            dropped_packets: counters.dropped_by_reason(),
            handshakes: counters.handshakes_by_result(),
            applies: self.applies.by_result(),
            apply: self.latest_apply(),
            drift: self.records.drifts.summary(),
            conntrack,
            source_ports,
            io: counters.io_by_name(),
        })
    }

    /// Waits for a change that is under way: half of it would be planned else.
    async fn plan_of(&self, request: PlanRequest) -> Result<Plan, Failure> {
        let file = request.file.as_ref();
        let parsed = cli::load::<P>(file.unwrap_or(&self.config_path))?;
        let other_end = P::read_other_end(&parsed.config, &request.lan_server_files)?;
        let device = self.control.status().await;
        let device = device.map_err(|error| Failure::other(&error))?;
        let plane = self.plane.lock().await;
        let running = plan::Running {
            settings: Some(plane.settings()),
            device: Some(&device),
            model: Some(plane.model()),
        };
        let mut kernel = plane.kernel().lock().await;
        plan::plan::<P>(&parsed, plane.members(), &other_end, &mut kernel, running).await
    }

    async fn trace_of(
        &self,
        from: CallerName,
        to: Target,
        files: Vec<PathBuf>,
    ) -> Result<Trace, Failure> {
        let plane = self.plane.lock().await;
        let other_end = P::read_other_end(plane.config(), &files)?;
        let members = Some(plane.members());
        let simulation = P::simulation(plane.config(), plane.environment(), members, &other_end);
        let trace = simulation::trace(&simulation, &from, to);
        trace.map_err(|error| Failure::other(&error))
    }

    /// Where published paths are broken.
    pub fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Services that do not answer, and the tunnel of an end that dials when there is no session.
    pub async fn what_is_down(&self) -> BTreeSet<String> {
        let probes = self.probes_now();
        let down = probes.iter().filter(|of| of.state == ProbeState::Down);
        let down = down.map(|of| format!("{} {}", of.publish, SocketAddr::new(of.vip, of.port)));
        down.chain(self.readiness.data_plane().await).collect()
    }

    /// All paths, unless somebody asks for a diagnosis before it is done: nobody waits for what nobody has asked for. `None` then, or
    /// when this host can't be read.
    pub async fn diagnose_unless_asked(&self) -> Option<Diagnosis> {
        let request = ProbeRequest::default();
        tokio::select! {
            () = self.asked.notified() => None,
            diagnosis = self.diagnosis_of(request) => match diagnosis {
                Ok(diagnosis) => Some(diagnosis),
                Err(failure) => {
                    warn!(%failure, "can't look where published paths are broken");
                    None
                }
            },
        }
    }

    async fn diagnosis_for_somebody(&self, request: ProbeRequest) -> Result<Diagnosis, Failure> {
        self.asked.notify_waiters();
        self.diagnosis_of(request).await
    }

    async fn diagnosis_of(&self, request: ProbeRequest) -> Result<Diagnosis, Failure> {
        // One at a time: whoever may ask must not be able to keep this host and the cluster busy.
        let _alone = self.examining.lock().await;
        let deviations = self.readiness.deviations().await;
        let (settings, environment, config) = {
            let plane = self.plane.lock().await;
            let config = Arc::clone(plane.config());
            (
                plane.settings().clone(),
                plane.environment().clone(),
                config,
            )
        };
        let model = Arc::clone(&self.model.borrow());
        if let Some(name) = &request.publish {
            if !model.publishes.iter().any(|of| of.name == *name) {
                return Err(Failure::Other(format!(
                    "no service \"{name}\" is published"
                )));
            }
        }
        let (host, foreign) = {
            let mut kernel = self.kernel.lock().await;
            let host = kernel.netlink().host().await;
            let host = host.map_err(|error| Failure::environment(&error))?;
            let foreign = kernel.nftables().foreign(&model.desired.ruleset.table);
            (host, foreign.map_err(|error| crate::error::chain(&error)))
        };
        let scene = doctor::Scene {
            end: P::NAME,
            host_name: self.host.clone(),
            expected: P::expected(&config, &environment),
            counters: self.firewall(&model).await,
            fought: self.records.drifts.problems(),
            control: self.control.clone(),
            settings,
            environment,
            model,
            host,
            foreign,
            deviations,
        };
        Ok(doctor::examine(&scene, &request).await)
    }

    async fn firewall_protected(&self) -> bool {
        let mut kernel = self.kernel.lock().await;
        kernel.nftables().ownership() == Ownership::OwnerPersist
    }

    /// The counters of our table, by name. Empty when there is no table, or when it can't be read: what is not known is left
    /// out, for a count of 0 would look like a counter that began anew.
    async fn firewall(&self, model: &Model) -> BTreeMap<String, u64> {
        let table = &model.desired.ruleset.table;
        let mut kernel = self.kernel.lock().await;
        match kernel.nftables().counters(table) {
            Ok(counters) => {
                let packets = counters
                    .into_iter()
                    .map(|counter| (counter.name, counter.count.packets));
                packets.collect()
            }
            Err(error) => {
                let error = crate::error::chain(&error);
                warn!(%error, table, "can't read the counters of our table; they are left out");
                BTreeMap::new()
            }
        }
    }

    async fn interface(&self, model: &Model, device: &DeviceStatus) -> Result<Interface, Failure> {
        let offloads = self
            .control
            .offloads()
            .await
            .map_err(|error| Failure::other(&error))?;
        let link = model.desired.links.first();
        Ok(Interface {
            name: model.interface.to_string(),
            public_key: device
                .private_key
                .as_ref()
                .map(|key| key.public_key().to_string()),
            listen_port: device.listen_port,
            fwmark: device.fwmark,
            mtu: link.map_or(0, |link| link.mtu),
            offloads: offloads.by_name(),
        })
    }
}

impl<P: Product> Reporter for Report<P> {
    fn status(&self) -> Pin<Box<dyn Future<Output = Result<Status, Failure>> + Send + '_>> {
        Box::pin(self.collect())
    }

    fn problems(&self) -> Pin<Box<dyn Future<Output = Problems> + Send + '_>> {
        Box::pin(self.problems_of_path())
    }

    fn publishes(&self) -> Pin<Box<dyn Future<Output = Vec<Publish>> + Send + '_>> {
        Box::pin(self.publishes_now())
    }

    fn probes(&self) -> Vec<Probe> {
        self.probes_now()
    }

    fn plan(
        &self,
        request: PlanRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Plan, Failure>> + Send + '_>> {
        Box::pin(self.plan_of(request))
    }

    fn trace(
        &self,
        from: CallerName,
        to: Target,
        lan_server_files: Vec<PathBuf>,
    ) -> Pin<Box<dyn Future<Output = Result<Trace, Failure>> + Send + '_>> {
        Box::pin(self.trace_of(from, to, lan_server_files))
    }

    fn diagnose(
        &self,
        request: ProbeRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Diagnosis, Failure>> + Send + '_>> {
        Box::pin(self.diagnosis_for_somebody(request))
    }

    fn lately(&self) -> Window {
        self.history.window()
    }

    fn drifts(&self) -> Vec<Drift> {
        self.records.drifts.latest()
    }

    fn cloudflare_ranges(&self) -> CloudflareRanges {
        self.ranges()
    }
}

/// As `uname -n` says; empty where that can't be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

/// Whether a session with this peer is up.
pub(crate) fn is_online(peer: &PeerStatus) -> bool {
    peer.latest_handshake.is_some_and(|age| age < ONLINE_FOR)
}

fn peers(device: &DeviceStatus, model: &Model) -> Vec<Peer> {
    let models = model.peers.iter();
    let models: BTreeMap<&PublicKey, &PeerModel> =
        models.map(|peer| (&peer.public_key, &**peer)).collect();
    let seen = device.peers.iter();
    seen.map(|seen| peer(seen, models.get(&seen.public_key).copied()))
        .collect()
}

fn peer(peer: &PeerStatus, model: Option<&PeerModel>) -> Peer {
    Peer {
        name: model.map(|model| model.name.clone()),
        kind: match model.map(|model| model.kind) {
            Some(PeerKind::Gateway) => "gateway",
            Some(PeerKind::LanServer) => "lan_server",
            Some(PeerKind::Peer) | None => "peer",
        }
        .to_owned(),
        public_key: peer.public_key.to_string(),
        endpoint: peer.endpoint,
        allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
        latest_handshake_age_seconds: peer.latest_handshake.map(|age| age.as_secs()),
        online: is_online(peer),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
    }
}

fn publish(publish: &PublishModel, firewall: &BTreeMap<String, u64>) -> Publish {
    let counter = format!("{PUBLISH_COUNTER}{}", publish.name);
    Publish {
        name: publish.name.clone(),
        vip: publish.vip,
        family: match Family::of(publish.vip) {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        }
        .to_owned(),
        protocol: publish.protocol.to_string(),
        ports: publish.ports.iter().copied().map(port_text).collect(),
        source_ip: publish.source_ip.to_string(),
        connections: firewall.get(&counter).copied(),
        health: None,
    }
}

/// As in the configuration: `443`, `30000-30100`, `8443:443`.
fn port_text(map: PortMap) -> String {
    if map.listen == map.target {
        map.listen.to_string()
    } else {
        format!("{}:{}", map.listen, map.target)
    }
}
