//! The TCP header (RFC 9293 §3.1).
use super::put;

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;

/// Where the checksum stands in the header.
pub const CHECKSUM_OFFSET: u16 = 16;

/// Control bits.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Push: hand over now.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced (RFC 3168 §6.1).
    pub const CWR: u8 = 0x80;
}

const FLAGS_AT: usize = 13;

/// A segment whose header length has been checked.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The segment that these bytes are; `None` when the header doesn't fit.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let segment = Self { header, bytes };
        let fits = (HEADER_LEN..=bytes.len()).contains(&segment.header_len());
        fits.then_some(segment)
    }

    /// Bytes of header and options.
    pub const fn header_len(&self) -> usize {
        (self.header[12] >> 4) as usize * 4
    }

    /// Source and destination port, side by side.
    pub const fn ports(&self) -> [u8; 4] {
        let h = self.header;
        [h[0], h[1], h[2], h[3]]
    }

    /// Sequence number of the first byte of data.
    pub const fn sequence(&self) -> u32 {
        let h = self.header;
        u32::from_be_bytes([h[4], h[5], h[6], h[7]])
    }

    /// Acknowledgment number, as bytes.
    pub const fn acknowledgment(&self) -> [u8; 4] {
        let h = self.header;
        [h[8], h[9], h[10], h[11]]
    }

    /// Control bits: see [`flags`].
    pub const fn flags(&self) -> u8 {
        self.header[FLAGS_AT]
    }

    /// Data offset, reserved bits, window and urgent pointer, as bytes: what must be alike in segments that are joined,
    /// beside acknowledgment and options.
    pub const fn offset_window_urgent(&self) -> [u8; 5] {
        let h = self.header;
        [h[12], h[14], h[15], h[18], h[19]]
    }

    /// Options with their padding.
    pub fn options(&self) -> &'a [u8] {
        self.bytes
            .get(HEADER_LEN..self.header_len())
            .unwrap_or_default()
    }

    /// Bytes of data.
    pub const fn payload_len(&self) -> usize {
        self.bytes.len() - self.header_len()
    }
}

/// Give a header another sequence number.
pub fn put_sequence(header: &mut [u8], sequence: u32) {
    put(header, 4, sequence.to_be_bytes());
}

/// Give a header other control bits.
pub fn put_flags(header: &mut [u8], flags: u8) {
    put(header, FLAGS_AT, [flags]);
}

/// Give a header another checksum.
pub fn put_checksum(header: &mut [u8], checksum: u16) {
    put(header, usize::from(CHECKSUM_OFFSET), checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_where_rfc_9293_puts_them() {
        let mut bytes: Vec<u8> = (0..32).collect();
        bytes[12] = 0x60; // 24 bytes of header
        let segment = Segment::parse(&bytes).unwrap();
        assert_eq!(segment.ports(), [0, 1, 2, 3]);
        assert_eq!(segment.sequence(), 0x0405_0607);
        assert_eq!(segment.acknowledgment(), [8, 9, 10, 11]);
        assert_eq!(segment.flags(), 13);
        assert_eq!(segment.offset_window_urgent(), [0x60, 14, 15, 18, 19]);
        assert_eq!(segment.options(), [20, 21, 22, 23]);
        assert_eq!(segment.payload_len(), 8);
    }

    #[test]
    fn malformed_headers_are_refused() {
        let mut bytes = [0u8; 24];
        assert!(Segment::parse(&bytes).is_none(), "offset 0");
        bytes[12] = 0x70;
        assert!(Segment::parse(&bytes).is_none(), "offset past the end");
        bytes[12] = 0x50;
        assert!(Segment::parse(&bytes[..19]).is_none(), "truncated");
        assert!(Segment::parse(&bytes).is_some());
    }
}
