//! `gateway`, the public end of wg-edge: policy and nothing else. What both ends are made of is in [`shared_daemon`].
//!
//! # A packet's route
//!
//! Read top to bottom, each hop is in the one file that is named after it. *Inbound* means from the tunnel to this
//! host's TUN device, *outbound* from TUN into the tunnel, as in wireguard-go.
//!
//! | hop | outbound: a visitor's packet to a VIP | inbound: the answer |
//! |---|---|---|
//! | 1 | the kernel DNATs and forwards it: the table that [`desired::model`] makes of the configuration, put in place by [`nft::Nftables::replace`] | a datagram waits on the UDP socket |
//! | 2 | [`shared_os::tun`] reads a super-packet, which may have to wait in [`shared::offload::backlog`] | [`shared_os::udp`] receives a batch of coalesced datagrams |
//! | 3 | [`shared::offload::segment`] cuts it into packets, in place | [`Device::handle_datagram`]: kind, index → peer, replay, decapsulation |
//! | 4 | [`Device::handle_tun_packet`]: destination → peer by allowed IPs, padding, encapsulation | the source must belong to this very peer: `shared/src/wg/allowed_ips.rs` |
//! | 5 | [`TransmitQueue`]: equal datagrams side by side | [`shared::offload::coalesce`]: packets of a flow become one super-packet |
//! | 6 | [`shared_os::udp`] sends each run in one call | [`shared_os::tun`] writes it; the kernel undoes the DNAT and forwards it |
//!
//! The loop that drives the hops is the crate `shared_datapath`. A packet that ends early has a [`DropReason`].
//!
//! # A configuration's route
//!
//! 1. [`shared::config::gateway::Gateway`]: text → checked configuration; what is wrong is said with line, column and
//!    remedy by [`shared::config::ConfigErrors`].
//! 2. [`desired::model`]: configuration → [`Desired`](shared::plan::Desired) kernel state and peers; pure, this binary's policy.
//! 3. [`shared_os::netlink`] and [`nft`] read what is there: [`Actual`](shared::plan::Actual).
//! 4. [`shared::plan::difference`]: pure; ordered so that it fails closed.
//! 5. [`Kernel::reconcile`](shared_daemon::reconcile::Kernel::reconcile) applies each change, reads back and compares.
//! 6. [`shared_daemon::report`] says how it went.
//!
//! [`Device::handle_datagram`]: shared::wg::Device::handle_datagram
//! [`Device::handle_tun_packet`]: shared::wg::Device::handle_tun_packet
//! [`TransmitQueue`]: shared::wg::TransmitQueue
//! [`DropReason`]: shared::wg::DropReason
pub mod api;
pub mod audit;
pub mod backup;
pub mod claims;
pub mod cli;
pub mod desired;
mod expects;
pub mod members;
pub mod pairing;
pub mod peers;
pub mod simulate;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use shared::config::policy_test::PolicyTest;
use shared::config::{self, ConfigErrors, Parsed};
use shared::simulate::Simulation;
use shared_daemon::cli::Context;
use shared_daemon::error::Failure;
use shared_daemon::model::{Environment, Model};
use shared_daemon::plane::Plane;
use shared_daemon::product::{Expected, Product, Service, Settings, Started, Wan};
use tokio::sync::Mutex;

use members::Members;
use store::sqlite::SqliteStore;

/// The gateway as a [`Product`].
#[derive(Debug)]
pub struct Gateway;

impl Product for Gateway {
    type Config = config::gateway::Gateway;
    type Members = Members;
    type Service = PeerService;
    type Commands = cli::Commands;
    type OtherEndFiles = simulate::LanServerFiles;
    type OtherEnd = simulate::LanServers;

    const NAME: &'static str = "gateway";
    const ABOUT: &'static str =
        "wg-edge gateway: the public end, publishes LAN services through a WireGuard tunnel";

    fn parse(text: &str, file: &str) -> Result<Parsed<Self::Config>, ConfigErrors> {
        config::gateway::Gateway::parse(text, file)
    }

    fn settings(config: &Self::Config) -> Settings {
        Settings {
            state_dir: config.state_dir.clone(),
            runtime_dir: config.runtime_dir.clone(),
            interface: config.tunnel.interface.clone(),
            link_alias: desired::LINK_ALIAS,
            mtu: config.tunnel.mtu,
            listen_port: config.tunnel.listen_port,
            fwmark: config.tunnel.fwmark,
            private_key_file: config.tunnel.private_key_file.clone(),
            wan: config.wan.interface.clone().map_or(Wan::Auto, Wan::Named),
            admin_listen: config.admin.listen,
            admin_tokens: config.admin.tokens,
            cloudflare: config.ranges(),
        }
    }

    fn model(config: &Self::Config, environment: &Environment, members: &Members) -> Model {
        desired::model(config, environment, members)
    }

    fn expected(config: &Self::Config, environment: &Environment) -> Expected {
        expects::expected(config, environment)
    }

    fn tests(config: &Self::Config) -> &[PolicyTest] {
        &config.tests
    }

    fn read_other_end(config: &Self::Config, files: &[PathBuf]) -> Result<Self::OtherEnd, Failure> {
        simulate::read_lan_servers(config, files)
    }

    fn simulation(
        config: &Self::Config,
        environment: &Environment,
        members: Option<&Members>,
        lan_servers: &Self::OtherEnd,
    ) -> Simulation {
        simulate::simulation(config, environment, members, lan_servers)
    }

    async fn command(command: cli::Commands, context: &Context<Self>) -> Result<(), Failure> {
        cli::run(command, context).await
    }
}

/// Peers of the API, and LAN hosts that join.
#[derive(Debug)]
pub struct PeerService(peers::Opened<SqliteStore>);

/// [`PeerService`] at work.
#[derive(Debug)]
pub struct Running {
    peers: peers::Running<SqliteStore>,
    _pairing: pairing::Serving,
}

impl Service<Gateway> for PeerService {
    type Running = Running;

    async fn open(settings: &Settings) -> Result<(Self, Members), Failure> {
        let store = SqliteStore::open(&settings.state_dir);
        let store = store.map_err(|error| Failure::environment(&error))?;
        let opened = peers::Opened::open(store, Timestamp::now()).await;
        let opened = opened.map_err(|error| Failure::environment(&error))?;
        let members = opened.members().clone();
        Ok((Self(opened), members))
    }

    async fn look(settings: &Settings) -> Result<Members, Failure> {
        let store = SqliteStore::open_to_read(&settings.state_dir);
        let Some(store) = store.map_err(|error| Failure::environment(&error))? else {
            return Ok(Members::default());
        };
        let opened = peers::Opened::open(store, Timestamp::now()).await;
        let opened = opened.map_err(|error| Failure::environment(&error))?;
        Ok(opened.members().clone())
    }

    async fn start(
        self,
        plane: Arc<Mutex<Plane<Gateway>>>,
        config: Arc<config::gateway::Gateway>,
    ) -> Started<Self::Running> {
        let running = self.0.start(plane, Arc::clone(&config)).await;
        Started {
            routes: api::router(running.handle.clone()),
            authenticator: Arc::new(running.handle.clone()),
            journal: Some(running.journal.clone()),
            running: Running {
                _pairing: pairing::serve(&running.handle, &config).await,
                peers: running,
            },
        }
    }

    async fn caught_up(running: &mut Running, config: &Arc<config::gateway::Gateway>) {
        running.peers.caught_up(config).await;
    }

    async fn stop(running: Self::Running) {
        running.peers.stop().await;
    }
}
