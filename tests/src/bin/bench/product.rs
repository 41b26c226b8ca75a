//! The configuration of the product in this world: files like those of the documentation.
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use tests::edge::{INTERFACE, LISTEN_PORT, publish};
use tests::keys::KeyPair;
use tests::world::addresses::{GATEWAY, INGRESS_VIP, IPERF_PORT, LAN_SERVER};

use crate::site::{CONNECT_PORT, GATEWAY_UNDERLAY, SINK_PORT};

/// Bytes of the largest inner packet.
pub(crate) const MTU: u16 = 1420;

/// Keys of all that take part; the same in every world, so that worlds differ in nothing but who carries the packets.
pub(crate) struct Keys {
    pub(crate) gateway: KeyPair,
    pub(crate) lan_server: KeyPair,
    /// Further peers of the gateway, as many as any test needs.
    pub(crate) peers: Vec<KeyPair>,
}

impl Keys {
    pub(crate) fn generate(peers: usize) -> Result<Self> {
        Ok(Self {
            gateway: KeyPair::generate()?,
            lan_server: KeyPair::generate()?,
            peers: (0..peers)
                .map(|_| KeyPair::generate())
                .collect::<Result<_>>()?,
        })
    }

    /// The first peers with their addresses in the tunnel.
    pub(crate) fn peers(&self, count: usize) -> impl Iterator<Item = (Ipv4Addr, &KeyPair)> {
        let first = Ipv4Addr::new(10, 17, 64, 0).to_bits();
        let addresses = (first..).map(Ipv4Addr::from_bits);
        addresses.zip(self.peers.iter().take(count))
    }
}

/// `gateway.toml` with the first `peers` of the further peers.
pub(crate) fn gateway_toml(dir: &Path, keys: &Keys, peers: usize) -> Result<String> {
    let mut text = format!(
        r#"state_dir   = "{dir}/state"
runtime_dir = "{dir}/run/wg-edge"

[wan]
interface = "eth0"
endpoint  = "{GATEWAY_UNDERLAY}:{LISTEN_PORT}"

[tunnel]
interface   = "{INTERFACE}"
address     = "{GATEWAY}/16"
listen_port = {LISTEN_PORT}
mtu         = {MTU}
private_key_file = "gateway.key"

[[lan_server]]
name       = "home"
public_key = "{lan_server}"
address    = "{LAN_SERVER}"
networks   = ["10.17.5.0/24"]
"#,
        dir = dir.display(),
        lan_server = keys.lan_server.public,
    );
    write_publishes(&mut text, "allow");
    for (number, (address, peer)) in keys.peers(peers).enumerate() {
        write!(
            text,
            "\n[[peer]]\nname = \"peer-{number}\"\npublic_key = \"{}\"\naddress = \"{address}\"\n",
            peer.public
        )?;
    }
    Ok(text)
}

/// `lan-server.toml`.
pub(crate) fn lan_server_toml(dir: &Path, keys: &Keys) -> String {
    let mut text = format!(
        r#"state_dir   = "{dir}/state"
runtime_dir = "{dir}/run/wg-edge"

[tunnel]
interface = "{INTERFACE}"
address   = "{LAN_SERVER}/32"
mtu       = {MTU}
private_key_file = "lan-server.key"

[[gateway]]
name       = "vps"
endpoint   = "{GATEWAY_UNDERLAY}:{LISTEN_PORT}"
public_key = "{gateway}"
address    = "{GATEWAY}"
network    = "10.17.0.0/16"
persistent_keepalive = 25
"#,
        dir = dir.display(),
        gateway = keys.gateway.public,
    );
    write_publishes(&mut text, "from");
    text
}

/// What the measurements go through; `callers` is the key that names who may.
fn write_publishes(text: &mut String, callers: &str) {
    let vip = INGRESS_VIP.to_string();
    for (name, protocol, port) in [
        ("iperf", "tcp", IPERF_PORT),
        ("connects", "tcp", CONNECT_PORT),
        ("sink", "udp", SINK_PORT),
    ] {
        text.push_str(&publish(
            name,
            &vip,
            protocol,
            &port.to_string(),
            &format!(r#"{callers} = ["cloudflare"]"#),
            "preserve",
        ));
    }
}
