//! Packets that have to pass this host, one of each kind: what a firewall that is not ours is asked about.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::ruleset::Family;
use crate::config::common::{AddressSet, Protocol, SourceIp, Sources};

/// Who stands for everybody where anybody may call: the resolvers of Quad9 and of Google, whom nobody bars.
pub const ANYBODY4: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
/// The same in IPv6.
pub const ANYBODY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);

/// New connections of one kind; their answers have to pass as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// What they are: `visitors of ingress`.
    pub name: String,
    /// Where they come from and go to.
    pub kind: FlowKind,
    /// Protocol.
    pub protocol: Protocol,
    /// One who may call; `None` is anybody.
    pub source: Option<IpAddr>,
    /// Whom they call; `None` is this host, by whichever address.
    pub destination: Option<IpAddr>,
    /// Port of the destination; `None` is one that is not known beforehand.
    pub port: Option<u16>,
    /// Whether the callers' addresses stay.
    pub source_ip: SourceIp,
    /// Family.
    pub family: Family,
}

/// Where packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKind {
    /// From the internet to an address of this host, and by DNAT into the tunnel.
    Published {
        /// Port that is called.
        called_port: u16,
    },
    /// Out of the tunnel to wherever the destination is.
    FromTunnel,
    /// The tunnel's own datagrams to our port, which are not tracked.
    Datagrams,
    /// The tunnel's own datagrams as answers to ours.
    DatagramAnswers,
}

/// One of those who may call; `None` when nobody of this family may.
pub fn one_of(sources: &Sources, sets: &[AddressSet], family: Family) -> Option<IpAddr> {
    let Sources::Listed {
        sets: names,
        networks,
    } = sources
    else {
        return Some(match family {
            Family::Ipv4 => ANYBODY4.into(),
            Family::Ipv6 => ANYBODY6.into(),
        });
    };
    let named = sets.iter().filter(|set| names.contains(&set.name));
    let mut all = networks.iter().chain(named.flat_map(|set| &set.networks));
    let network = all.find(|network| Family::of_network(**network) == family)?;
    Some(host_of(*network))
}

/// A host of a network: the first after its own address, where it has more than one.
pub fn host_of(network: IpNetwork) -> IpAddr {
    let mut hosts = network.iter();
    let first = hosts.next();
    hosts.next().or(first).unwrap_or_else(|| network.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_those_who_may_call_is_of_the_right_family() {
        let set = AddressSet {
            name: "office".to_owned(),
            networks: vec![
                "2001:db8::/64".parse().unwrap(),
                "198.51.100.0/24".parse().unwrap(),
            ],
        };
        let listed = Sources::Listed {
            sets: vec!["office".to_owned()],
            networks: vec!["192.0.2.7/32".parse().unwrap()],
        };
        let one = |family| one_of(&listed, std::slice::from_ref(&set), family);
        assert_eq!(one(Family::Ipv4), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(one(Family::Ipv6), Some("2001:db8::1".parse().unwrap()));
        let nobody = Sources::Listed {
            sets: vec!["other".to_owned()],
            networks: Vec::new(),
        };
        assert_eq!(one_of(&nobody, &[], Family::Ipv4), None);
        assert_eq!(
            one_of(&Sources::Any, &[], Family::Ipv6),
            Some(ANYBODY6.into())
        );
    }
}
