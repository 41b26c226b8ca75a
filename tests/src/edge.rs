//! The product inside a world: keys, the two configuration files, the two daemons.
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use shared::api::status::Status;

use crate::daemon::Daemon;
use crate::keys::KeyPair;
use crate::node::Node;
use crate::wireguard_go::WireguardGo;
use crate::world::World;
use crate::world::addresses::{GATEWAY, GUEST, LAN_SERVER, OPERATOR, VPS, VPS6};

/// Name of the tunnel's link on both ends, and on laptops.
pub const INTERFACE: &str = "edge0";
/// UDP port of the gateway.
pub const LISTEN_PORT: u16 = 51820;
/// Our table on the VPS, as `nft` names it.
pub const GATEWAY_TABLE: &str = "inet wg_edge";
/// Our table on the LAN host.
pub const LAN_TABLE: &str = "inet wg_edge_lan";
/// How long the tunnel may take to carry its first packet after both ends were started.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a daemon may take to take a changed configuration.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Find `gateway` or `lan-server`: `WG_EDGE_GATEWAY` or `WG_EDGE_LAN_SERVER`, else beside the program that is running.
pub fn binary(name: &str) -> Result<String> {
    let variable = format!("WG_EDGE_{}", name.replace('-', "_").to_uppercase());
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        return existing(&path).with_context(|| format!("{variable} is wrong"));
    }
    // target/<profile>/deps/netns-<hash> and target/<profile>/demo both have it in an ancestor.
    let program = std::env::current_exe()?;
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|p| p.is_file());
    let Some(path) = found else {
        bail!(
            "no `{name}` beside {}: run `cargo build --workspace` first, or set {variable}",
            program.display()
        );
    };
    existing(&path)
}

fn existing(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| format!("no program {}", path.display()))?;
    Ok(path.to_str().context("its path is not UTF-8")?.to_owned())
}

/// What the configuration of both ends is made from. The defaults are those of the documentation; tests change fields.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Keys of the gateway.
    pub gateway: KeyPair,
    /// Keys of the LAN end.
    pub lan_server: KeyPair,
    /// Keys of a laptop with the role `kube-admin`.
    pub operator: KeyPair,
    /// Keys of a laptop without a role.
    pub guest: KeyPair,
    /// Address of the VPS that the LAN end and laptops dial.
    pub outer: IpAddr,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Leave IPv6 out of the tunnel.
    pub ipv4_only: bool,
    /// `source_ip` of the published services on the gateway.
    pub gateway_source_ip: &'static str,
    /// `source_ip` of the published services on the LAN end.
    pub lan_source_ip: &'static str,
    /// `refresh` of `[cloudflare]` on both ends. Off: in no world is there an internet that could answer. Empty leaves it out.
    pub refresh: String,
    /// Appended to `gateway.toml`.
    pub more_gateway: String,
    /// Appended to `lan-server.toml`.
    pub more_lan_server: String,
}

impl Setup {
    /// New keys, everything else as documented.
    pub fn new() -> Result<Self> {
        Ok(Self {
            gateway: KeyPair::generate()?,
            lan_server: KeyPair::generate()?,
            operator: KeyPair::generate()?,
            guest: KeyPair::generate()?,
            outer: VPS.into(),
            mtu: 1420,
            ipv4_only: false,
            gateway_source_ip: "preserve",
            lan_source_ip: "preserve",
            refresh: "off".to_owned(),
            more_gateway: String::new(),
            more_lan_server: String::new(),
        })
    }

    /// Let the tunnel itself run over IPv6.
    #[must_use]
    pub fn over_ipv6(mut self) -> Self {
        self.outer = VPS6.into();
        self
    }

    /// What laptops and the LAN end dial.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.outer, LISTEN_PORT)
    }

    /// `gateway.toml`; relative directories of the contract become directories of the node.
    pub fn gateway_toml(&self, node_dir: &Path) -> String {
        let mut text = format!(
            r#"state_dir   = "{dir}/state"
runtime_dir = "{dir}/run/wg-edge"

[wan]
interface = "eth0"
endpoint  = "{endpoint}"

[tunnel]
interface   = "{INTERFACE}"
address     = ["{GATEWAY}/16", "fd17::1/64"]
listen_port = {LISTEN_PORT}
mtu         = {mtu}
private_key_file = "gateway.key"

[[lan_server]]
name       = "home"
public_key = "{lan_server}"
address    = ["{LAN_SERVER}", "fd17::2"]
networks   = ["10.17.3.0/24", "10.17.4.0/24", "10.17.5.0/24", "fd17:5::/64"]

[[role]]
name  = "kube-admin"
allow = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]

[[peer]]
name       = "operator"
public_key = "{operator}"
address    = "{OPERATOR}"
role       = "kube-admin"

[[peer]]
name       = "guest"
public_key = "{guest}"
address    = "{GUEST}"
"#,
            dir = node_dir.display(),
            endpoint = self.endpoint(),
            mtu = self.mtu,
            lan_server = self.lan_server.public,
            operator = self.operator.public,
            guest = self.guest.public,
        );
        self.write_publishes(&mut text, "allow", self.gateway_source_ip);
        text.push_str(&self.more_gateway);
        self.families(text)
    }

    /// `lan-server.toml`.
    pub fn lan_server_toml(&self, node_dir: &Path) -> String {
        let mut text = format!(
            r#"state_dir   = "{dir}/state"
runtime_dir = "{dir}/run/wg-edge"

[tunnel]
interface = "{INTERFACE}"
address   = ["{LAN_SERVER}/32", "fd17::2/128"]
mtu       = {mtu}
private_key_file = "lan-server.key"

[[gateway]]
name       = "vps"
endpoint   = "{endpoint}"
public_key = "{gateway}"
address    = ["{GATEWAY}", "fd17::1"]
network    = ["10.17.0.0/16", "fd17::/64"]
persistent_keepalive = 25

[[access]]
to = ["10.17.5.10:6443/tcp", "10.17.3.11:53/udp"]
source_ip = "masquerade"
"#,
            dir = node_dir.display(),
            endpoint = self.endpoint(),
            mtu = self.mtu,
            gateway = self.gateway.public,
        );
        self.write_publishes(&mut text, "from", self.lan_source_ip);
        text.push_str(&self.more_lan_server);
        self.families(text)
    }

    /// The published services, which both ends list; `callers` is their word for who may call. UDP is for the office, since
    /// Cloudflare forwards none.
    fn write_publishes(&self, text: &mut String, callers: &str, source_ip: &str) {
        text.push_str("\n[sets]\noffice = [\"192.0.2.0/24\"]\n");
        if !self.refresh.is_empty() {
            text.extend(["\n[cloudflare]\nrefresh = \"", &self.refresh, "\"\n"]);
        }
        for (name, vip, protocol, ports, set) in [
            ("ingress", "10.17.5.30", "tcp", "80, 443", "cloudflare"),
            ("ingress6", "fd17:5::30", "tcp", "80, 443", "cloudflare"),
            ("stun", "10.17.5.30", "udp", "3478", "office"),
            ("iperf", "10.17.5.30", "tcp", "5201", "cloudflare"),
        ] {
            text.push_str(&publish(
                name,
                vip,
                protocol,
                ports,
                &format!(r#"{callers} = ["{set}"]"#),
                source_ip,
            ));
        }
    }

    /// Without what is IPv6, when that is asked for.
    fn families(&self, text: String) -> String {
        if !self.ipv4_only {
            return text;
        }
        let mut text = text.replace(&publish_ingress6(&text), "");
        for ipv6 in [
            r#", "fd17::1/64""#,
            r#", "fd17::2/128""#,
            r#", "fd17::1""#,
            r#", "fd17::2""#,
            r#", "fd17::/64""#,
            r#", "fd17:5::/64""#,
        ] {
            text = text.replace(ipv6, "");
        }
        text
    }

    /// Write key and configuration of the gateway; returns the path of `gateway.toml`.
    pub fn install_gateway(&self, node: &Node) -> Result<PathBuf> {
        self.gateway.write(&node.dir().join("state/gateway.key"))?;
        node.write("gateway.toml", &self.gateway_toml(node.dir()))
    }

    /// Write key and configuration of the LAN end; returns the path of `lan-server.toml`.
    pub fn install_lan_server(&self, node: &Node) -> Result<PathBuf> {
        self.lan_server
            .write(&node.dir().join("state/lan-server.key"))?;
        node.write("lan-server.toml", &self.lan_server_toml(node.dir()))
    }

    /// A laptop's tunnel by `wireguard-go`: `who` has this address in the tunnel, and routes all of 10.17.0.0/16 into it.
    pub fn dial_in(&self, node: &Node, who: &KeyPair, address: IpAddr) -> Result<WireguardGo> {
        self.dial_in_by(&["wireguard-go", "-f", INTERFACE], node, who, address)
    }

    /// The same by another program that makes a userspace interface in the foreground.
    pub fn dial_in_by(
        &self,
        program: &[&str],
        node: &Node,
        who: &KeyPair,
        address: IpAddr,
    ) -> Result<WireguardGo> {
        WireguardGo::start_program(
            node,
            INTERFACE,
            program,
            &format!(
                "[Interface]\nPrivateKey = {}\n\
                 [Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = 10.17.0.0/16\nPersistentKeepalive = 25\n",
                who.private.to_base64().as_str(),
                self.gateway.public,
                self.endpoint()
            ),
            &format!(
                "addr add {address}/32 dev {INTERFACE}\nroute add 10.17.0.0/16 dev {INTERFACE}\n"
            ),
        )
    }
}

/// The entry that publishes over IPv6, as it stands in `text`.
fn publish_ingress6(text: &str) -> String {
    text.split_inclusive("\n\n")
        .find(|entry| entry.contains(r#""ingress6""#))
        .unwrap_or_default()
        .to_owned()
}

/// One `[[publish]]`.
pub fn publish(
    name: &str,
    vip: &str,
    protocol: &str,
    ports: &str,
    callers: &str,
    source_ip: &str,
) -> String {
    format!(
        r#"
[[publish]]
name      = "{name}"
vip       = "{vip}"
protocol  = "{protocol}"
ports     = [{ports}]
{callers}
source_ip = "{source_ip}"
"#
    )
}

/// One of the two daemons with its configuration.
#[derive(Debug)]
pub struct Instance {
    /// The program.
    pub daemon: Daemon,
    /// Its configuration.
    pub config: PathBuf,
    /// What is started next.
    pub program: String,
    name: &'static str,
    start: Start,
}

/// How a daemon is started, other than by its name alone.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Words before the daemon's own: a program that becomes it, as `setpriv` does.
    pub by: Vec<String>,
    /// The program where another user finds it.
    pub program: Option<String>,
}

impl Instance {
    /// Start `name run --config CONFIG` on a node.
    pub fn start(node: &Node, name: &'static str, config: PathBuf) -> Result<Self> {
        Self::start_with(node, name, config, Start::default())
    }

    /// The same in a way of its own.
    pub fn start_with(
        node: &Node,
        name: &'static str,
        config: PathBuf,
        start: Start,
    ) -> Result<Self> {
        Self::start_program(node, name, binary(name)?, config, start)
    }

    fn start_program(
        node: &Node,
        name: &'static str,
        program: String,
        config: PathBuf,
        start: Start,
    ) -> Result<Self> {
        let daemon = Self::launch(node, name, &program, &config, &start)?;
        Ok(Self {
            daemon,
            config,
            program,
            name,
            start,
        })
    }

    fn launch(
        node: &Node,
        name: &str,
        program: &str,
        config: &Path,
        start: &Start,
    ) -> Result<Daemon> {
        let config = config.to_str().context("its path is not UTF-8")?;
        let program = start.program.as_deref().unwrap_or(program);
        let by = start.by.iter().map(String::as_str);
        let command: Vec<&str> = by.chain([program, "run", "--config", config]).collect();
        Daemon::start(node, name, &command)
    }

    /// Start it again after it was stopped or killed.
    pub fn restart(&mut self) -> Result<()> {
        let node = self.daemon.node().clone();
        self.daemon = Self::launch(&node, self.name, &self.program, &self.config, &self.start)?;
        Ok(())
    }

    /// Run `program COMMAND… --config CONFIG` to its end, which has to be a good one.
    pub fn command(&self, command: &[&str]) -> Result<String> {
        let line = self.command_line(command)?;
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.daemon.node().run(&line)
    }

    /// The same whatever its exit code.
    pub fn output(&self, command: &[&str]) -> Result<Output> {
        let line = self.command_line(command)?;
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.daemon.node().output(&line)
    }

    /// Words of a command, for a shell or another program that runs it.
    pub fn command_line(&self, command: &[&str]) -> Result<Vec<String>> {
        let config = self.config.to_str().context("its path is not UTF-8")?;
        let words = [self.program.as_str()].into_iter();
        let words = words.chain(command.iter().copied());
        let words = words.chain(["--config", config]);
        Ok(words.map(str::to_owned).collect())
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Status> {
        let text = self.command(&["status", "--json"])?;
        serde_json::from_str(&text)
            .with_context(|| format!("`status --json` printed no status: {text}"))
    }

    /// Change the configuration file and have it taken: SIGHUP, then wait until the log says what became of it.
    pub fn reload(&mut self, edit: impl FnOnce(&str) -> String) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        fs::write(&self.config, edit(&text))?;
        let before = self.daemon.log().len();
        self.daemon.signal(Signal::SIGHUP)?;
        let outcomes = ["configuration taken", "the running configuration stays"];
        self.daemon.wait_for_log(RELOAD_TIMEOUT, before, &outcomes)
    }
}

/// Both daemons, and the tunnel between them.
#[derive(Debug)]
pub struct Edge {
    /// On the VPS.
    pub gateway: Instance,
    /// On the LAN host.
    pub lan_server: Instance,
    /// What they were configured from.
    pub setup: Setup,
}

impl Edge {
    /// Start both and wait until the tunnel carries packets.
    pub fn start(world: &World, setup: Setup) -> Result<Self> {
        let programs = [binary("gateway")?, binary("lan-server")?];
        Self::start_programs(world, setup, programs)
    }

    /// The same with programs of another version.
    pub fn start_programs(
        world: &World,
        setup: Setup,
        [gateway, lan_server]: [String; 2],
    ) -> Result<Self> {
        let (vps, lan_host) = (&world.vps, &world.lan_host);
        let config = setup.install_gateway(vps)?;
        let gateway = Instance::start_program(vps, "gateway", gateway, config, Start::default())?;
        let config = setup.install_lan_server(lan_host)?;
        let lan_server =
            Instance::start_program(lan_host, "lan-server", lan_server, config, Start::default())?;
        let mut edge = Self {
            gateway,
            lan_server,
            setup,
        };
        edge.wait_for_tunnel(world, START_TIMEOUT)?;
        Ok(edge)
    }

    /// Let both daemons run on when this is dropped.
    pub fn release(&mut self) {
        self.gateway.daemon.release();
        self.lan_server.daemon.release();
    }

    /// Wait until the tunnel carries packets; fails at once when a daemon ends.
    pub fn wait_for_tunnel(&mut self, world: &World, within: Duration) -> Result<()> {
        let vps = &world.vps;
        self.gateway
            .daemon
            .wait_until(within, "the gateway's link", || {
                vps.run(&["ip", "link", "show", "up", "dev", INTERFACE])
                    .map(drop)
            })?;
        self.lan_server.daemon.wait_until(
            within,
            "the LAN end's answer through the tunnel",
            || answer_of_lan_end(world),
        )?;
        self.gateway.daemon.alive()
    }
}

/// Whether the LAN end answers the gateway's ping, which is all that it answers without a configuration that says so. Asked
/// with little patience: whoever waits for the tunnel asks again.
pub fn answer_of_lan_end(world: &World) -> Result<()> {
    let command = [
        "ping",
        "-n",
        "-c",
        "1",
        "-W",
        "0.2",
        &LAN_SERVER.to_string(),
    ];
    world.vps.run(&command).map(drop)
}
