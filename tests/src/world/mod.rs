//! The deployment of the documentation, with documentation addresses where the real ones are public.
//!
//! ```text
//!  client 173.245.48.10      stranger 198.51.100.7      road_warrior 192.0.2.50
//!  (Cloudflare's range)           │                          │
//!         └───────────────── internet (router) ──────────────┘
//!                               │         │
//!        203.0.113.10 vps ──────┘         └────── home_router 198.18.0.2, .3 (NAT)
//!        (gateway, 10.17.0.1)                            │ 192.168.0.0/24
//!                                                   lan_host 192.168.0.15 (lan-server, 10.17.0.2)
//!                                                        │ virbr-infra 10.17.3.1, virbr-nodes 10.17.4.1,
//!                                                        │ virbr-vip 10.17.5.1
//!                                                     cluster: one node (light) or all of it (reference)
//! ```
//!
//! IPv6 everywhere: the internet is `2001:db8::/32` and `2400:cb00::/64`, the home network has a global prefix behind a stateful
//! firewall instead of NAT, the tunnel is `fd17::/64`, the VIPs are in `fd17:5::/64`.
mod light;
mod reference;

pub mod addresses;

pub use light::LightWorld;
pub use reference::{ReferenceWorld, SITE};

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::node::Node;
use crate::topology::Topology;
use addresses::{
    CLIENT, CLIENT6, HOME, HOME_ROUTER, HOME_ROUTER6, LAN_HOST, LAN_HOST6, ROAD_WARRIOR, STRANGER,
    STRANGER6, VPS, VPS6,
};

/// The part that every variant has: the internet and the two hosts that the product runs on.
#[derive(Debug)]
pub struct World {
    /// A host of Cloudflare.
    pub client: Node,
    /// A host of the internet that nobody has invited.
    pub stranger: Node,
    /// A laptop with WireGuard.
    pub road_warrior: Node,
    /// The router between them all.
    pub internet: Node,
    /// Where `gateway` runs.
    pub vps: Node,
    /// NAT and firewall of the home network.
    pub home_router: Node,
    /// Where `lan-server` runs.
    pub lan_host: Node,
    /// Dropped last: removes everything.
    pub topology: Topology,
}

impl World {
    /// The internet, the VPS and the home network up to the LAN host.
    fn new(mut topology: Topology) -> Result<Self> {
        let [
            client,
            stranger,
            road_warrior,
            internet,
            vps,
            home_router,
            lan_host,
        ] = topology.add_nodes([
            "client",
            "stranger",
            "road-warrior",
            "internet",
            "vps",
            "home-router",
            "lan-host",
        ])?;
        topology.connect(&[
            ((&client, "eth0"), (&internet, "client")),
            ((&stranger, "eth0"), (&internet, "stranger")),
            ((&road_warrior, "eth0"), (&internet, "road-warrior")),
            ((&vps, "eth0"), (&internet, "vps")),
            ((&home_router, "wan"), (&internet, "home")),
            ((&lan_host, "eth0"), (&home_router, "lan")),
        ])?;
        host(&client, CLIENT.into(), "173.245.48.1")?;
        host(&client, CLIENT6.into(), "2400:cb00::1")?;
        host(&stranger, STRANGER.into(), "198.51.100.1")?;
        host(&stranger, STRANGER6.into(), "2001:db8:51::1")?;
        host(&road_warrior, ROAD_WARRIOR.into(), "192.0.2.1")?;
        host(&vps, VPS.into(), "203.0.113.1")?;
        host(&vps, VPS6.into(), "2001:db8:113::1")?;
        host(&home_router, HOME_ROUTER.into(), "198.18.0.1")?;
        host(&home_router, HOME_ROUTER6.into(), "2001:db8:18::1")?;
        host(&lan_host, LAN_HOST.into(), "192.168.0.1")?;
        host(&lan_host, LAN_HOST6.into(), "2001:db8:c0::1")?;
        let world = Self {
            client,
            stranger,
            road_warrior,
            internet,
            vps,
            home_router,
            lan_host,
            topology,
        };
        world.set_up_internet()?;
        world.set_up_home_router()?;
        // A KVM host forwards already; that is libvirt's doing, not ours.
        forward(&world.lan_host)?;
        Ok(world)
    }

    fn set_up_internet(&self) -> Result<()> {
        self.internet.ip("
            addr add 173.245.48.1/24 dev client
            addr add 2400:cb00::1/64 dev client nodad
            addr add 198.51.100.1/24 dev stranger
            addr add 2001:db8:51::1/64 dev stranger nodad
            addr add 192.0.2.1/24 dev road-warrior
            addr add 203.0.113.1/24 dev vps
            addr add 2001:db8:113::1/64 dev vps nodad
            addr add 198.18.0.1/24 dev home
            addr add 2001:db8:18::1/64 dev home nodad
            route add 2001:db8:c0::/64 via 2001:db8:18::2
        ")?;
        forward(&self.internet)
    }

    fn set_up_home_router(&self) -> Result<()> {
        self.home_router.ip("
            addr add 198.18.0.3/24 dev wan
            addr add 192.168.0.1/24 dev lan
            addr add 2001:db8:c0::1/64 dev lan nodad
        ")?;
        forward(&self.home_router)?;
        self.masquerade_home_as(HOME)
    }

    /// Choose the public address of the home network, as a provider does overnight; every translation in use is forgotten.
    pub fn masquerade_home_as(&self, public: Ipv4Addr) -> Result<()> {
        self.translate_home_to(&public.to_string())
    }

    /// The home router forgets every translation and takes other UDP and TCP ports from now on: `40000-40010`.
    pub fn rebind_home_ports(&self, ports: &str) -> Result<()> {
        self.translate_home_to(&format!("{HOME}:{ports}"))
    }

    fn translate_home_to(&self, public: &str) -> Result<()> {
        self.home_router.nft(&format!(
            r#"
            table inet home
            delete table inet home
            table inet home {{
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    iifname "wan" ct state established,related accept
                    iifname "wan" drop
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    oifname "wan" ip saddr 192.168.0.0/24 meta l4proto {{ tcp, udp }} snat ip to {public}
                    oifname "wan" ip saddr 192.168.0.0/24 masquerade
                }}
            }}
            "#
        ))?;
        self.home_router.run(&["conntrack", "-F"]).map(drop)
    }
}

/// Give a host its address on its uplink (`eth0`, or `wan` of the router) and a default route.
fn host(node: &Node, address: IpAddr, router: &str) -> Result<()> {
    let link = if node.name() == "home-router" {
        "wan"
    } else {
        "eth0"
    };
    // Without duplicate address detection, which keeps an address from being used for a while.
    let length = if address.is_ipv4() { "24" } else { "64" };
    let flags = if address.is_ipv4() { "" } else { "nodad" };
    node.ip(&format!(
        "addr add {address}/{length} dev {link} {flags}\nroute add default via {router}\n"
    ))
}

/// Let a node forward, with IPv6 and without judging sources: it is a router.
fn forward(node: &Node) -> Result<()> {
    node.set_sysctl("net/ipv4/ip_forward", "1")?;
    node.set_sysctl("net/ipv6/conf/all/forwarding", "1")
}
