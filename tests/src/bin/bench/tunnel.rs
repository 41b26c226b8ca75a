//! The two ends of the tunnel, by whichever implementation.
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::daemon::Daemon;
use tests::edge::{INTERFACE, LISTEN_PORT};
use tests::expect::holds;
use tests::keys::KeyPair;
use tests::node::Node;
use tests::world::addresses::{GATEWAY, LAN_SERVER};

use crate::implementation::{Implementation, Kind};
use crate::likeness::{End, Likeness};
use crate::preference;
use crate::product::{self, Keys, MTU};
use crate::site::{GATEWAY_CABLE, GATEWAY_UNDERLAY, LAN_CABLE, LAN_UNDERLAY};

/// Port of the LAN end; the gateway learns it.
const LAN_PORT: u16 = 51821;
/// How long a daemon may take until it can be configured, or has configured itself with thousands of peers.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the ends are, and what they are made from.
pub(crate) struct Ends<'a> {
    pub(crate) gw: &'a Node,
    pub(crate) lan: &'a Node,
    pub(crate) keys: &'a Keys,
    /// Further peers of the gateway.
    pub(crate) peers: usize,
    /// What everybody but the product itself needs.
    pub(crate) likeness: Option<&'a Likeness>,
}

/// One end.
struct Side<'a> {
    node: &'a Node,
    like: &'a End,
    role: &'static str,
    key: &'a KeyPair,
    port: u16,
    address: String,
    other: &'a KeyPair,
    /// Where the other end can be reached.
    other_endpoint: String,
}

impl Ends<'_> {
    /// Start both ends; returns the daemons, the gateway's first.
    pub(crate) fn start(&self, implementation: &Implementation) -> Result<Vec<Daemon>> {
        if let Kind::Ours {
            gateway,
            lan_server,
        } = &implementation.kind
        {
            return self.start_ours(gateway, lan_server, &implementation.env);
        }
        let likeness = self
            .likeness
            .context("nothing was taken down of the product")?;
        if matches!(implementation.kind, Kind::Plain) {
            let (lan, gw) = (LAN_UNDERLAY.to_string(), GATEWAY_UNDERLAY.to_string());
            likeness
                .gateway
                .install_over_cable(self.gw, GATEWAY_CABLE, &lan)?;
            likeness
                .lan_server
                .install_over_cable(self.lan, LAN_CABLE, &gw)?;
            return Ok(Vec::new());
        }
        let mut daemons = Vec::new();
        for side in self.sides(likeness) {
            daemons.extend(self.start_side(&side, implementation)?);
        }
        Ok(daemons)
    }

    fn start_ours(
        &self,
        gateway: &str,
        lan_server: &str,
        env: &[(String, String)],
    ) -> Result<Vec<Daemon>> {
        let mut daemons = Vec::new();
        let keys = self.keys;
        for (node, name, program, key, config) in [
            (
                self.gw,
                "gateway",
                gateway,
                &keys.gateway,
                product::gateway_toml(self.gw.dir(), keys, self.peers)?,
            ),
            (
                self.lan,
                "lan-server",
                lan_server,
                &keys.lan_server,
                product::lan_server_toml(self.lan.dir(), keys),
            ),
        ] {
            key.write(&node.dir().join(format!("state/{name}.key")))?;
            let config = node.write(&format!("{name}.toml"), &config)?;
            let config = config.to_str().context("its path is not UTF-8")?;
            let command = [program, "run", "--config", config];
            let mut daemon = Daemon::start_in_session(node, name, &command, &borrowed(env))?;
            daemon.wait_until(START_TIMEOUT, "the tunnel's link", || {
                node.run(&["ip", "link", "show", "up", "dev", INTERFACE])
                    .map(drop)
            })?;
            preference::prefer(daemon.pid())?;
            daemons.push(daemon);
        }
        Ok(daemons)
    }

    fn sides<'b>(&'b self, likeness: &'b Likeness) -> [Side<'b>; 2] {
        let keys = self.keys;
        [
            Side {
                node: self.gw,
                like: &likeness.gateway,
                role: "gw",
                key: &keys.gateway,
                port: LISTEN_PORT,
                address: format!("{GATEWAY}/16"),
                other: &keys.lan_server,
                other_endpoint: format!("{LAN_UNDERLAY}:{LAN_PORT}"),
            },
            Side {
                node: self.lan,
                like: &likeness.lan_server,
                role: "lan",
                key: &keys.lan_server,
                port: LAN_PORT,
                address: format!("{LAN_SERVER}/32"),
                other: &keys.gateway,
                other_endpoint: format!("{GATEWAY_UNDERLAY}:{LISTEN_PORT}"),
            },
        ]
    }

    fn start_side(
        &self,
        side: &Side<'_>,
        implementation: &Implementation,
    ) -> Result<Option<Daemon>> {
        let node = side.node;
        let mut env = implementation.env.clone();
        let (command, itself) = match &implementation.kind {
            Kind::Kernel => (None, false),
            Kind::Uapi(command) => (Some(command), false),
            Kind::Itself(command) => {
                env.extend(side.environment()?);
                (Some(command), true)
            }
            Kind::Plain | Kind::Ours { .. } => return Ok(None), // not by sides
        };
        let Some(command) = command else {
            node.ip(&format!("link add {INTERFACE} type wireguard"))?;
            self.configure(side)?;
            return Ok(None);
        };
        let mut command: Vec<String> = command
            .iter()
            .map(|word| word.replace("{if}", INTERFACE))
            .collect();
        if let Some(program) = command.first_mut() {
            *program = own_copy(node, program)?;
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut daemon =
            Daemon::start_in_session(node, &implementation.name, &command, &borrowed(&env))?;
        let socket = node.dir().join(format!("run/wireguard/{INTERFACE}.sock"));
        daemon.wait_until(START_TIMEOUT, "the tunnel's link", || {
            let shown = node.run(&["ip", "-4", "addr", "show", "dev", INTERFACE])?;
            let ready = if itself {
                shown.contains("inet ")
            } else {
                socket.exists()
            };
            holds(ready, || "no address or no socket yet".to_owned())
        })?;
        preference::prefer(daemon.pid())?;
        if itself {
            side.like.install(node, false)?;
        } else {
            self.configure(side)?;
        }
        Ok(Some(daemon))
    }

    /// Keys and peers by `wg`, the rest as the product does it.
    fn configure(&self, side: &Side<'_>) -> Result<()> {
        let node = side.node;
        let mut config = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\n\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
            side.key.private.to_base64().as_str(),
            side.port,
            side.other.public,
            side.like.allowed_ips,
        );
        if side.role == "lan" {
            // This end dials, as the product's does; the gateway learns where it is.
            writeln!(
                config,
                "Endpoint = {}\nPersistentKeepalive = 25",
                side.other_endpoint
            )?;
        }
        node.run_with_input(&["wg", "setconf", INTERFACE, "/dev/stdin"], &config)?;
        if side.role == "gw" && self.peers > 0 {
            let mut peers = String::new();
            for (address, peer) in self.keys.peers(self.peers) {
                write!(
                    peers,
                    "[Peer]\nPublicKey = {}\nAllowedIPs = {address}/32\n",
                    peer.public
                )?;
            }
            node.run_with_input(&["wg", "addconf", INTERFACE, "/dev/stdin"], &peers)?;
        }
        node.ip(&format!("link set {INTERFACE} mtu {MTU}"))?;
        side.like.install(node, true)
    }
}

impl Side<'_> {
    /// What a program that configures itself is told.
    fn environment(&self) -> Result<Vec<(String, String)>> {
        let scratch = self.node.dir().join("scratch");
        std::fs::create_dir_all(&scratch)?;
        let scratch = scratch.to_str().context("its path is not UTF-8")?;
        Ok([
            ("WGB_ROLE", self.role),
            ("WGB_IF", INTERFACE),
            ("WGB_ADDR", &self.address),
            ("WGB_PORT", &self.port.to_string()),
            ("WGB_PRIVATE_KEY", &self.key.private.to_base64()),
            ("WGB_PUBLIC_KEY", &self.key.public.to_string()),
            ("WGB_PEER_PUBLIC_KEY", &self.other.public.to_string()),
            ("WGB_PEER_ENDPOINT", &self.other_endpoint),
            ("WGB_ALLOWED_IPS", &self.like.allowed_ips),
            ("WGB_MTU", &MTU.to_string()),
            ("WGB_DIR", scratch),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec())
    }
}

/// A copy for this end alone, as two machines have: of one file at both ends, the second would find the code in the caches
/// that the first has just run. Ours are two programs anyway. A name without a path stays what it is.
fn own_copy(node: &Node, program: &str) -> Result<String> {
    let path = Path::new(program);
    let (true, Some(name)) = (program.contains('/'), path.file_name()) else {
        return Ok(program.to_owned());
    };
    let directory = node.dir().join("program");
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join(name);
    std::fs::copy(path, &copy).with_context(|| format!("copy {program}"))?;
    Ok(copy.to_str().context("its path is not UTF-8")?.to_owned())
}

fn borrowed(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}
