//! Composition root of `run`: builds every part once, in the order in which an error costs least, and takes them down in
//! reverse. Until [`Kernel::reconcile`] nothing in the kernel has changed but our own link.
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sd_notify::NotifyState;
use shared::model::PrivateKey;
use shared::plan::Conflict;
use shared::wg::DeviceChange;
use shared_datapath::{self as datapath, Datapath};
use shared_os::key_file;
use shared_os::netlink::Netlink;
use shared_os::process::{self, Instance};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::gate::Gate;
use crate::apply::request::{Ask, Requests};
use crate::apply::{self, Applier, First};
use crate::endpoints::Endpoints;
use crate::error::Failure;
use crate::model::{Environment, Model, PresharedKeyFrom};
use crate::plane::{InPlace, Plane};
use crate::probe::{self, Probes};
use crate::product::{Product, Service, Settings, Wan};
use crate::reconcile::{self, Kernel, PresharedKeys};
use crate::report::{Records, Report};
use crate::status::Reporter;
use crate::watchdog::Watchdog;
use crate::{admin, cloudflare, doctor, drift, fd_store, uapi};

/// How often `status.json` is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How long systemd is kept waiting for a session with the gateway: when the first initiation is lost, the second is 5 s later.
/// What the configuration asks for is in place by then, and what depends on the other end is not worth the failure of a start.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(8);

/// How often it is looked whether a peer has moved: a crash forgets at most the moves of this long.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(2);

/// The daemon: from configuration to the signal that ends it.
pub async fn run<P: Product>(config_path: &Path) -> Result<(), Failure> {
    // First: a SIGHUP that comes while we start must not end us.
    let signals = Signals::new().map_err(|error| Failure::other(&error))?;
    let app = App::<P>::start(config_path).await?;
    app.serve(signals).await
}

/// A running daemon. Fields are dropped in this order.
struct App<P: Product> {
    report: Arc<Report<P>>,
    applier: Applier<P>,
    requests: Requests,
    endpoints: Endpoints,
    tasks: Tasks,
    service: <P::Service as Service<P>>::Running,
    plane: Arc<Mutex<Plane<P>>>,
    datapath: Datapath,
    _instance: Instance,
}

/// Background tasks; ended when dropped.
struct Tasks {
    uapi: JoinHandle<()>,
    probe: JoinHandle<()>,
    rounds: JoinHandle<()>,
    drift: JoinHandle<()>,
    refresh: JoinHandle<()>,
    servers: Vec<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.uapi.abort();
        self.probe.abort();
        self.rounds.abort();
        self.drift.abort();
        self.refresh.abort();
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

impl<P: Product> App<P> {
    async fn start(config_path: &Path) -> Result<Self, Failure> {
        let First {
            parsed: loaded,
            text,
            settings,
            record,
            instead,
        } = apply::first::<P>(config_path)?;
        if let Some(instead) = instead {
            error!("{instead}");
        }
        for warning in &loaded.warnings {
            warn!("{warning}");
        }

        // What the machine must offer, before anything is made.
        process::disable_core_dumps().map_err(|error| Failure::environment(&error))?;
        process::require_net_admin().map_err(|error| Failure::environment(&error))?;
        if let Err(error) = process::raise_file_limit() {
            warn!(%error, "the limit for open files stays; the admin API may run out of them");
        }
        create_dir(&settings.state_dir)?;
        let instance = Instance::acquire(&settings.runtime_dir, P::NAME)
            .map_err(|error| Failure::environment(&error))?;
        let private_key = private_key(&settings)?;
        let mut kernel = Kernel::open(&settings.state_dir)?;
        let ranges = Arc::new(cloudflare::Record::open(
            &settings.state_dir,
            &settings.cloudflare,
        ));
        let environment = environment(&settings, kernel.netlink(), &ranges).await?;
        let (service, members) = P::Service::open(&settings).await?;
        let model = P::model(&loaded.config, &environment, &members);
        let preshared_keys = preshared_keys(&model)?;
        reconcile::check_sysctls(&model.desired)?;

        let uapi = uapi::Server::bind(&settings.interface)
            .map_err(|error| Failure::environment(&error))?;
        let admin = admin::bind(&admin::socket_path(&settings.runtime_dir, P::NAME))?;

        // The tunnel, still without a peer and behind a closed firewall.
        let fresh = is_name_free(&settings, &kernel).await?;
        let datapath = datapath::Config {
            interface: settings.interface.clone(),
            mtu: settings.mtu,
            persist: false,
            closed: true,
            outlives_link: true,
            listen_port: settings.listen_port,
            fwmark: settings.fwmark,
            limits: datapath::Limits::default(),
        };
        let (tun, to_leave) = fd_store::open_tun(&datapath.tun_options())
            .map_err(|error| Failure::environment(&error))?;
        let datapath =
            Datapath::start_on(tun, &datapath).map_err(|error| Failure::environment(&error))?;
        let endpoints = Endpoints::open(&settings.state_dir);
        let opened = Opened {
            kernel: &mut kernel,
            endpoints: &endpoints,
            datapath: &datapath,
            model: &model,
        };
        let admin_tokens = settings.admin_tokens;
        let brought_up = opened.bring_up(&private_key, &preshared_keys, settings.admin_listen);
        let admin_tcp = match brought_up.await {
            Ok(admin_tcp) => admin_tcp,
            Err(failure) => {
                if fresh {
                    // Nothing of ours was there before: leave nothing behind.
                    if let Err(left) = kernel.remove(&model.desired).await {
                        error!(error = %left, "can't undo what was begun");
                    }
                }
                return Err(failure);
            }
        };
        if let Some(queue) = to_leave {
            fd_store::leave(&queue);
        }
        let plane = Plane::new(InPlace {
            kernel: Arc::new(Mutex::new(kernel)),
            control: datapath.control(),
            settings,
            environment,
            config: loaded.config,
            members,
            preshared_keys,
            model,
        });
        let probes = Arc::new(Probes::default());
        let probe = tokio::spawn(probe::run(plane.subscribe(), Arc::clone(&probes)));
        let plane = Arc::new(Mutex::new(plane));
        let drifts = Arc::new(drift::Record::default());
        let drift = tokio::spawn(drift::run(Arc::clone(&plane), Arc::clone(&drifts)));
        let wanted = watch::Sender::new(plane.lock().await.settings().cloudflare.clone());
        let refresh = cloudflare::run(Arc::clone(&plane), Arc::clone(&ranges), wanted.subscribe());
        let refresh = tokio::spawn(refresh);
        let latest = apply::Latest::default();
        let records = Records {
            probes: Arc::clone(&probes),
            drifts,
            ranges: Arc::clone(&ranges),
            apply: Arc::clone(&latest),
        };
        let report = Report::new(&plane, config_path.to_owned(), records, SystemTime::now());
        let report = Arc::new(report.await);
        let config = Arc::clone(plane.lock().await.config());
        let started = service.start(Arc::clone(&plane), config).await;
        let applier = Applier::new(apply::Parts {
            config_path: config_path.to_owned(),
            running: text.into(),
            plane: Arc::clone(&plane),
            report: Arc::clone(&report),
            probes,
            ranges,
            wanted,
            record,
            latest,
            journal: started.journal,
        });
        let applier = applier.await;
        let (desk, requests) = apply::request::desk();
        let reporter = Arc::clone(&report) as Arc<dyn Reporter>;
        let routes = started.routes.merge(admin::apply::routes(desk));
        let (router, _) = admin::router(P::NAME, reporter, routes);
        let mut servers = vec![admin::server::serve_unix(
            admin,
            admin::behind(Gate::unix(), router.clone()),
        )];
        if let Some((listener, address)) = admin_tcp {
            let gate = Gate::tcp(started.authenticator, address, admin_tokens);
            let router = admin::behind(gate, router);
            servers.push(admin::server::serve_tcp(listener, router));
        }
        let tasks = Tasks {
            uapi: tokio::spawn(serve_uapi(uapi, datapath.control())),
            probe,
            rounds: tokio::spawn(doctor::rounds::run(Arc::clone(&report))),
            drift,
            refresh,
            servers,
        };
        Ok(Self {
            report,
            applier,
            requests,
            endpoints,
            tasks,
            service: started.running,
            plane,
            datapath,
            _instance: instance,
        })
    }

    /// Until SIGTERM, SIGINT or the end of the data plane.
    async fn serve(mut self, mut signals: Signals) -> Result<(), Failure> {
        self.write_status().await;
        self.say_ready().await;
        let report = Arc::clone(&self.report);
        let mut starting = pin!(async move { report.tunnel_is_up(TUNNEL_PATIENCE).await });
        let mut is_starting = true;
        process::return_memory();
        let mut watchdog = Watchdog::of_service();
        let mut status = tokio::time::interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut endpoints = tokio::time::interval(ENDPOINTS_INTERVAL);
        endpoints.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                () = &mut starting, if is_starting => {
                    is_starting = false;
                    self.write_status().await;
                    notify(&[NotifyState::Ready]);
                }
                _ = signals.hangup.recv() => self.reload().await,
                Some(request) = self.requests.recv() => self.answer(request).await,
                () = self.applier.due() => {
                    self.applier.give_up().await;
                    self.write_status().await;
                }
                _ = signals.terminate.recv() => break Ok(()),
                _ = signals.interrupt.recv() => break Ok(()),
                _ = status.tick() => self.write_status().await,
                _ = endpoints.tick() => self.remember_endpoints().await,
                patience = watchdog.due() => self.give_sign_of_life(patience).await,
                failure = self.datapath.failed() => break Err(Failure::other(&failure)),
            }
        };
        notify(&[NotifyState::Stopping]);
        self.remember_endpoints().await;
        self.applier.stop().await;
        let settings = self.plane.lock().await.settings().clone();
        let Self {
            applier,
            tasks,
            service,
            datapath,
            ..
        } = self;
        drop((applier, tasks));
        P::Service::stop(service).await;
        datapath.stop();
        for file in runtime_files(&settings, P::NAME) {
            // Whoever looks for a daemon must not find the files of one that has ended; failing to remove them is not
            // worth more than this line.
            if let Err(error) = remove(&file) {
                warn!(file = %file.display(), %error, "can't remove");
            }
        }
        match &outcome {
            Ok(()) => info!("stopped; link, routes and firewall stay for the next start"),
            Err(failure) => error!(%failure, "stopped"),
        }
        outcome
    }

    /// SIGHUP. On any error the running configuration stays.
    async fn reload(&mut self) {
        notify_reloading();
        self.remember_endpoints().await;
        match self.applier.reload(&self.endpoints).await {
            Ok(()) => {
                self.catch_up().await;
                info!("configuration taken");
            }
            Err(failure) => {
                for line in failure.to_string().lines() {
                    error!("{line}");
                }
                error!("the running configuration stays");
            }
        }
        self.write_status().await;
        process::return_memory();
        notify(&[NotifyState::Ready]);
    }

    async fn answer(&mut self, request: apply::request::Request) {
        let changes = !matches!(request.ask, Ask::Show);
        if changes {
            self.remember_endpoints().await;
        }
        let answer = self
            .applier
            .answer(request.ask, &request.by, &self.endpoints);
        let answer = answer.await;
        if changes {
            self.catch_up().await;
        }
        // Who does not wait any more does not want to know.
        let _gone = request.answer.send(answer);
        if changes {
            self.write_status().await;
            process::return_memory();
        }
    }

    /// Whoever is told that a configuration runs may ask the API at once, and is to see nothing of the one before.
    async fn catch_up(&mut self) {
        let config = Arc::clone(self.plane.lock().await.config());
        P::Service::caught_up(&mut self.service, &config).await;
    }

    async fn say_ready(&self) {
        let plane = self.plane.lock().await;
        info!(
            interface = %plane.settings().interface,
            peers = plane.model().peers.len(),
            publishes = plane.model().publishes.len(),
            "ready"
        );
    }

    /// Also right before a configuration is taken: a peer that it takes out may come back with the one of before, and is to
    /// be called where it was. While one is on trial the list stays, also for a start after a crash, which goes back too.
    async fn remember_endpoints(&mut self) {
        if self.applier.is_trying() {
            return;
        }
        // A data plane that has ended knows none; what was written last stays.
        if let Ok(device) = self.datapath.control().status().await {
            self.endpoints.remember(&device);
        }
    }

    /// For the watchdog. That this runs proves that the loop goes round; the worker is asked, since a daemon whose packets
    /// stand still is as dead as one that hangs.
    async fn give_sign_of_life(&self, patience: Duration) {
        let control = self.datapath.control();
        match tokio::time::timeout(patience, control.ping()).await {
            Ok(Ok(())) => notify(&[NotifyState::Watchdog]),
            Ok(Err(_)) => {} // it has ended, which the loop is told in another way
            Err(_) => error!("the packet worker does not answer: no sign of life for the watchdog"),
        }
    }

    /// For programs as a file, and for `systemctl status` in a line.
    async fn write_status(&self) {
        let path = status_path(self.plane.lock().await.settings());
        let written = match self.report.status().await {
            Ok(status) => {
                self.report.history().note(&status, Timestamp::now());
                notify(&[NotifyState::Status(&line(&status.problems))]);
                serde_json::to_string_pretty(&status)
                    .map_err(io::Error::from)
                    .and_then(|text| replace_file(&path, &text))
            }
            Err(failure) => Err(io::Error::other(failure)),
        };
        if let Err(error) = written {
            warn!(file = %path.display(), %error, "can't write");
        }
    }
}

/// `wg show` and `wg set` until the daemon ends. Who removes the socket file loses only these.
async fn serve_uapi(server: uapi::Server, control: datapath::Control) {
    match server.serve(control).await {
        Ok(()) => warn!("the UAPI socket was removed: `wg` can't see this device until a restart"),
        Err(error) => error!(%error, "the UAPI socket ended"),
    }
}

/// What `bring_up` works on.
struct Opened<'a> {
    kernel: &'a mut Kernel,
    endpoints: &'a Endpoints,
    datapath: &'a Datapath,
    model: &'a Model,
}

impl Opened<'_> {
    /// Kernel state first, which closes what must be closed; then the listener inside of the tunnel, whose address is there
    /// only now; then key and peers, which open the tunnel.
    async fn bring_up(
        self,
        private_key: &PrivateKey,
        preshared_keys: &PresharedKeys,
        admin_listen: Option<SocketAddr>,
    ) -> Result<Option<(TcpListener, SocketAddr)>, Failure> {
        let conflicts = self.kernel.reconcile(&self.model.desired).await?;
        for conflict in conflicts {
            warn!("{conflict}");
        }
        let admin_tcp = match admin_listen {
            Some(address) => Some((listen_tcp(address).await?, address)),
            None => None,
        };
        let control = self.datapath.control();
        apply(
            &control,
            DeviceChange {
                private_key: Some(Some(private_key.clone())),
                ..DeviceChange::default()
            },
        )
        .await?;
        reconcile::apply_peers(&control, self.model, None, preshared_keys, self.endpoints).await?;
        let opened = control.open().await;
        opened
            .map_err(|error| Failure::other(&error))?
            .map_err(|error| Failure::other(&error))?;
        control
            .initiate_handshakes()
            .await
            .map_err(|error| Failure::other(&error))?;
        Ok(admin_tcp)
    }
}

async fn apply(control: &datapath::Control, change: DeviceChange) -> Result<(), Failure> {
    let applied = control.apply(change).await;
    applied
        .map(drop)
        .map_err(|error| Failure::environment(&error))
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Tell systemd, when it started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        warn!(%error, "can't notify systemd");
    }
}

/// What is wrong, for `STATUS=` of `sd_notify(3)`.
fn line(problems: &[String]) -> String {
    if problems.is_empty() {
        return "Ready".to_owned();
    }
    format!("Not ready: {}", problems.join("; ").replace('\n', " "))
}

/// With the time, by which a unit of `Type=notify-reload` (systemd 253) knows to which SIGHUP this belongs.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// What the policy has to know of this host, and of what changes while it runs.
pub(crate) async fn environment(
    settings: &Settings,
    netlink: &Netlink,
    ranges: &cloudflare::Record,
) -> Result<Environment, Failure> {
    let wan = match &settings.wan {
        Wan::NotNeeded => settings.interface.clone(),
        Wan::Named(name) => {
            let link = netlink.link(name).await;
            if link.map_err(|error| Failure::other(&error))?.is_none() {
                return Err(Failure::Environment(format!(
                    "there is no link {name} as [wan] interface names it; `ip link` shows those there are, and \"auto\" \
                     takes the one of the default route"
                )));
            }
            name.clone()
        }
        Wan::Auto => netlink
            .default_route_link()
            .await
            .map_err(|error| Failure::other(&error))?
            .ok_or_else(|| {
                Failure::Environment(
                    "[wan] interface is \"auto\", but there is no default route; name the link"
                        .to_owned(),
                )
            })?,
    };
    let path = ["net", "ipv6", "conf", wan.as_str(), "accept_ra"].map(str::to_owned);
    let accept_ra = shared_os::sysctl::read(&path).map_err(|error| Failure::other(&error))?;
    Ok(Environment {
        wan_accepts_router_advertisements: matches!(accept_ra.value.as_deref(), Some("1" | "2")),
        cloudflare: ranges.networks(&settings.cloudflare),
        wan,
    })
}

/// For `down`: what is ours does not depend on the host.
pub fn environment_for_removal(settings: &Settings) -> Environment {
    Environment {
        wan: match &settings.wan {
            Wan::Named(name) => name.clone(),
            Wan::NotNeeded | Wan::Auto => settings.interface.clone(),
        },
        wan_accepts_router_advertisements: false,
        cloudflare: settings.cloudflare.networks.clone(),
    }
}

/// `true` when no link has our name, `false` when it is our own from last time.
async fn is_name_free(settings: &Settings, kernel: &Kernel) -> Result<bool, Failure> {
    let name = &settings.interface;
    let link = kernel.netlink().link(name).await;
    match link.map_err(|error| Failure::other(&error))? {
        None => Ok(true),
        Some(info) if info.link.alias == settings.link_alias => Ok(false),
        Some(info) => Err(Failure::Environment(
            Conflict::LinkTaken(info.link).to_string(),
        )),
    }
}

async fn listen_tcp(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Environment(format!(
            "[admin] listen: can't listen on {address}: {error}; `ss -ltnp` shows who has the port, or choose another"
        ))
    })
}

fn create_dir(path: &Path) -> Result<(), Failure> {
    key_file::create_dir(path).map_err(|error| {
        Failure::Environment(format!(
            "can't make the directory {}: {error}",
            path.display()
        ))
    })
}

fn private_key(settings: &Settings) -> Result<PrivateKey, Failure> {
    let path = &settings.private_key_file;
    let (key, is_new) =
        key_file::read_or_create(path).map_err(|error| Failure::environment(&error))?;
    if is_new {
        info!(file = %path.display(), "made a new private key");
    }
    info!(public_key = %key.public_key(), "this end");
    Ok(key)
}

/// Those that the peers' files hold.
pub(crate) fn preshared_keys(model: &Model) -> Result<PresharedKeys, Failure> {
    let files = model.peers.iter().filter_map(|p| match &p.preshared_key {
        PresharedKeyFrom::File(file) => Some(file.clone()),
        PresharedKeyFrom::Nowhere | PresharedKeyFrom::Here(_) => None,
    });
    files
        .map(|file| match key_file::read(&file) {
            Ok(key) => Ok((file, key)),
            Err(error) => Err(Failure::environment(&error)),
        })
        .collect()
}

/// What of the new settings a reload can't bring.
pub(crate) fn needs_restart(running: &Settings, new: &Settings) -> Option<&'static str> {
    [
        (running.state_dir != new.state_dir, "state_dir"),
        (running.runtime_dir != new.runtime_dir, "runtime_dir"),
        (running.interface != new.interface, "[tunnel] interface"),
        (running.mtu != new.mtu, "[tunnel] mtu"),
        (
            running.private_key_file != new.private_key_file,
            "[tunnel] private_key_file",
        ),
        (
            running.admin_listen != new.admin_listen || running.admin_tokens != new.admin_tokens,
            "[admin]",
        ),
    ]
    .into_iter()
    .find_map(|(differs, what)| differs.then_some(what))
}

fn status_path(settings: &Settings) -> PathBuf {
    settings.runtime_dir.join("status.json")
}

/// What must not outlive the daemon.
pub fn runtime_files(settings: &Settings, product: &str) -> [PathBuf; 2] {
    [
        admin::socket_path(&settings.runtime_dir, product),
        status_path(settings),
    ]
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Readers see the old text or the new one, never half of it.
fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("json.new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)
}
