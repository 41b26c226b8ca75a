//! Values as the protocol writes them. Each function returns `None` for anything else; who calls knows the key.
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use zeroize::Zeroizing;

use super::ZoneIndex;
use crate::model::key::KEY_LEN;
use crate::wg::AllowedIpChange;

/// A key: 64 hexadecimal digits of either case.
pub(super) fn key(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if text.len() != 2 * KEY_LEN {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(key)
}

/// Clear and set the bits of a private key that X25519 ignores (RFC 7748 §5), so that `get` shows the same as the kernel.
pub(super) fn clamp(key: &mut [u8; KEY_LEN]) {
    let [first, .., last] = key;
    *first &= 0b1111_1000;
    *last = *last & 0b0111_1111 | 0b0100_0000;
}

/// A decimal number: digits only, no sign, which `from_str` would take.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `true`, the only value that a switch can have.
pub(super) fn switch(text: &str) -> Option<bool> {
    (text == "true").then_some(true)
}

/// `192.0.2.1:51820`, `[2001:db8::1]:51820`, or `[fe80::1%eth0]:51820` with a zone that `zone_index` knows: `wg` sends
/// scoped addresses with the link's name (`getnameinfo(3)`).
pub(super) fn endpoint(text: &str, zone_index: ZoneIndex) -> Option<SocketAddr> {
    let Some((address, rest)) = text.strip_prefix('[').and_then(|t| t.split_once('%')) else {
        return text.parse().ok();
    };
    let (zone, port) = rest.split_once("]:")?;
    let address: Ipv6Addr = address.parse().ok()?;
    let scope_id = number(zone).or_else(|| zone_index(zone))?;
    Some(SocketAddrV6::new(address, number(port)?, 0, scope_id).into())
}

/// `10.0.0.0/8`, `2001:db8::/32`; a `-` in front takes the network away.
pub(super) fn allowed_ip(text: &str) -> Option<AllowedIpChange> {
    let (remove, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let network = IpNetwork::new(address, number(prefix)?).ok()?;
    Some(AllowedIpChange { network, remove })
}
