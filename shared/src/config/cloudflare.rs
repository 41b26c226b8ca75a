//! Where Cloudflare calls from, and what it forwards: what came with the program. How newer lists are judged is in
//! [`crate::cloudflare`].
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::common::{AddressSet, Endpoint};
use super::refresh::Refresh;
use super::value::parse_network;

/// Name of the built-in set.
pub const SET_NAME: &str = "cloudflare";

/// Day of the bundled list.
pub const AS_OF: &str = "2026-02-11";

/// `https://www.cloudflare.com/ips-v4` as of [`AS_OF`].
pub const IPV4: [&str; 15] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
];

/// `https://www.cloudflare.com/ips-v6` as of [`AS_OF`].
pub const IPV6: [&str; 7] = [
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// Ports that the proxy forwards without further settings: first those for HTTP, then those for HTTPS.
/// <https://developers.cloudflare.com/fundamentals/reference/network-ports/>
pub const PROXIED_PORTS: [u16; 13] = [
    80, 8080, 8880, 2052, 2082, 2086, 2095, 443, 2053, 2083, 2087, 2096, 8443,
];

/// The bundled list, sorted.
pub fn networks() -> Vec<IpNetwork> {
    let mut networks: Vec<_> = (IPV4.iter().chain(&IPV6))
        .filter_map(|text| parse_network(text).ok())
        .collect();
    networks.sort_unstable();
    networks
}

/// What a configuration says of the set `cloudflare`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// What it stands for as long as nothing is refreshed: the file's own list, or else the bundled one.
    pub networks: Vec<IpNetwork>,
    /// Where newer lists come from; `None` when that is switched off, the file has its own list, or nothing names the set.
    pub refresh: Option<Refresh>,
    /// Networks of ours. Whoever called from there would be taken for Cloudflare.
    pub ours: Vec<IpNetwork>,
}

impl Ranges {
    /// Of a configuration with these sets, of which those that nothing names are left out.
    pub(super) fn new(
        sets: &[AddressSet],
        refresh: Option<&Refresh>,
        ours: impl IntoIterator<Item = IpNetwork>,
    ) -> Self {
        let set = sets.iter().find(|set| set.name == SET_NAME);
        Self {
            networks: set.map_or_else(networks, |set| set.networks.clone()),
            refresh: set.and(refresh.cloned()),
            ours: ours.into_iter().collect(),
        }
    }
}

/// The address of an endpoint that is one.
pub(super) fn network_of(endpoint: &Endpoint) -> Option<IpNetwork> {
    match endpoint {
        Endpoint::Address(socket) => Some(IpNetwork::from(socket.ip())),
        Endpoint::Name { .. } => None,
    }
}

/// Whether an address is one of Cloudflare's.
pub fn contains(address: IpAddr) -> bool {
    networks().iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_bundled_list_is_a_network() {
        assert_eq!(networks().len(), IPV4.len() + IPV6.len());
    }

    #[test]
    fn addresses_of_both_families_are_found() {
        assert!(contains("104.23.255.255".parse().unwrap()));
        assert!(contains("2a06:98c7::1".parse().unwrap()));
        assert!(!contains("104.28.0.0".parse().unwrap()));
        assert!(!contains("203.0.113.10".parse().unwrap()));
    }
}
