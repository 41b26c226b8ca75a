//! Which address a new peer gets. Pure.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Most addresses that are tried: more than IPv4 networks of /12 have, and an end for IPv6.
const MOST_TRIES: u32 = 1 << 20;

/// The first free address of `network` after `last`, going round: so the address that was given back last comes last.
pub fn next_free(
    network: IpNetwork,
    last: Option<IpAddr>,
    is_free: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let first = number(network.network());
    let hosts = 128 - 32 * 3 * u32::from(network.is_ipv4()) - u32::from(network.prefix());
    // 2^128 does not fit; nobody gets to the end of that network.
    let size = 1_u128.checked_shl(hosts).unwrap_or(u128::MAX);
    let start = last
        .filter(|&last| network.contains(last))
        .map_or(0, |last| number(last) - first);
    (1..=size.min(u128::from(MOST_TRIES)))
        .map(|step| address(network, first + (start + step) % size))
        .find(|&candidate| is_free(candidate))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(network: IpNetwork, number: u128) -> IpAddr {
    match network {
        // Inside of an IPv4 network, so never more than 32 bits.
        IpNetwork::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNetwork::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_a_circle_until_all_are_taken() {
        let network = network("10.17.0.0/29");
        let mut taken = BTreeSet::new();
        let mut last = Some("10.17.0.5".parse().unwrap());
        let mut order = Vec::new();
        while let Some(address) = next_free(network, last, |a| !taken.contains(&a)) {
            taken.insert(address);
            last = Some(address);
            order.push(address.to_string());
        }
        let hosts = [6, 7, 0, 1, 2, 3, 4, 5];
        assert_eq!(order, hosts.map(|host| format!("10.17.0.{host}")));
    }

    #[test]
    fn ipv6_networks_of_every_size_have_a_first_address() {
        for (text, first) in [
            ("fd17::/64", "fd17::1"),
            ("::/0", "::1"),
            ("fd17::8/127", "fd17::9"),
            ("fd17::8/128", "fd17::8"),
        ] {
            let found = next_free(network(text), None, |_| true);
            assert_eq!(found, Some(first.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_last_address_of_another_network_does_not_matter() {
        let last = Some("192.0.2.7".parse().unwrap());
        let found = next_free(network("10.17.0.0/16"), last, |_| true);
        assert_eq!(found, Some("10.17.0.1".parse().unwrap()));
    }
}
