//! The tunnel without the product: `wireguard-go` on both ends, routes and nftables rules by hand.
//!
//! When a test fails with the product and passes with this, the product is wrong; when it fails with both, the world is.
use anyhow::Result;

use crate::edge::{INTERFACE, LISTEN_PORT, Setup};
use crate::wireguard_go::WireguardGo;
use crate::world::World;
use crate::world::addresses::OPERATOR;

/// Both ends by hand, for sources preserved over IPv4 and IPv6.
#[derive(Debug)]
pub struct StandIn {
    /// On the VPS.
    pub gateway: WireguardGo,
    /// On the LAN host.
    pub lan_server: WireguardGo,
}

impl StandIn {
    /// Start both ends.
    pub fn start(world: &World, setup: &Setup) -> Result<Self> {
        Ok(Self {
            gateway: gateway(world, setup)?,
            lan_server: lan_server(world, setup)?,
        })
    }
}

/// The VPS's end by hand.
pub fn gateway(world: &World, setup: &Setup) -> Result<WireguardGo> {
    world.vps.set_sysctl("net/ipv4/ip_forward", "1")?;
    world.vps.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    world.vps.nft(GATEWAY_RULES)?;
    WireguardGo::start(
        &world.vps,
        INTERFACE,
        &format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {LISTEN_PORT}\n\
             [Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.17.0.2/32, 10.17.3.0/24, 10.17.4.0/24, 10.17.5.0/24, fd17::2/128, fd17:5::/64\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {OPERATOR}/32\n",
            setup.gateway.private.to_base64().as_str(),
            setup.lan_server.public,
            setup.operator.public,
        ),
        "addr add 10.17.0.1/16 dev edge0\n\
         addr add fd17::1/64 dev edge0 nodad\n\
         route add 10.17.3.0/24 dev edge0\n\
         route add 10.17.4.0/24 dev edge0\n\
         route add 10.17.5.0/24 dev edge0\n\
         route add fd17:5::/64 dev edge0\n",
    )
}

/// The LAN host's end by hand.
pub fn lan_server(world: &World, setup: &Setup) -> Result<WireguardGo> {
    let node = &world.lan_host;
    node.nft(LAN_RULES)?;
    let started = WireguardGo::start(
        node,
        INTERFACE,
        &format!(
            "[Interface]\nPrivateKey = {}\n\
             [Peer]\nPublicKey = {}\nEndpoint = {}\nPersistentKeepalive = 25\n\
             AllowedIPs = 10.17.0.0/16, 173.245.48.0/20, 192.0.2.0/24, fd17::/64, 2400:cb00::/32\n",
            setup.lan_server.private.to_base64().as_str(),
            setup.gateway.public,
            setup.endpoint(),
        ),
        "addr add 10.17.0.2/32 dev edge0\n\
         addr add fd17::2/128 dev edge0 nodad\n\
         route add 10.17.0.0/16 dev edge0\n\
         route add fd17::/64 dev edge0\n\
         route add default dev edge0 table 51820\n\
         rule add fwmark 1 lookup 51820\n\
         route add ::/0 dev edge0 table 51820\n",
    )?;
    node.run(&["ip", "-6", "rule", "add", "fwmark", "1", "lookup", "51820"])?;
    node.set_sysctl("net/ipv4/conf/edge0/rp_filter", "2")?;
    Ok(started)
}

const GATEWAY_RULES: &str = r#"
table inet standin {
    chain guard {
        type filter hook prerouting priority raw;
        iifname "eth0" tcp dport { 80, 443, 5201 } ip saddr != 173.245.48.0/20 drop
        iifname "eth0" tcp dport { 80, 443, 5201 } ip6 saddr != 2400:cb00::/32 drop
    }
    chain publish {
        type nat hook prerouting priority dstnat;
        iifname "eth0" fib daddr type local tcp dport { 80, 443, 5201 } dnat ip to 10.17.5.30
        iifname "eth0" fib daddr type local tcp dport { 80, 443 } dnat ip6 to fd17:5::30
        iifname "eth0" ip saddr 192.0.2.0/24 fib daddr type local udp dport 3478 dnat ip to 10.17.5.30
    }
    chain forward {
        type filter hook forward priority filter;
        oifname "edge0" tcp flags syn tcp option maxseg size set rt mtu
        iifname "edge0" tcp flags syn tcp option maxseg size set rt mtu
        ct state established,related accept
        iifname "eth0" oifname "edge0" ct status dnat accept
        iifname "edge0" oifname "edge0" ip saddr 10.17.0.10 ip daddr 10.17.5.10 tcp dport 6443 accept
        iifname "edge0" oifname "edge0" ip saddr 10.17.0.10 ip daddr 10.17.3.11 udp dport 53 accept
        iifname "edge0" drop
        oifname "edge0" drop
    }
}
"#;

const LAN_RULES: &str = r#"
table inet standin {
    chain set_mark {
        type filter hook prerouting priority mangle;
        iifname "edge0" ct state new ct mark set 1
        iifname != "edge0" ct mark 1 meta mark set ct mark
    }
    chain source_nat {
        type nat hook postrouting priority srcnat;
        ip saddr 10.17.0.0/24 oifname != "edge0" masquerade
    }
}
"#;
