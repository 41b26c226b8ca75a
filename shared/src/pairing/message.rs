//! What is asked and answered, as JSON. Values are text as in the configuration files, and read by the same code.
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the LAN host asks. Asking again is harmless: the same question gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What would I be, and what may be published? Changes nothing.
    Offer {
        /// Public key of the LAN host, if it has one already: who has used the token may ask again.
        public_key: Option<String>,
    },
    /// Take me: from now on I have this key.
    Join {
        /// Public key of the LAN host, base64.
        public_key: String,
    },
}

/// What the gateway answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Offer`].
    Offer(Offer),
    /// To [`Request::Join`]: the key is known on disk and in the data plane.
    Joined {
        /// Base64.
        preshared_key: String,
    },
    /// It is not to be, or not now.
    Refused {
        /// A sentence without its end, for people.
        detail: String,
    },
}

/// What the LAN host is to the gateway, and what the gateway would like to reach through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Name of this `[[lan_server]]`.
    pub name: String,
    /// Tunnel addresses of the LAN host.
    pub addresses: Vec<IpAddr>,
    /// Tunnel addresses of the gateway.
    pub gateway_addresses: Vec<IpAddr>,
    /// Tunnel networks.
    pub tunnel_networks: Vec<String>,
    /// Networks that the gateway sends to the LAN host.
    pub networks: Vec<String>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// What the gateway publishes in these networks with callers' own addresses.
    pub publishes: Vec<Publish>,
    /// What is called from the tunnel network, `10.17.5.10:6443/tcp`: services of roles, and what the gateway publishes with an
    /// address of its own. They share no port.
    pub access: Vec<String>,
    /// The sets that `publishes` name, but for the built-in one.
    pub sets: BTreeMap<String, Vec<String>>,
}

/// A published service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Name.
    pub name: String,
    /// Where it is.
    pub vip: IpAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Ports of the VIP: `443`, `30000-30100`.
    pub ports: Vec<String>,
    /// Who calls: names of sets and networks, or `any`.
    pub from: Vec<String>,
}
