//! The configuration of a client in the format of `wg-quick` (`man wg-quick`). Pure.
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use shared::api::peer::Peer;
use shared::config::gateway::Gateway;
use shared::model::PublicKey;
use shared::plan::ruleset::merge_networks;

/// Seconds between keepalives: shorter than the UDP time-out of any common NAT.
const KEEPALIVE_SECS: u16 = 25;

/// What is written into the configuration beside what everybody may know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Secrets<'a> {
    /// The client's private key.
    pub private_key: Option<&'a str>,
    /// The preshared key.
    pub preshared_key: Preshared<'a>,
}

/// What stands in the place of the preshared key.
#[derive(Debug, Clone, Copy, Default)]
pub enum Preshared<'a> {
    /// Nothing: there is none.
    #[default]
    None,
    /// A line to be filled in.
    Unknown,
    /// This key.
    Known(&'a str),
}

impl<'a> Preshared<'a> {
    /// The key, when it is known; a line to be filled in, when there is one all the same.
    pub fn of(known: Option<&'a str>, is_there: bool) -> Self {
        match known {
            Some(key) => Self::Known(key),
            None if is_there => Self::Unknown,
            None => Self::None,
        }
    }
}

/// The configuration of `peer`; what is not known is a line to be filled in.
pub fn text(config: &Gateway, own_key: &PublicKey, peer: &Peer, secrets: Secrets<'_>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{name} = {value}");
    };
    let addresses: Vec<String> = peer
        .addresses
        .iter()
        .map(|&address| IpNetwork::from(address).to_string())
        .collect();
    line("# Name", &peer.name);
    line(
        "[Interface]\nPrivateKey",
        secrets.private_key.unwrap_or(PRIVATE_KEY_UNKNOWN),
    );
    line("Address", &addresses.join(", "));
    line("MTU", &config.tunnel.mtu.to_string());
    line("\n[Peer]\nPublicKey", &own_key.to_string());
    match secrets.preshared_key {
        Preshared::Known(key) => line("PresharedKey", key),
        Preshared::Unknown => line("PresharedKey", PRESHARED_KEY_UNKNOWN),
        Preshared::None => {}
    }
    line("AllowedIPs", &reachable(config, peer).join(", "));
    line("Endpoint", &config.wan.endpoint.to_string());
    line("PersistentKeepalive", &KEEPALIVE_SECS.to_string());
    text
}

const PRIVATE_KEY_UNKNOWN: &str = "REPLACE-WITH-YOUR-PRIVATE-KEY";
const PRESHARED_KEY_UNKNOWN: &str = "REPLACE-WITH-THE-PRESHARED-KEY-TOLD-AT-CREATION";

/// The gateway itself, and what the role allows: nothing else of the client's traffic comes this way.
fn reachable(config: &Gateway, peer: &Peer) -> Vec<String> {
    let has_family = |network: &IpNetwork| {
        let mut addresses = peer.addresses.iter();
        addresses.any(|address: &IpAddr| address.is_ipv4() == network.is_ipv4())
    };
    let own = config.tunnel.addresses.iter();
    let own = own.map(|own| IpNetwork::from(own.address));
    let role = config
        .roles
        .iter()
        .filter(|role| Some(&role.name) == peer.role.as_ref());
    let services = role
        .flat_map(|role| &role.allow)
        .map(|service| service.network);
    let networks = merge_networks(own.chain(services).filter(has_family));
    networks.iter().map(ToString::to_string).collect()
}
