//! The UDP header (RFC 768).
use super::put;

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: u16 = 6;

/// A datagram whose length has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    header: &'a [u8; HEADER_LEN],
}

impl<'a> Datagram<'a> {
    /// The datagram that these bytes are; `None` when its length is not that of the bytes.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        (length == bytes.len()).then_some(Self { header })
    }

    /// Source and destination port, side by side.
    pub const fn ports(self) -> [u8; 4] {
        let h = self.header;
        [h[0], h[1], h[2], h[3]]
    }

    /// Whether the sender made a checksum (RFC 768: zero means none).
    pub const fn has_checksum(self) -> bool {
        u16::from_be_bytes([self.header[6], self.header[7]]) != 0
    }

    /// Bytes of data.
    pub const fn payload_len(self) -> usize {
        u16::from_be_bytes([self.header[4], self.header[5]]) as usize - HEADER_LEN
    }
}

/// Give a header another length (of header and data) and checksum.
pub fn rewrite_header(header: &mut [u8], length: u16, checksum: u16) {
    put(header, 4, length.to_be_bytes());
    put_checksum(header, checksum);
}

/// Give a header another checksum.
pub fn put_checksum(header: &mut [u8], checksum: u16) {
    put(header, usize::from(CHECKSUM_OFFSET), checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_where_rfc_768_puts_them() {
        let bytes = [0, 53, 1, 2, 0, 9, 0, 0, 7];
        let datagram = Datagram::parse(&bytes).unwrap();
        assert_eq!(datagram.ports(), [0, 53, 1, 2]);
        assert!(!datagram.has_checksum());
        assert_eq!(datagram.payload_len(), 1);
    }

    #[test]
    fn length_must_be_that_of_the_bytes() {
        for length in [0, 7, 8, 10] {
            assert!(Datagram::parse(&[0, 53, 1, 2, 0, length, 0, 0, 7]).is_none());
        }
    }
}
