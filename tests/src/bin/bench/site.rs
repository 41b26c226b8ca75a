//! One world: four hosts in a row, with one implementation between the two in the middle.
//!
//! ```text
//!   client ──────────── gw ═════════════════ lan ──────────── server
//!   173.245.48.10       203.0.113.10         192.0.2.2        10.17.5.30 (VIP)
//!   (Cloudflare's       192.0.2.1 (under0)   10.17.5.1 (lan0) default route: lan
//!    range)             edge0 10.17.0.1      edge0 10.17.0.2
//! ```
//!
//! Clients call 203.0.113.10 and are led to the VIP by the gateway's ruleset, with their own addresses. Every node has a
//! `/run` of its own, so the tunnel is `edge0` at both ends.
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tests::daemon::Daemon;
use tests::expect::eventually;
use tests::node::Node;
use tests::topology::Topology;
use tests::world::addresses::{GATEWAY, IPERF_PORT, LAN_SERVER, VPS, public};

use crate::case::Variant;
use crate::implementation::{Implementation, Kind};
use crate::likeness::Likeness;
use crate::product::Keys;
use crate::{interrupt, tunnel};

/// The gateway's end of the cable that carries the tunnel.
pub(crate) const GATEWAY_UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The LAN end's.
pub(crate) const LAN_UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Name of the gateway's link to the LAN end.
pub(crate) const GATEWAY_CABLE: &str = "under0";
/// Name of the LAN end's link to the gateway.
pub(crate) const LAN_CABLE: &str = "eth0";
/// UDP port at which datagrams end (discard).
pub(crate) const SINK_PORT: u16 = 9;
/// TCP port at which connections are closed at once.
pub(crate) const CONNECT_PORT: u16 = 5202;
/// How long the tunnel may take to carry packets.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that is there, and removed when this is dropped.
pub(crate) struct Site {
    pub(crate) client: Node,
    pub(crate) gw: Node,
    pub(crate) lan: Node,
    pub(crate) server: Node,
    /// Those of the implementation: gateway first. None where the kernel does it all.
    daemons: Vec<Daemon>,
    iperf: Daemon,
    #[expect(dead_code, reason = "serves until it is dropped")]
    sink: Daemon,
    /// Dropped last: removes everything.
    topology: Topology,
}

impl Site {
    /// Build it and wait until packets pass.
    pub(crate) fn start(
        implementation: &Implementation,
        variant: Variant,
        keys: &Keys,
        likeness: Option<&Likeness>,
    ) -> Result<Self> {
        let mut topology = interrupt::new_topology()?;
        let [client, gw, lan, server] = topology.add_nodes(["client", "gw", "lan", "server"])?;
        lay_cables(&topology, [&client, &gw, &lan, &server])?;
        if variant.without_offloads {
            for (node, link) in [(&gw, GATEWAY_CABLE), (&lan, LAN_CABLE)] {
                node.run(&[
                    "ethtool", "-K", link, "gro", "off", "gso", "off", "tso", "off",
                ])?;
            }
        }
        let program = std::env::current_exe()?;
        let program = program.to_str().context("its path is not UTF-8")?;
        let (udp, tcp) = (SINK_PORT.to_string(), CONNECT_PORT.to_string());
        let sink = Daemon::start(&server, "sink", &[program, "sink", &udp, &tcp])?;
        let iperf = start_iperf(&server)?;
        let ends = tunnel::Ends {
            gw: &gw,
            lan: &lan,
            keys,
            peers: variant.peers,
            likeness,
        };
        let daemons = ends.start(implementation)?;
        let mut site = Self {
            client,
            gw,
            lan,
            server,
            daemons,
            iperf,
            sink,
            topology,
        };
        // What the logs say stands behind the reason, which may be cut short.
        site.wait_until_it_carries()
            .map_err(|error| anyhow!("{error:#}; {}", site.topology.logs(5)))?;
        Ok(site)
    }

    /// Sessions of the implementation's daemons.
    pub(crate) fn sessions(&self) -> Vec<i32> {
        self.daemons.iter().map(Daemon::pid).collect()
    }

    /// Session of the gateway's daemon.
    pub(crate) fn gateway_session(&self) -> Vec<i32> {
        self.sessions().into_iter().take(1).collect()
    }

    /// Fails, with the log, when one of the daemons has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::alive)
    }

    /// A test that was broken off may leave the server busy with it.
    pub(crate) fn restart_iperf(&mut self) -> Result<()> {
        self.iperf.kill();
        self.iperf = start_iperf(&self.server)?;
        Ok(())
    }

    /// UDP datagrams that have reached the server since it was made, read from their socket or not.
    pub(crate) fn delivered(&self) -> Result<u64> {
        // /proc/net is that of the process; this thread alone is in the node.
        let text = self
            .server
            .enter(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let values = lines.next().unwrap_or_default().split_whitespace();
        names
            .zip(values)
            .filter(|(name, _)| matches!(*name, "InDatagrams" | "InErrors" | "NoPorts"))
            .map(|(_, value)| value.parse::<u64>().context("unexpected /proc/net/snmp"))
            .sum()
    }

    /// Run a part of this program's own in the client's node; returns the numbers that it prints.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Vec<f64>> {
        let program = std::env::current_exe()?;
        let mut command = vec![program.to_str().context("its path is not UTF-8")?];
        command.extend(arguments);
        let output = self.client.run(&command)?;
        let numbers = output.split_whitespace().map(str::parse);
        numbers
            .collect::<Result<_, _>>()
            .with_context(|| format!("{arguments:?} printed {output:?}"))
    }

    fn wait_until_it_carries(&mut self) -> Result<()> {
        let Self {
            gw,
            client,
            lan,
            daemons,
            ..
        } = self;
        let ping = |from: &Node, to: Ipv4Addr| {
            from.run(&["ping", "-n", "-c", "1", "-W", "0.2", &to.to_string()])
        };
        eventually(START_TIMEOUT, "the LAN end's answer to a ping", || {
            daemons.iter_mut().try_for_each(Daemon::alive)?;
            if ping(gw, LAN_SERVER).is_ok() {
                return Ok(());
            }
            // With persistent keepalive alone boringtun dials after 25 s; a packet makes it dial at once.
            let _ = ping(lan, GATEWAY);
            bail!("no answer")
        })?;
        for port in [CONNECT_PORT, IPERF_PORT] {
            eventually(START_TIMEOUT, "a connection to the published port", || {
                client.enter(|| connect(public(port)))
            })?;
        }
        Ok(())
    }
}

fn connect(to: SocketAddr) -> Result<()> {
    TcpStream::connect_timeout(&to, Duration::from_millis(500))?;
    Ok(())
}

fn start_iperf(server: &Node) -> Result<Daemon> {
    Daemon::start(
        server,
        "iperf3",
        &["iperf3", "-s", "-p", &IPERF_PORT.to_string()],
    )
}

/// Links, addresses and the routes that the hosts had before anybody came with a tunnel.
fn lay_cables(topology: &Topology, [client, gw, lan, server]: [&Node; 4]) -> Result<()> {
    topology.connect(&[
        ((client, "eth0"), (gw, "eth0")),
        ((gw, GATEWAY_CABLE), (lan, LAN_CABLE)),
        ((lan, "lan0"), (server, "eth0")),
    ])?;
    client.ip(&format!(
        "addr add 173.245.48.10/24 dev eth0\nroute add {VPS} dev eth0\n"
    ))?;
    gw.ip(&format!(
        "addr add {VPS}/24 dev eth0\nroute add default dev eth0\n\
         addr add {GATEWAY_UNDERLAY}/24 dev {GATEWAY_CABLE}\n"
    ))?;
    lan.ip(&format!(
        "addr add {LAN_UNDERLAY}/24 dev {LAN_CABLE}\nroute add default via {GATEWAY_UNDERLAY}\n\
         addr add 10.17.5.1/24 dev lan0\n"
    ))?;
    server.ip("addr add 10.17.5.30/24 dev eth0\nroute add default via 10.17.5.1\n")
}

/// Whether an implementation can be measured by a test of this variant at all; why not.
pub(crate) fn unfit(implementation: &Implementation, variant: Variant) -> Option<&'static str> {
    (variant.peers > 0 && matches!(implementation.kind, Kind::Plain | Kind::Itself(_)))
        .then_some("has no peers")
}
