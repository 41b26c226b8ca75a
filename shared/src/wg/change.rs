//! What can be changed on a device and what it tells: the nouns of WireGuard's cross-platform interface
//! (<https://www.wireguard.com/xplatform/>), used by the UAPI socket and by the reconcile alike.
use std::net::SocketAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::model::{PresharedKey, PrivateKey, PublicKey};

/// One atomic change of a device; what is `None` or empty stays as it is.
#[derive(Debug, Clone, Default)]
pub struct DeviceChange {
    /// `Some(None)` removes the key: the device then neither sends nor accepts handshakes.
    #[expect(
        clippy::option_option,
        reason = "no change, no key and a key are three things"
    )]
    pub private_key: Option<Option<PrivateKey>>,
    /// UDP port to listen on; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Mark of outgoing datagrams; 0 is none.
    pub fwmark: Option<u32>,
    /// Remove every peer that is not in `peers`, before `peers` is applied.
    pub replace_peers: bool,
    /// Peers to add, change or remove, in this order.
    pub peers: Vec<PeerChange>,
}

impl DeviceChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let Self {
            private_key,
            listen_port,
            fwmark,
            replace_peers,
            peers,
        } = self;
        private_key.is_none()
            && listen_port.is_none()
            && fwmark.is_none()
            && !replace_peers
            && peers.is_empty()
    }
}

/// A change of one peer; what is `None` or empty stays as it is.
#[derive(Debug, Clone)]
pub struct PeerChange {
    /// Which peer; it is added when it does not exist, unless `update_only` or `remove`.
    pub public_key: PublicKey,
    /// Remove the peer.
    pub remove: bool,
    /// Change the peer only if it exists.
    pub update_only: bool,
    /// The all-zero key removes the preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// Where to send to, until the peer roams.
    pub endpoint: Option<SocketAddr>,
    /// Start a handshake at once, if the endpoint is known: the peer may hold a session that we lost.
    pub initiate_handshake: bool,
    /// Seconds between keepalives; 0 switches them off.
    pub persistent_keepalive_secs: Option<u16>,
    /// Remove the allowed IPs that the peer has, before `allowed_ips` is applied.
    pub replace_allowed_ips: bool,
    /// When this peer sends its first authentic data message, it takes over the allowed IPs of that other peer: a client
    /// that changes its key loses no packet. `Some(None)` takes over none; it happens once.
    #[expect(
        clippy::option_option,
        reason = "no change, nobody and somebody are three things"
    )]
    pub succeeds: Option<Option<PublicKey>>,
    /// Networks to add or remove. Adding a network that another peer has moves it to this one.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerChange {
    /// A change of this peer that changes nothing yet.
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            initiate_handshake: false,
            persistent_keepalive_secs: None,
            replace_allowed_ips: false,
            succeeds: None,
            allowed_ips: Vec::new(),
        }
    }
}

/// One network that a peer gains or loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedIpChange {
    /// The network; host bits are ignored.
    pub network: IpNetwork,
    /// Take it away instead of adding it (`-` in `wg set … allowed-ips`).
    pub remove: bool,
}

/// A device as it is.
#[derive(Debug, Clone)]
pub struct DeviceStatus {
    /// Our key; `None` before one was set.
    pub private_key: Option<PrivateKey>,
    /// UDP port that is bound.
    pub listen_port: u16,
    /// Mark of outgoing datagrams; 0 is none.
    pub fwmark: u32,
    /// Peers in the order in which they were added.
    pub peers: Vec<PeerStatus>,
}

/// A peer as it is.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its key.
    pub public_key: PublicKey,
    /// Its preshared key; `None` is none.
    pub preshared_key: Option<PresharedKey>,
    /// Where it was last heard from, or where it was configured to be.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; `None` is off.
    pub persistent_keepalive_secs: Option<u16>,
    /// Its networks in the order in which they were added.
    pub allowed_ips: Vec<IpNetwork>,
    /// Age of the latest completed handshake; `None` before the first.
    pub latest_handshake: Option<Duration>,
    /// Bytes of authenticated datagrams received, as they were on the wire (kernel semantics: handshakes, padding and
    /// the 32 bytes of each transport message count).
    pub rx_bytes: u64,
    /// Bytes of datagrams sent, counted likewise.
    pub tx_bytes: u64,
}
