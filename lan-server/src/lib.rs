//! `lan-server`, the LAN end of wg-edge: policy and nothing else. What both ends are made of is in [`shared_daemon`];
//! the two routes, packet and configuration, are written down hop by hop in the crate `gateway` and are the same here,
//! with [`lan_policy::model`] in place of its policy.
pub mod cli;
mod expects;
mod join;

use std::collections::BTreeMap;
use std::path::PathBuf;

use shared::config::policy_test::PolicyTest;
use shared::config::{self, ConfigErrors, Parsed};
use shared::simulate::{Simulation, Site};
use shared_daemon::cli::Context;
use shared_daemon::error::Failure;
use shared_daemon::model::{Environment, Model};
use shared_daemon::product::{Expected, Product, Settings, Wan};
use shared_daemon::simulation::NoFiles;

/// The LAN end as a [`Product`].
#[derive(Debug)]
pub struct LanServer;

impl Product for LanServer {
    type Config = config::lan_server::LanServer;
    type Members = ();
    type Service = ();
    type Commands = cli::Commands;
    type OtherEndFiles = NoFiles;
    type OtherEnd = ();

    const NAME: &'static str = "lan-server";
    const ABOUT: &'static str = "wg-edge lan-server: the LAN end, brings tunnel traffic to the services that it lets through";

    fn parse(text: &str, file: &str) -> Result<Parsed<Self::Config>, ConfigErrors> {
        config::lan_server::LanServer::parse(text, file)
    }

    fn settings(config: &Self::Config) -> Settings {
        Settings {
            state_dir: config.state_dir.clone(),
            runtime_dir: config.runtime_dir.clone(),
            interface: config.tunnel.interface.clone(),
            link_alias: lan_policy::LINK_ALIAS,
            mtu: config.tunnel.mtu,
            listen_port: config.tunnel.listen_port,
            fwmark: config.tunnel.fwmark,
            private_key_file: config.tunnel.private_key_file.clone(),
            wan: Wan::NotNeeded,
            admin_listen: None,
            admin_tokens: true,
            cloudflare: config.ranges(),
        }
    }

    fn model(config: &Self::Config, environment: &Environment, (): &()) -> Model {
        lan_policy::model(config, environment)
    }

    fn expected(config: &Self::Config, environment: &Environment) -> Expected {
        expects::expected(config, environment)
    }

    fn tests(config: &Self::Config) -> &[PolicyTest] {
        &config.tests
    }

    fn read_other_end(_: &Self::Config, files: &[PathBuf]) -> Result<(), Failure> {
        match files {
            [] => Ok(()),
            [..] => Err(Failure::Configuration(
                "a LAN server needs no file of another end: it decides for itself".to_owned(),
            )),
        }
    }

    fn simulation(
        config: &Self::Config,
        environment: &Environment,
        _: Option<&()>,
        (): &(),
    ) -> Simulation {
        Simulation {
            site: Site::LanServer(lan_policy::simulate::lan_end(
                config,
                environment,
                None,
                &[],
            )),
            peers: BTreeMap::new(),
            knows_all_peers: true,
            cloudflare: environment.cloudflare.clone(),
        }
    }

    async fn command(command: cli::Commands, context: &Context<Self>) -> Result<(), Failure> {
        cli::run(command, context).await
    }
}
