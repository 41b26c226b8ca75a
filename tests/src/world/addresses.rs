//! Who has which address.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// A host of Cloudflare (in 173.245.48.0/20).
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(173, 245, 48, 10);
/// A host of Cloudflare (in `2400:cb00::/32`).
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2400, 0xcb00, 0, 0, 0, 0, 0, 0x10);
/// A host that nobody has invited.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The same host.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
/// A laptop somewhere.
pub const ROAD_WARRIOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// The VPS.
pub const VPS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The VPS.
pub const VPS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// Address of the home router's uplink.
pub const HOME_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Address of the home router's uplink.
pub const HOME_ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 2);
/// The public address that the home network has in the beginning.
pub const HOME: Ipv4Addr = HOME_ROUTER;
/// The public address that it may change to.
pub const HOME_AFTER_CHANGE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);
/// The LAN host in the home network.
pub const LAN_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 15);
/// The LAN host in the home network.
pub const LAN_HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, 0x15);

/// The gateway in the tunnel.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 1);
/// The LAN server in the tunnel.
pub const LAN_SERVER: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 2);
/// The operator's laptop in the tunnel.
pub const OPERATOR: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 10);
/// A second laptop in the tunnel, without a role.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 11);

/// DNS server of the infrastructure network.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 17, 3, 11);
/// A Kubernetes master: on the LAN, in no role, published nowhere.
pub const MASTER: Ipv4Addr = Ipv4Addr::new(10, 17, 4, 21);
/// VIP of the Kubernetes API.
pub const API_VIP: Ipv4Addr = Ipv4Addr::new(10, 17, 5, 10);
/// VIP of the ingress.
pub const INGRESS_VIP: Ipv4Addr = Ipv4Addr::new(10, 17, 5, 30);
/// VIP of the ingress.
pub const INGRESS_VIP6: Ipv6Addr = Ipv6Addr::new(0xfd17, 5, 0, 0, 0, 0, 0, 0x30);
/// The LAN host on the bridge of the VIPs, as their hosts see it.
pub const VIP_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 17, 5, 1);

/// Port of the Kubernetes API.
pub const API_PORT: u16 = 6443;
/// Port of the service that is published over UDP.
pub const UDP_PORT: u16 = 3478;
/// Port that iperf3 measures through.
pub const IPERF_PORT: u16 = 5201;

/// A port of the VPS's public address.
pub const fn public(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(VPS), port)
}

/// A port of the VPS's public address.
pub const fn public6(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V6(VPS6), port)
}

/// A port of an IPv4 address.
pub const fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(address), port)
}
