//! Socket addresses as the kernel lays them out: `sockaddr_in` of `include/uapi/linux/in.h` and `sockaddr_in6` of
//! `include/uapi/linux/in6.h`. The family is in the machine's byte order, the rest in network byte order but for the scope.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::sys::message::{ADDRESS_LEN, Address};

const SOCKADDR_IN_LEN: u32 = 16;
const SOCKADDR_IN6_LEN: u32 = 28;

/// Address families are 16 bits in a socket address, but `int` elsewhere.
fn family(value: libc::c_int) -> [u8; 2] {
    u16::try_from(value).unwrap_or_default().to_ne_bytes()
}

pub(crate) fn encode(address: SocketAddr) -> Address {
    let mut bytes = [0; ADDRESS_LEN];
    let [p0, p1] = address.port().to_be_bytes();
    let length = match address {
        SocketAddr::V4(v4) => {
            let [f0, f1] = family(libc::AF_INET);
            let [a, b, c, d] = v4.ip().octets();
            if let Some(head) = bytes.first_chunk_mut() {
                *head = [f0, f1, p0, p1, a, b, c, d];
            }
            SOCKADDR_IN_LEN
        }
        SocketAddr::V6(v6) => {
            let [f0, f1] = family(libc::AF_INET6);
            let fields = [f0, f1, p0, p1, 0, 0, 0, 0] // flow label 0
                .into_iter()
                .chain(v6.ip().octets())
                .chain(v6.scope_id().to_ne_bytes());
            for (to, from) in bytes.iter_mut().zip(fields) {
                *to = from;
            }
            SOCKADDR_IN6_LEN
        }
    };
    Address { bytes, length }
}

/// `None` for families that are not ours.
pub(crate) fn decode(address: &Address) -> Option<SocketAddr> {
    let bytes = &address.bytes;
    let &[f0, f1, p0, p1] = bytes.first_chunk()?;
    let port = u16::from_be_bytes([p0, p1]);
    if [f0, f1] == family(libc::AF_INET) {
        let &ip = bytes.get(4..)?.first_chunk::<4>()?;
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port));
    }
    if [f0, f1] == family(libc::AF_INET6) {
        let &ip = bytes.get(8..)?.first_chunk::<16>()?;
        let &scope = bytes.get(24..)?.first_chunk::<4>()?;
        let scope = u32::from_ne_bytes(scope);
        return Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%7]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address)), Some(address));
        }
        assert_eq!(decode(&Address::default()), None);
    }
}
