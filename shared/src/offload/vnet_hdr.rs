//! The header before every packet of a TUN device with `IFF_VNET_HDR`: `struct virtio_net_hdr` of the kernel's
//! `include/uapi/linux/virtio_net.h`, in the machine's byte order, without the `num_buffers` of its longer form.

/// Length of the header; `TUNSETVNETHDRSZ` is set to it.
pub const VNET_HDR_LEN: usize = 10;

const FLAG_NEEDS_CSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Set beside the type when a TCP packet has CWR: only the first segment may carry it.
const GSO_ECN: u8 = 0x80;

/// What a packet larger than the MTU is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// A packet of its own.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one flow, over either.
    UdpL4,
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHdr {
    /// The checksum at `csum_start + csum_offset` holds the sum of the pseudo-header only.
    pub needs_csum: bool,
    /// Kind of a packet to be cut.
    pub gso: GsoKind,
    /// Bytes of all headers; only a hint from the kernel, but needed by it: it copies that much into linear memory.
    pub hdr_len: u16,
    /// Bytes of payload per segment.
    pub gso_size: u16,
    /// Where the checksum starts to count: offset of the transport header.
    pub csum_start: u16,
    /// Offset of the checksum from there.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Before a packet that is complete in itself.
    pub const PLAIN: Self = Self {
        needs_csum: false,
        gso: GsoKind::None,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Read a header; the kind of an unknown packet is the error.
    pub const fn parse(bytes: &[u8; VNET_HDR_LEN]) -> Result<Self, u8> {
        let &[flags, kind, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        let gso = match kind & !GSO_ECN {
            GSO_NONE => GsoKind::None,
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 => GsoKind::UdpL4,
            _ => return Err(kind),
        };
        Ok(Self {
            needs_csum: flags & FLAG_NEEDS_CSUM != 0,
            gso,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// Whether the packet behind the header is as it is to be sent: no large one, and with its checksum.
    #[inline]
    pub const fn is_complete(bytes: &[u8; VNET_HDR_LEN]) -> bool {
        let &[flags, kind, ..] = bytes;
        flags & FLAG_NEEDS_CSUM == 0 && kind & !GSO_ECN == GSO_NONE
    }

    /// The bytes to write. `GSO_ECN` is never needed: packets with CWR are not joined.
    pub const fn to_bytes(self) -> [u8; VNET_HDR_LEN] {
        let flags = if self.needs_csum { FLAG_NEEDS_CSUM } else { 0 };
        let kind = match self.gso {
            GsoKind::None => GSO_NONE,
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::UdpL4 => GSO_UDP_L4,
        };
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip() {
        for gso in [GsoKind::None, GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::UdpL4] {
            let header = VnetHdr {
                needs_csum: true,
                gso,
                hdr_len: 52,
                gso_size: 1368,
                csum_start: 20,
                csum_offset: 16,
            };
            assert_eq!(VnetHdr::parse(&header.to_bytes()), Ok(header));
        }
        assert_eq!(VnetHdr::PLAIN.to_bytes(), [0; VNET_HDR_LEN]);
    }

    #[test]
    fn ecn_bit_does_not_change_the_kind_and_unknown_kinds_are_refused() {
        let mut bytes = [0; VNET_HDR_LEN];
        bytes[1] = GSO_TCPV4 | GSO_ECN;
        assert_eq!(VnetHdr::parse(&bytes).unwrap().gso, GsoKind::Tcp4);
        bytes[1] = 3; // UDP fragmentation, which is never asked for
        assert_eq!(VnetHdr::parse(&bytes), Err(3));
    }

    #[test]
    fn complete_is_what_has_its_checksum_and_is_not_large() {
        for flags in 0..4 {
            for kind in 0..=u8::MAX {
                let bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
                let complete = VnetHdr::parse(&bytes)
                    .is_ok_and(|header| header.gso == GsoKind::None && !header.needs_csum);
                assert_eq!(VnetHdr::is_complete(&bytes), complete, "{flags} {kind}");
            }
        }
    }
}
