//! The gateway for a simulation, and the LAN ends whose files are known.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use shared::config::cloudflare;
use shared::config::gateway::{Gateway, LanServerPeer};
use shared::config::lan_server::LanServer;
use shared::simulate::{LanEnd, Peer, Simulation, Site};
use shared_daemon::error::Failure;
use shared_daemon::model::Environment;
use shared_daemon::policy;
use shared_daemon::simulation::tunnel_end;

use crate::claims::Claims;
use crate::desired;
use crate::members::Members;

/// Which files the LAN ends have.
#[derive(Debug, Clone, Default, Args)]
pub struct LanServerFiles {
    /// Configuration file of the LAN server, whose rules have a say too; several of several
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub lan_server: Vec<PathBuf>,
}

impl AsRef<[PathBuf]> for LanServerFiles {
    fn as_ref(&self) -> &[PathBuf] {
        &self.lan_server
    }
}

/// Configurations of LAN ends by their names on the gateway.
pub type LanServers = BTreeMap<String, LanServer>;

/// The LAN ends that these files are of.
///
/// # Errors
/// A file is wrong, or is that of no LAN server of `config`.
pub fn read_lan_servers(config: &Gateway, files: &[PathBuf]) -> Result<LanServers, Failure> {
    let mut lan_servers = LanServers::new();
    for path in files {
        let file = path.display().to_string();
        let wrong = |what: String| Failure::Configuration(format!("{file}: {what}"));
        let text = std::fs::read_to_string(path).map_err(|error| {
            wrong(format!(
                "can't be read: {error}; it is named by --lan-server"
            ))
        })?;
        let parsed = LanServer::parse(&text, &file);
        let lan = parsed.map_err(|errors| Failure::Configuration(errors.to_string()))?;
        let lan = lan.config;
        let of_gateway = config.lan_servers.iter().find(|peer| is_of(&lan, peer));
        let Some(of_gateway) = of_gateway else {
            return Err(wrong(
                "its address in the tunnel is that of no [[lan_server]] of the gateway; name the file of one"
                    .to_owned(),
            ));
        };
        if lan_servers.insert(of_gateway.name.clone(), lan).is_some() {
            let name = &of_gateway.name;
            return Err(wrong(format!(
                "it is the second file of LAN server \"{name}\""
            )));
        }
    }
    Ok(lan_servers)
}

fn is_of(lan: &LanServer, peer: &LanServerPeer) -> bool {
    let mut own = lan.tunnel.addresses.iter();
    own.any(|own| peer.addresses.contains(&own.address))
}

/// Both ends. Without `members` the peers of the API are not known.
pub fn simulation(
    config: &Gateway,
    environment: &Environment,
    members: Option<&Members>,
    lan_servers: &LanServers,
) -> Simulation {
    let nobody = Members::default();
    let known = members.unwrap_or(&nobody);
    let mut end = tunnel_end(desired::model(config, environment, known));
    // Who has no key yet is nobody in the device, but its networks are known.
    for waiting in &config.lan_servers {
        if end.peers.iter().any(|peer| peer.name == waiting.name) {
            continue;
        }
        end.peers.push(Peer {
            name: waiting.name.clone(),
            is_lan_server: true,
            networks: policy::hosts(&waiting.addresses)
                .chain(waiting.networks.iter().copied())
                .collect(),
        });
    }
    let lan = config.lan_servers.iter().filter_map(|peer| {
        let lan = lan_servers.get(&peer.name)?;
        Some(lan_end(peer, lan, environment))
    });
    Simulation {
        site: Site::Gateway {
            end,
            wan: environment.wan.clone(),
            lan: lan.collect(),
        },
        peers: peers(config, known),
        knows_all_peers: members.is_some(),
        cloudflare: environment.cloudflare.clone(),
    }
}

fn lan_end(peer: &LanServerPeer, lan: &LanServer, environment: &Environment) -> LanEnd {
    // Both ends refresh the same list; who has one of its own keeps that.
    let own = lan.ranges().networks;
    let environment = Environment {
        cloudflare: if own == cloudflare::networks() {
            environment.cloudflare.clone()
        } else {
            own
        },
        ..environment.clone()
    };
    lan_policy::simulate::lan_end(lan, &environment, Some(&peer.name), &peer.networks)
}

/// What the file says of a name counts, as in the device.
fn peers(config: &Gateway, members: &Members) -> BTreeMap<String, Vec<IpAddr>> {
    let claims = Claims::of(config, &members.lan_servers);
    let members = members.admitted(&claims);
    let members = members.map(|member| (&member.name, &member.addresses));
    let lan = config
        .lan_servers
        .iter()
        .map(|lan| (&lan.name, &lan.addresses));
    let of_file = config
        .peers
        .iter()
        .map(|peer| (&peer.name, &peer.addresses));
    let all = members.chain(lan).chain(of_file);
    all.map(|(name, addresses)| (name.clone(), addresses.clone()))
        .collect()
}

#[cfg(test)]
mod survival;
#[cfg(test)]
mod tests;
