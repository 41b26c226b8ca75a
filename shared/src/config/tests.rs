//! Facts about whole files.
use super::*;

/// `wg pubkey` of three throw-away private keys.
pub(super) const KEYS: [&str; 3] = [
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
    "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
];

const GATEWAY: &str = r#"
state_dir   = "/var/lib/wg-edge"
runtime_dir = "/run/wg-edge"

[wan]
interface = "eth0"                   # or "auto": the link of the default route
endpoint  = "203.0.113.10:51820"     # what peers dial; a Cloudflare-proxied name is refused (UDP is never proxied)

[tunnel]
interface   = "edge0"
address     = "10.17.0.1/16"         # our address and the tunnel network
listen_port = 51820
mtu         = 1420
private_key_file = "gateway.key"     # relative to state_dir; made on first start when missing
# fwmark, threads: optional

[[lan_server]]
name       = "home"
public_key = "KEY0"
# preshared_key_file = "home.psk"
address    = "10.17.0.2"
networks   = ["10.17.3.0/24", "10.17.4.0/24", "10.17.5.0/24"]

[[publish]]                          # internet → VIP
name      = "ingress"
vip       = "10.17.5.30"
protocol  = "tcp"                    # tcp | udp
ports     = [80, 443]                # or "8443:443" (listen:target), or ranges "30000-30100"
allow     = ["cloudflare"]           # named sets, CIDRs, or "any" (must be written out)
source_ip = "preserve"               # preserve | masquerade

[[role]]                             # what tunnel peers may reach; nothing by default
name  = "kube-admin"
allow = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]

[sets]                               # named address sets for `allow`
office = ["198.51.100.0/24"]

[[peer]]                             # optional static peers; the API manages the others
name = "alice"
public_key = "KEY1"
address = "10.17.0.10"
role = "kube-admin"

[admin]
listen = "10.17.0.1:8443"            # optional TCP listener, tunnel address only; the unix socket is always there
tokens = true
"#;

const LAN_SERVER: &str = r#"
[tunnel]
interface = "edge0"
address   = "10.17.0.2/32"
mtu       = 1420
private_key_file = "lan-server.key"

[[gateway]]                          # one tunnel interface per gateway when there are several (edge0, edge1, …)
name       = "vps1"
endpoint   = "203.0.113.10:51820"    # host or address; re-resolved when handshakes fail
public_key = "KEY0"
address    = "10.17.0.1"
network    = "10.17.0.0/16"
persistent_keepalive = 25

[[publish]]                          # what the tunnel may reach: the LAN end decides for itself
name      = "ingress"
vip       = "10.17.5.30"
protocol  = "tcp"
ports     = [80, 443]
from      = ["cloudflare"]           # sources accepted with preserved addresses
source_ip = "preserve"               # preserve | masquerade

[[access]]                           # tunnel peers → LAN
to = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]
source_ip = "masquerade"
"#;

pub(super) fn with_keys(text: &str) -> String {
    (KEYS.iter().enumerate()).fold(text.to_owned(), |text, (index, key)| {
        text.replace(&format!("KEY{index}"), key)
    })
}

#[test]
fn the_gateway_example_of_the_interface_is_accepted() {
    let parsed =
        Gateway::parse(&with_keys(GATEWAY), "gateway.toml").unwrap_or_else(|e| panic!("{e}"));
    println!("{parsed:#?}");
}

#[test]
fn the_lan_server_example_of_the_interface_is_accepted() {
    let parsed = LanServer::parse(&with_keys(LAN_SERVER), "lan-server.toml")
        .unwrap_or_else(|e| panic!("{e}"));
    println!("{parsed:#?}");
}
