//! Texts of single values → the types of [`super::common`]: how each is written, and a sentence for everything that is not
//! written so. What a value means beside other values is checked in the files that read tables.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::address::Shown;
use super::common::{Endpoint, InterfaceAddress, PortMap, PortRange, Protocol, Service, SourceIp};
use super::policy_test::Expectation;
use crate::model::PublicKey;
use crate::plan::ruleset::{AddressRange, Family};

/// Longest name of a peer, service, role or set in characters: it stands in file names, labels and logs.
const LONGEST_NAME: usize = 63;

/// A piece of the user's text fit for a message: quoted, shortened, without control characters. A text with a WireGuard key
/// is left out: a private key in the wrong place must not end in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    text: String,
    mark: char,
}

impl Quoted {
    /// In double quotes, for values.
    pub fn text(text: &str) -> Self {
        Self::new(text, '"')
    }

    /// In backticks, for keys and words of the format.
    pub fn name(text: &str) -> Self {
        Self::new(text, '`')
    }

    fn new(text: &str, mark: char) -> Self {
        const LONGEST: usize = 60;
        let text = if looks_like_key(text) {
            "…".to_owned()
        } else {
            let mut shown: String = text
                .chars()
                .take(LONGEST)
                .flat_map(char::escape_debug)
                .collect();
            if text.chars().nth(LONGEST).is_some() {
                shown.push('…');
            }
            shown
        };
        Self { text, mark }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, mark } = self;
        write!(f, "{mark}{text}{mark}")
    }
}

/// Whether a text contains a WireGuard key: 44 characters of base64, of which the last is `=`.
pub(super) fn looks_like_key(text: &str) -> bool {
    const KEY_CHARACTERS: usize = 44;
    text.match_indices('=').any(|(offset, _)| {
        let end = offset + 1;
        (end.checked_sub(KEY_CHARACTERS))
            .and_then(|start| text.get(start..end))
            .is_some_and(|candidate| candidate.parse::<PublicKey>().is_ok())
    })
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Something else.
    #[error("{0} is not an IP address")]
    Syntax(Quoted),
    /// A network where an address belongs.
    #[error("{0} is not an IP address; write the address without a prefix length")]
    PrefixLength(Quoted),
    /// `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2): means IPv4, looks like IPv6, matches neither in a ruleset.
    #[error("{0} is an IPv4 address in IPv6 form; write {1}")]
    Mapped(Quoted, Ipv4Addr),
}

/// Parses an IP address.
pub fn parse_address(text: &str) -> Result<IpAddr, AddressError> {
    let address = text.parse::<IpAddr>().map_err(|_| {
        if text.contains('/') {
            AddressError::PrefixLength(Quoted::text(text))
        } else {
            AddressError::Syntax(Quoted::text(text))
        }
    })?;
    if let IpAddr::V6(v6) = address {
        if let Some(v4) = v6.to_ipv4_mapped() {
            return Err(AddressError::Mapped(Quoted::text(text), v4));
        }
    }
    Ok(address)
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address before the prefix length.
    #[error("{0} is not a network; write address/length, e.g. \"10.17.3.0/24\"")]
    Syntax(Quoted),
    /// The address is one, but not usable.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// More bits than the family has, or no number.
    #[error("{0} has no valid prefix length; it is 0 to {1} here")]
    PrefixLength(Quoted, u8),
    /// The address is not the first one of the network.
    #[error("{0} has host bits set; the network is {1}")]
    HostBits(Quoted, IpNetwork),
}

/// Parses a network without host bits; an address alone is a network of one.
pub fn parse_network(text: &str) -> Result<IpNetwork, NetworkError> {
    let (address, prefix_len) = parse_prefix(text)?;
    let network = truncate(address, prefix_len);
    if network.ip() != address {
        return Err(NetworkError::HostBits(Quoted::text(text), network));
    }
    Ok(network)
}

impl FromStr for InterfaceAddress {
    type Err = NetworkError;

    /// `10.17.0.1/16`; an address alone has the length of its family.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix_len) = parse_prefix(text)?;
        Ok(Self {
            address,
            prefix_len,
        })
    }
}

fn parse_prefix(text: &str) -> Result<(IpAddr, u8), NetworkError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = parse_address(address).map_err(|error| match error {
        AddressError::Syntax(_) | AddressError::PrefixLength(_) => {
            NetworkError::Syntax(Quoted::text(text))
        }
        error @ AddressError::Mapped(..) => error.into(),
    })?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(length) => decimal(length)
            .filter(|&length| length <= longest)
            .ok_or_else(|| NetworkError::PrefixLength(Quoted::text(text), longest))?,
    };
    Ok((address, length))
}

/// The network of that length around an address.
fn truncate(address: IpAddr, prefix_len: u8) -> IpNetwork {
    InterfaceAddress {
        address,
        prefix_len,
    }
    .network()
}

/// Why a text or number is not a port or an entry of `ports`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No number where one port belongs.
    #[error("{0} is not a port; write a number from 1 to 65535")]
    Number(Quoted),
    /// Neither a port nor a range.
    #[error("{0} is neither a port nor a range; write for example 443 or 30000-30100")]
    Range(Quoted),
    /// No entry of `ports`.
    #[error("{0} is not a port; write a number, \"30000-30100\" or \"8443:443\" (listen:target)")]
    Map(Quoted),
    /// 0, or more than 16 bits.
    #[error("port {0} is out of range; ports are 1 to 65535")]
    OutOfRange(String),
    /// `last-first`.
    #[error("the range {first}-{last} runs backwards; write {last}-{first}")]
    Reversed {
        /// The greater number, which came first.
        first: u16,
        /// The smaller number.
        last: u16,
    },
    /// `first-last:…`.
    #[error(
        "{0} maps a range, which is not possible; publish the range as it is (\"30000-30100\") or map single ports"
    )]
    MappedRange(Quoted),
    /// `listen:target` on the LAN end.
    #[error("{0} maps a port, which only the gateway does; write the VIP's own port here")]
    MappedHere(Quoted),
}

impl PortError {
    /// A mistake of syntax is told about the whole text, not about the part that was looked at.
    fn about(self, whole: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Number(_) | Self::Range(_) | Self::Map(_) => whole(),
            error @ (Self::OutOfRange(_)
            | Self::Reversed { .. }
            | Self::MappedRange(_)
            | Self::MappedHere(_)) => error,
        }
    }
}

/// A port out of an integer.
pub(super) fn port(number: &Result<i64, String>) -> Result<u16, PortError> {
    let port = number.as_ref().ok().and_then(|&n| u16::try_from(n).ok());
    port.filter(|&port| port != 0).ok_or_else(|| {
        let written = match number {
            Ok(number) => number.to_string(),
            Err(digits) => Quoted::text(digits).text,
        };
        PortError::OutOfRange(written)
    })
}

fn parse_port(text: &str) -> Result<u16, PortError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::Number(Quoted::text(text)));
    }
    port(&text.parse().map_err(|_| text.to_owned()))
}

impl From<u16> for PortRange {
    /// A single port.
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    /// `443` or `30000-30100`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let parse = |part| {
            parse_port(part).map_err(|error| error.about(|| PortError::Range(Quoted::text(text))))
        };
        let Some((first, last)) = text.split_once('-') else {
            return parse(text).map(Self::from);
        };
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(PortError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }
}

impl From<PortRange> for PortMap {
    /// Published as it is.
    fn from(range: PortRange) -> Self {
        Self {
            listen: range,
            target: range,
        }
    }
}

impl FromStr for PortMap {
    type Err = PortError;

    /// `443`, `30000-30100` or `8443:443`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let whole = |error: PortError| error.about(|| PortError::Map(Quoted::text(text)));
        let Some((listen, target)) = text.split_once(':') else {
            return text.parse::<PortRange>().map(Self::from).map_err(whole);
        };
        if text.contains('-') {
            return Err(PortError::MappedRange(Quoted::text(text)));
        }
        Ok(Self {
            listen: parse_port(listen).map_err(whole)?.into(),
            target: parse_port(target).map_err(whole)?.into(),
        })
    }
}

/// Why a text is not one of a few words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} is not {what}; write {expected}")]
pub struct WordError {
    found: Quoted,
    what: &'static str,
    expected: &'static str,
}

impl FromStr for Protocol {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(WordError {
                found: Quoted::text(text),
                what: "a protocol",
                expected: "\"tcp\" or \"udp\"",
            }),
        }
    }
}

/// Why a text is no entry of `source_ip`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceIpError {
    /// Neither a word nor addresses.
    #[error(
        "{0} is not a source_ip mode; write \"preserve\", \"masquerade\" or addresses as \"192.168.0.20-192.168.0.23\""
    )]
    Mode(Quoted),
    /// `last-first`.
    #[error("the range {first}-{last} runs backwards; write {last}-{first}")]
    Reversed {
        /// The higher address, which came first.
        first: IpAddr,
        /// The lower address.
        last: IpAddr,
    },
    /// IPv4 and IPv6.
    #[error("{0} and {1} are addresses of two families; write a range of one")]
    Families(IpAddr, IpAddr),
    /// A network rather than some addresses.
    #[error("{0} has {1} addresses; {most} are the most", most = SourceIp::MOST)]
    Many(Quoted, u128),
}

impl FromStr for SourceIp {
    type Err = SourceIpError;

    fn from_str(text: &str) -> Result<Self, SourceIpError> {
        match text {
            "preserve" => return Ok(Self::Preserve),
            "masquerade" => return Ok(Self::Masquerade),
            _ => {}
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address =
            |part| parse_address(part).map_err(|_| SourceIpError::Mode(Quoted::text(text)));
        let (first, last) = (address(first)?, address(last)?);
        if Family::of(first) != Family::of(last) {
            return Err(SourceIpError::Families(first, last));
        }
        let Some(pool) = AddressRange::new(first, last) else {
            return Err(SourceIpError::Reversed { first, last });
        };
        match pool.count() {
            count if count > Self::MOST => Err(SourceIpError::Many(Quoted::text(text), count)),
            _ => Ok(Self::Pool(pool)),
        }
    }
}

impl FromStr for Expectation {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(WordError {
                found: Quoted::text(text),
                what: "what a test can expect",
                expected: "\"allow\" or \"deny\"",
            }),
        }
    }
}

/// Why a text is not a [`Service`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// A part is missing.
    #[error("{0} is not a service; write address:port/protocol, e.g. \"10.17.5.10:6443/tcp\"")]
    Shape(Quoted),
    /// Every colon of an IPv6 address could be the one before the port.
    #[error("{0} has an IPv6 address without brackets; write \"[fd17::10]:6443/tcp\"")]
    Brackets(Quoted),
    /// The part before the port.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The part after the colon.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// The part after the last slash.
    #[error(transparent)]
    Protocol(#[from] WordError),
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let shape = || ServiceError::Shape(Quoted::text(text));
        let (socket, protocol) = text.rsplit_once('/').ok_or_else(shape)?;
        if protocol.contains([':', '.']) {
            return Err(shape()); // "10.17.3.0/24:8000": the slash is that of the network
        }
        let (network, ports) = socket.rsplit_once(':').ok_or_else(shape)?;
        let network = match bracketed(network) {
            Some(inner) => inner,
            None if network.contains(':') => {
                return Err(ServiceError::Brackets(Quoted::text(text)));
            }
            None => network,
        };
        Ok(Self {
            network: parse_network(network)?,
            ports: ports.parse()?,
            protocol: protocol.parse()?,
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            ports,
            protocol,
        } = self;
        let network = Shown(*network);
        if network.0.is_ipv4() {
            write!(f, "{network}:{ports}/{protocol}")
        } else {
            write!(f, "[{network}]:{ports}/{protocol}")
        }
    }
}

/// Why a text is not an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No `:port` at the end.
    #[error("{0} has no port; write host:port, e.g. \"203.0.113.10:51820\"")]
    NoPort(Quoted),
    /// Every colon of an IPv6 address could be the one before the port.
    #[error("{0} has an IPv6 address without brackets; write \"[2001:db8::10]:51820\"")]
    Brackets(Quoted),
    /// The part before the port.
    #[error("{0} is neither an address nor a host name")]
    Host(Quoted),
    /// The part before the port.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The part after the last colon.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.parse::<IpAddr>().is_ok() || bracketed(text).is_some() {
            return Err(EndpointError::NoPort(Quoted::text(text)));
        }
        let (host, port) =
            (text.rsplit_once(':')).ok_or_else(|| EndpointError::NoPort(Quoted::text(text)))?;
        let port = parse_port(port)?;
        if let Some(inner) = bracketed(host) {
            return Ok(Self::Address(SocketAddr::new(parse_address(inner)?, port)));
        }
        if host.contains(':') {
            return Err(EndpointError::Brackets(Quoted::text(text)));
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Address(SocketAddr::new(address, port)));
        }
        if !is_host_name(host) {
            return Err(EndpointError::Host(Quoted::text(host)));
        }
        Ok(Self::Name {
            host: host.to_owned(),
            port,
        })
    }
}

/// RFC 1123 §2.1 and RFC 1035 §2.3.4; a name whose last label is a number is a mistyped address (RFC 3696 §2).
fn is_host_name(text: &str) -> bool {
    const LONGEST: usize = 253;
    const LONGEST_LABEL: usize = 63;
    let text = text.strip_suffix('.').unwrap_or(text);
    let label_is_valid = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let top = text.rsplit('.').next().unwrap_or("");
    text.len() <= LONGEST
        && text.split('.').all(label_is_valid)
        && !top.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a text is not a name of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a name; names have 1 to {LONGEST_NAME} letters, digits, '_' or '-'")]
pub struct NameError(Quoted);

/// Checks the name of a peer, service, role or set.
pub fn parse_name(text: &str) -> Result<String, NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(NameError(Quoted::text(text)))
    }
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// A number as people write it: digits only, no leading zeros.
fn decimal(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
