//! The world with one node for the whole cluster: quick to build, for the many tests that ask who reaches what.
use std::net::SocketAddr;
use std::ops::Deref;

use anyhow::Result;

use super::World;
use super::addresses::{API_PORT, API_VIP, DNS, INGRESS_VIP, INGRESS_VIP6, MASTER, UDP_PORT, at};
use crate::node::Node;
use crate::servers::Server;
use crate::topology::Topology;

/// See the [module](super): `backend` holds both VIPs, the DNS server and a master, and tells callers who they are.
#[derive(Debug)]
pub struct LightWorld {
    /// The cluster.
    pub backend: Node,
    servers: Vec<Server>,
    world: World,
}

impl LightWorld {
    /// Build it; nothing of the product runs yet.
    pub fn new() -> Result<Self> {
        let mut topology = Topology::new()?;
        let [backend] = topology.add_nodes(["backend"])?;
        let world = World::new(topology)?;
        world.topology.connect(&[
            ((&world.lan_host, "virbr-infra"), (&backend, "infra")),
            ((&world.lan_host, "virbr-nodes"), (&backend, "nodes")),
            ((&world.lan_host, "virbr-vip"), (&backend, "vip")),
        ])?;
        world.lan_host.ip("
            addr add 10.17.3.1/24 dev virbr-infra
            addr add 10.17.4.1/24 dev virbr-nodes
            addr add 10.17.5.1/24 dev virbr-vip
            addr add fd17:5::1/64 dev virbr-vip nodad
        ")?;
        backend.ip("
            addr add 10.17.3.11/24 dev infra
            addr add 10.17.4.21/24 dev nodes
            addr add 10.17.5.10/24 dev vip
            addr add 10.17.5.30/24 dev vip
            addr add fd17:5::30/64 dev vip nodad
            route add default via 10.17.5.1
            route add default via fd17:5::1
            route add default via 10.17.3.1 table 3
            route add default via 10.17.4.1 table 4
            rule add from 10.17.3.11 lookup 3
            rule add from 10.17.4.21 lookup 4
        ")?;
        // One node plays hosts of three networks: each of its addresses answers by its own network, as the real ones do.
        let mut light = Self {
            backend,
            servers: Vec::new(),
            world,
        };
        for port in [80, 443, 22] {
            light.serve_tcp(at(INGRESS_VIP, port))?;
        }
        for port in [80, 443] {
            light.serve_tcp(SocketAddr::new(INGRESS_VIP6.into(), port))?;
        }
        light.serve_tcp(at(API_VIP, API_PORT))?;
        light.serve_tcp(at(MASTER, API_PORT))?;
        light.serve_tcp(at(DNS, 53))?;
        light.serve_udp(at(DNS, 53))?;
        light.serve_udp(at(INGRESS_VIP, UDP_PORT))?;
        Ok(light)
    }

    /// The cluster's servers end: a test starts others in their place.
    pub fn end_servers(&mut self) {
        self.servers.clear();
    }

    /// One more TCP server of the cluster.
    pub fn serve_tcp(&mut self, address: SocketAddr) -> Result<()> {
        self.servers.push(Server::tcp(&self.backend, address)?);
        Ok(())
    }

    /// One more UDP server of the cluster.
    pub fn serve_udp(&mut self, address: SocketAddr) -> Result<()> {
        self.servers.push(Server::udp(&self.backend, address)?);
        Ok(())
    }
}

impl Deref for LightWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}
