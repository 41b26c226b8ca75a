//! The IPv6 header (RFC 8200 §3) and its extension headers (§4).
use super::checksum::{Sum, pseudo_header};
use super::put;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Extension headers that are walked over: enough for every order that RFC 8200 §4.1 recommends, and a bound for the rest.
const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// A packet whose header and length have been checked; bytes behind its payload length are cut off.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

/// Where the extension headers end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Protocol of the header there.
    pub protocol: u8,
    /// Bytes from the start of the packet.
    pub offset: usize,
    /// Whether a fragment header was passed: then there may be no transport header in this packet.
    pub is_fragment: bool,
}

impl<'a> Packet<'a> {
    /// The packet at the start of these bytes; `None` when the version is not 6 or the packet doesn't fit.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let bytes = bytes.get(..HEADER_LEN + payload_len)?;
        (header[0] >> 4 == 6).then_some(Self { header, bytes })
    }

    /// Header and payload.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Protocol of what follows the fixed header: an extension header, or the transport.
    pub const fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// Source and destination, side by side.
    pub fn addresses(&self) -> &'a [u8] {
        self.header.split_at(8).1
    }

    /// Walk over the extension headers; `None` when they are cut off, too many, or encrypted.
    pub fn transport(&self) -> Option<Transport> {
        let mut transport = Transport {
            protocol: self.next_header(),
            offset: HEADER_LEN,
            is_fragment: false,
        };
        for _ in 0..MAX_EXTENSION_HEADERS {
            // Lengths count 8 bytes beyond the first 8 (RFC 8200 §4.3-4.6), but 4 bytes beyond 8 in RFC 4302 §2.2.
            let unit = match transport.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8,
                AUTHENTICATION => 4,
                FRAGMENT => 0,
                _ => return Some(transport),
            };
            let &[next, length] = self.bytes.get(transport.offset..)?.first_chunk()?;
            transport.is_fragment |= transport.protocol == FRAGMENT;
            transport.protocol = next;
            transport.offset += 8 + unit * usize::from(length);
            if transport.offset > self.bytes.len() {
                return None;
            }
        }
        None
    }

    /// Pseudo-header of a transport message of `length` bytes.
    pub fn pseudo_header(&self, protocol: u8, length: u32) -> Sum {
        pseudo_header(self.addresses(), protocol, length)
    }
}

/// Give a header another payload length.
pub fn rewrite_header(header: &mut [u8], payload_len: u16) {
    put(header, 4, payload_len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{TCP, UDP};
    use super::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut bytes = vec![0x6f, 0xf0, 0, 0, 0, length, next_header, 64];
        bytes.extend([0x20; 16]);
        bytes.extend([0x30; 16]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn fields_are_read_where_rfc_8200_puts_them() {
        let bytes = packet(TCP, &[1; 20]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.addresses(), [[0x20; 16], [0x30; 16]].concat());
        let transport = packet.transport().unwrap();
        assert_eq!((transport.protocol, transport.offset), (TCP, 40));
    }

    #[test]
    fn walk_ends_at_the_transport_header() {
        let mut payload = vec![DESTINATION_OPTIONS, 1];
        payload.resize(16, 0); // hop-by-hop of 16 bytes
        payload.extend([AUTHENTICATION, 0, 0, 0, 0, 0, 0, 0]); // destination options of 8
        payload.extend([UDP, 4]); // authentication of (4 + 2) * 4
        payload.resize(16 + 8 + 24, 0);
        payload.extend([7; 8]);
        let bytes = packet(HOP_BY_HOP, &payload);
        let transport = Packet::parse(&bytes).unwrap().transport().unwrap();
        assert_eq!(
            transport,
            Transport {
                protocol: UDP,
                offset: 40 + 48,
                is_fragment: false
            }
        );
    }

    #[test]
    fn fragment_header_is_reported() {
        let bytes = packet(FRAGMENT, &[UDP, 0xff, 0, 1, 0, 0, 0, 0]);
        let transport = Packet::parse(&bytes).unwrap().transport().unwrap();
        assert!(transport.is_fragment);
        assert_eq!(transport.offset, 48);
    }

    #[test]
    fn endless_or_cut_off_chains_have_no_transport() {
        let endless = [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0].repeat(9);
        for payload in [&endless[..], &[UDP, 1], &[UDP, 1, 0, 0, 0, 0, 0, 0], &[]] {
            let bytes = packet(HOP_BY_HOP, payload);
            assert_eq!(Packet::parse(&bytes).unwrap().transport(), None);
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let mut bytes = packet(TCP, &[0; 20]);
        assert!(Packet::parse(&bytes[..59]).is_none());
        assert!(Packet::parse(&bytes[..39]).is_none());
        bytes[0] = 0x45;
        assert!(Packet::parse(&bytes).is_none());
    }
}
