//! Keys that both files have: how their values are read and what can be said about each of them alone.
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::address::{self, Kind};
use super::cloudflare;
use super::common::{Endpoint, InterfaceAddress, PortRange, Protocol, Service, SourceIp, Tunnel};
use super::document::{Table, Value};
use super::report::{Field, List, Located, Reported};
use super::value::{self, Quoted, parse_address, parse_name, parse_network};
use crate::model::iface::{InterfaceName, InterfaceNameError};
use crate::model::key::PublicKey;
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
            Err("this is a key, not the path of a file; make a new key, put it into a file with mode 0600 \
                 below state_dir and write the name of the file here")
        } else if text.is_empty() || text.ends_with('/') || text.contains('\0') {
            Err("this is not the path of a file; write for example \"gateway.key\"")
        } else {
            Ok(PathBuf::from(text))
        }
    })
}

/// The absolute path of a key file.
pub(super) fn in_state_dir(dirs: &Dirs, file: PathBuf) -> Result<PathBuf, Reported> {
    let state_dir = dirs.state.as_ref().map_err(|&reported| reported)?;
    Ok(state_dir.value.join(file))
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

impl TunnelDraft {
    pub(super) fn build(self, dirs: &Dirs) -> Result<Tunnel, Reported> {
        Ok(Tunnel {
            interface: self.interface?.value,
            addresses: self.addresses.into_values()?,
            listen_port: self.listen_port?.value,
            mtu: self.mtu?.value,
            private_key_file: in_state_dir(dirs, self.private_key_file?.value)?,
            fwmark: self.fwmark?.value,
            threads: self.threads?.map(|threads| threads.value),
        })
    }
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

/// Bytes that a packet grows by inside the tunnel: IPv6 header (40; IPv4's is smaller), UDP header (8), header and tag of
/// transport data (16 + 16, whitepaper §5.4.6).
const OVERHEAD: u16 = 40 + 8 + 16 + 16;

/// Fits a path with Ethernet's MTU over either family.
const DEFAULT_MTU: u16 = 1500 - OVERHEAD;

/// What every host takes in one piece over IPv4 (RFC 791 §3.1). IPv6 demands more: see `check::mtu`.
const LEAST_MTU: i64 = 576;

/// The longest datagram that we can send has 65,535 bytes.
const GREATEST_MTU: i64 = 65_535 - OVERHEAD as i64;

pub(super) fn tunnel(table: &Table<'_>, defaults: &TunnelDefaults) -> TunnelDraft {
    let ports = i64::from(defaults.least_listen_port)..=i64::from(u16::MAX);
    TunnelDraft {
        interface: tunnel_interface(table),
        addresses: interface_addresses(table, defaults.address),
        listen_port: table.get_or("listen_port", defaults.listen_port, |v| v.integer_in(ports)),
        mtu: table.get_or("mtu", DEFAULT_MTU, |v| {
            v.integer_in(LEAST_MTU..=GREATEST_MTU)
        }),
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
    let Some(value) = table.get("interface") else {
        let (name, at) = (DEFAULT_INTERFACE.parse(), table.at());
        return name
            .map(|value| Located { value, at })
            .map_err(|error: InterfaceNameError| table.error(at, error));
    };
    let name: Located<InterfaceName> = value.parse()?;
    // "all" and "default" name groups of sysctls (`sysctl_dev_name_is_allowed` in net/ipv4/devinet.c).
    if matches!(name.value.as_str(), "lo" | "all" | "default" | "auto") {
        let name = name.value;
        return Err(value.error(format!(
            "`{name}` can't be the tunnel's name; write for example \"edge0\""
        )));
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
    let mut families = Vec::new();
    let mut read_next = |element: Value<'_>| {
        let (family, item) = read(element)?;
        if families.contains(&family) {
            let family = address::family_name(family);
            return Err(element.error(format!(
                "`{key}` already has an {family} entry; there can be one IPv4 and one IPv6 entry"
            )));
        }
        families.push(family);
        Ok(item)
    };
    table.require_list(key, example, |value| value.one_or_more(&mut read_next))
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

/// Who a peer is but for its key; the common part of `[[lan_server]]`, `[[peer]]` and `[[gateway]]`.
#[derive(Debug)]
pub(super) struct IdentityDraft {
    pub(super) label: String,
    pub(super) name: Field<String>,
    pub(super) preshared_key_file: Result<Option<Located<PathBuf>>, Reported>,
    pub(super) addresses: List<Located<IpAddr>>,
}

pub(super) fn identity(table: &Table<'_>, example: &str) -> IdentityDraft {
    IdentityDraft {
        label: table.label().to_owned(),
        name: name(table),
        preshared_key_file: table.get_and("preshared_key_file", key_file),
        addresses: addresses(table, example),
    }
}

pub(super) fn name(table: &Table<'_>) -> Field<String> {
    table.require("name", "\"home\"")?.parse_with(parse_name)
}

pub(super) fn public_key(table: &Table<'_>) -> Field<PublicKey> {
    table
        .require("public_key", "the output of `wg pubkey`, in quotes")
        .and_then(peer_key)
}

/// A key that may come later, by pairing.
pub(super) fn optional_public_key(
    table: &Table<'_>,
) -> Result<Option<Located<PublicKey>>, Reported> {
    table.get_and("public_key", peer_key)
}

fn peer_key(value: Value<'_>) -> Field<PublicKey> {
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
                "{} belongs to Cloudflare, which never forwards WireGuard's UDP; \
                 write the gateway's own public address",
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
    table.get_or("source_ip", default, |value| {
        let source_ip: Located<SourceIp> = value.parse()?;
        if let SourceIp::Pool(pool) = source_ip.value {
            for end in [pool.first(), pool.last()] {
                usable(&value, end)?;
            }
        }
        Ok(source_ip)
    })
}

/// The elements of `ports`; `parse` reads those written as text.
pub(super) fn ports<T: From<PortRange>>(
    table: &Table<'_>,
    parse: impl Fn(&str) -> Result<T, value::PortError>,
) -> List<Located<T>> {
    let mut read = |element: Value<'_>| {
        if element.is_integer() {
            let number = element.integer()?;
            let port = value::port(&number.value).map_err(|error| element.error(error))?;
            Ok(number.map(|_| T::from(PortRange::from(port))))
        } else if element.is_text() {
            element.parse_with(&parse)
        } else {
            Err(element.wrong_type("an integer or a string"))
        }
    };
    table.require_list("ports", "[80, 443]", |value| {
        let expected = "an array such as [80, \"8443:443\", \"30000-30100\"]";
        value.elements(expected, &mut read)
    })
}

/// A list of services: `allow` of a role, `to` of an access.
pub(super) fn services(table: &Table<'_>, key: &'static str) -> List<Located<Service>> {
    const EXAMPLE: &str = "[\"10.17.5.10:6443/tcp\"]";
    table.require_list(key, EXAMPLE, |value| {
        value.elements(&format!("an array such as {EXAMPLE}"), |element| {
            let service: Located<Service> = element.parse()?;
            refuse_everything(&element, service.value.network)?;
            usable(&element, service.value.network.ip())?;
            Ok(service)
        })
    })
}
