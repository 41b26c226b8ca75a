//! `gateway invite` and `lan-server join`: the two ends find together by one line of text, without a key typed by anyone.
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use shared::model::PrivateKey;
use shared::pairing::Token;
use tests::api::{Api, items};
use tests::daemon::Daemon;
use tests::edge::{INTERFACE, Instance, Setup, answer_of_lan_end, binary};
use tests::expect::holds;
use tests::node::Node;
use tests::servers::{ask_tcp, ask_udp};
use tests::wireguard_go::WireguardGo;
use tests::world::LightWorld;
use tests::world::addresses::{
    API_PORT, API_VIP, CLIENT, GATEWAY, INGRESS_VIP, OPERATOR, ROAD_WARRIOR, UDP_PORT, at, public,
};

use crate::support::{SOON, in_light_world};

/// How long it may take from nothing to the first byte, a lost handshake message among it.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// A gateway whose file gives the LAN server `home` no key.
fn start_gateway(world: &LightWorld, setup: &Setup) -> Result<Instance> {
    let path = setup.install_gateway(&world.vps)?;
    let text = std::fs::read_to_string(&path)?;
    let key = format!("public_key = \"{}\"\n", setup.lan_server.public);
    ensure!(text.contains(&key), "no {key} in\n{text}");
    std::fs::write(&path, text.replace(&key, ""))?;
    let mut gateway = Instance::start(&world.vps, "gateway", path)?;
    gateway
        .daemon
        .wait_for_log(SOON, 0, &["ready"])
        .context("the gateway starts without the key of its LAN server")?;
    Ok(gateway)
}

fn invite(gateway: &Instance) -> Result<String> {
    Ok(gateway.command(&["invite", "home"])?.trim().to_owned())
}

/// A host that joins, with directories of its own.
struct Joining<'a> {
    node: &'a Node,
    dir: PathBuf,
    program: String,
}

impl<'a> Joining<'a> {
    fn new(node: &'a Node) -> Result<Self> {
        Ok(Self {
            node,
            dir: node.dir().join("joining"),
            program: binary("lan-server")?,
        })
    }

    fn config(&self) -> PathBuf {
        self.dir.join("etc/lan-server.toml")
    }

    fn key_file(&self) -> String {
        self.dir.join("state/lan-server.key").display().to_string()
    }

    fn words(&self, token: &str, more: &[&str]) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut words: Vec<String> = [self.program.as_str(), "join", token]
            .map(str::to_owned)
            .into();
        words.extend(["--config".to_owned(), path(&self.config())]);
        words.extend(["--state-dir".to_owned(), path(&self.dir.join("state"))]);
        words.extend(["--runtime-dir".to_owned(), path(&self.dir.join("run"))]);
        words.extend(more.iter().map(|&word| word.to_owned()));
        words
    }

    fn run(&self, token: &str, more: &[&str]) -> Result<Output> {
        let words = self.words(token, more);
        self.node
            .output(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn succeeds(&self, token: &str, more: &[&str]) -> Result<Output> {
        let output = self.run(token, more)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(output)
    }

    /// It is refused with these words, and nothing was written but perhaps an empty directory.
    fn is_refused(&self, token: &str, words: &str) -> Result<()> {
        let output = self.run(token, &["--yes"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(said.contains(words), "not {words:?} but {said:?}");
        ensure!(
            !said.contains(token) || token.is_empty(),
            "it is a secret: {said}"
        );
        ensure!(!self.config().exists(), "a configuration was written");
        ensure!(!Path::new(&self.key_file()).exists(), "a key was left");
        Ok(())
    }

    fn daemon(&self) -> Result<Daemon> {
        let config = self.config().display().to_string();
        Daemon::start(
            self.node,
            "joined",
            &[&self.program, "run", "--config", &config],
        )
    }
}

fn lan_server_of(gateway: &Instance) -> Result<Value> {
    let page = Api::of(gateway, "gateway")?.get("/v1/lan-servers")?;
    items(&page)?.first().cloned().context("no LAN server")
}

#[test]
fn from_a_token_to_the_first_proxied_byte() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let mut gateway = start_gateway(world, &setup)?;
        assert_eq!(lan_server_of(&gateway)?["public_key"], Value::Null);
        let begin = Instant::now();
        let token = invite(&gateway)?;
        let joining = Joining::new(&world.lan_host)?;
        let words = joining.words(&token, &["--yes", "--run"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start(&world.lan_host, "joined", &words)?;
        daemon.wait_until(FIRST_BYTE, "the first proxied byte", || {
            ask_tcp(&world.client, public(80))
        })?;
        assert!(begin.elapsed() < FIRST_BYTE);
        // All that the file publishes, and with the callers' own addresses.
        assert_eq!(ask_tcp(&world.client, public(443))?.ip(), CLIENT);
        assert_eq!(
            ask_udp(&world.road_warrior, public(UDP_PORT))?.ip(),
            ROAD_WARRIOR
        );
        assert!(ask_tcp(&world.stranger, public(80)).is_err());
        let _laptop = setup.dial_in(&world.road_warrior, &setup.operator, OPERATOR.into())?;
        ask_tcp(&world.road_warrior, at(API_VIP, API_PORT))?;
        // It says how it went.
        daemon.wait_for_log(FIRST_BYTE, 0, &["tunnel up after"])?;
        for part in [
            "invites this host as LAN server home",
            "10.17.5.30 80,443/tcp (ingress) from cloudflare",
            "10.17.5.10:6443/tcp",
            "MTU 1420",
            "ingress 10.17.5.30 port 443: up, connected in",
        ] {
            assert!(
                daemon.log().contains(part),
                "{part} is missing in\n{}",
                daemon.log()
            );
        }
        // Both ends know each other by new keys, over restarts and crashes.
        let known = lan_server_of(&gateway)?;
        assert!(known["joined_at"].is_string(), "{known}");
        daemon.stop(Signal::SIGTERM, SOON)?;
        gateway.daemon.kill();
        gateway.restart()?;
        let mut daemon = joining.daemon()?;
        daemon.wait_until(FIRST_BYTE, "the path after restarts", || {
            ask_tcp(&world.client, public(80))
        })?;
        assert_eq!(lan_server_of(&gateway)?, known);
        let wg = world
            .lan_host
            .run(&["wg", "show", INTERFACE, "public-key"])?;
        assert_eq!(known["public_key"], wg.trim());
        let preshared = world
            .vps
            .run(&["wg", "show", INTERFACE, "preshared-keys"])?;
        let of_lan = preshared.lines().find(|line| line.starts_with(wg.trim()));
        assert!(
            of_lan.is_some_and(|line| !line.contains("(none)")),
            "{preshared}"
        );
        Ok(())
    });
}

/// `gateway init` on the VPS with directories of its own.
fn init_words(world: &LightWorld, more: &[&str]) -> Result<Vec<String>> {
    let dir = world.vps.dir().join("init");
    let path = |name: &str| dir.join(name).display().to_string();
    let mut words = vec![binary("gateway")?, "init".to_owned()];
    words.extend(["--config".to_owned(), path("etc/gateway.toml")]);
    words.extend(["--state-dir".to_owned(), path("state")]);
    words.extend(["--runtime-dir".to_owned(), path("run")]);
    words.extend(more.iter().map(|&word| word.to_owned()));
    Ok(words)
}

fn init(world: &LightWorld, more: &[&str]) -> Result<Output> {
    let words = init_words(world, more)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.vps.output(&words)
}

/// The token in what `gateway init` printed.
fn token_in(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("lan-server join "));
    line.map(|token| token.trim().to_owned())
}

#[test]
fn two_commands_from_nothing_to_the_first_proxied_byte() {
    in_light_world(|world| {
        let begin = Instant::now();
        let words = init_words(world, &["--yes", "--run"])?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut gateway = Daemon::start(&world.vps, "gateway-init", &words)?;
        gateway.wait_for_log(SOON, 0, &["ready"])?;
        let token = token_in(&gateway.log()).context("no token was printed")?;
        let joining = Joining::new(&world.lan_host)?;
        let words = joining.words(&token, &["--yes", "--run"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start(&world.lan_host, "joined", &words)?;
        daemon.wait_until(FIRST_BYTE, "the first proxied byte", || {
            ask_tcp(&world.client, public(443))
        })?;
        assert!(begin.elapsed() < FIRST_BYTE, "{:?}", begin.elapsed());
        for part in [
            "the link of the default route",
            "the address of eth0",
            "203.0.113.10:51820",
        ] {
            assert!(
                gateway.log().contains(part),
                "{part} is missing in\n{}",
                gateway.log()
            );
        }
        // Again: nothing to write, and nobody to invite.
        let again = init(world, &["--yes"])?;
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(
            again.status.success() && said.contains("has joined already"),
            "{again:?}"
        );
        assert_eq!(token_in(&String::from_utf8_lossy(&again.stdout)), None);
        ask_tcp(&world.client, public(80)).map(drop)
    });
}

#[test]
fn init_changes_nothing_that_it_was_not_told_to_change() {
    in_light_world(|world| {
        let dir = world.vps.dir().join("init");
        let refused = |more: &[&str], words: &str| -> Result<()> {
            let output = init(world, more)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                !output.status.success() && said.contains(words),
                "{output:?}"
            );
            Ok(())
        };
        let shown = init(world, &["--dry-run"])?;
        assert!(shown.status.success(), "{shown:?}");
        refused(&[], "say --yes")?;
        refused(
            &["--yes", "--endpoint", "104.16.0.1"],
            "belongs to Cloudflare",
        )?;
        refused(&["--yes", "--wan", "eth7"], "no link eth7")?;
        refused(
            &["--yes", "--ingress", "192.0.2.7"],
            "192.0.2.7 is in no network",
        )?;
        refused(&["--yes", "--lan-server", "a b"], "valid configuration")?;
        assert!(!dir.exists(), "something was written");
        // Written as it was shown, with a token that the daemon will know.
        let written = init(world, &["--yes"])?;
        assert!(written.status.success(), "{written:?}");
        let path = dir.join("etc/gateway.toml");
        let text = std::fs::read(&path)?;
        assert_eq!(text, shown.stdout);
        let first = token_in(&String::from_utf8_lossy(&written.stdout)).context("no token")?;
        // A second run ends that token and changes nothing else; other arguments are refused.
        let again = init(world, &["--yes"])?;
        let second = token_in(&String::from_utf8_lossy(&again.stdout)).context("no token")?;
        assert_ne!(first, second);
        refused(&["--yes", "--ingress", "10.17.5.31"], "--replace")?;
        assert_eq!(std::fs::read(&path)?, text);
        let replaced = init(world, &["--yes", "--ingress", "10.17.5.31", "--replace"])?;
        assert!(replaced.status.success(), "{replaced:?}");
        assert_eq!(
            std::fs::read(dir.join("etc/gateway.toml.before-init"))?,
            text
        );
        // The daemon starts from what was made without it.
        let token = token_in(&String::from_utf8_lossy(&replaced.stdout)).context("no token")?;
        let mut gateway = Instance::start(&world.vps, "gateway", path)?;
        gateway.daemon.wait_for_log(SOON, 0, &["ready"])?;
        let host = Joining::new(&world.lan_host)?;
        host.succeeds(&token, &["--yes"])?;
        let peers = gateway.status()?.peers;
        let mut names = peers.iter().filter_map(|peer| peer.name.as_deref());
        holds(names.any(|name| name == "home"), || format!("{peers:?}"))
    });
}

#[test]
fn a_dry_run_uses_nothing_and_changes_nothing() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        let token = invite(&gateway)?;
        let joining = Joining::new(&world.lan_host)?;
        let shown = joining.succeeds(&token, &["--dry-run"])?;
        assert!(!joining.dir.exists(), "something was written");
        assert_eq!(lan_server_of(&gateway)?["public_key"], Value::Null);
        // Without a terminal nobody can agree: neither is the token used then.
        let output = joining.run(&token, &[])?;
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("say --yes"),
            "{output:?}"
        );
        assert!(!joining.dir.exists(), "something was written");
        joining.succeeds(&token, &["--yes"])?;
        let written = std::fs::read(joining.config())?;
        assert_eq!(shown.stdout, written, "what was shown is what is written");
        Ok(())
    });
}

#[test]
fn a_token_is_used_by_one_host_which_may_repeat_it() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        let token = invite(&gateway)?;
        let first = Joining::new(&world.lan_host)?;
        first.succeeds(&token, &["--yes"])?;
        let known = lan_server_of(&gateway)?;
        let state = std::fs::read(first.dir.join("state/gateway.psk"))?;
        first.succeeds(&token, &["--yes"])?;
        assert_eq!(lan_server_of(&gateway)?, known);
        assert_eq!(std::fs::read(first.dir.join("state/gateway.psk"))?, state);
        let second = Joining::new(&world.road_warrior)?;
        second.is_refused(&token, "another host has used the token already")?;
        // A configuration that somebody has changed is not written over unasked.
        let mine = std::fs::read_to_string(first.config())?.replace("mtu = 1420", "mtu = 1400");
        std::fs::write(first.config(), &mine)?;
        let output = first.run(&token, &["--yes"])?;
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("--replace"),
            "{output:?}"
        );
        assert_eq!(std::fs::read_to_string(first.config())?, mine);
        first.succeeds(&token, &["--yes", "--replace"])?;
        let kept = first.dir.join("etc/lan-server.toml.before-join");
        assert_eq!(std::fs::read_to_string(kept)?, mine);
        Ok(())
    });
}

#[test]
fn another_host_takes_the_place_of_the_first() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        // A host that is lost joined first.
        let lost = Joining::new(&world.road_warrior)?;
        lost.succeeds(&invite(&gateway)?, &["--yes"])?;
        let before = lan_server_of(&gateway)?;
        let host = Joining::new(&world.lan_host)?;
        host.succeeds(&invite(&gateway)?, &["--yes"])?;
        assert_ne!(lan_server_of(&gateway)?["public_key"], before["public_key"]);
        let mut daemon = host.daemon()?;
        daemon.wait_until(FIRST_BYTE, "the new host's path", || {
            answer_of_lan_end(world)
        })?;
        let peers = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        let old = before["public_key"].as_str().context("no key")?;
        assert!(
            !peers.contains(old),
            "the lost host is still known:\n{peers}"
        );
        Ok(())
    });
}

#[test]
fn a_second_lan_host_is_added_to_the_file_and_joins() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        let host = Joining::new(&world.lan_host)?;
        host.succeeds(&invite(&gateway)?, &["--yes"])?;
        let mut daemon = host.daemon()?;
        daemon.wait_until(FIRST_BYTE, "the path", || {
            ask_tcp(&world.client, public(80))
        })?;
        let before = std::fs::read_to_string(&gateway.config)?;
        for (network, words) in [
            ("10.17.5.0/25", "overlaps"),
            ("8.8.8.0/24", "is not private"),
        ] {
            let refused = gateway.output(&["invite", "office", "--network", network])?;
            let said = String::from_utf8_lossy(&refused.stderr);
            ensure!(
                !refused.status.success() && said.contains(words),
                "{refused:?}"
            );
            assert_eq!(std::fs::read_to_string(&gateway.config)?, before);
        }
        let command = ["invite", "office", "--network", "192.168.7.0/24"];
        let token = gateway.command(&command)?;
        let after = std::fs::read_to_string(&gateway.config)?;
        assert!(after.starts_with(&before), "{after}");
        let office = Joining::new(&world.road_warrior)?;
        office.succeeds(token.trim(), &["--yes"])?;
        let mut daemon = office.daemon()?;
        daemon.wait_until(FIRST_BYTE, "the second tunnel", || {
            let peers = gateway.status()?.peers;
            let mut online = peers.iter().filter(|peer| peer.online);
            let is_office = |peer: &str| peer == "office";
            let found = online.any(|peer| peer.name.as_deref().is_some_and(is_office));
            holds(found, || format!("{peers:?}"))
        })?;
        // The first one has not noticed, and once more changes nothing.
        ask_tcp(&world.client, public(80))?;
        gateway.command(&command)?;
        assert_eq!(std::fs::read_to_string(&gateway.config)?, after);
        Ok(())
    });
}

#[test]
fn who_was_taken_out_of_the_file_has_to_join_again() {
    in_light_world(|world| {
        let mut gateway = start_gateway(world, &Setup::new()?)?;
        let host = Joining::new(&world.lan_host)?;
        host.succeeds(&invite(&gateway)?, &["--yes"])?;
        assert!(lan_server_of(&gateway)?["public_key"].is_string());
        gateway.reload(|text| text.replace("\"home\"", "\"attic\""))?;
        assert_eq!(lan_server_of(&gateway)?["name"], "attic");
        // Peers are looked at each second.
        gateway
            .daemon
            .wait_for_log(SOON, 0, &["its key is forgotten"])?;
        gateway.reload(|text| text.replace("\"attic\"", "\"home\""))?;
        assert_eq!(lan_server_of(&gateway)?["public_key"], Value::Null);
        let peers = world.vps.run(&["wg", "show", INTERFACE, "peers"])?;
        let key = world.lan_host.run(&["cat", &host.key_file()])?;
        let key: PrivateKey = key.trim().parse()?;
        assert!(!peers.contains(&key.public_key().to_string()), "{peers}");
        Ok(())
    });
}

#[test]
fn what_is_no_token_or_over_is_refused_with_its_reason() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        let joining = Joining::new(&world.lan_host)?;
        joining.is_refused("edge_0123_secret", "this is not a token")?;
        let first = invite(&gateway)?;
        joining.is_refused(&first[..first.len() - 2], "copy the whole line again")?;
        let mut late: Token = first.parse()?;
        late.expires_at = "2026-01-01T00:00:00Z".parse()?;
        joining.is_refused(&late.to_text(), "the token expired at 2026-01-01T00:00:00Z")?;
        // One that looks right and is not: the gateway is silent to strangers.
        let mut wrong: Token = first.parse()?;
        wrong.private_key = PrivateKey::from_bytes([7; 32]);
        joining.is_refused(&wrong.to_text(), "no answer from")?;
        // A new one, and one that was taken back.
        let second = invite(&gateway)?;
        joining.is_refused(&first, "a newer one was made")?;
        let mut api = Api::of(&gateway, "gateway")?;
        let invites = api.get("/v1/invites")?;
        let id = invites["items"][0]["id"]
            .as_str()
            .context("no invitation")?
            .to_owned();
        assert_eq!(
            invites["items"].as_array().map(Vec::len),
            Some(1),
            "{invites}"
        );
        assert!(
            !invites.to_string().contains(&second),
            "the token is told once"
        );
        api.call(
            "DELETE",
            &format!("/v1/invites/{id}"),
            &["if-match: *"],
            &Value::Null,
        )?
        .expect(204)?;
        joining.is_refused(&second, "or it was taken back")?;
        assert_eq!(lan_server_of(&gateway)?["public_key"], Value::Null);
        Ok(())
    });
}

#[test]
fn an_invited_host_reaches_nothing_but_the_pairing_service() {
    in_light_world(|world| {
        let setup = Setup::new()?;
        let gateway = start_gateway(world, &setup)?;
        let host = Joining::new(&world.lan_host)?;
        host.succeeds(&invite(&gateway)?, &["--yes"])?;
        let mut daemon = host.daemon()?;
        daemon.wait_until(FIRST_BYTE, "the path", || {
            ask_tcp(&world.client, public(80))
        })?;
        let text = invite(&gateway)?;
        let token: Token = text.parse()?;
        let address = token.address;
        let config = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nPresharedKey = {}\nEndpoint = {}\nAllowedIPs = 10.17.0.0/16\n",
            token.private_key.to_base64().as_str(),
            token.gateway_key,
            token.preshared_key().to_base64().as_str(),
            setup.endpoint()
        );
        let _thief = WireguardGo::start(
            &world.road_warrior,
            INTERFACE,
            &config,
            &format!(
                "addr add {address}/32 dev {INTERFACE}\nroute add 10.17.0.0/16 dev {INTERFACE}\n"
            ),
        )?;
        // The tunnel is there: the gateway answers its ping.
        world.road_warrior.pings(&GATEWAY.to_string())?;
        for (vip, port) in [(API_VIP, API_PORT), (INGRESS_VIP, 80)] {
            assert!(
                ask_tcp(&world.road_warrior, at(vip, port)).is_err(),
                "{vip}:{port}"
            );
        }
        // It is the gateway's firewall that has refused it.
        let status = gateway.status()?;
        let refused = status.refused_packets.values().sum::<u64>();
        holds(refused > 0, || format!("{:?}", status.refused_packets))
    });
}

#[test]
fn a_firewall_that_stops_the_tunnels_own_link_is_told_from_a_closed_port() {
    in_light_world(|world| {
        let gateway = start_gateway(world, &Setup::new()?)?;
        let joining = Joining::new(&world.lan_host)?;
        world.vps.nft(
            "table inet filter { chain input { type filter hook input priority filter; policy drop;
                udp dport 51820 accept; }; }\n",
        )?;
        let token = invite(&gateway)?;
        joining.is_refused(&token, "knows the token, but does not answer")?;
        world
            .vps
            .nft("add rule inet filter input iifname edge0 accept\n")?;
        joining.succeeds(&token, &["--yes"]).map(drop)
    });
}
