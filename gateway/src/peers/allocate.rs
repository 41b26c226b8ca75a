//! Which address a new peer gets. Pure.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::state::State;

/// Most stretches of taken addresses that are looked at: far more than a machine has memory for, and an end.
const MOST_TRIES: u32 = 1 << 20;

/// The first free address of `network` after `last`, going round: so the address that was given back last comes last.
///
/// `taken_until` says of an address whether it is taken, and then which one is the last of those from it on that are taken
/// without a gap: a network of millions is passed in one step.
pub fn next_free(
    network: IpNetwork,
    last: Option<IpAddr>,
    taken_until: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Option<IpAddr> {
    let first = number(network.network());
    let hosts = 128 - 32 * 3 * u32::from(network.is_ipv4()) - u32::from(network.prefix());
    // 2^128 does not fit; nobody gets to the end of that network.
    let size = 1_u128.checked_shl(hosts).unwrap_or(u128::MAX);
    let after = |place: u128| if place + 1 >= size { 0 } else { place + 1 };
    let start = last.filter(|&last| network.contains(last));
    let mut place = after(start.map_or(0, |last| number(last) - first));
    let mut passed = 0_u128;
    for _ in 0..MOST_TRIES {
        if passed >= size {
            break;
        }
        let candidate = address(network, first + place);
        let Some(end) = taken_until(candidate) else {
            return Some(candidate);
        };
        // What is around may be larger than the network itself.
        let end = number(end).saturating_sub(first).clamp(place, size - 1);
        passed = passed.saturating_add(end - place + 1);
        place = after(end);
    }
    None
}

/// The last of the addresses from this one on that LAN servers and peers have without a gap; `None` when nobody has this one.
pub fn taken_until<'a, L: IntoIterator<Item = &'a IpNetwork>>(
    lans: L,
    state: &State,
    address: IpAddr,
) -> Option<IpAddr> {
    let mut lans = lans.into_iter();
    if let Some(lan) = lans.find(|lan| lan.contains(address)) {
        return Some(lan.broadcast());
    }
    let behind_peer = state.by_network(IpNetwork::from(address), None);
    let behind_peer = behind_peer.and_then(|id| state.peers().get(&id));
    let mut networks = behind_peer.iter().flat_map(|peer| &peer.networks);
    if let Some(network) = networks.find(|network| network.contains(address)) {
        return Some(network.broadcast());
    }
    let mut run = state.addresses_from(address);
    let first = run.next().filter(|&taken| taken == address)?;
    let next_to = |a: IpAddr, b: IpAddr| number(a).checked_add(1) == Some(number(b));
    let run = run.scan(first, |last, taken| {
        let goes_on = next_to(*last, taken) && last.is_ipv4() == taken.is_ipv4();
        *last = taken;
        goes_on.then_some(taken)
    });
    Some(run.last().unwrap_or(first))
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
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use proptest::prelude::*;
    use shared::model::PublicKey;
    use uuid::Uuid;

    use super::*;
    use crate::store::{Change, PeerRecord};

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    /// As if each stood alone.
    fn single(taken: &BTreeSet<IpAddr>, address: IpAddr) -> Option<IpAddr> {
        taken.contains(&address).then_some(address)
    }

    fn peer(number: u32, addresses: &[&str], networks: &[&str]) -> Change {
        Change::PutPeer(PeerRecord {
            id: Uuid::from_u128(number.into()),
            revision: 1,
            name: format!("peer-{number}"),
            public_key: PublicKey::from_bytes([u8::try_from(number).unwrap(); 32]),
            preshared_key: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            role: None,
            enabled: true,
            expires_at: None,
            quota_bytes: None,
            labels: BTreeMap::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            rotation: None,
        })
    }

    fn state(peers: &[Change]) -> State {
        let mut state = State::default();
        for peer in peers {
            state.apply(peer);
        }
        state
    }

    #[test]
    fn networks_inside_of_the_tunnel_network_are_passed_at_once() {
        for (tunnel, lan, free) in [
            // 2^21 addresses, and 2^64.
            ("10.0.0.0/8", "10.32.0.0/11", "10.64.0.0"),
            ("fd17::/48", "fd17::/64", "fd17:0:0:1::"),
            // At the end: the next one is the first.
            ("10.0.0.0/8", "10.128.0.0/9", "10.0.0.0"),
        ] {
            let lans = [network(lan)];
            let state = State::default();
            let looks = Cell::new(0);
            let last = Some(lans[0].network());
            let found = next_free(network(tunnel), last, |address| {
                looks.set(looks.get() + 1);
                taken_until(&lans, &state, address)
            });
            assert_eq!(found, Some(free.parse().unwrap()), "{tunnel}");
            assert!(looks.get() <= 2, "{tunnel}: {} looks", looks.get());
        }
    }

    #[test]
    fn what_peers_have_is_passed_in_stretches() {
        let state = state(&[
            peer(1, &["10.17.0.1", "fd17::1"], &[]),
            peer(2, &["10.17.0.2"], &["10.17.0.4/30", "192.168.0.0/16"]),
            peer(3, &["10.17.0.3", "fd17::3"], &[]),
        ]);
        let until = |address: &str| {
            let until = taken_until([], &state, address.parse().unwrap());
            until.map(|until| until.to_string())
        };
        assert_eq!(until("10.17.0.0"), None);
        assert_eq!(until("10.17.0.1").as_deref(), Some("10.17.0.3"));
        assert_eq!(until("10.17.0.5").as_deref(), Some("10.17.0.7"));
        assert_eq!(until("10.17.0.8"), None);
        assert_eq!(until("fd17::1").as_deref(), Some("fd17::1"));
        assert_eq!(until("fd17::3").as_deref(), Some("fd17::3"));
    }

    #[test]
    fn a_full_network_is_seen_at_once() {
        let full = network("10.17.0.0/16");
        let looks = Cell::new(0);
        let found = next_free(full, Some("10.17.9.9".parse().unwrap()), |_| {
            looks.set(looks.get() + 1);
            Some(full.broadcast())
        });
        assert_eq!((found, looks.get()), (None, 2));
    }

    proptest! {
        /// Passing in stretches finds what looking at one address after the other finds.
        #[test]
        fn stretches_change_nothing_but_the_time(
            networks in prop::collection::vec((0_u8..=255, 24_u8..=32), 0..6),
            hosts in prop::collection::btree_set(0_u8..=255, 0..200),
            prefix in 24_u8..=32,
            last in prop::option::of(0_u8..=255),
        ) {
            let address = |host: u8| IpAddr::from([10, 17, 0, host]);
            let lans: Vec<IpNetwork> = networks
                .into_iter()
                .map(|(host, prefix)| {
                    let around = IpNetwork::new(address(host), prefix).unwrap();
                    IpNetwork::new(around.network(), prefix).unwrap()
                })
                .collect();
            let names: Vec<String> = hosts.iter().map(|&host| address(host).to_string()).collect();
            let peers: Vec<Change> = names
                .iter()
                .enumerate()
                .map(|(n, name)| peer(u32::try_from(n).unwrap(), &[name], &[]))
                .collect();
            let state = state(&peers);
            let tunnel = IpNetwork::new(address(0), prefix).unwrap();
            let last = last.map(address);
            let fast = next_free(tunnel, last, |a| taken_until(&lans, &state, a));
            let slow = next_free(tunnel, last, |a| taken_until(&lans, &state, a).map(|_| a));
            prop_assert_eq!(fast, slow);
            let is_taken = |a: IpAddr| state.by_address(a, None).is_some() || lans.iter().any(|n| n.contains(a));
            match fast {
                Some(found) => prop_assert!(tunnel.contains(found) && !is_taken(found)),
                None => prop_assert!(tunnel.iter().all(is_taken)),
            }
        }
    }

    #[test]
    fn addresses_come_in_a_circle_until_all_are_taken() {
        let network = network("10.17.0.0/29");
        let mut taken = BTreeSet::new();
        let mut last = Some("10.17.0.5".parse().unwrap());
        let mut order = Vec::new();
        while let Some(address) = next_free(network, last, |a| single(&taken, a)) {
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
            let found = next_free(network(text), None, |_| None);
            assert_eq!(found, Some(first.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_last_address_of_another_network_does_not_matter() {
        let last = Some("192.0.2.7".parse().unwrap());
        let found = next_free(network("10.17.0.0/16"), last, |_| None);
        assert_eq!(found, Some("10.17.0.1".parse().unwrap()));
    }
}
