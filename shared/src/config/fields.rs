//! Keys that both files have: how their values are read and what can be said about each of them alone.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::address::{self, Kind};
use super::cloudflare;
use super::common::{AddressSet, Endpoint, InterfaceAddress, Protocol, Service, SourceIp, Sources};
use super::document::{Field, List, Located, Report, Reported, Table, Value, nearest};
use super::value::{self, Quoted, parse_address, parse_name, parse_network};
use crate::model::{InterfaceName, PublicKey};
use crate::plan::ruleset::Family;

/// `state_dir` and `runtime_dir`.
#[derive(Debug)]
pub(super) struct Dirs {
    pub(super) state: Field<PathBuf>,
    pub(super) runtime: Field<PathBuf>,
}

pub(super) fn dirs(root: &Table<'_>) -> Dirs {
    Dirs {
        state: root.get_or("state_dir", "/var/lib/wg-edge".into(), dir),
        runtime: root.get_or("runtime_dir", "/run/wg-edge".into(), dir),
    }
}

fn dir(value: Value<'_>) -> Field<PathBuf> {
    value.parse_with(|text| {
        let path = Path::new(text);
        if path.is_absolute() {
            Ok(path.to_owned())
        } else {
            let shown = Quoted::text(text);
            Err(format!("{shown} is not an absolute path; begin it with /"))
        }
    })
}

/// A file below `state_dir`, or with an absolute path anywhere.
fn key_file(value: Value<'_>) -> Field<PathBuf> {
    value.parse_with(|text| {
        if value::looks_like_key(text) {
            // The text is left out of the message: it is a secret.
            Err("this is a key, not the path of a file; put the key into a file with mode 0600 below state_dir and write its name here; treat the key as known to others")
        } else if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            Err("this is not the path of a file; write for example \"gateway.key\"")
        } else {
            Ok(PathBuf::from(text))
        }
    })
}

/// The absolute path of a key file.
pub(super) fn in_state_dir(dirs: &Dirs, file: PathBuf) -> Result<PathBuf, Reported> {
    Ok(dirs
        .state
        .as_ref()
        .map_err(|&reported| reported)?
        .value
        .join(file))
}

pub(super) fn optional_in_state_dir(
    dirs: &Dirs,
    file: Option<Located<PathBuf>>,
) -> Result<Option<PathBuf>, Reported> {
    file.map(|file| in_state_dir(dirs, file.value)).transpose()
}

/// `[tunnel]` of either file.
#[derive(Debug)]
pub(super) struct TunnelDraft {
    pub(super) interface: Field<InterfaceName>,
    pub(super) addresses: List<Located<InterfaceAddress>>,
    pub(super) listen_port: Field<u16>,
    pub(super) mtu: Field<u16>,
    pub(super) private_key_file: Field<PathBuf>,
    pub(super) fwmark: Field<u32>,
    pub(super) threads: Result<Option<Located<u16>>, Reported>,
}

/// What differs between the two files.
#[derive(Debug)]
pub(super) struct TunnelDefaults {
    pub(super) address: &'static str,
    pub(super) listen_port: u16,
    pub(super) least_listen_port: u16,
    pub(super) private_key_file: &'static str,
}

pub(super) const TUNNEL_KEYS: [&str; 7] = [
    "interface",
    "address",
    "listen_port",
    "mtu",
    "private_key_file",
    "fwmark",
    "threads",
];

const DEFAULT_INTERFACE: &str = "edge0";
const DEFAULT_MTU: u16 = 1420; // 1500 less IPv6, UDP and transport data headers: fits any path with Ethernet's MTU

pub(super) fn tunnel(table: &Table<'_>, defaults: &TunnelDefaults) -> TunnelDraft {
    let ports = i64::from(defaults.least_listen_port)..=i64::from(u16::MAX);
    TunnelDraft {
        interface: tunnel_interface(table),
        addresses: interface_addresses(table, defaults.address),
        listen_port: table.get_or("listen_port", defaults.listen_port, |v| v.integer_in(ports)),
        mtu: table.get_or("mtu", DEFAULT_MTU, |v| v.integer_in(value::MTU)),
        private_key_file: table.get_or(
            "private_key_file",
            defaults.private_key_file.into(),
            key_file,
        ),
        fwmark: table.get_or("fwmark", 0, |v| v.integer_in(0..=i64::from(u32::MAX))),
        threads: table.get_and("threads", threads),
    }
}

fn tunnel_interface(table: &Table<'_>) -> Field<InterfaceName> {
    let value = table.get("interface");
    let Some(value) = value else {
        let name = DEFAULT_INTERFACE.parse::<InterfaceName>();
        return (name.map(|value| Located {
            value,
            at: table.at(),
        }))
        .map_err(|error| table.error(table.at(), error));
    };
    let name: Located<InterfaceName> = value.parse()?;
    // "all" and "default" name groups of sysctls (`sysctl_dev_name_is_allowed` in net/ipv4/devinet.c).
    if matches!(name.value.as_str(), "lo" | "all" | "default" | "auto") {
        let message = format!(
            "`{}` can't be the tunnel's name; write for example \"edge0\"",
            name.value
        );
        return Err(value.error(message));
    }
    Ok(name)
}

fn threads(value: Value<'_>) -> Field<u16> {
    let threads: Located<u16> = value.integer_in(0..=i64::from(u16::MAX))?;
    if threads.value != 1 {
        return Err(value.error(format!(
            "`threads` is {}, but this version works with one thread; write 1 or leave the key out",
            threads.value
        )));
    }
    Ok(threads)
}

fn interface_addresses(table: &Table<'_>, example: &str) -> List<Located<InterfaceAddress>> {
    one_per_family(table, "address", example, |value| {
        let found: Located<InterfaceAddress> = value.parse()?;
        let InterfaceAddress { address, .. } = found.value;
        usable(&value, address)?;
        if address::is_reserved_in(address, found.value.network()) {
            return Err(value.error(format!(
                "{address} is not an address of a host in {}; take another one",
                found.value.network()
            )));
        }
        Ok((Family::of(address), found))
    })
}

/// Addresses without prefix length.
pub(super) fn addresses(table: &Table<'_>, example: &str) -> List<Located<IpAddr>> {
    one_per_family(table, "address", example, |value| {
        let found = value.parse_with(parse_address)?;
        usable(&value, found.value)?;
        Ok((Family::of(found.value), found))
    })
}

/// The tunnel networks as the LAN end has to know them.
pub(super) fn tunnel_networks(table: &Table<'_>) -> List<Located<IpNetwork>> {
    one_per_family(table, "network", "\"10.17.0.0/16\"", |value| {
        let found = value.parse_with(parse_network)?;
        refuse_everything(&value, found.value)?;
        Ok((Family::of_network(found.value), found))
    })
}

fn one_per_family<T>(
    table: &Table<'_>,
    key: &'static str,
    example: &str,
    mut read: impl FnMut(Value<'_>) -> Result<(Family, T), Reported>,
) -> List<T> {
    let value = match table.require(key, example) {
        Ok(value) => value,
        Err(reported) => return List::unreadable(table.at(), reported),
    };
    let mut families = Vec::new();
    value.one_or_more(|element| {
        let (family, item) = read(element)?;
        if families.contains(&family) {
            let family = address::family_name(family);
            return Err(element.error(format!(
                "`{key}` already has an {family} entry; there can be one IPv4 and one IPv6 entry"
            )));
        }
        families.push(family);
        Ok(item)
    })
}

/// Refuses what no host on a network can have.
pub(super) fn usable(value: &Value<'_>, address: IpAddr) -> Result<(), Reported> {
    match Kind::of(address) {
        Kind::Public | Kind::Private => Ok(()),
        kind @ (Kind::Unspecified
        | Kind::Loopback
        | Kind::LinkLocal
        | Kind::Multicast
        | Kind::Broadcast
        | Kind::Reserved) => Err(value.error(format!(
            "{address} is {kind}; no host can be reached there from another"
        ))),
    }
}

/// Refuses `0.0.0.0/0` and `::/0` where a network of somebody is meant.
fn refuse_everything(value: &Value<'_>, network: IpNetwork) -> Result<(), Reported> {
    if network.prefix() == 0 {
        return Err(value.error(format!(
            "{network} is the whole internet; name the networks that are meant"
        )));
    }
    Ok(())
}

/// Who a peer is; the common part of `[[lan_server]]`, `[[peer]]` and `[[gateway]]`.
#[derive(Debug)]
pub(super) struct IdentityDraft {
    pub(super) label: String,
    pub(super) name: Field<String>,
    pub(super) public_key: Field<PublicKey>,
    pub(super) preshared_key_file: Result<Option<Located<PathBuf>>, Reported>,
    pub(super) addresses: List<Located<IpAddr>>,
}

pub(super) fn identity(table: &Table<'_>, example: &str) -> IdentityDraft {
    IdentityDraft {
        label: table.label().to_owned(),
        name: name(table),
        public_key: public_key(table),
        preshared_key_file: table.get_and("preshared_key_file", key_file),
        addresses: addresses(table, example),
    }
}

pub(super) fn name(table: &Table<'_>) -> Field<String> {
    table.require("name", "\"home\"")?.parse_with(parse_name)
}

fn public_key(table: &Table<'_>) -> Field<PublicKey> {
    let value = table.require("public_key", "the output of `wg pubkey`, in quotes")?;
    let key: Located<PublicKey> = value.parse()?;
    if key.value.as_bytes().iter().all(|&byte| byte == 0) {
        return Err(value.error("this key is all zeros; write the output of `wg pubkey`"));
    }
    Ok(key)
}

/// An endpoint that somebody on another host can dial.
pub(super) fn endpoint(table: &Table<'_>) -> Field<Endpoint> {
    let value = table.require("endpoint", "\"203.0.113.10:51820\"")?;
    let endpoint: Located<Endpoint> = value.parse()?;
    if let Endpoint::Address(socket) = endpoint.value {
        usable(&value, socket.ip())?;
        if cloudflare::contains(socket.ip()) {
            return Err(value.error(format!(
                "{} belongs to Cloudflare, which never forwards WireGuard's UDP; write the gateway's own public address",
                socket.ip()
            )));
        }
    }
    Ok(endpoint)
}

pub(super) fn vip(table: &Table<'_>) -> Field<IpAddr> {
    let value = table.require("vip", "\"10.17.5.30\"")?;
    let vip = value.parse_with(parse_address)?;
    usable(&value, vip.value)?;
    Ok(vip)
}

pub(super) fn protocol(table: &Table<'_>) -> Field<Protocol> {
    table.require("protocol", "\"tcp\"")?.parse()
}

pub(super) fn source_ip(table: &Table<'_>, default: SourceIp) -> Field<SourceIp> {
    table.get_or("source_ip", default, |value| value.parse())
}

/// The elements of `ports`; `parse` reads those written as text.
pub(super) fn ports<T: From<super::common::PortRange>>(
    table: &Table<'_>,
    parse: impl Fn(&str) -> Result<T, value::PortError>,
) -> List<Located<T>> {
    let value = match table.require("ports", "[80, 443]") {
        Ok(value) => value,
        Err(reported) => return List::unreadable(table.at(), reported),
    };
    value.elements(
        "an array such as [80, \"8443:443\", \"30000-30100\"]",
        |element| {
            if element.is_integer() {
                let number = element.integer()?;
                let port = value::port(&number.value).map_err(|error| element.error(error))?;
                let range = super::common::PortRange::from(port);
                Ok(number.map(|_| T::from(range)))
            } else {
                element.parse_with(&parse)
            }
        },
    )
}

/// A list of services: `allow` of a role, `to` of an access.
pub(super) fn services(table: &Table<'_>, key: &'static str) -> List<Located<Service>> {
    const EXAMPLE: &str = "[\"10.17.5.10:6443/tcp\"]";
    let value = match table.require(key, EXAMPLE) {
        Ok(value) => value,
        Err(reported) => return List::unreadable(table.at(), reported),
    };
    value.elements(&format!("an array such as {EXAMPLE}"), |element| {
        let service: Located<Service> = element.parse()?;
        refuse_everything(&element, service.value.network)?;
        usable(&element, service.value.network.ip())?;
        Ok(service)
    })
}

/// `allow` or `from` as written: sets are not looked up yet.
#[derive(Debug)]
pub(super) struct SourcesDraft {
    pub(super) at: usize,
    pub(super) any: bool,
    pub(super) sets: Vec<Located<String>>,
    pub(super) networks: Vec<Located<IpNetwork>>,
    pub(super) complete: Result<(), Reported>,
}

enum Source {
    Any,
    Set(Located<String>),
    Network(Located<IpNetwork>),
}

pub(super) fn sources(table: &Table<'_>, key: &'static str) -> Result<SourcesDraft, Reported> {
    const EXAMPLE: &str = "[\"cloudflare\"]";
    let value = table.require(key, EXAMPLE)?;
    let entries = value.elements(&format!("an array such as {EXAMPLE} or [\"any\"]"), source);
    let mut draft = SourcesDraft {
        at: value.at(),
        any: false,
        sets: Vec::new(),
        networks: Vec::new(),
        complete: entries.complete,
    };
    for entry in entries.items {
        match entry {
            Source::Any => draft.any = true,
            Source::Set(name) => draft.sets.push(name),
            Source::Network(network) => draft.networks.push(network),
        }
    }
    if draft.any && !(draft.sets.is_empty() && draft.networks.is_empty()) {
        let message = format!(
            "\"any\" makes the other entries of `{key}` meaningless; write either \"any\" or the others"
        );
        draft.complete = Err(value.error(message));
    }
    Ok(draft)
}

fn source(value: Value<'_>) -> Result<Source, Reported> {
    let text = value.text()?;
    if text.value == "any" {
        Ok(Source::Any)
    } else if text.value.contains(['.', ':', '/']) {
        allowed_network(&value).map(Source::Network)
    } else {
        value.parse_with(parse_name).map(Source::Set)
    }
}

fn allowed_network(value: &Value<'_>) -> Field<IpNetwork> {
    let network = value.parse_with(parse_network)?;
    if network.value.prefix() == 0 {
        let message = format!(
            "{} is everybody; if that is meant, write \"any\" as the only entry",
            network.value
        );
        return Err(value.error(message));
    }
    Ok(network)
}

impl SourcesDraft {
    /// The checked form; names of sets must have been looked up before.
    pub(super) fn build(self) -> Result<Sources, Reported> {
        self.complete?;
        if self.any {
            return Ok(Sources::Any);
        }
        let mut networks: Vec<_> = self.networks.into_iter().map(|n| n.value).collect();
        networks.sort_unstable();
        Ok(Sources::Listed {
            sets: self.sets.into_iter().map(|set| set.value).collect(),
            networks,
        })
    }
}

/// `[sets]` and the built-in set.
#[derive(Debug)]
pub(super) struct Sets(BTreeMap<String, List<Located<IpNetwork>>>);

pub(super) fn sets(root: &Table<'_>) -> Sets {
    let mut sets = BTreeMap::new();
    let Ok(table) = root.table_or_empty("sets") else {
        return Sets(sets);
    };
    for (key, value) in table.entries() {
        let name = match key.value {
            "any" => {
                table.error(
                    key.at,
                    "`any` is everybody and can't be the name of a set; take another name",
                );
                continue;
            }
            name => parse_name(name),
        };
        match name {
            Ok(name) => {
                let networks = value.elements("an array of networks", |v| allowed_network(&v));
                sets.insert(name, networks);
            }
            Err(error) => {
                table.error(key.at, error);
            }
        }
    }
    Sets(sets)
}

impl Sets {
    /// The sets of the file.
    pub(super) fn defined(&self) -> impl Iterator<Item = (&String, &List<Located<IpNetwork>>)> {
        self.0.iter()
    }

    /// The networks of a set as far as they are known.
    pub(super) fn networks(&self, name: &str) -> Option<Vec<IpNetwork>> {
        match self.0.get(name) {
            Some(list) => Some(list.items.iter().map(|network| network.value).collect()),
            None => (name == cloudflare::SET_NAME).then(cloudflare::networks),
        }
    }

    /// Refuses names of `sources` that are no set, and names that stand there twice.
    pub(super) fn look_up(&self, report: &Report<'_>, label: &str, sources: &SourcesDraft) {
        for (index, set) in sources.sets.iter().enumerate() {
            let shown = Quoted::text(&set.value);
            if self.networks(&set.value).is_none() {
                let names = || {
                    self.0
                        .keys()
                        .map(String::as_str)
                        .chain([cloudflare::SET_NAME, "any"])
                };
                let remedy = nearest(&set.value, names()).map_or_else(
                    || {
                        format!(
                            "add it to [sets], or write one of: {}",
                            names().collect::<Vec<_>>().join(", ")
                        )
                    },
                    |near| format!("did you mean \"{near}\"?"),
                );
                report.error(
                    set.at,
                    format!("{label}: there is no set {shown}; {remedy}"),
                );
            }
            if sources
                .sets
                .iter()
                .take(index)
                .any(|earlier| earlier.value == set.value)
            {
                report.error(
                    set.at,
                    format!("{label}: the set {shown} is named twice; once is enough"),
                );
            }
        }
    }

    /// The named sets in order of their names, and `cloudflare` if it is defined or named.
    pub(super) fn build(&self, named: &[&Sources]) -> Result<Vec<AddressSet>, Reported> {
        let mut names: Vec<&str> = Vec::new();
        for sources in named {
            match sources {
                Sources::Any => {}
                Sources::Listed { sets, .. } => names.extend(sets.iter().map(String::as_str)),
            }
        }
        if self.0.contains_key(cloudflare::SET_NAME) {
            names.push(cloudflare::SET_NAME);
        }
        names.sort_unstable();
        names.dedup();
        for list in self.0.values() {
            list.complete?;
        }
        Ok(names
            .into_iter()
            .map(|name| {
                let mut networks = self.networks(name).unwrap_or_default();
                networks.sort_unstable();
                AddressSet {
                    name: name.to_owned(),
                    networks,
                }
            })
            .collect())
    }
}
