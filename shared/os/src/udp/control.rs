//! Control messages as the kernel lays them out: `struct cmsghdr` of `include/linux/socket.h` is a length (`size_t`), a
//! level and a type (`int`), followed by data; each begins at a multiple of the size of `size_t`.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shared::wg::Ecn;

use crate::sys::message::{CONTROL_LEN, Control};

const WORD: usize = size_of::<usize>();
const HEADER_LEN: usize = WORD + 4 + 4;

/// `SOL_UDP` of `include/linux/socket.h`.
const SOL_UDP: libc::c_int = 17;

/// What the kernel tells about a received buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Our address that it was sent to.
    pub(crate) local: Option<IpAddr>,
    /// ECN bits.
    pub(crate) ecn: Ecn,
    /// Length of each datagram but the last, when several were merged (`UDP_GRO`).
    pub(crate) segment_size: Option<usize>,
}

/// What we tell the kernel about a buffer to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tell {
    /// Address to send from; `None` lets the kernel choose.
    pub(crate) local: Option<IpAddr>,
    /// Interface to send from when `local` is a link-local IPv6 address, else 0.
    pub(crate) scope_id: u32,
    /// Whether the receiver's address is IPv6.
    pub(crate) ipv6: bool,
    /// ECN bits.
    pub(crate) ecn: Ecn,
    /// Length of each datagram but the last, when there are several (`UDP_SEGMENT`).
    pub(crate) segment_size: Option<u16>,
}

pub(crate) fn decode(control: &Control) -> Told {
    let mut told = Told::default();
    let length = control.length.min(CONTROL_LEN);
    let mut rest = control.bytes.get(..length).unwrap_or_default();
    while let Some((level, kind, data, next)) = split_message(rest) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => told.local = local_of_in_pktinfo(data),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => told.local = local_of_in6_pktinfo(data),
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                told.ecn = data.first().map_or(Ecn::NotEct, |&tos| Ecn::from_tos(tos));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                let class = int(data).map_or(0, |class| class.to_le_bytes()[0]);
                told.ecn = Ecn::from_tos(class);
            }
            (SOL_UDP, libc::UDP_GRO) => {
                let size = int(data).and_then(|size| usize::try_from(size).ok());
                told.segment_size = size.filter(|&size| size > 0);
            }
            _ => {}
        }
        rest = next;
    }
    told
}

/// The first control message: level, type, data, and what follows.
fn split_message(bytes: &[u8]) -> Option<(libc::c_int, libc::c_int, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(*bytes.first_chunk()?);
    let level = int(bytes.get(WORD..)?)?;
    let kind = int(bytes.get(WORD + 4..)?)?;
    let data = bytes.get(HEADER_LEN..length)?;
    let next = bytes
        .get(length.next_multiple_of(WORD)..)
        .unwrap_or_default();
    Some((level, kind, data, next))
}

fn int(bytes: &[u8]) -> Option<libc::c_int> {
    bytes
        .first_chunk()
        .map(|&int| libc::c_int::from_ne_bytes(int))
}

/// `struct in_pktinfo`: interface index, our address (`ipi_spec_dst`), destination in the header.
fn local_of_in_pktinfo(data: &[u8]) -> Option<IpAddr> {
    let &address = data.get(4..)?.first_chunk::<4>()?;
    Some(IpAddr::V4(Ipv4Addr::from(address)))
}

/// `struct in6_pktinfo`: our address, interface index.
fn local_of_in6_pktinfo(data: &[u8]) -> Option<IpAddr> {
    let &address = data.first_chunk::<16>()?;
    Some(IpAddr::V6(Ipv6Addr::from(address)))
}

pub(crate) fn encode(tell: Tell) -> Control {
    let mut control = Control::default();
    if let Some(size) = tell.segment_size {
        push(
            &mut control,
            SOL_UDP,
            libc::UDP_SEGMENT,
            &size.to_ne_bytes(),
        );
    }
    if tell.ecn != Ecn::NotEct {
        let (level, kind) = if tell.ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        } else {
            (libc::IPPROTO_IP, libc::IP_TOS)
        };
        let tos = libc::c_int::from(tell.ecn.bits());
        push(&mut control, level, kind, &tos.to_ne_bytes());
    }
    match tell.local {
        Some(IpAddr::V4(local)) if !tell.ipv6 => {
            let [a, b, c, d] = local.octets();
            let info = [0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0];
            push(&mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(local)) if tell.ipv6 => {
            let mut info = [0; 20];
            let scope = if local.is_unicast_link_local() {
                tell.scope_id
            } else {
                0
            };
            for (to, from) in info
                .iter_mut()
                .zip(local.octets().into_iter().chain(scope.to_ne_bytes()))
            {
                *to = from;
            }
            push(&mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        _ => {} // an address of the other family is of no use: the kernel chooses
    }
    control
}

/// Append a message; the sizes are chosen so that all that [`encode`] makes fit.
fn push(control: &mut Control, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
    let length = HEADER_LEN + data.len();
    let fields = length
        .to_ne_bytes()
        .into_iter()
        .chain(level.to_ne_bytes())
        .chain(kind.to_ne_bytes())
        .chain(data.iter().copied());
    let room = control.bytes.get_mut(control.length..).unwrap_or_default();
    debug_assert!(length <= room.len());
    for (to, from) in room.iter_mut().zip(fields) {
        *to = from;
    }
    control.length += length.next_multiple_of(WORD);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_set_of_messages_fits() {
        let control = encode(Tell {
            local: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            scope_id: 0,
            ipv6: true,
            ecn: Ecn::Ce,
            segment_size: Some(1452),
        });
        assert_eq!(control.length, 40 + 24 + 24);
        let told = decode(&control);
        assert_eq!(told.local, Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(told.ecn, Ecn::Ce);
    }

    #[test]
    fn address_of_the_other_family_is_left_out() {
        let control = encode(Tell {
            local: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ..Tell::default()
        });
        assert_eq!(control.length, 0);
    }

    #[test]
    fn nonsense_is_no_message() {
        for length in [0, 1, HEADER_LEN - 1, 4096, usize::MAX] {
            let mut control = Control::default();
            control.bytes[..WORD].copy_from_slice(&length.to_ne_bytes());
            control.length = CONTROL_LEN;
            assert_eq!(decode(&control), Told::default(), "{length}");
        }
    }
}
