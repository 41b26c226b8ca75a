//! What the rules of a configuration do with calls: its `[[test]]` tables, and `trace`. The rules themselves are evaluated by
//! [`shared::simulate`].
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use shared::api::trace::Trace;
use shared::config::Parsed;
use shared::config::policy_test::{CallerName, INTERNET, Target};
use shared::model::InterfaceName;
use shared::plan::ruleset::Family;
use shared::simulate::{Host, NoCaller, Peer, Results, Simulation, TunnelEnd};

use crate::cli;
use crate::error::Failure;
use crate::model::{Environment, Model, PeerKind};
use crate::product::{Product, Settings, Wan};

/// The options of a product that needs no file of another end.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct NoFiles {}

impl AsRef<[std::path::PathBuf]> for NoFiles {
    fn as_ref(&self) -> &[std::path::PathBuf] {
        &[]
    }
}

/// Rules, addresses, routes and peers of a model, without what else is on its host.
pub fn tunnel_end(model: Model) -> TunnelEnd {
    let peers = model.peers.iter().map(|peer| Peer {
        name: peer.name.clone(),
        is_lan_server: peer.kind == PeerKind::LanServer,
        networks: peer.allowed_ips.clone(),
    });
    TunnelEnd {
        peers: peers.collect(),
        tunnel: model.interface,
        host: Host::of(model.desired),
    }
}

/// What the files say, without a look at the host and at what the API has made.
pub fn of_files<P: Product>(config: &P::Config, other_end: &P::OtherEnd) -> Simulation {
    P::simulation(config, &environment(&P::settings(config)), None, other_end)
}

fn environment(settings: &Settings) -> Environment {
    Environment {
        wan: match &settings.wan {
            Wan::Named(name) => name.clone(),
            Wan::NotNeeded | Wan::Auto => InterfaceName::of_default_route(),
        },
        wan_accepts_router_advertisements: false,
        cloudflare: settings.cloudflare.networks.clone(),
    }
}

/// The tests of a file, as far as it decides them.
pub fn try_files<P: Product>(config: &P::Config, other_end: &P::OtherEnd) -> Results {
    of_files::<P>(config, other_end).try_all(P::tests(config))
}

/// The configuration that a daemon is to run with: see [`tested`].
///
/// # Errors
/// [`Failure::Configuration`].
pub fn parse_tested<P: Product>(text: &str, path: &Path) -> Result<Parsed<P::Config>, Failure> {
    tested::<P>(cli::parse::<P>(text, path)?)
}

/// A configuration whose own tests fail is wrong. What the API, a list of Cloudflare or the file of the other end would decide is
/// left out: nothing of these may keep a daemon from starting.
///
/// # Errors
/// [`Failure::Configuration`].
pub fn tested<P: Product>(parsed: Parsed<P::Config>) -> Result<Parsed<P::Config>, Failure> {
    let results = try_files::<P>(&parsed.config, &P::OtherEnd::default());
    if results.failed.is_empty() {
        Ok(parsed)
    } else {
        Err(failure(&results))
    }
}

/// Why a call has no way.
#[derive(Debug, thiserror::Error)]
pub enum NoTrace {
    /// Nobody calls.
    #[error(transparent)]
    NoCaller(#[from] NoCaller),
    /// Somebody of each network of a set, each of whom has a way of his own.
    #[error("\"{0}\" is not one caller; write peer:NAME, an address, or {INTERNET}")]
    Several(String),
    /// IPv4 calls IPv6.
    #[error("{0} can't call {1}: they are of two families")]
    Families(IpAddr, Target),
}

/// The way of a call.
///
/// # Errors
/// Nobody is such a caller, or he can't call this address.
pub fn trace(simulation: &Simulation, from: &CallerName, to: Target) -> Result<Trace, NoTrace> {
    let family = Family::of(to.address);
    let address = match from {
        CallerName::Address(address) => *address,
        CallerName::Peer(name) => simulation.peer(name, family)?,
        CallerName::Set(name) if name == INTERNET => simulation.site.stranger(family),
        CallerName::Set(name) => return Err(NoTrace::Several(name.clone())),
    };
    if Family::of(address) != family {
        return Err(NoTrace::Families(address, to));
    }
    Ok(simulation.site.trace(address, to))
}

/// That an end was taken to agree.
pub fn not_looked_at(lan_server: &str) -> String {
    format!(
        "the rules of LAN server \"{lan_server}\" were not looked at, and are taken to let through what leads into its \
         networks: --lan-server PATH names its file"
    )
}

/// The failed tests, a line each.
pub fn failure(results: &Results) -> Failure {
    let lines: Vec<String> = results.failed.iter().map(ToString::to_string).collect();
    Failure::Configuration(lines.join("\n"))
}
