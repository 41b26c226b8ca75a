//! Addresses and ports as ranges: what an interval set holds.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::Family;
use crate::config::common::PortRange;

/// Addresses of one family from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// From `first` to `last`; `None` when they are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let range = Self {
            family: Family::of(first),
            first: number(first),
            last: number(last),
        };
        (Family::of(last) == range.family && range.first <= range.last).then_some(range)
    }

    /// All addresses of a network.
    pub fn of(network: IpNetwork) -> Self {
        let family = Family::of_network(network);
        let hosts = family
            .max()
            .checked_shr(network.prefix().into())
            .unwrap_or(0);
        let first = number(network.ip()) & !hosts;
        Self {
            family,
            first,
            last: first | hosts,
        }
    }

    /// Family of both ends.
    pub const fn family(self) -> Family {
        self.family
    }

    /// Lowest address.
    pub fn first(self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Highest address.
    pub fn last(self) -> IpAddr {
        self.family.address(self.last)
    }

    /// How many they are; one less where that is too great a number.
    pub const fn count(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether an address is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&number(address))
    }

    /// Each of them.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (self.first..=self.last).map(move |address| self.family.address(address))
    }

    /// The address after the highest; `None` when the range ends with the last address of its family.
    pub fn after(self) -> Option<IpAddr> {
        (self.last < self.family.max()).then(|| self.family.address(self.last + 1))
    }

    /// The range as a network, if it is one.
    pub fn network(self) -> Option<IpNetwork> {
        let network = self.largest_network();
        (Self::of(network) == self).then_some(network)
    }

    /// The same addresses as fewest networks, in order.
    pub fn networks(self) -> Vec<IpNetwork> {
        let mut networks = Vec::new();
        let mut rest = self;
        loop {
            let network = rest.largest_network();
            networks.push(network);
            match Self::of(network).after().map(number) {
                Some(next) if next <= self.last => rest.first = next,
                Some(_) | None => return networks,
            }
        }
    }

    /// The largest network that begins where the range begins and stays inside it.
    fn largest_network(self) -> IpNetwork {
        let bits = self.family.bits();
        let mut prefix = bits;
        while prefix > 0 {
            let wider = self.family.network(self.first, prefix - 1);
            let reach = Self::of(wider);
            if reach.first != self.first || reach.last > self.last {
                break;
            }
            prefix -= 1;
        }
        self.family.network(self.first, prefix)
    }
}

/// As nft lists it: `10.0.0.1`, `10.0.0.0/8`, `104.16.0.0-104.27.255.255`.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first());
        }
        match self.network() {
            Some(network) => write!(f, "{}/{}", self.first(), network.prefix()),
            None => write!(f, "{}-{}", self.first(), self.last()),
        }
    }
}

impl Family {
    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    /// All addresses: `0.0.0.0/0` or `::/0`.
    pub fn everything(self) -> IpNetwork {
        self.network(0, 0)
    }

    /// The last address as a number.
    const fn max(self) -> u128 {
        match self {
            Self::Ipv4 => u32::MAX as u128,
            Self::Ipv6 => u128::MAX,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            // Numbers of IPv4 never exceed 32 bits here: `max` bounds them.
            Self::Ipv4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Self::Ipv6 => Ipv6Addr::from(number).into(),
        }
    }

    fn network(self, first: u128, prefix: u8) -> IpNetwork {
        let address = self.address(first);
        IpNetwork::new(address, prefix.min(self.bits())).unwrap_or_else(|_| address.into())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The same addresses as fewest ranges: sorted (IPv4 first), neither overlapping nor touching.
pub fn merged_ranges(networks: impl IntoIterator<Item = IpNetwork>) -> Vec<AddressRange> {
    let mut sorted: Vec<_> = networks.into_iter().map(AddressRange::of).collect();
    sorted.sort_unstable();
    let mut merged: Vec<AddressRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last)
                if last.family == range.family && range.first <= last.last.saturating_add(1) =>
            {
                last.last = last.last.max(range.last);
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

/// The same addresses as fewest networks: sorted, contained ones dropped, halves of a network joined.
pub fn merge_networks(networks: impl IntoIterator<Item = IpNetwork>) -> Vec<IpNetwork> {
    merged_ranges(networks)
        .into_iter()
        .flat_map(AddressRange::networks)
        .collect()
}

/// The same ports as fewest ranges: sorted, neither overlapping nor touching.
pub fn merged_ports(ports: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn texts(ranges: &[AddressRange]) -> Vec<String> {
        ranges.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn touching_networks_become_one_range() {
        let networks = nets(&["104.24.0.0/14", "104.16.0.0/13"]);
        assert_eq!(
            texts(&merged_ranges(networks.clone())),
            ["104.16.0.0-104.27.255.255"]
        );
        assert_eq!(
            merge_networks(networks),
            nets(&["104.16.0.0/13", "104.24.0.0/14"])
        );
    }

    #[test]
    fn contained_networks_vanish_and_halves_join() {
        let networks = nets(&[
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.7/32",
            "fd00::/9",
            "fd80::/9",
        ]);
        assert_eq!(merge_networks(networks), nets(&["10.0.0.0/23", "fd00::/8"]));
    }

    #[test]
    fn host_bits_do_not_count() {
        assert_eq!(merge_networks(nets(&["10.1.2.3/8"])), nets(&["10.0.0.0/8"]));
    }

    #[test]
    fn the_ends_of_both_families_are_reached() {
        for text in ["0.0.0.0/0", "::/0"] {
            let range = AddressRange::of(text.parse().unwrap());
            assert_eq!((range.after(), range.to_string()), (None, text.to_owned()));
            assert_eq!(range.networks(), nets(&[text]));
        }
        let halves = nets(&["::/1", "8000::/1", "0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(merge_networks(halves), nets(&["0.0.0.0/0", "::/0"]));
        let last = AddressRange::of("255.255.255.255/32".parse().unwrap());
        assert_eq!(
            (last.after(), last.to_string()),
            (None, "255.255.255.255".to_owned())
        );
        let last = AddressRange::of(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
                .parse()
                .unwrap(),
        );
        assert_eq!(last.after(), None);
    }

    #[test]
    fn a_range_has_one_family_and_an_order() {
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "::1"].map(|t| t.parse().unwrap());
        assert_eq!(
            AddressRange::new(a, b).map(|r| r.to_string()).as_deref(),
            Some("10.0.0.1-10.0.0.2")
        );
        assert_eq!(
            (AddressRange::new(b, a), AddressRange::new(a, c)),
            (None, None)
        );
    }

    #[test]
    fn ports_merge_without_overflow() {
        let ports = [
            (65535, 65535),
            (80, 80),
            (81, 82),
            (1000, 2000),
            (1500, 1600),
        ];
        let ports = ports.map(|(first, last)| PortRange { first, last });
        let merged: Vec<_> = merged_ports(&ports)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(merged, ["80-82", "1000-2000", "65535"]);
    }

    /// Networks in a space of 256 addresses, at either end of the family or in its middle.
    fn small_networks() -> impl Strategy<Value = Vec<IpNetwork>> {
        let base = prop_oneof![Just("0.0.0.0"), Just("10.1.255.0"), Just("255.255.255.0")];
        let members = prop::collection::vec((0u8..=255, 24u8..=32), 0..12);
        (base, members).prop_map(|(base, members)| {
            let base = u32::from(base.parse::<Ipv4Addr>().unwrap());
            let network = |(host, prefix)| {
                IpNetwork::new(Ipv4Addr::from(base | u32::from(host)).into(), prefix).unwrap()
            };
            members.into_iter().map(network).collect()
        })
    }

    /// The naive model: every single address.
    fn addresses(networks: &[IpNetwork]) -> BTreeSet<IpAddr> {
        networks
            .iter()
            .flat_map(|n| IpNetwork::new(n.network(), n.prefix()).unwrap().iter())
            .collect()
    }

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_addresses(networks in small_networks()) {
            prop_assert_eq!(addresses(&merge_networks(networks.iter().copied())), addresses(&networks));
        }

        #[test]
        fn ranges_are_the_runs_of_the_model(networks in small_networks()) {
            let model: Vec<u128> = addresses(&networks).into_iter().map(number).collect();
            let runs = model.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run[run.len() - 1]));
            let ranges = merged_ranges(networks);
            prop_assert!(ranges.iter().map(|r| (r.first, r.last)).eq(runs));
        }

        #[test]
        fn no_two_merged_networks_make_a_network(networks in small_networks()) {
            let merged = merge_networks(networks);
            for pair in merged.windows(2) {
                let [a, b] = [AddressRange::of(pair[0]), AddressRange::of(pair[1])];
                prop_assert!(a.last < b.first);
                let both = AddressRange { last: b.last, ..a };
                prop_assert!(a.last + 1 != b.first || both.network().is_none());
            }
        }

        #[test]
        fn merging_twice_changes_nothing(networks in small_networks()) {
            let once = merge_networks(networks);
            prop_assert_eq!(merge_networks(once.iter().copied()), once);
        }
    }
}
