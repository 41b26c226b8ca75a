//! The `[[test]]` tables of a configuration, tried.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::walk::Site;
use crate::api::trace::Trace;
use crate::config::Diagnostic;
use crate::config::address::family_name;
use crate::config::cloudflare;
use crate::config::policy_test::{Caller, Expectation, PolicyTest};
use crate::plan::ruleset::{AddressRange, Family};

/// What tests and traces are tried on.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The ends.
    pub site: Site,
    /// Addresses of the gateway's peers by name.
    pub peers: BTreeMap<String, Vec<IpAddr>>,
    /// Whether these are all, those that the API has made among them.
    pub knows_all_peers: bool,
    /// What the set `cloudflare` stands for now.
    pub cloudflare: Vec<IpNetwork>,
}

/// How the tests of a configuration went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// How many are as expected.
    pub passed: usize,
    /// What happens in place of what is expected, at the place of each test.
    pub failed: Vec<Diagnostic>,
    /// What can't be said here, and why.
    pub undecided: Vec<Diagnostic>,
    /// LAN servers that were taken to let through what tests expect to arrive.
    pub not_looked_at: BTreeSet<String>,
}

/// Why nobody calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCaller {
    /// The API may have made it.
    #[error(
        "the file has no peer \"{0}\", and those that the API has made only the running daemon knows: `plan` asks it"
    )]
    NotInFile(String),
    /// Nobody has made it, or it may not connect any more.
    #[error("there is no peer \"{0}\" that may connect")]
    NoPeer(String),
    /// It can't call an address of the other family.
    #[error("peer \"{0}\" has no {family} address", family = family_name(*.1))]
    NoAddress(String, Family),
}

/// What one test comes to.
enum Tried {
    Passed { not_looked_at: Option<String> },
    Failed(String),
    Undecided(String),
}

impl Simulation {
    /// Addresses that stand for a caller.
    ///
    /// # Errors
    /// There is none.
    pub fn addresses(&self, caller: &Caller, family: Family) -> Result<Vec<IpAddr>, NoCaller> {
        match caller {
            Caller::Address(address) => Ok(vec![*address]),
            Caller::Internet => Ok(vec![self.site.stranger(family)]),
            Caller::Set(set) => {
                let networks = if set.name == cloudflare::SET_NAME {
                    &self.cloudflare
                } else {
                    &set.networks
                };
                let networks = networks.iter().copied();
                let networks = networks.filter(|n| Family::of_network(*n) == family);
                Ok(networks.map(somebody_of).collect())
            }
            Caller::Peer(name) => self.peer(name, family).map(|address| vec![address]),
        }
    }

    /// The address of a peer in a family.
    ///
    /// # Errors
    /// It has none, or there is no such peer.
    pub fn peer(&self, name: &str, family: Family) -> Result<IpAddr, NoCaller> {
        let name = || name.to_owned();
        let addresses = self.peers.get(&name()).ok_or_else(|| {
            if self.knows_all_peers {
                NoCaller::NoPeer(name())
            } else {
                NoCaller::NotInFile(name())
            }
        })?;
        let address = addresses.iter().find(|a| Family::of(**a) == family);
        address
            .copied()
            .ok_or_else(|| NoCaller::NoAddress(name(), family))
    }

    /// Tries each test.
    pub fn try_all(&self, tests: &[PolicyTest]) -> Results {
        let mut results = Results::default();
        for test in tests {
            match self.try_one(test) {
                Tried::Passed { not_looked_at } => {
                    results.passed += 1;
                    results.not_looked_at.extend(not_looked_at);
                }
                Tried::Failed(what) => results.failed.push(test.finding(what)),
                Tried::Undecided(why) => results.undecided.push(test.finding(why)),
            }
        }
        results
    }

    /// Who stands for a set has to fare alike.
    fn try_one(&self, test: &PolicyTest) -> Tried {
        let addresses = match self.addresses(&test.from, Family::of(test.to.address)) {
            Ok(addresses) => addresses,
            Err(nobody @ NoCaller::NotInFile(_)) => return Tried::Undecided(nobody.to_string()),
            Err(nobody @ (NoCaller::NoPeer(_) | NoCaller::NoAddress(..))) => {
                return Tried::Failed(nobody.to_string());
            }
        };
        let mut passed = Tried::Passed {
            not_looked_at: None,
        };
        for from in addresses {
            match of_trace(test.expect, self.site.trace(from, test.to)) {
                Tried::Passed {
                    not_looked_at: None,
                } => {}
                other @ Tried::Passed { .. } => passed = other,
                other @ (Tried::Failed(_) | Tried::Undecided(_)) => return other,
            }
        }
        passed
    }
}

fn of_trace(expect: Expectation, trace: Trace) -> Tried {
    let Trace {
        from,
        reason,
        allowed,
        not_looked_at,
        ..
    } = trace;
    match (expect, allowed, not_looked_at) {
        (Expectation::Allow, true, not_looked_at) => Tried::Passed { not_looked_at },
        (Expectation::Deny, false, _) => Tried::Passed {
            not_looked_at: None,
        },
        (Expectation::Allow, false, _) => {
            Tried::Failed(format!("expected allow, but {from} is denied: {reason}"))
        }
        (Expectation::Deny, true, None) => {
            Tried::Failed(format!("expected deny, but {from} is allowed: {reason}"))
        }
        // That end decides for itself, and perhaps against it.
        (Expectation::Deny, true, Some(lan_server)) => Tried::Undecided(format!(
            "the gateway allows {from}, {reason}; whether LAN server \"{lan_server}\" does, its file says: \
             --lan-server PATH"
        )),
    }
}

/// The second address of a network, since the first one is no host's; of a network of one, that one.
fn somebody_of(network: IpNetwork) -> IpAddr {
    let range = AddressRange::of(network);
    let first = range.first();
    let second = AddressRange::of(first.into()).after();
    second.filter(|_| first != range.last()).unwrap_or(first)
}
