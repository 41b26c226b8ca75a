//! The answer to `get`.
use std::fmt::Write as _;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::Errno;
use crate::model::key::KEY_LEN;
use crate::wg::{DeviceStatus, PeerStatus};

/// At least the bytes of a device's own lines and the last: 123 with the longest values.
const DEVICE_BYTES: usize = 128;
/// At least the bytes of a peer's lines but its networks: 419 with the longest values.
const PEER_BYTES: usize = 448;
/// Most bytes of a network's line: `allowed_ip=`, the longest IPv6 address, `/128` and the line feed.
const NETWORK_BYTES: usize = 11 + 39 + 4 + 1;

/// The whole answer to `get`. `now` turns the age of a handshake into a time.
///
/// The order is that of wireguard-go; a device's keys stand there only when they were set. The text holds secrets and
/// is erased when dropped.
pub fn format_status(status: &DeviceStatus, now: SystemTime) -> Zeroizing<String> {
    let mut out = Out(Zeroizing::new(String::with_capacity(upper_bound(status))));
    if let Some(key) = &status.private_key {
        out.key("private_key", key.as_bytes());
    }
    if status.listen_port != 0 {
        out.line(format_args!("listen_port={}", status.listen_port));
    }
    if status.fwmark != 0 {
        out.line(format_args!("fwmark={}", status.fwmark));
    }
    for peer in &status.peers {
        out.peer(peer, now);
    }
    out.0.push_str(&Errno::Success.answer());
    debug_assert!(out.0.len() <= upper_bound(status));
    out.0
}

/// At least the length of the text: a string that grew would leave secrets in the memory that it had before.
fn upper_bound(status: &DeviceStatus) -> usize {
    let networks: usize = status.peers.iter().map(|p| p.allowed_ips.len()).sum();
    DEVICE_BYTES + status.peers.len() * PEER_BYTES + networks * NETWORK_BYTES
}

/// Text being written.
pub(super) struct Out(pub(super) Zeroizing<String>);

impl Out {
    pub(super) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    pub(super) fn key(&mut self, name: &str, key: &[u8; KEY_LEN]) {
        self.0.push_str(name);
        self.0.push('=');
        for byte in key {
            for digit in [byte >> 4, byte & 15] {
                self.0.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        self.0.push('\n');
    }

    fn peer(&mut self, peer: &PeerStatus, now: SystemTime) {
        const NO_KEY: [u8; KEY_LEN] = [0; KEY_LEN];
        self.key("public_key", peer.public_key.as_bytes());
        let preshared_key = peer.preshared_key.as_ref();
        self.key(
            "preshared_key",
            preshared_key.map_or(&NO_KEY, |key| key.as_bytes()),
        );
        self.line(format_args!("protocol_version=1"));
        if let Some(endpoint) = peer.endpoint {
            self.line(format_args!("endpoint={endpoint}"));
        }
        // Zero is "never"; a clock that stands before 1970 can't be told apart from it, and need not be.
        let latest_handshake = peer
            .latest_handshake
            .and_then(|age| now.checked_sub(age))
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
            .unwrap_or_default();
        self.line(format_args!(
            "last_handshake_time_sec={}",
            latest_handshake.as_secs()
        ));
        self.line(format_args!(
            "last_handshake_time_nsec={}",
            latest_handshake.subsec_nanos()
        ));
        self.line(format_args!("tx_bytes={}", peer.tx_bytes));
        self.line(format_args!("rx_bytes={}", peer.rx_bytes));
        let keepalive = peer.persistent_keepalive_secs.unwrap_or(0);
        self.line(format_args!("persistent_keepalive_interval={keepalive}"));
        for network in &peer.allowed_ips {
            self.line(format_args!("allowed_ip={network}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};
    use std::time::Duration;

    use ipnetwork::{IpNetwork, Ipv6Network};

    use super::*;
    use crate::model::{PresharedKey, PrivateKey, PublicKey};

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn peer() -> PeerStatus {
        PeerStatus {
            public_key: PublicKey::from_bytes([0xab; 32]),
            preshared_key: None,
            endpoint: None,
            persistent_keepalive_secs: None,
            allowed_ips: Vec::new(),
            latest_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    #[test]
    fn an_empty_device_says_nothing_but_success() {
        let status = DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers: Vec::new(),
        };
        assert_eq!(format_status(&status, at(0)).as_str(), "errno=0\n\n");
    }

    #[test]
    fn every_key_stands_in_the_order_of_wireguard_go() {
        let status = DeviceStatus {
            private_key: Some(PrivateKey::from_bytes([0x58; 32])),
            listen_port: 51_820,
            fwmark: 0xca6c,
            peers: vec![
                PeerStatus {
                    preshared_key: Some(PresharedKey::from_bytes([0x0f; 32])),
                    endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
                    persistent_keepalive_secs: Some(25),
                    allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
                    latest_handshake: Some(Duration::from_millis(1_500)),
                    rx_bytes: 148,
                    tx_bytes: u64::MAX,
                    ..peer()
                },
                peer(),
            ],
        };
        let expected = format!(
            "private_key={}\nlisten_port=51820\nfwmark=51820\n",
            "58".repeat(32)
        ) + &format!(
            "public_key={}\npreshared_key={}\n",
            "ab".repeat(32),
            "0f".repeat(32)
        ) + "protocol_version=1\nendpoint=[2001:db8::1]:51820\n\
               last_handshake_time_sec=998\nlast_handshake_time_nsec=500000000\n\
               tx_bytes=18446744073709551615\nrx_bytes=148\npersistent_keepalive_interval=25\n\
               allowed_ip=10.0.0.0/8\nallowed_ip=::/0\n"
            + &format!(
                "public_key={}\npreshared_key={}\n",
                "ab".repeat(32),
                "0".repeat(64)
            )
            + "protocol_version=1\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n\
               tx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=0\nerrno=0\n\n";
        assert_eq!(format_status(&status, at(1_000)).as_str(), expected);
    }

    #[test]
    fn the_text_never_grows_beyond_its_first_memory() {
        let longest = Ipv6Addr::from([0xff; 16]);
        let network = IpNetwork::V6(Ipv6Network::new(longest, 128).unwrap());
        let status = DeviceStatus {
            private_key: Some(PrivateKey::from_bytes([0xff; 32])),
            listen_port: u16::MAX,
            fwmark: u32::MAX,
            peers: vec![
                PeerStatus {
                    endpoint: Some(SocketAddrV6::new(longest, u16::MAX, 0, u32::MAX).into()),
                    persistent_keepalive_secs: Some(u16::MAX),
                    allowed_ips: vec![network; 100],
                    latest_handshake: Some(Duration::from_nanos(1)),
                    rx_bytes: u64::MAX,
                    tx_bytes: u64::MAX,
                    ..peer()
                };
                100
            ],
        };
        let text = format_status(&status, at(u64::from(u32::MAX)));
        assert!(text.len() <= upper_bound(&status));
        assert_eq!(text.capacity(), upper_bound(&status));
    }

    #[test]
    fn a_handshake_before_1970_is_none() {
        let status = DeviceStatus {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            peers: vec![PeerStatus {
                latest_handshake: Some(Duration::MAX),
                ..peer()
            }],
        };
        assert!(format_status(&status, at(5)).contains("last_handshake_time_sec=0\n"));
    }
}
