//! Debian's `wireguard-go`, configured by the real `wg`.
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::daemon::Daemon;
use crate::expect::holds;
use crate::node::Node;

/// One interface, up, with its peers.
#[derive(Debug)]
pub struct WireguardGo {
    /// The program.
    pub daemon: Daemon,
    interface: String,
}

impl WireguardGo {
    /// Start it with a configuration in the form of `wg setconf`; addresses and routes are `ip -batch` lines.
    pub fn start(node: &Node, interface: &str, config: &str, ip_lines: &str) -> Result<Self> {
        Self::start_program(
            node,
            interface,
            &["wireguard-go", "-f", interface],
            config,
            ip_lines,
        )
    }

    /// The same for another program that makes a userspace interface in the foreground, such as `gateway wg edge0`.
    pub fn start_program(
        node: &Node,
        interface: &str,
        command: &[&str],
        config: &str,
        ip_lines: &str,
    ) -> Result<Self> {
        let socket = node.dir().join(format!("run/wireguard/{interface}.sock"));
        let mut daemon = Daemon::start(node, &format!("wg-{interface}"), command)?;
        daemon.wait_until(
            Duration::from_secs(5),
            "the interface's UAPI socket",
            || holds(socket.exists(), || format!("no {}", socket.display())),
        )?;
        let started = Self {
            daemon,
            interface: interface.to_owned(),
        };
        started.configure("setconf", config)?;
        node.ip(&format!("link set {interface} mtu 1420 up\n{ip_lines}"))?;
        Ok(started)
    }

    /// `wg setconf`, `addconf` or `syncconf` with this text.
    pub fn configure(&self, verb: &str, config: &str) -> Result<()> {
        let command = ["wg", verb, &self.interface, "/dev/stdin"];
        self.daemon
            .node()
            .run_with_input(&command, config)
            .map(drop)
    }

    /// `wg set INTERFACE ARGUMENTS`.
    pub fn set(&self, arguments: &[&str]) -> Result<()> {
        let mut command = vec!["wg", "set", &self.interface];
        command.extend(arguments);
        self.daemon.node().run(&command).map(drop)
    }

    /// `wg show INTERFACE WHAT`: one line for each peer, or the whole where `what` is `dump`.
    pub fn show(&self, what: &str) -> Result<String> {
        self.daemon
            .node()
            .run(&["wg", "show", &self.interface, what])
    }

    /// Bytes received and sent, of the only peer.
    pub fn transfer(&self) -> Result<(u64, u64)> {
        let line = self.show("transfer")?;
        let mut fields = line.split_whitespace().skip(1);
        let mut next = || -> Result<u64> {
            Ok(fields
                .next()
                .with_context(|| format!("not a transfer: {line:?}"))?
                .parse()?)
        };
        Ok((next()?, next()?))
    }
}
