//! Checked views of packets: a constructor that refuses what is malformed, accessors that can't panic, and the few
//! writers that segmentation and coalescing need. Only what the data path uses.
pub mod checksum;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// Protocol numbers of the IPv4 header and of the IPv6 next header field (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// Two bytes at `at` as a number in network byte order; 0 past the end.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(&field) => u16::from_be_bytes(field),
        None => 0,
    }
}

/// Overwrite the bytes at `at`; nothing happens past the end, which the callers have checked.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    let field = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>);
    debug_assert!(field.is_some(), "field at {at} lies outside of the header");
    if let Some(field) = field {
        *field = value;
    }
}
