//! What a binary brings to the daemon.
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use shared::config::cloudflare::Ranges;
use shared::config::common::Endpoint;
use shared::config::policy_test::PolicyTest;
use shared::config::{ConfigErrors, Parsed};
use shared::model::InterfaceName;
use shared::plan::Flow;
use shared::simulate::Simulation;

use tokio::sync::Mutex;
use utoipa_axum::router::OpenApiRouter;

use crate::admin::gate::{Authenticator, NoTokens};
use crate::apply::journal::Journal;
use crate::cli::Context;
use crate::error::Failure;
use crate::model::{Environment, Model};
use crate::plane::Plane;

/// One of the two programs. What it decides is pure; what it does beside is its [`Service`].
pub trait Product: Sized + fmt::Debug + Send + Sync + 'static {
    /// The checked configuration.
    type Config: fmt::Debug + PartialEq + Send + Sync + 'static;
    /// What is added to the configuration at run time; by default nothing.
    type Members: fmt::Debug + Clone + Default + Send + Sync + 'static;
    /// What the product does beside carrying packets.
    type Service: Service<Self>;

    /// Commands that only this program has.
    type Commands: Subcommand + fmt::Debug;
    /// Options that name the files of the other end, whose rules have a say in what a test expects.
    type OtherEndFiles: Args + fmt::Debug + AsRef<[PathBuf]>;
    /// What these files hold; by default nothing is known of the other end.
    type OtherEnd: fmt::Debug + Default + Send + Sync;

    /// Name of the program, its configuration file and its sockets: `gateway`.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;

    /// Text of the file `file` → checked configuration and warnings, or every error with its place.
    fn parse(text: &str, file: &str) -> Result<Parsed<Self::Config>, ConfigErrors>;

    /// What the daemon itself needs of the configuration.
    fn settings(config: &Self::Config) -> Settings;

    /// What configuration and members ask for.
    fn model(config: &Self::Config, environment: &Environment, members: &Self::Members) -> Model;

    /// What others on this host have to let pass for it to work.
    fn expected(config: &Self::Config, environment: &Environment) -> Expected;

    /// What the configuration expects its rules to do.
    fn tests(config: &Self::Config) -> &[PolicyTest];

    /// The other end of this configuration.
    ///
    /// # Errors
    /// A file can't be read, is wrong, or is not that of the other end.
    fn read_other_end(config: &Self::Config, files: &[PathBuf]) -> Result<Self::OtherEnd, Failure>;

    /// What the rules of both ends are tried on. Without `members` those of the configuration are the only ones.
    fn simulation(
        config: &Self::Config,
        environment: &Environment,
        members: Option<&Self::Members>,
        other_end: &Self::OtherEnd,
    ) -> Simulation;

    /// Do one of the commands that only this program has.
    fn command(
        command: Self::Commands,
        context: &Context<Self>,
    ) -> impl Future<Output = Result<(), Failure>>;
}

/// What a configuration expects of the host beside what is made for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Packets that have to pass, one of each kind.
    pub flows: Vec<Flow>,
    /// Where datagrams are sent to, by us or to us.
    pub endpoints: Vec<Endpoint>,
    /// The other end of the tunnel, or each of several.
    pub far_ends: Vec<FarEnd>,
}

/// A daemon at the other end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarEnd {
    /// Name in the configuration.
    pub name: String,
    /// Its addresses in the tunnel, where it answers echoes of this end.
    pub addresses: Vec<IpAddr>,
    /// Where we dial; `None` waits for it.
    pub endpoint: Option<Endpoint>,
    /// Networks that are reached through it.
    pub networks: Vec<IpNetwork>,
}

/// What a product does at run time beside carrying packets: the gateway manages peers.
pub trait Service<P: Product>: Sized + Send + 'static {
    /// The service at work.
    type Running: fmt::Debug + Send + 'static;

    /// Open what it keeps under `state_dir`. Nothing of the kernel has been touched yet, and the instance lock is held.
    fn open(
        settings: &Settings,
    ) -> impl Future<Output = Result<(Self, P::Members), Failure>> + Send;

    /// What [`open`](Self::open) would find, for who changes nothing; a daemon may run meanwhile.
    fn look(settings: &Settings) -> impl Future<Output = Result<P::Members, Failure>> + Send;

    /// The members are in place: begin.
    fn start(
        self,
        plane: Arc<Mutex<Plane<P>>>,
        config: Arc<P::Config>,
    ) -> impl Future<Output = Started<Self::Running>> + Send;

    /// `config` was put in place; returns when whoever asks the service is answered by it.
    fn caught_up(
        running: &mut Self::Running,
        config: &Arc<P::Config>,
    ) -> impl Future<Output = ()> + Send;

    /// The daemon ends: write down what must not be lost.
    fn stop(running: Self::Running) -> impl Future<Output = ()> + Send;
}

/// A service at work.
pub struct Started<R> {
    /// The service.
    pub running: R,
    /// Routes of its API.
    pub routes: OpenApiRouter,
    /// Who knows the tokens of its callers.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who keeps a log of changes, if somebody does.
    pub journal: Option<Journal>,
}

impl<R> fmt::Debug for Started<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// A product that does nothing beside.
impl<P: Product<Members = ()>> Service<P> for () {
    type Running = ();

    async fn open(_: &Settings) -> Result<((), ()), Failure> {
        Ok(((), ()))
    }

    async fn look(_: &Settings) -> Result<(), Failure> {
        Ok(())
    }

    async fn start(self, _: Arc<Mutex<Plane<P>>>, _: Arc<P::Config>) -> Started<()> {
        Started {
            running: (),
            routes: OpenApiRouter::new(),
            authenticator: Arc::new(NoTokens),
            journal: None,
        }
    }

    async fn caught_up((): &mut (), _: &Arc<P::Config>) {}

    async fn stop((): ()) {}
}

/// What the daemon itself needs of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Private keys and what must survive a restart.
    pub state_dir: PathBuf,
    /// Sockets, pid, status.
    pub runtime_dir: PathBuf,
    /// Name of the TUN link.
    pub interface: InterfaceName,
    /// Marks our link as ours (`ip link set alias`).
    pub link_alias: &'static str,
    /// Bytes.
    pub mtu: u16,
    /// UDP port; 0 lets the kernel choose.
    pub listen_port: u16,
    /// Mark of our datagrams; 0 is none.
    pub fwmark: u32,
    /// Key file; made when missing.
    pub private_key_file: PathBuf,
    /// The link to the internet, when the policy depends on it.
    pub wan: Wan,
    /// Where the admin API listens beside its unix socket: a tunnel address.
    pub admin_listen: Option<SocketAddr>,
    /// Whether callers of `admin_listen` need a token.
    pub admin_tokens: bool,
    /// What is said of the set `cloudflare`.
    pub cloudflare: Ranges,
}

/// How the link to the internet is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wan {
    /// The policy does not depend on it.
    NotNeeded,
    /// The link of the default route.
    Auto,
    /// As configured.
    Named(InterfaceName),
}

/// Where the configuration of a product is when `--config` does not say.
pub fn default_config_path(name: &str) -> PathBuf {
    Path::new("/etc/wg-edge").join(format!("{name}.toml"))
}
