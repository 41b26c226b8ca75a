//! Whether networks can be Cloudflare's.
use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::Refusal;
use crate::config::address::{family_name, not_public, overlap};
use crate::plan::ruleset::{Family, merge_networks};

/// What is the same for each list.
struct Limits {
    family: Family,
    /// Fewer networks are not all.
    least: usize,
    /// Shortest prefix; Cloudflare's shortest are /13 and /29.
    shortest: u8,
}

const LIMITS: [Limits; 2] = [
    Limits {
        family: Family::Ipv4,
        least: 10,
        shortest: 12,
    },
    Limits {
        family: Family::Ipv6,
        least: 5,
        shortest: 28,
    },
];

/// Refuses what no list of Cloudflare's has, whatever the one before was.
pub(super) fn plausible(networks: &BTreeSet<IpNetwork>, ours: &[IpNetwork]) -> Result<(), Refusal> {
    for limits in &LIMITS {
        for &network in of_family(networks, limits.family) {
            if network.prefix() < limits.shortest {
                return Err(Refusal::TooWide(network));
            }
        }
    }
    for &network in networks {
        if let Some(special) = not_public(network) {
            return Err(Refusal::NotPublic(network, special));
        }
        if let Some(&own) = ours.iter().find(|&&own| overlap(own, network)) {
            return Err(Refusal::Ours(network, own));
        }
    }
    for limits in &LIMITS {
        let found = of_family(networks, limits.family).count();
        if found < limits.least {
            return Err(Refusal::TooFew {
                family: family_name(limits.family),
                found,
                least: limits.least,
            });
        }
    }
    Ok(())
}

/// Refuses a list that is more than 20 % smaller, or more than twice as large, than the one in use: by networks, and by the
/// addresses in them.
pub(super) fn similar(
    networks: &BTreeSet<IpNetwork>,
    in_use: &BTreeSet<IpNetwork>,
) -> Result<(), Refusal> {
    for limits in &LIMITS {
        let family = limits.family;
        for (measure, count) in [
            (
                "networks",
                number as fn(&BTreeSet<IpNetwork>, Family) -> u128,
            ),
            ("addresses", addresses),
        ] {
            let (from, to) = (count(in_use, family), count(networks, family));
            if to * 5 < from * 4 || to > from * 2 {
                return Err(Refusal::Size {
                    family: family_name(family),
                    measure,
                    from,
                    to,
                });
            }
        }
    }
    Ok(())
}

fn of_family(networks: &BTreeSet<IpNetwork>, family: Family) -> impl Iterator<Item = &IpNetwork> {
    let of_family = move |network: &&IpNetwork| Family::of_network(**network) == family;
    networks.iter().filter(of_family)
}

fn number(networks: &BTreeSet<IpNetwork>, family: Family) -> u128 {
    of_family(networks, family).count() as u128
}

/// Each address once. No overflow: the widest network of a checked list has 2^100 addresses, and a text has few thousands.
fn addresses(networks: &BTreeSet<IpNetwork>, family: Family) -> u128 {
    let longest = match family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    };
    let merged = merge_networks(of_family(networks, family).copied());
    let sizes = merged
        .iter()
        .map(|network| 1_u128 << (longest - u32::from(network.prefix())));
    sizes.sum()
}
