//! The gateway's side: a tunnel's time to its first answer, changes a second, lists, memory.
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde_json::Value;
use std::net::UdpSocket;
use tests::daemon::Daemon;
use tests::edge::binary;
use tests::expect::holds;
use tests::keys::KeyPair;
use tests::node::Node;
use tests::topology::Topology;
use tests::wireguard_go::WireguardGo;

use crate::client::Client;
use crate::measure::{Samples, quantile};
use crate::uapi::{megabytes, per_second};

/// Connections that change peers at the same time.
const CALLERS: usize = 16;
/// How long they do so.
const BUSY: Duration = Duration::from_secs(5);
/// Most entries of a page.
const PAGE: usize = 1000;
/// Lists that are read.
const LISTS: usize = 21;
/// How long the gateway may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first answer through the tunnel may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// One gateway and one client, each in a namespace of its own, joined by a cable.
pub(crate) struct World {
    pub(crate) client: Node,
    vps: Node,
    _topology: Topology,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let mut topology = Topology::new()?;
        let [vps, client] = topology.add_nodes(["vps", "client"])?;
        topology.connect(&[((&vps, "eth0"), (&client, "eth0"))])?;
        vps.ip("addr add 203.0.113.10/24 dev eth0\nroute add default via 203.0.113.20")?;
        client.ip("addr add 203.0.113.20/24 dev eth0")?;
        // Who may send echo requests without a raw socket.
        client.set_sysctl("net/ipv4/ping_group_range", "0 0")?;
        Ok(Self {
            client,
            vps,
            _topology: topology,
        })
    }

    fn start(&self, own: &KeyPair) -> Result<Daemon> {
        let dir = self.vps.dir();
        own.write(&dir.join("state/gateway.key"))?;
        let config = format!(
            r#"state_dir   = "{dir}/state"
runtime_dir = "{dir}/run/wg-edge"

[wan]
interface = "eth0"
endpoint  = "203.0.113.10:51820"

[tunnel]
interface   = "edge0"
address     = "10.17.0.1/16"
listen_port = 51820
mtu         = 1420
private_key_file = "gateway.key"

[[lan_server]]
name       = "home"
public_key = "{lan_server}"
address    = "10.17.0.2"
networks   = ["10.17.3.0/24"]

[[role]]
name  = "dns"
allow = ["10.17.3.11:53/udp"]
"#,
            dir = dir.display(),
            lan_server = KeyPair::generate()?.public,
        );
        let config = self.vps.write("gateway.toml", &config)?;
        let config = config.to_str().context("its path is not UTF-8")?;
        let command = [&binary("gateway")?, "run", "--config", config];
        let mut daemon = Daemon::start(&self.vps, "gateway", &command)?;
        let socket = self.socket();
        daemon.wait_until(START_TIMEOUT, "readiness", || {
            let ready = Client::connect(&socket)
                .and_then(|mut client| client.call("GET", "/readyz", "", 200).map(drop));
            holds(ready.is_ok(), || "not ready".to_owned())
        })?;
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.vps.dir().join("run/wg-edge/gateway.sock")
    }
}

/// All figures of one round.
pub(crate) fn measure(keys: &[KeyPair], repetitions: usize, samples: &mut Samples) -> Result<()> {
    let world = World::new()?;
    let own = KeyPair::generate()?;
    let daemon = world.start(&own)?;
    let socket = world.socket();
    let mut client = Client::connect(&socket)?;
    let memory = megabytes(daemon.resident_bytes()?);
    samples.note("gateway: resident memory without peers", "MB", memory);

    let began = Instant::now();
    for (number, key) in keys.iter().enumerate() {
        let more = r#","role":"dns","labels":{"site":"vienna"}"#;
        client.add(&format!("peer-{number:05}"), &key.public.to_string(), more)?;
    }
    let rate = per_second(keys.len(), began.elapsed());
    samples.note("gateway: `POST /v1/peers`, one connection", "peers/s", rate);
    let memory = megabytes(daemon.resident_bytes()?);
    let title = format!("gateway: resident memory with {} peers", keys.len());
    samples.note(&title, "MB", memory);
    samples.aim(&title, "≤ 40 MB");

    first_answers(&world, &own, repetitions, samples)?;
    changes(&socket, keys.len(), samples)?;
    lists(&socket, keys.len(), samples)?;
    let title = format!(
        "gateway: resident memory after all this, {} peers",
        keys.len()
    );
    samples.note(&title, "MB", megabytes(daemon.resident_bytes()?));
    samples.aim(&title, "≤ 40 MB");
    Ok(())
}

/// From sending `POST /v1/peers` until the first packet of the new peer, sent when that is answered, is answered too.
fn first_answers(
    world: &World,
    gateway: &KeyPair,
    repetitions: usize,
    samples: &mut Samples,
) -> Result<()> {
    let mut api = Client::connect(&world.socket())?;
    let device = WireguardGo::start(
        &world.client,
        "edge0",
        "[Interface]\n",
        "addr add 10.17.200.1/32 dev edge0\nroute add 10.17.0.0/16 dev edge0\n",
    )?;
    let echo = echo_socket(&world.client)?;
    let mut whole = Vec::new();
    let mut acknowledged = Vec::new();
    for number in 0..repetitions {
        let key = KeyPair::generate()?;
        // Everything is known and in place, and nothing was sent yet.
        device.configure(
            "setconf",
            &format!(
                "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = 203.0.113.10:51820\nAllowedIPs = 10.17.0.0/16\n",
                key.private.to_base64().as_str(),
                gateway.public
            ),
        )?;
        let began = Instant::now();
        let more = r#","addresses":["10.17.200.1"]"#;
        let id = api.add(&format!("newcomer-{number}"), &key.public.to_string(), more)?;
        acknowledged.push(began.elapsed().as_secs_f64() * 1000.0);
        wait_for_echo(&echo, number)?;
        whole.push(began.elapsed().as_secs_f64() * 1000.0);
        // Its address goes to the next one, so it must not rest: it was given by hand.
        api.call("DELETE", &format!("/v1/peers/{id}"), "", 204)?;
    }
    for (what, values) in [
        ("`POST /v1/peers` to its answer", &acknowledged),
        (
            "`POST /v1/peers` to the first answer through the tunnel",
            &whole,
        ),
    ] {
        for (percent, name) in [(50, "median"), (99, "p99")] {
            let title = format!("gateway: {what}, {name} of {repetitions}");
            samples.note(&title, "ms", quantile(values, percent));
        }
    }
    let title = format!(
        "gateway: `POST /v1/peers` to the first answer through the tunnel, median of {repetitions}"
    );
    samples.aim(&title, "≤ 50 ms");
    Ok(())
}

/// A socket for ICMP echo (`icmp(7)`, "ping sockets"): the kernel fills in identifier and checksum.
fn echo_socket(node: &Node) -> Result<UdpSocket> {
    node.enter(|| {
        let fd: OwnedFd = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Icmp,
        )?;
        let socket = UdpSocket::from(fd);
        socket.connect((Ipv4Addr::new(10, 17, 0, 1), 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        Ok(socket)
    })
}

/// Send an echo request each millisecond until one is answered.
fn wait_for_echo(socket: &UdpSocket, run: usize) -> Result<()> {
    let run = u8::try_from(run % 256)?;
    let began = Instant::now();
    while began.elapsed() < ANSWER_TIMEOUT {
        // Type 8, code 0, checksum, identifier, sequence number, payload (RFC 792).
        socket.send(&[8, 0, 0, 0, 0, 0, 0, 1, run])?;
        let mut answer = [0; 64];
        // An answer that belongs to the peer before may still be on its way.
        if let Ok(9) = socket.recv(&mut answer) {
            if answer.get(8) == Some(&run) {
                return Ok(());
            }
        }
    }
    anyhow::bail!("no answer through the tunnel within {ANSWER_TIMEOUT:?}")
}

/// Acknowledged changes a second, from several connections.
fn changes(socket: &Path, peers: usize, samples: &mut Samples) -> Result<()> {
    let ids = identifiers(&mut Client::connect(socket)?)?;
    ensure!(ids.len() >= peers, "{} peers are listed", ids.len());
    let share = ids.len() / CALLERS;
    for (title, field) in [
        ("gateway: patches of a label, 16 connections", "labels"),
        (
            "gateway: patches that take a peer in and out, 16 connections",
            "enabled",
        ),
    ] {
        let rate = busy(socket, |caller, client, turn| {
            let id = ids
                .get(caller * share + turn % share)
                .context("no such peer")?;
            let body = match (field, (turn / share) % 2) {
                ("labels", _) => format!(r#"{{"labels":{{"turn":"{turn}"}}}}"#),
                (_, 0) => r#"{"enabled":false}"#.to_owned(),
                (_, _) => r#"{"enabled":true}"#.to_owned(),
            };
            client.call("PATCH", &format!("/v1/peers/{id}"), &body, 200)?;
            Ok(1)
        })?;
        samples.note(title, "changes/s", rate);
        samples.aim(title, "≥ 1,000 changes/s");
    }
    let title = "gateway: additions and removals, 16 connections";
    let rate = busy(socket, |caller, client, turn| {
        let key = KeyPair::generate()?.public.to_string();
        let id = client.add(&format!("guest-{caller}-{turn}"), &key, "")?;
        client.call("DELETE", &format!("/v1/peers/{id}"), "", 204)?;
        Ok(2)
    })?;
    samples.note(title, "changes/s", rate);
    samples.aim(title, "≥ 1,000 changes/s");
    // As before, whatever was in and out when the time was up.
    let mut client = Client::connect(socket)?;
    for id in &ids {
        client.call(
            "PATCH",
            &format!("/v1/peers/{id}"),
            r#"{"enabled":true}"#,
            200,
        )?;
    }
    Ok(())
}

/// Let all callers do this again and again; changes a second.
fn busy(
    socket: &Path,
    change: impl Fn(usize, &mut Client, usize) -> Result<usize> + Sync,
) -> Result<f64> {
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (over, done, change) = (&over, &done, &change);
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::connect(socket)?;
                    let mut turn = 0;
                    while !over.load(Ordering::Relaxed) {
                        let changes = change(caller, &mut client, turn)?;
                        done.fetch_add(changes, Ordering::Relaxed);
                        turn += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        thread::sleep(BUSY);
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller has panicked"))??;
        }
        Ok(per_second(done.load(Ordering::Relaxed), began.elapsed()))
    })
}

/// How long it takes to read the whole list.
fn lists(socket: &Path, peers: usize, samples: &mut Samples) -> Result<()> {
    // The gateway hangs up on who says nothing for some seconds: no connection outlives its measurement.
    let mut client = Client::connect(socket)?;
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let began = Instant::now();
        let mut bytes = 0;
        let mut path = format!("/v1/peers?limit={PAGE}");
        // The cursor is found without reading the whole answer as JSON: that is the caller's time.
        loop {
            let answer = client.call("GET", &path, "", 200)?;
            bytes += answer.len();
            let tail = answer.len().saturating_sub(200);
            let tail = String::from_utf8_lossy(answer.get(tail..).unwrap_or_default());
            let cursor = tail.rsplit_once(r#""next_cursor":""#);
            let cursor = cursor.and_then(|(_, rest)| rest.split('"').next());
            let Some(cursor) = cursor else { break };
            path = format!("/v1/peers?limit={PAGE}&cursor={cursor}");
        }
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(
            bytes > peers * 300,
            "a list of {bytes} bytes can't be whole"
        );
    }
    let title = format!("gateway: list of {peers} peers, pages of {PAGE}");
    samples.note(&title, "ms", quantile(&times, 50));
    samples.aim(&title, "≤ 50 ms");
    Ok(())
}

fn identifiers(client: &mut Client) -> Result<Vec<String>> {
    let (mut ids, mut path) = (Vec::new(), format!("/v1/peers?limit={PAGE}&managed_by=api"));
    loop {
        let page: Value = serde_json::from_slice(client.call("GET", &path, "", 200)?)?;
        let items = page.get("items").and_then(Value::as_array);
        let found = items.into_iter().flatten();
        ids.extend(found.filter_map(|peer| Some(peer.get("id")?.as_str()?.to_owned())));
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => {
                path = format!("/v1/peers?limit={PAGE}&managed_by=api&cursor={cursor}");
            }
            None => return Ok(ids),
        }
    }
}
