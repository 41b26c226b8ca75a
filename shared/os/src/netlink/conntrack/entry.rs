//! One connection as the kernel tells of it: attributes of `include/uapi/linux/netfilter/nfnetlink_conntrack.h`. Numbers are
//! in network byte order.
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLA_HEADER_SIZE, NlaBuffer, NlasIterator};
use shared::config::common::Protocol;

/// Attributes of a connection.
mod attribute {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOINFO: u16 = 4;
    pub(super) const MARK: u16 = 8;
    pub(super) const ZONE: u16 = 18;
    pub(super) const TIMESTAMP: u16 = 20;
}
/// Attributes of a tuple (`ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`).
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
/// `CTA_PROTOINFO_TCP`, and in it `CTA_PROTOINFO_TCP_STATE`.
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
/// `CTA_TIMESTAMP_START`.
const TIMESTAMP_START: u16 = 1;

/// Bits of the status (`enum ip_conntrack_status` of `include/uapi/linux/netfilter/nf_conntrack_common.h`).
pub mod status {
    /// Packets went both ways.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// It is worth keeping when the table is full: TCP that is established, UDP that goes on.
    pub const ASSURED: u32 = 1 << 2;
    /// The source was changed.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination was changed.
    pub const DST_NAT: u32 = 1 << 5;
    /// It is being removed.
    pub const DYING: u32 = 1 << 9;
}

/// States of TCP (`enum tcp_conntrack` of `include/uapi/linux/netfilter/nf_conntrack_tcp.h`) in which data may still come:
/// from `SYN_RECV` to `CLOSE_WAIT`. Before, nobody has answered; after, both sides have said that they are done.
const TCP_IS_OPEN: std::ops::RangeInclusive<u8> = 2..=5;

/// Who talks to whom, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// Source.
    pub source: SocketAddr,
    /// Destination, of the same family.
    pub destination: SocketAddr,
}

/// A connection of TCP or UDP. What translates its addresses shows in that the answers are not the first packet reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Protocol.
    pub protocol: Protocol,
    /// The first packet as it came.
    pub original: Tuple,
    /// Its answer as it comes.
    pub reply: Tuple,
    /// Bits of [`status`].
    pub status: u32,
    /// Connection mark.
    pub mark: u32,
    /// Connections of another zone may be the same in all else.
    pub zone: u16,
    /// When it began, since 1970, where the kernel notes it (`net.netfilter.nf_conntrack_timestamp`).
    pub began: Option<Duration>,
    /// The state of TCP as the kernel numbers it.
    pub tcp_state: Option<u8>,
}

impl Entry {
    /// One of which nothing but its tuples is known.
    pub const fn new(protocol: Protocol, original: Tuple, reply: Tuple) -> Self {
        Self {
            protocol,
            original,
            reply,
            status: 0,
            mark: 0,
            zone: 0,
            began: None,
            tcp_state: None,
        }
    }

    /// Whether it goes on: one that was answered and not ended. UDP has no end; a question and its answer are not taken for
    /// more, only what went on for seconds (`nf_conntrack_udp_packet`).
    pub fn is_open(&self) -> bool {
        let has = |bits: u32| self.status & bits == bits;
        let goes_on = match self.protocol {
            Protocol::Tcp => self.tcp_state.is_some_and(|at| TCP_IS_OPEN.contains(&at)),
            Protocol::Udp => has(status::ASSURED),
        };
        goes_on && has(status::SEEN_REPLY) && !has(status::DYING)
    }
}

/// An attribute is cut, too short for what it should hold, or missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

type Attribute<'a> = NlaBuffer<&'a [u8]>;

/// The attributes of a message. `Ok(None)` is a connection of a protocol without ports.
pub(super) fn parse(attributes: &[u8]) -> Result<Option<Entry>, Malformed> {
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut zone) = (0, 0, 0);
    let (mut tcp_state, mut began) = (None, None);
    each(attributes, |attribute| {
        let value = attribute.value();
        match attribute.kind() {
            attribute::TUPLE_ORIG => original = Some(tuple(value)?),
            attribute::TUPLE_REPLY => reply = Some(tuple(value)?),
            attribute::STATUS => status = u32::from_be_bytes(exactly(value)?),
            attribute::MARK => mark = u32::from_be_bytes(exactly(value)?),
            attribute::ZONE => zone = u16::from_be_bytes(exactly(value)?),
            attribute::PROTOINFO => {
                if let Some(of_tcp) = find(value, PROTOINFO_TCP)? {
                    let state = find(of_tcp, TCP_STATE)?.map(exactly);
                    tcp_state = state.transpose()?.map(|[state]: [u8; 1]| state);
                }
            }
            attribute::TIMESTAMP => {
                let start = find(value, TIMESTAMP_START)?.map(exactly);
                began = start.transpose()?.map(u64::from_be_bytes);
            }
            _ => {}
        }
        Ok(())
    })?;
    let (Some(original), Some(reply)) = (original, reply) else {
        return Err(Malformed);
    };
    let (Some((protocol, original)), Some((_, reply))) = (original, reply) else {
        return Ok(None);
    };
    Ok(Some(Entry {
        protocol,
        original,
        reply,
        status,
        mark,
        zone,
        began: began.map(Duration::from_nanos),
        tcp_state,
    }))
}

/// `Ok(None)` where the protocol is another than TCP and UDP.
fn tuple(attributes: &[u8]) -> Result<Option<(Protocol, Tuple)>, Malformed> {
    let (mut source, mut destination) = (None, None);
    let (mut number, mut source_port, mut destination_port) = (None, None, None);
    if let Some(addresses) = find(attributes, TUPLE_IP)? {
        each(addresses, |attribute| {
            let value = attribute.value();
            let v4 = || exactly(value).map(|octets: [u8; 4]| Some(IpAddr::from(octets)));
            let v6 = || exactly(value).map(|octets: [u8; 16]| Some(IpAddr::from(octets)));
            match attribute.kind() {
                IP_V4_SRC => source = v4()?,
                IP_V4_DST => destination = v4()?,
                IP_V6_SRC => source = v6()?,
                IP_V6_DST => destination = v6()?,
                _ => {}
            }
            Ok(())
        })?;
    }
    if let Some(of_protocol) = find(attributes, TUPLE_PROTO)? {
        each(of_protocol, |attribute| {
            let value = attribute.value();
            let port = || exactly(value).map(|bytes| Some(u16::from_be_bytes(bytes)));
            match attribute.kind() {
                PROTO_NUM => number = exactly(value).map(|[number]: [u8; 1]| Some(number))?,
                PROTO_SRC_PORT => source_port = port()?,
                PROTO_DST_PORT => destination_port = port()?,
                _ => {}
            }
            Ok(())
        })?;
    }
    let protocol = match number.map(i32::from) {
        Some(libc::IPPROTO_TCP) => Protocol::Tcp,
        Some(libc::IPPROTO_UDP) => Protocol::Udp,
        Some(_) => return Ok(None),
        None => return Err(Malformed),
    };
    let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
        (Some(address), Some(port)) => Ok(SocketAddr::new(address, port)),
        (None, _) | (_, None) => Err(Malformed),
    };
    let source = end(source, source_port)?;
    let destination = end(destination, destination_port)?;
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Malformed);
    }
    let tuple = Tuple {
        source,
        destination,
    };
    Ok(Some((protocol, tuple)))
}

fn each<'a>(
    attributes: &'a [u8],
    mut look: impl FnMut(Attribute<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for attribute in NlasIterator::new(attributes) {
        look(attribute.map_err(|_| Malformed)?)?;
    }
    Ok(())
}

fn find(attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, Malformed> {
    let mut found = None;
    each(attributes, |attribute| {
        if attribute.kind() == kind {
            // What `value` lends ends with the attribute.
            let whole: &[u8] = attribute.into_inner();
            found = whole.get(NLA_HEADER_SIZE..usize::from(attribute.length()));
        }
        Ok(())
    })?;
    Ok(found)
}

fn exactly<const LENGTH: usize>(value: &[u8]) -> Result<[u8; LENGTH], Malformed> {
    value.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An attribute with its padding.
    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        nla(kind | NESTED, &parts.concat())
    }

    fn tuple_of(kind: u16, protocol: u8, from: &str, to: &str) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let address = |ipv4: u16, ipv6: u16, address: IpAddr| match address {
            IpAddr::V4(address) => nla(ipv4, &address.octets()),
            IpAddr::V6(address) => nla(ipv6, &address.octets()),
        };
        let addresses = [
            address(IP_V4_SRC, IP_V6_SRC, from.ip()),
            address(IP_V4_DST, IP_V6_DST, to.ip()),
        ];
        let mut of_protocol = vec![nla(PROTO_NUM, &[protocol])];
        if protocol == 1 {
            of_protocol.push(nla(4, &[0, 7]));
        } else {
            of_protocol.push(nla(PROTO_SRC_PORT, &from.port().to_be_bytes()));
            of_protocol.push(nla(PROTO_DST_PORT, &to.port().to_be_bytes()));
        }
        let parts = [
            nested(TUPLE_IP, &addresses),
            nested(TUPLE_PROTO, &of_protocol),
        ];
        nested(kind, &parts)
    }

    /// A visitor's connection as a gateway has it.
    pub(in crate::netlink::conntrack) fn published(tcp_state: u8) -> Vec<u8> {
        let state = nested(PROTOINFO_TCP, &[nla(TCP_STATE, &[tcp_state])]);
        let status = status::SEEN_REPLY | status::ASSURED | status::DST_NAT | 1 << 3;
        let began: u64 = 1_700_000_000_000_000_001;
        [
            tuple_of(1, 6, "173.245.48.10:40000", "203.0.113.10:443"),
            tuple_of(2, 6, "10.17.5.30:8443", "173.245.48.10:40000"),
            nla(attribute::STATUS, &status.to_be_bytes()),
            nested(attribute::PROTOINFO, &[state]),
            nla(7, &[0, 6, 0x97, 0x80]),
            nla(attribute::MARK, &0x0100_0000_u32.to_be_bytes()),
            nla(attribute::ZONE, &[0, 9]),
            nested(
                attribute::TIMESTAMP,
                &[nla(TIMESTAMP_START, &began.to_be_bytes())],
            ),
        ]
        .concat()
    }

    #[test]
    fn a_translated_connection_has_two_tuples() {
        let entry = parse(&published(3)).unwrap().unwrap();
        assert_eq!(entry.protocol, Protocol::Tcp);
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(entry.original.source, address("173.245.48.10:40000"));
        assert_eq!(entry.original.destination, address("203.0.113.10:443"));
        assert_eq!(entry.reply.source, address("10.17.5.30:8443"));
        assert_eq!((entry.mark, entry.zone), (0x0100_0000, 9));
        assert_eq!(
            entry.began,
            Some(Duration::new(1_700_000_000, 1)),
            "nanoseconds"
        );
        assert!(entry.is_open() && entry.status & status::DST_NAT != 0);
    }

    #[test]
    fn tcp_that_ended_or_was_not_answered_is_not_open() {
        let is_open = |state| parse(&published(state)).unwrap().unwrap().is_open();
        let open: Vec<u8> = (0..=9).filter(|state| is_open(*state)).collect();
        assert_eq!(open, [2, 3, 4, 5]);
    }

    #[test]
    fn udp_is_open_when_it_goes_on() {
        let entry = |bits: u32| {
            let bytes = [
                tuple_of(1, 17, "[2001:db8::1]:500", "[2001:db8::2]:53"),
                tuple_of(2, 17, "[2001:db8::2]:53", "[2001:db8::1]:500"),
                nla(attribute::STATUS, &bits.to_be_bytes()),
            ];
            parse(&bytes.concat()).unwrap().unwrap()
        };
        assert!(!entry(0).is_open() && !entry(status::SEEN_REPLY).is_open());
        let goes_on = status::SEEN_REPLY | status::ASSURED;
        assert!(entry(goes_on).is_open());
        assert!(!entry(goes_on | status::DYING).is_open());
        assert_eq!(entry(0).began, None);
    }

    #[test]
    fn a_ping_has_no_ports_and_is_left_out() {
        let bytes = [
            tuple_of(1, 1, "192.0.2.1:0", "192.0.2.2:0"),
            tuple_of(2, 1, "192.0.2.2:0", "192.0.2.1:0"),
        ];
        assert_eq!(parse(&bytes.concat()), Ok(None));
    }

    #[test]
    fn what_is_cut_short_or_mixed_is_malformed() {
        let whole = published(3);
        let mut refused = 0;
        for length in 0..whole.len() {
            // At the border between two attributes it is one with fewer of them.
            refused += u32::from(parse(&whole[..length]).is_err());
        }
        assert!(refused > 100, "{refused}");
        assert_eq!(parse(&[]), Err(Malformed));
        let mixed = [
            tuple_of(1, 6, "192.0.2.1:1", "[2001:db8::2]:2"),
            tuple_of(2, 6, "192.0.2.1:1", "192.0.2.2:2"),
        ];
        assert_eq!(parse(&mixed.concat()), Err(Malformed));
        let short = [published(3), nla(attribute::STATUS, &[1, 2])];
        assert_eq!(parse(&short.concat()), Err(Malformed));
        // A length that leads out of the bytes, or back.
        for length in [0_u16, 3, 4000] {
            let mut bytes = published(3);
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parse(&bytes), Err(Malformed), "{length}");
        }
    }
}
