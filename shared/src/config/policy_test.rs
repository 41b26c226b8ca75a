//! `[[test]]`: what is to become of a call, whatever else the file says. [`crate::simulate`] finds out what does.
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::family_name;
use super::cloudflare;
use super::common::{AddressSet, Protocol, Service};
use super::document::{Table, nearest};
use super::error::{Diagnostic, Place};
use super::report::{Field, List, Located, Report, Reported};
use super::sources::Sets;
use super::value::{AddressError, NameError, Quoted, ServiceError, parse_address, parse_name};
use crate::plan::ruleset::Family;

pub(super) const KEYS: [&str; 4] = ["name", "from", "to", "expect"];

/// Everybody whom the file does not name. A set of this name takes its place.
pub const INTERNET: &str = "internet";
/// Stands before the name of a peer.
const PEER: &str = "peer:";

/// `[[test]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTest {
    /// How messages name it: `test "alice reaches the API"`, `test number 2`.
    pub label: String,
    /// Who calls.
    pub from: Caller,
    /// What is called.
    pub to: Target,
    /// What is to become of it.
    pub expect: Expectation,
    /// Where it stands.
    pub place: Place,
}

impl PolicyTest {
    /// Something about this test, said at its place.
    pub fn finding(&self, message: impl fmt::Display) -> Diagnostic {
        self.place.finding(format!("{}: {message}", self.label))
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A peer of the gateway, of the file or of the API, by its name.
    Peer(String),
    /// Whoever has this address.
    Address(IpAddr),
    /// Somebody whom the file does not name.
    Internet,
    /// Somebody of each network of a set.
    Set(AddressSet),
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port; never 0.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// What is to become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// It arrives, and its answer comes back.
    Allow,
    /// It does not.
    Deny,
}

/// A caller as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerName {
    /// `peer:alice`.
    Peer(String),
    /// `10.17.0.10`.
    Address(IpAddr),
    /// `internet`, or the name of a set.
    Set(String),
}

/// Why a text is not a [`CallerName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// What has the characters of one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Of a peer or a set.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for CallerName {
    type Err = CallerError;

    fn from_str(text: &str) -> Result<Self, CallerError> {
        if let Some(name) = text.strip_prefix(PEER) {
            Ok(Self::Peer(parse_name(name)?))
        } else if text.contains(['.', ':', '/']) {
            Ok(Self::Address(parse_address(text)?))
        } else {
            Ok(Self::Set(parse_name(text)?))
        }
    }
}

/// Why a text is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no service at all.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A network, or a range of ports.
    #[error("{0} is more than one address or port; a call goes to one, e.g. \"10.17.5.10:6443\"")]
    Several(Quoted),
}

impl FromStr for Target {
    type Err = TargetError;

    /// `10.17.5.10:6443/tcp`, `[fd17:5::30]:443`: TCP unless something else is said.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let service: Service = if text.contains('/') {
            text.parse()?
        } else {
            format!("{text}/{}", Protocol::Tcp).parse()?
        };
        let Service {
            network,
            ports,
            protocol,
        } = service;
        let is_one = network.prefix() == Family::of_network(network).bits();
        if !is_one || ports.first != ports.last {
            return Err(TargetError::Several(Quoted::text(text)));
        }
        Ok(Self {
            address: network.ip(),
            port: ports.first,
            protocol,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = Service {
            network: self.address.into(),
            ports: self.port.into(),
            protocol: self.protocol,
        };
        service.fmt(f)
    }
}

/// `[[test]]` as written.
#[derive(Debug)]
pub(super) struct TestDraft {
    label: String,
    place: Place,
    name: Result<Option<Located<String>>, Reported>,
    from: Field<CallerName>,
    to: Field<Target>,
    expect: Field<Expectation>,
}

pub(super) fn tests(root: &Table<'_>) -> List<TestDraft> {
    root.tables("test").map(|table| test(&table))
}

fn test(table: &Table<'_>) -> TestDraft {
    TestDraft {
        label: table.label().to_owned(),
        place: table.place(),
        name: table.get_and("name", |value| value.parse_with(sentence)),
        from: require(table, "from", "\"peer:alice\""),
        to: require(table, "to", "\"10.17.5.10:6443/tcp\""),
        expect: require(table, "expect", "\"allow\""),
    }
}

fn require<T>(table: &Table<'_>, key: &'static str, example: &str) -> Field<T>
where
    T: FromStr<Err: fmt::Display>,
{
    table.require(key, example)?.parse()
}

/// A name that is only told: any words, in one line.
fn sentence(text: &str) -> Result<String, String> {
    const LONGEST: usize = 100;
    let length = text.chars().count();
    if (1..=LONGEST).contains(&length) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        let shown = Quoted::text(text);
        Err(format!(
            "{shown} is not the name of a test; write 1 to {LONGEST} characters in one line"
        ))
    }
}

/// Who has names that a test may call by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peers<'d> {
    /// Those of the gateway's file; others may come by the API.
    Of(&'d [&'d str]),
    /// Nobody: the LAN end knows addresses.
    NotHere,
}

pub(super) fn check(report: &Report<'_>, tests: &[TestDraft], sets: &Sets, peers: Peers<'_>) {
    for test in tests {
        test.check(report, sets, peers);
    }
}

impl TestDraft {
    fn check(&self, report: &Report<'_>, sets: &Sets, peers: Peers<'_>) {
        let Ok(from) = &self.from else { return };
        let error = |message: String| {
            report.error(from.at, format!("{}: {message}", self.label));
        };
        let to = self.to.as_ref().ok().map(|to| Family::of(to.value.address));
        match (&from.value, peers) {
            (CallerName::Peer(_), Peers::Of(_)) => {}
            (CallerName::Peer(_), Peers::NotHere) => error(
                "only the gateway knows names of peers; write the address that this one has in the tunnel"
                    .to_owned(),
            ),
            (CallerName::Address(address), _) => {
                let family = Family::of(*address);
                if let Some(to) = to.filter(|to| *to != family) {
                    let [from, to] = [family, to].map(family_name);
                    error(format!(
                        "the caller has an {from} address, and what it calls an {to} one; write two of one family"
                    ));
                }
            }
            (CallerName::Set(name), _) => match sets.networks(name) {
                Some(networks) => {
                    let families = networks.iter().map(|network| Family::of_network(*network));
                    let is_complete = sets.is_known(name);
                    if let Some(to) = to.filter(|to| is_complete && !families.clone().any(|f| f == *to)) {
                        let (name, to) = (Quoted::text(name), family_name(to));
                        error(format!(
                            "the set {name} has no {to} network, but what is called has an {to} address"
                        ));
                    }
                }
                None if name == INTERNET => {}
                None => {
                    let (shown, remedy) = (Quoted::text(name), remedy(name, sets, peers));
                    error(format!("there is no set {shown}; {remedy}"));
                }
            },
        }
    }

    pub(super) fn build(self, sets: &Sets) -> Result<PolicyTest, Reported> {
        self.name?;
        let from = match self.from?.value {
            CallerName::Peer(name) => Caller::Peer(name),
            CallerName::Address(address) => Caller::Address(address),
            CallerName::Set(name) => match sets.networks(&name) {
                Some(networks) => Caller::Set(AddressSet { name, networks }),
                None => Caller::Internet,
            },
        };
        Ok(PolicyTest {
            label: self.label,
            place: self.place,
            from,
            to: self.to?.value,
            expect: self.expect?.value,
        })
    }
}

fn remedy(unknown: &str, sets: &Sets, peers: Peers<'_>) -> String {
    let of_file = match peers {
        Peers::Of(names) => names,
        Peers::NotHere => &[],
    };
    if of_file.contains(&unknown) {
        return format!("did you mean \"{PEER}{unknown}\"?");
    }
    let names = || {
        let defined = sets.defined().map(|(name, _)| name.as_str());
        defined.chain([cloudflare::SET_NAME, INTERNET])
    };
    nearest(unknown, names()).map_or_else(
        || {
            let names = names().collect::<Vec<_>>().join(", ");
            let peer = match peers {
                Peers::Of(_) => format!("\"{PEER}NAME\", "),
                Peers::NotHere => String::new(),
            };
            format!("write {peer}an address, or one of: {names}")
        },
        |near| format!("did you mean \"{near}\"?"),
    )
}
