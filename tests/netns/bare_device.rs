//! `gateway wg INTERFACE`: a userspace WireGuard device that only `wg` configures; and `wg` on the daemons' own interfaces.
//!
//! ```text
//!  one 192.0.2.1 ── eth0 ── eth0 ── 192.0.2.2 two        inside: 10.0.0.1 and 10.0.0.2
//! ```
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::edge::{Setup, binary};
use tests::expect::eventually;
use tests::keys::KeyPair;
use tests::node::Node;
use tests::topology::Topology;
use tests::wireguard_go::WireguardGo;

use crate::support::{SOON, in_topology, with_edge};

/// Rekey-Timeout with its jitter, and a round trip.
const REKEY_TIMEOUT: Duration = Duration::from_secs(6);

/// What makes an interface on a side.
#[derive(Clone, Copy, Debug)]
enum Program {
    Ours,
    WireguardGo,
}

fn device(program: Program, node: &Node, address: &str, config: &str) -> Result<WireguardGo> {
    let lines = format!("addr add {address}/24 dev wg0\n");
    match program {
        Program::Ours => {
            let gateway = binary("gateway")?;
            WireguardGo::start_program(node, "wg0", &[&gateway, "wg", "wg0"], config, &lines)
        }
        Program::WireguardGo => WireguardGo::start(node, "wg0", config, &lines),
    }
}

fn two_nodes(topology: &mut Topology) -> Result<[Node; 2]> {
    let [one, two] = topology.add_nodes(["one", "two"])?;
    topology.connect(&[((&one, "eth0"), (&two, "eth0"))])?;
    one.ip("addr add 192.0.2.1/24 dev eth0\n")?;
    two.ip("addr add 192.0.2.2/24 dev eth0\n")?;
    Ok([one, two])
}

fn config(own: &KeyPair, port: u16, peer: &KeyPair, endpoint: &str, allowed: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n[Peer]\nPublicKey = {}\nEndpoint = {endpoint}\nAllowedIPs = {allowed}\n",
        own.private.to_base64().as_str(),
        peer.public
    )
}

fn ping_between(one_runs: Program, two_runs: Program) {
    in_topology(|topology| {
        let [one, two] = two_nodes(topology)?;
        let (a, b) = (KeyPair::generate()?, KeyPair::generate()?);
        let _one = device(
            one_runs,
            &one,
            "10.0.0.1",
            &config(&a, 1000, &b, "192.0.2.2:2000", "10.0.0.2/32"),
        )?;
        let _two = device(
            two_runs,
            &two,
            "10.0.0.2",
            &config(&b, 2000, &a, "192.0.2.1:1000", "10.0.0.1/32"),
        )?;
        // The first side to come up dials into the void; its next try is due after Rekey-Timeout (whitepaper §6.1).
        eventually(REKEY_TIMEOUT, "an answer from the second side", || {
            one.pings("10.0.0.2")
        })?;
        two.pings("10.0.0.1")?;
        one.run(&[
            "ping", "-n", "-q", "-c", "20", "-i", "0.01", "-s", "1392", "-M", "do", "10.0.0.2",
        ])?;
        Ok(())
    });
}

#[test]
fn two_bare_devices_reach_each_other() {
    ping_between(Program::Ours, Program::Ours);
}

#[test]
fn bare_device_initiates_to_wireguard_go() {
    ping_between(Program::Ours, Program::WireguardGo);
}

#[test]
fn wireguard_go_initiates_to_bare_device() {
    ping_between(Program::WireguardGo, Program::Ours);
}

#[test]
fn wg_set_setconf_syncconf_and_show_work_on_a_bare_device() {
    in_topology(|topology| {
        let [one, _two] = two_nodes(topology)?;
        let (a, b, c) = (
            KeyPair::generate()?,
            KeyPair::generate()?,
            KeyPair::generate()?,
        );
        let text = config(&a, 1000, &b, "192.0.2.2:2000", "10.0.0.2/32");
        let device = device(Program::Ours, &one, "10.0.0.1", &text)?;
        assert_eq!(device.show("public-key")?.trim(), a.public.to_string());
        assert_eq!(device.show("listen-port")?.trim(), "1000");
        assert_eq!(
            device.show("endpoints")?.trim(),
            format!("{}\t192.0.2.2:2000", b.public)
        );

        let peer = c.public.to_string();
        device.set(&[
            "peer",
            &peer,
            "allowed-ips",
            "10.0.0.3/32,fd00::3/128",
            "persistent-keepalive",
            "17",
        ])?;
        assert_eq!(
            device.show("peers")?.lines().collect::<Vec<_>>(),
            [b.public.to_string(), peer.clone()]
        );
        assert!(
            device
                .show("allowed-ips")?
                .contains(&format!("{peer}\t10.0.0.3/32 fd00::3/128"))
        );
        assert!(
            device
                .show("persistent-keepalive")?
                .contains(&format!("{peer}\t17"))
        );
        device.set(&["listen-port", "1001", "fwmark", "0x17"])?;
        assert_eq!(device.show("listen-port")?.trim(), "1001");
        assert_eq!(device.show("fwmark")?.trim(), "0x17");
        device.set(&["peer", &peer, "remove"])?;
        assert_eq!(device.show("peers")?.trim(), b.public.to_string());

        device.configure(
            "addconf",
            &format!("[Peer]\nPublicKey = {peer}\nAllowedIPs = 10.0.0.4/32\n"),
        )?;
        assert_eq!(device.show("peers")?.lines().count(), 2);
        device.configure("syncconf", &text)?;
        assert_eq!(device.show("peers")?.trim(), b.public.to_string());
        assert_eq!(device.show("listen-port")?.trim(), "1000");
        let shown = one.run(&["wg", "showconf", "wg0"])?;
        assert!(shown.contains("AllowedIPs = 10.0.0.2/32"), "{shown}");
        Ok(())
    });
}

#[test]
fn bare_device_ends_with_its_link_and_on_sigterm() {
    in_topology(|topology| {
        let [one, two] = two_nodes(topology)?;
        let (a, b) = (KeyPair::generate()?, KeyPair::generate()?);
        let text = config(&a, 1000, &b, "192.0.2.2:2000", "10.0.0.2/32");
        let mut device_of_one = device(Program::Ours, &one, "10.0.0.1", &text)?;
        one.ip("link del wg0\n")?;
        let status = device_of_one.daemon.wait(SOON)?;
        assert!(status.success(), "{status}: {}", device_of_one.daemon.log());
        let mut device_of_two = device(Program::Ours, &two, "10.0.0.1", &text)?;
        let status = device_of_two.daemon.stop(Signal::SIGTERM, SOON)?;
        assert!(status.success(), "{status}: {}", device_of_two.daemon.log());
        for node in [&one, &two] {
            assert!(node.run(&["ip", "link", "show", "dev", "wg0"]).is_err());
            assert!(!node.dir().join("run/wireguard/wg0.sock").exists());
        }
        Ok(())
    });
}

#[test]
fn wg_shows_and_changes_the_daemons_interfaces() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let handshakes = world
            .vps
            .run(&["wg", "show", "edge0", "latest-handshakes"])?;
        let line = format!("{}\t", edge.setup.lan_server.public);
        let age = handshakes
            .lines()
            .find_map(|l| l.strip_prefix(&line))
            .unwrap_or("0");
        assert_ne!(age, "0", "{handshakes}");
        let more = KeyPair::generate()?.public.to_string();
        world.vps.run(&[
            "wg",
            "set",
            "edge0",
            "peer",
            &more,
            "allowed-ips",
            "10.17.0.99/32",
        ])?;
        eventually(SOON, "the new peer is listed", || {
            let peers = world.vps.run(&["wg", "show", "edge0", "peers"])?;
            tests::expect::holds(peers.contains(&more), || peers.clone())
        })
    });
}
