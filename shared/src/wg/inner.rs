//! The few header fields of a tunnelled packet that the device looks at: addresses, lengths and the ECN bits.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Ecn;

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// An IPv4 or IPv6 packet whose fixed header is complete and whose length field fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InnerHeader {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Length of the packet by its own account; behind it is padding.
    pub(super) length: usize,
    pub(super) ecn: Ecn,
}

impl InnerHeader {
    /// Read the header; `None` when the bytes are no IP packet.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let header = match packet.first()? >> 4 {
            4 => Self {
                source: Ipv4Addr::from(field::<4>(packet, 12)?).into(),
                destination: Ipv4Addr::from(field::<4>(packet, 16)?).into(),
                length: usize::from(u16::from_be_bytes(field(packet, 2)?)),
                ecn: Ecn::from_tos(*packet.get(1)?),
            },
            6 => Self {
                source: Ipv6Addr::from(field::<16>(packet, 8)?).into(),
                destination: Ipv6Addr::from(field::<16>(packet, 24)?).into(),
                length: IPV6_HEADER_LEN + usize::from(u16::from_be_bytes(field(packet, 4)?)),
                ecn: Ecn::from_tos(packet.get(1)? >> 4),
            },
            _ => return None,
        };
        (header.length >= IPV4_HEADER_LEN && header.length <= packet.len()).then_some(header)
    }
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

/// The ECN bits that a packet has after the tunnel (RFC 6040 §4.2, figure 4); `None`: it has to be dropped.
pub(super) const fn decapsulated_ecn(inner: Ecn, outer: Ecn) -> Option<Ecn> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => None,
        (Ecn::NotEct, Ecn::NotEct | Ecn::Ect0 | Ecn::Ect1) => Some(Ecn::NotEct),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) => Some(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) => Some(Ecn::Ect1),
        (Ecn::Ect0 | Ecn::Ect1 | Ecn::Ce, _) => Some(inner),
    }
}

/// Write the ECN bits of a packet that [`InnerHeader::parse`] accepted.
pub(super) fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        if let Some(second) = packet.get_mut(1) {
            *second = (*second & !0x30) | (ecn.bits() << 4);
        }
        return;
    }
    let Some([first, tos, .., high, low]) = packet.first_chunk_mut::<12>() else {
        return;
    };
    let before = u16::from_be_bytes([*first, *tos]);
    *tos = (*tos & !3) | ecn.bits();
    let after = u16::from_be_bytes([*first, *tos]);
    let checksum = u16::from_be_bytes([*high, *low]);
    [*high, *low] = updated_checksum(checksum, before, after).to_be_bytes();
}

/// The checksum after one word of the header changed (RFC 1624 §3, equation 3).
fn updated_checksum(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "folded twice, so below 2^16"
    )]
    let folded = ((folded & 0xffff) + (folded >> 16)) as u16;
    !folded
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

    fn ipv4(tos: u8) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 24, 0x12, 0x34, 0, 0, 64, 17, 0, 0];
        packet.extend([192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4]);
        let checksum = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn sum(header: &[u8]) -> u16 {
        let mut sum: u32 = header
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn ecn_bits_change_nothing_else_and_keep_the_header_checksum_right() {
        for from in 0..=255 {
            for ecn in ALL {
                let mut packet = ipv4(from);
                set_ecn(&mut packet, ecn);
                assert_eq!(sum(&packet[..20]), 0xffff, "tos {from} to {ecn:?}");
                assert_eq!(packet[1], (from & !3) | ecn.bits());
                assert_eq!(InnerHeader::parse(&packet).unwrap().ecn, ecn);
            }
        }
        let mut packet = [0xff_u8; 40];
        packet[0] = 0x6a;
        packet[4..6].copy_from_slice(&[0, 0]);
        set_ecn(&mut packet, Ecn::Ect1);
        assert_eq!(packet[..4], [0x6a, 0xdf, 0xff, 0xff]);
        assert_eq!(InnerHeader::parse(&packet).unwrap().ecn, Ecn::Ect1);
    }

    #[test]
    fn decapsulated_ecn_is_the_table_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        // Rows: inner. Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        for (inner, row) in [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ] {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(
                    decapsulated_ecn(inner, outer),
                    expected,
                    "{inner:?} in {outer:?}"
                );
            }
        }
    }

    #[test]
    fn only_complete_packets_are_packets() {
        let packet = ipv4(0);
        assert_eq!(InnerHeader::parse(&packet).unwrap().length, 24);
        for length in 0..24 {
            assert_eq!(InnerHeader::parse(&packet[..length]), None);
        }
        let mut lying = packet.clone();
        lying[3] = 19;
        assert_eq!(InnerHeader::parse(&lying), None, "shorter than its header");
        assert_eq!(InnerHeader::parse(&[0x60; 39]), None);
        assert_eq!(InnerHeader::parse(&[0x55; 60]), None);
    }
}
