//! What is known about addresses and networks without asking anybody.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::plan::ruleset::Family;

/// What an address is for, after the registries of RFC 6890.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Assigned to somebody on the internet (or for documentation, which nobody routes).
    Public,
    /// RFC 1918, RFC 6598 (shared), RFC 2544 (benchmarks), RFC 4193 (unique local).
    Private,
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `169.254.0.0/16`, `fe80::/10`: never forwarded by a router.
    LinkLocal,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `240.0.0.0/4`.
    Reserved,
}

impl Kind {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_ipv4(address),
            IpAddr::V6(address) => Self::of_ipv6(address),
        }
    }

    fn of_ipv4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [224..=239, ..] => Self::Multicast,
            [255, 255, 255, 255] => Self::Broadcast,
            [240..=255, ..] => Self::Reserved,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [100, 64..=127, ..] | [198, 18..=19, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_ipv6(address: Ipv6Addr) -> Self {
        let [first, ..] = address.segments();
        if address.is_unspecified() {
            Self::Unspecified
        } else if address.is_loopback() {
            Self::Loopback
        } else if address.is_multicast() {
            Self::Multicast
        } else if first & 0xffc0 == 0xfe80 {
            Self::LinkLocal
        } else if first & 0xfe00 == 0xfc00 {
            Self::Private
        } else {
            Self::Public
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Networks whose addresses mean something else on every site: nobody may claim them as his from the internet.
const NOT_PUBLIC: [(IpAddr, u8); 14] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// A network of no public address that shares addresses with this one.
pub(crate) fn not_public(network: IpNetwork) -> Option<IpNetwork> {
    (NOT_PUBLIC.iter())
        .filter_map(|&(address, prefix_len)| IpNetwork::new(address, prefix_len).ok())
        .find(|&special| overlap(special, network))
}

/// Whether a whole network is private: RFC 1918, RFC 6598 (shared), RFC 2544 (benchmarks) or RFC 4193 (unique local).
pub fn is_private(network: IpNetwork) -> bool {
    const PRIVATE: [(IpAddr, u8); 6] = [
        (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
        (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
        (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
        (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
        (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
        (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    ];
    (PRIVATE.iter())
        .filter_map(|&(address, prefix_len)| IpNetwork::new(address, prefix_len).ok())
        .any(|private| covers(private, network))
}

/// A network as people write it: a single address without its length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown(pub(super) IpNetwork);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_single(self.0) {
            self.0.ip().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// Whether a network is one address.
pub(super) fn is_single(network: IpNetwork) -> bool {
    network.prefix() == if network.is_ipv4() { 32 } else { 128 }
}

/// Whether every address of `inner` is in `outer`.
pub(super) fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Whether two networks share an address: one of them covers the other.
pub(crate) fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    covers(a, b) || covers(b, a)
}

/// The first and, in IPv4, the last address of a network belong to no host (RFC 1122 §3.2.1.3, RFC 4291 §2.6.1), unless
/// the network is a point-to-point link or a single address (RFC 3021, RFC 6164).
pub(super) fn is_reserved_in(address: IpAddr, network: IpNetwork) -> bool {
    match network {
        IpNetwork::V4(v4) => {
            v4.prefix() < 31 && (address == v4.network() || address == v4.broadcast())
        }
        IpNetwork::V6(v6) => v6.prefix() < 127 && address == v6.network(),
    }
}

/// The family in words.
pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_registries() {
        for (text, kind) in [
            ("203.0.113.10", Kind::Public),
            ("172.32.0.1", Kind::Public),
            ("172.31.255.255", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("0.0.0.0", Kind::Unspecified),
            ("127.3.2.1", Kind::Loopback),
            ("169.254.1.1", Kind::LinkLocal),
            ("239.1.1.1", Kind::Multicast),
            ("255.255.255.255", Kind::Broadcast),
            ("250.1.1.1", Kind::Reserved),
            ("2001:db8::1", Kind::Public),
            ("fd17::1", Kind::Private),
            ("fe80::1", Kind::LinkLocal),
            ("ff02::1", Kind::Multicast),
            ("::", Kind::Unspecified),
            ("::1", Kind::Loopback),
        ] {
            assert_eq!(Kind::of(text.parse().unwrap()), kind, "{text}");
        }
    }

    #[test]
    fn networks_of_different_families_never_overlap() {
        assert!(!overlap(
            "0.0.0.0/0".parse().unwrap(),
            "::/0".parse().unwrap()
        ));
    }

    #[test]
    fn a_wide_network_that_contains_private_space_is_not_public() {
        assert!(not_public("8.0.0.0/5".parse().unwrap()).is_some());
        assert!(not_public("104.16.0.0/13".parse().unwrap()).is_none());
    }
}
