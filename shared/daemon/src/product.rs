//! What a binary brings to the daemon.
use std::fmt;
use std::path::{Path, PathBuf};

use shared::config::{ConfigErrors, Parsed};
use shared::model::InterfaceName;

use crate::model::{Environment, Model};

/// One of the two programs. Everything here is pure.
pub trait Product: 'static {
    /// The checked configuration.
    type Config: fmt::Debug + PartialEq + Send + Sync + 'static;

    /// Name of the program, its configuration file and its sockets: `gateway`.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;

    /// Text of the file `file` → checked configuration and warnings, or every error with its place.
    fn parse(text: &str, file: &str) -> Result<Parsed<Self::Config>, ConfigErrors>;

    /// What the daemon itself needs of the configuration.
    fn settings(config: &Self::Config) -> Settings;

    /// What the configuration asks for.
    fn model(config: &Self::Config, environment: &Environment) -> Model;
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
