//! What the configuration file claims for itself, and what a peer of the API may have beside it. Pure.
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use shared::config::common::{Endpoint, InterfaceAddress};
use shared::config::gateway::Gateway;
use shared::config::is_private;
use shared::model::PublicKey;

use crate::members::{LanServers, joined};

/// What a peer wants to be its own.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Name.
    pub name: &'a str,
    /// Key.
    pub public_key: &'a PublicKey,
    /// The key that replaces it.
    pub next_public_key: Option<&'a PublicKey>,
    /// Tunnel addresses.
    pub addresses: &'a [IpAddr],
    /// Networks behind it.
    pub networks: &'a [IpNetwork],
}

/// A part of a claim that can't be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which part.
    pub field: Field,
    /// Why, as a sentence without its end.
    pub detail: String,
    /// Whether another peer or host has it, rather than that nobody could.
    pub taken: bool,
}

/// Parts of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The name.
    Name,
    /// The key.
    PublicKey,
    /// An address, by its place.
    Address(usize),
    /// A network, by its place.
    Network(usize),
}

/// What the file says that others can't have.
#[derive(Debug, Clone)]
pub struct Claims {
    names: BTreeSet<String>,
    keys: BTreeSet<PublicKey>,
    /// Of peers and LAN servers.
    addresses: BTreeSet<IpAddr>,
    /// Of this host.
    own_addresses: Vec<IpAddr>,
    tunnel_networks: Vec<IpNetwork>,
    /// Name of the LAN server and network.
    lan_networks: Vec<(String, IpNetwork)>,
    /// Where peers dial to.
    endpoint: Option<IpAddr>,
}

impl Claims {
    /// Of this configuration, with the keys of LAN servers that have joined.
    pub fn of(config: &Gateway, lan_servers: &LanServers) -> Self {
        let lans = &config.lan_servers;
        let peers = &config.peers;
        let names = lans.iter().map(|lan| &lan.name);
        let keys = lans.iter().filter_map(|lan| lan.public_key);
        let keys = keys.chain(joined(config, lan_servers).map(|(_, record)| record.public_key));
        let addresses = lans.iter().flat_map(|lan| &lan.addresses);
        let lan_networks = lans.iter().flat_map(|lan| {
            let networks = lan.networks.iter();
            networks.map(|&network| (lan.name.clone(), network))
        });
        Self {
            names: names
                .chain(peers.iter().map(|peer| &peer.name))
                .cloned()
                .collect(),
            keys: keys.chain(peers.iter().map(|p| p.public_key)).collect(),
            addresses: addresses
                .chain(peers.iter().flat_map(|peer| &peer.addresses))
                .copied()
                .collect(),
            own_addresses: config.tunnel.addresses.iter().map(|a| a.address).collect(),
            tunnel_networks: config
                .tunnel
                .addresses
                .iter()
                .map(InterfaceAddress::network)
                .collect(),
            lan_networks: lan_networks.collect(),
            endpoint: match &config.wan.endpoint {
                Endpoint::Address(address) => Some(address.ip()),
                Endpoint::Name { .. } => None,
            },
        }
    }

    /// Whether a peer of the file or a LAN server has this key.
    pub fn has_key(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }

    /// The tunnel networks, one per family at most.
    pub fn tunnel_networks(&self) -> &[IpNetwork] {
        &self.tunnel_networks
    }

    /// Why this claim can't be granted beside the file; empty when it can.
    pub fn against(&self, claim: &Claim<'_>) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let mut refuse = |field, taken, detail: String| {
            refusals.push(Refusal {
                field,
                detail,
                taken,
            });
        };
        if self.names.contains(claim.name) {
            let detail = format!("the configuration file has the name {:?}", claim.name);
            refuse(Field::Name, true, detail);
        }
        let keys = [Some(claim.public_key), claim.next_public_key];
        if keys
            .into_iter()
            .flatten()
            .any(|key| self.keys.contains(key))
        {
            let detail = "a LAN server or a peer of the configuration file has this key".to_owned();
            refuse(Field::PublicKey, true, detail);
        }
        for (place, &address) in claim.addresses.iter().enumerate() {
            if let Err((taken, detail)) = self.check_address(address) {
                refuse(Field::Address(place), taken, detail);
            }
        }
        for (place, &network) in claim.networks.iter().enumerate() {
            if let Err((taken, detail)) = self.check_network(network) {
                refuse(Field::Network(place), taken, detail);
            }
        }
        refusals
    }

    /// Whether a peer may have this tunnel address, and if not, whether someone has it and why.
    pub fn check_address(&self, address: IpAddr) -> Result<(), (bool, String)> {
        let Some(tunnel) = self.tunnel_networks.iter().find(|n| n.contains(address)) else {
            let networks: Vec<String> = self
                .tunnel_networks
                .iter()
                .map(ToString::to_string)
                .collect();
            return Err((
                false,
                format!(
                    "{address} lies outside of the tunnel network {}",
                    networks.join(", ")
                ),
            ));
        };
        if is_edge_of(address, *tunnel) {
            return Err((false, format!("{address} is no host address of {tunnel}")));
        }
        if self.own_addresses.contains(&address) {
            return Err((true, format!("{address} is the gateway's own")));
        }
        if self.addresses.contains(&address) {
            return Err((
                true,
                format!("the configuration file gives {address} to another"),
            ));
        }
        match self.lan_networks.iter().find(|(_, n)| n.contains(address)) {
            Some((lan, network)) => Err((
                true,
                format!("{address} belongs to the network {network} of the LAN server {lan}"),
            )),
            None => Ok(()),
        }
    }

    fn check_network(&self, network: IpNetwork) -> Result<(), (bool, String)> {
        let mut tunnels = self.tunnel_networks.iter();
        if !tunnels.any(|tunnel| tunnel.is_ipv4() == network.is_ipv4()) {
            return Err((
                false,
                format!("{network} can't be reached: the tunnel has no address of its family"),
            ));
        }
        let mut tunnels = self.tunnel_networks.iter();
        let in_tunnel =
            tunnels.any(|tunnel| tunnel.prefix() < network.prefix() && overlap(*tunnel, network));
        // The same holds for networks of LAN servers: what is public, or nobody's, would be drawn into the tunnel.
        if !in_tunnel && !is_private(network) {
            return Err((
                false,
                format!(
                    "{network} is not private; networks behind peers are private (RFC 1918, RFC 6598, RFC 4193) or \
                     inside the tunnel network"
                ),
            ));
        }
        if let Some((lan, theirs)) = self.lan_networks.iter().find(|(_, n)| overlap(*n, network)) {
            return Err((
                true,
                format!("{network} overlaps with {theirs} of the LAN server {lan}"),
            ));
        }
        if let Some(tunnel) = self
            .tunnel_networks
            .iter()
            .find(|tunnel| overlap(**tunnel, network) && network.prefix() <= tunnel.prefix())
        {
            return Err((
                true,
                format!("{network} covers the tunnel network {tunnel}"),
            ));
        }
        let hosts = self.own_addresses.iter().chain(&self.addresses);
        if let Some(host) = hosts.chain(&self.endpoint).find(|a| network.contains(**a)) {
            return Err((
                true,
                format!("{network} contains {host}, which is another's"),
            ));
        }
        Ok(())
    }
}

/// The address of the network itself, or IPv4's broadcast address.
fn is_edge_of(address: IpAddr, network: IpNetwork) -> bool {
    match network {
        IpNetwork::V4(v4) if v4.prefix() < 31 => {
            address == IpAddr::from(v4.network()) || address == IpAddr::from(v4.broadcast())
        }
        IpNetwork::V6(v6) if v6.prefix() < 127 => address == IpAddr::from(v6.network()),
        IpNetwork::V4(_) | IpNetwork::V6(_) => false,
    }
}

/// Whether two networks have an address in common: then one contains the other.
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests;
