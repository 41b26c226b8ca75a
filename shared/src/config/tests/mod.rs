//! Facts about whole files, most of them about the examples of the interface with a few edits.
mod accepted;
mod document;
mod gateway_network;
mod gateway_policy;
mod lan_server_file;
mod manual;
mod policy_test;
mod property;
mod refresh;

use super::*;

/// Public keys that stand for `KEY0`, `KEY1`, `KEY2` in the texts below.
const PUBLIC_KEYS: [&str; 3] = [
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

/// An example with edits, each at the first place where the old text stands, and with keys.
fn edited(base: &str, edits: &[(&str, &str)]) -> String {
    let mut text = base.to_owned();
    for (old, new) in edits {
        assert!(text.contains(old), "the example has no {old:?}");
        text = text.replacen(old, new, 1);
    }
    for (index, key) in PUBLIC_KEYS.iter().enumerate() {
        text = text.replace(&format!("KEY{index}"), key);
    }
    text
}

/// Findings without the name of the file, which is `F`.
fn lines(findings: &[Diagnostic]) -> Vec<String> {
    (findings.iter())
        .map(|finding| finding.to_string().strip_prefix("F:").unwrap().to_owned())
        .collect()
}

/// What the example of the interface is warned of: its `[admin] listen`.
const ADMIN_NOTE: &str = "46:10: [admin]: no role allows \"10.17.0.1:8443/tcp\", \
                          so no peer reaches the admin API; add it to one";

/// Warnings beside [`ADMIN_NOTE`], which must be there once.
fn lines_beside_admin_note(warnings: &[Diagnostic]) -> Vec<String> {
    let mut all = lines(warnings);
    let before = all.len();
    all.retain(|line| line != ADMIN_NOTE);
    assert_eq!(before, all.len() + 1, "{all:?}");
    all
}

#[test]
fn a_finding_is_one_line_with_file_line_and_column() {
    let text = edited(
        GATEWAY,
        &[("ports     = [80, 443]", "ports     = [80, 70000]")],
    );
    let errors = Gateway::parse(&text, "/etc/wg-edge/gateway.toml").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "/etc/wg-edge/gateway.toml:28:18: publish \"ingress\": port 70000 is out of range; ports are 1 to 65535"
    );
}

#[test]
fn columns_count_characters() {
    let text = "wan = { \"ключ\" = 1, endpoint = 5 }\r\nadmin = { \"ß\" = 2 }\r\n";
    let errors = Gateway::parse(text, "F").unwrap_err();
    let places: Vec<_> = errors.iter().map(|e| (e.line, e.column)).collect();
    // [tunnel] is missing, two unknown keys, one wrong type
    assert_eq!(places, [(1, 1), (1, 9), (1, 32), (2, 11)]);
}
