//! The IPv4 header (RFC 791 §3.1).
use super::checksum::{Sum, pseudo_header};
use super::put;

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;

/// A packet whose header and lengths have been checked; bytes behind its total length are cut off.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet at the start of these bytes; `None` when the version is not 4, or header or packet don't fit.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let packet = Self {
            header,
            bytes: bytes.get(..total_len)?,
        };
        let fits = (HEADER_LEN..=total_len).contains(&packet.header_len());
        (header[0] >> 4 == 4 && fits).then_some(packet)
    }

    /// Header and payload.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of header and options.
    pub const fn header_len(&self) -> usize {
        (self.header[0] & 0x0f) as usize * 4
    }

    /// Groups the fragments of a packet.
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Whether it is a part of a fragmented packet.
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.header[6], self.header[7]]) & 0x3fff != 0
    }

    /// Protocol of the payload.
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Source and destination, side by side.
    pub fn addresses(&self) -> &'a [u8] {
        self.header.split_at(12).1
    }

    /// Pseudo-header of a transport message of `length` bytes.
    pub fn pseudo_header(&self, length: u32) -> Sum {
        pseudo_header(self.addresses(), self.protocol(), length)
    }

    /// Whether the header's own checksum is right (RFC 791 §3.1).
    pub fn header_checksum_is_valid(&self) -> bool {
        let header = self.bytes.get(..self.header_len()).unwrap_or_default();
        Sum::default().bytes(header).folded() == 0xffff
    }
}

/// Give a header (with its options) another total length and identification, and the checksum that goes with them.
pub fn rewrite_header(header: &mut [u8], total_len: u16, identification: u16) {
    put(header, 2, total_len.to_be_bytes());
    put(header, 4, identification.to_be_bytes());
    put(header, 10, [0, 0]);
    let checksum = Sum::default().bytes(header).checksum();
    put(header, 10, checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    // A header that has often been used as an example of the checksum: 4500 0073 … b861 ….
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x14, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0xc0, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn fields_are_read_where_rfc_791_puts_them() {
        let packet = Packet::parse(&HEADER).unwrap();
        assert_eq!(packet.addresses(), [192, 168, 0, 1, 192, 168, 0, 199]);
        assert_eq!(packet.protocol(), super::super::protocol::UDP);
        assert!(!packet.is_fragment());
        assert!(packet.header_checksum_is_valid());
    }

    #[test]
    fn rewritten_header_has_a_valid_checksum() {
        let mut header = HEADER;
        rewrite_header(&mut header, 20, 0x1234);
        let packet = Packet::parse(&header).unwrap();
        assert_eq!(packet.identification(), 0x1234);
        assert!(packet.header_checksum_is_valid());
    }

    #[test]
    fn malformed_headers_are_refused() {
        let with = |at: usize, value: u8| {
            let mut header = HEADER;
            header[at] = value;
            header
        };
        assert!(Packet::parse(&HEADER[..19]).is_none(), "truncated");
        assert!(Packet::parse(&with(0, 0x65)).is_none(), "version 6");
        assert!(Packet::parse(&with(0, 0x44)).is_none(), "header too short");
        assert!(
            Packet::parse(&with(0, 0x46)).is_none(),
            "options past the end"
        );
        assert!(
            Packet::parse(&with(3, 19)).is_none(),
            "total below the header"
        );
        assert!(
            Packet::parse(&with(3, 21)).is_none(),
            "total above the bytes"
        );
    }

    #[test]
    fn first_and_later_fragments_are_fragments() {
        let with = |flags: u8, offset: u8| {
            let mut header = HEADER;
            header[6] = flags;
            header[7] = offset;
            Packet::parse(&header).unwrap().is_fragment()
        };
        assert!(with(0x20, 0), "more fragments");
        assert!(with(0, 1), "offset");
        assert!(!with(0x40, 0), "don't fragment");
    }
}
