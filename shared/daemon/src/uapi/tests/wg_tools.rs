//! What wireguard-tools say to us and understand from us: the real `wg`, on the directory that is built into it.
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use shared::model::InterfaceName;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use super::{MemoryDevice, is_unprivileged_run, run, unique_name};
use crate::uapi::Server;

const PRIVATE_KEY: &str = "ENaxUtcmT3NMl1HfKcK22TtJ6r2S8Go7cTEL+hbRkVU=";
const PUBLIC_KEY: &str = "SabzCIFp8NCwI8gdGFRjVbw/LV+b+AnaotxqIpxy92A=";
const PRESHARED_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const BOB: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const DAVE: &str = "ZGF2ZWRhdmVkYXZlZGF2ZWRhdmVkYXZlZGF2ZWRhdmU=";
const CAROL: &str = "Y2Fyb2xjYXJvbGNhcm9sY2Fyb2xjYXJvbGNhcm9sY2E=";

/// A served device, and `wg` for it.
struct Fixture {
    interface: InterfaceName,
    device: MemoryDevice,
    server: JoinHandle<std::io::Result<()>>,
}

impl Fixture {
    /// `None` in an unprivileged run.
    fn new() -> Option<Self> {
        if is_unprivileged_run() {
            return None;
        }
        let interface = unique_name();
        let device = MemoryDevice::new();
        let server =
            Server::bind(&interface).expect("root; WG_EDGE_UNPRIVILEGED=1 skips this test");
        let server = tokio::spawn(server.serve(device.clone()));
        Some(Self {
            interface,
            device,
            server,
        })
    }

    /// `wg VERB INTERFACE ARGUMENTS…`: standard output, or standard error of a failure.
    async fn wg(&self, verb: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("wg");
        command.arg(verb).arg(self.interface.as_str());
        command.args(arguments).env("WG_HIDE_KEYS", "never");
        let output = run(command).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    async fn set(&self, arguments: &[&str]) {
        let said = self.wg("set", arguments).await;
        assert_eq!(said.as_deref(), Ok(""), "wg set {arguments:?}");
    }

    async fn show(&self, what: &str) -> String {
        self.wg("show", &[what]).await.unwrap()
    }

    /// Column `what` of `wg show` as one line for each peer, without the peer's key.
    async fn show_peers(&self, what: &str) -> Vec<String> {
        let table = self.show(what).await;
        let value = |line: &str| {
            line.split_once('\t')
                .map_or("", |(_, value)| value)
                .to_owned()
        };
        table.lines().map(value).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort(); // which drops the server with its socket file
    }
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

#[tokio::test]
async fn device_keys_can_be_set_and_shown() {
    let Some(f) = Fixture::new() else { return };
    let key = file(PRIVATE_KEY);
    f.set(&[
        "listen-port",
        "51820",
        "fwmark",
        "0xca6c",
        "private-key",
        path(&key),
    ])
    .await;
    assert_eq!(f.show("listen-port").await, "51820\n");
    assert_eq!(f.show("fwmark").await, "0xca6c\n");
    assert_eq!(f.show("private-key").await.trim(), PRIVATE_KEY);
    assert_eq!(f.show("public-key").await.trim(), PUBLIC_KEY);

    f.set(&["fwmark", "off"]).await;
    assert_eq!(f.show("fwmark").await, "off\n");
    assert_eq!(f.show("listen-port").await, "51820\n");

    f.set(&["private-key", "/dev/null"]).await;
    assert_eq!(f.show("private-key").await, "(none)\n");
}

#[tokio::test]
async fn every_form_of_a_peer_can_be_set_and_shown() {
    let Some(f) = Fixture::new() else { return };
    let preshared_key = file(PRESHARED_KEY);
    f.set(&["peer", BOB]).await;
    assert_eq!(f.show("peers").await.trim(), BOB);
    assert_eq!(f.show_peers("preshared-keys").await, ["(none)"]);
    assert_eq!(f.show_peers("endpoints").await, ["(none)"]);
    assert_eq!(f.show_peers("allowed-ips").await, ["(none)"]);
    assert_eq!(f.show_peers("latest-handshakes").await, ["0"]);
    assert_eq!(f.show_peers("transfer").await, ["0\t0"]);
    assert_eq!(f.show_peers("persistent-keepalive").await, ["off"]);

    f.set(&[
        "peer",
        BOB,
        "preshared-key",
        path(&preshared_key),
        "endpoint",
        "192.0.2.1:51820",
        "persistent-keepalive",
        "25",
        "allowed-ips",
        "10.0.0.0/8,2001:db8::/32",
    ])
    .await;
    assert_eq!(f.show_peers("preshared-keys").await, [PRESHARED_KEY]);
    assert_eq!(f.show_peers("endpoints").await, ["192.0.2.1:51820"]);
    assert_eq!(
        f.show_peers("allowed-ips").await,
        ["10.0.0.0/8 2001:db8::/32"]
    );
    assert_eq!(f.show_peers("persistent-keepalive").await, ["25"]);

    f.set(&["peer", BOB, "endpoint", "[2001:db8::1]:7"]).await;
    f.set(&["peer", BOB, "persistent-keepalive", "off"]).await;
    f.set(&["peer", BOB, "preshared-key", "/dev/null"]).await;
    f.set(&["peer", BOB, "allowed-ips", "10.1.0.0/16"]).await;
    assert_eq!(f.show_peers("endpoints").await, ["[2001:db8::1]:7"]);
    assert_eq!(f.show_peers("persistent-keepalive").await, ["off"]);
    assert_eq!(f.show_peers("preshared-keys").await, ["(none)"]);
    assert_eq!(f.show_peers("allowed-ips").await, ["10.1.0.0/16"]);

    f.set(&["peer", BOB, "allowed-ips", ""]).await;
    assert_eq!(f.show_peers("allowed-ips").await, ["(none)"]);

    f.set(&["peer", CAROL, "peer", BOB, "remove"]).await;
    assert_eq!(f.show("peers").await.trim(), CAROL);
}

#[tokio::test]
async fn link_local_endpoints_carry_the_name_of_their_link() {
    let Some(f) = Fixture::new() else { return };
    f.set(&["peer", BOB, "endpoint", "[fe80::1%lo]:7"]).await;
    assert_eq!(f.show_peers("endpoints").await, ["[fe80::1%lo]:7"]);
}

#[tokio::test]
async fn peers_are_listed_in_the_order_in_which_they_came() {
    let Some(f) = Fixture::new() else { return };
    f.set(&["peer", CAROL, "peer", BOB, "peer", DAVE]).await;
    f.set(&["peer", BOB, "persistent-keepalive", "1"]).await;
    let listed = f.show("peers").await;
    assert_eq!(listed.lines().collect::<Vec<_>>(), [CAROL, BOB, DAVE]);
}

#[tokio::test]
async fn our_own_key_is_no_peer() {
    let Some(f) = Fixture::new() else { return };
    let key = file(PRIVATE_KEY);
    f.set(&["private-key", path(&key), "peer", PUBLIC_KEY, "peer", BOB])
        .await;
    assert_eq!(f.show("peers").await.trim(), BOB);
}

#[tokio::test]
async fn an_allowed_ip_moves_to_the_peer_that_names_it_last() {
    let Some(f) = Fixture::new() else { return };
    f.set(&["peer", BOB, "allowed-ips", "10.0.0.0/8,10.2.0.0/16"])
        .await;
    f.set(&["peer", CAROL, "allowed-ips", "10.2.0.0/16"]).await;
    assert_eq!(
        f.show_peers("allowed-ips").await,
        ["10.0.0.0/8", "10.2.0.0/16"]
    );
}

const CONFIGURATION: &str = "[Interface]
ListenPort = 51820
FwMark = 0x20
PrivateKey = ENaxUtcmT3NMl1HfKcK22TtJ6r2S8Go7cTEL+hbRkVU=

[Peer]
PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
PresharedKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
AllowedIPs = 10.0.0.0/8, 2001:db8::/32
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25

[Peer]
PublicKey = Y2Fyb2xjYXJvbGNhcm9sY2Fyb2xjYXJvbGNhcm9sY2E=
AllowedIPs = 192.168.0.0/16
";

#[tokio::test]
async fn setconf_and_showconf_are_inverse() {
    let Some(f) = Fixture::new() else { return };
    let configuration = file(CONFIGURATION);
    f.wg("setconf", &[path(&configuration)]).await.unwrap();
    let shown = f.wg("showconf", &[]).await.unwrap();
    assert_eq!(shown.trim(), CONFIGURATION.trim());
    f.wg("setconf", &[path(&file(&shown))]).await.unwrap();
    assert_eq!(f.wg("showconf", &[]).await.unwrap(), shown);
}

#[tokio::test]
async fn setconf_takes_away_what_is_not_named() {
    let Some(f) = Fixture::new() else { return };
    f.wg("setconf", &[path(&file(CONFIGURATION))])
        .await
        .unwrap();
    let less = file(&format!("[Interface]\n[Peer]\nPublicKey = {BOB}\n"));
    f.wg("setconf", &[path(&less)]).await.unwrap();
    assert_eq!(f.show("peers").await.trim(), BOB);
    assert_eq!(f.show("private-key").await, "(none)\n");
    assert_eq!(f.show("fwmark").await, "off\n");
    assert_eq!(f.show_peers("preshared-keys").await, ["(none)"]);
    assert_eq!(f.show_peers("allowed-ips").await, ["(none)"]);
    assert_eq!(f.show_peers("persistent-keepalive").await, ["off"]);
}

#[tokio::test]
async fn addconf_adds_and_syncconf_changes_what_differs() {
    let Some(f) = Fixture::new() else { return };
    f.wg("setconf", &[path(&file(CONFIGURATION))])
        .await
        .unwrap();
    let more = format!("[Peer]\nPublicKey = {DAVE}\nAllowedIPs = 172.16.0.0/12\n");
    f.wg("addconf", &[path(&file(&more))]).await.unwrap();
    let listed = f.show("peers").await;
    assert_eq!(listed.lines().collect::<Vec<_>>(), [BOB, CAROL, DAVE]);

    f.wg("syncconf", &[path(&file(CONFIGURATION))])
        .await
        .unwrap();
    let shown = f.wg("showconf", &[]).await.unwrap();
    assert_eq!(shown.trim(), CONFIGURATION.trim());
}

#[tokio::test]
async fn the_reader_of_wg_show_gets_all_of_it() {
    let Some(f) = Fixture::new() else { return };
    f.wg("setconf", &[path(&file(CONFIGURATION))])
        .await
        .unwrap();
    f.device.set_traffic(Duration::from_secs(30), 92, 2048);
    let shown = f.wg("show", &[]).await.unwrap();
    assert!(shown.contains("listening port: 51820"), "{shown}");
    assert!(
        shown.contains("transfer: 92 B received, 2.00 KiB sent"),
        "{shown}"
    );
    // A second less, too: `wg` asks time(2), which knows only the last tick, and our second may be the newer one.
    let ago = |age: u32| shown.contains(&format!("latest handshake: {age} seconds ago"));
    assert!((29..40).any(ago), "{shown}");
    let dump = f.show("dump").await;
    assert_eq!(dump.lines().count(), 3);
    assert_eq!(f.show_peers("transfer").await, ["92\t2048", "0\t0"]);
}

#[tokio::test]
async fn the_device_is_among_the_interfaces() {
    let Some(f) = Fixture::new() else { return };
    let mut command = Command::new("wg");
    command.args(["show", "interfaces"]);
    let output = run(command).await;
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut names = listed.split_whitespace();
    assert!(names.any(|name| name == f.interface.as_str()), "{listed}");
}

#[tokio::test]
async fn a_busy_port_is_told_in_words_and_changes_nothing() {
    let Some(f) = Fixture::new() else { return };
    let error = f
        .wg("set", &["listen-port", "1", "fwmark", "9"])
        .await
        .unwrap_err();
    assert!(error.contains("Address already in use"), "{error}");
    assert_eq!(f.show("fwmark").await, "off\n");
}

#[tokio::test]
async fn two_thousand_peers_and_65_536_allowed_ips_pass_both_ways() {
    use std::fmt::Write as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let Some(f) = Fixture::new() else { return };
    let mut text = "[Interface]\n".to_owned();
    for n in 0..2_000_u32 {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        let (high, low) = (n / 256, n % 256);
        writeln!(text, "[Peer]\nPublicKey = {}", STANDARD.encode(key)).unwrap();
        writeln!(text, "AllowedIPs = 10.{high}.{low}.0/24").unwrap();
    }
    f.wg("setconf", &[path(&file(&text))]).await.unwrap();
    assert_eq!(f.show("peers").await.lines().count(), 2_000);
    assert_eq!(f.show_peers("allowed-ips").await[1_999], "10.7.207.0/24");

    let mut text = format!("[Interface]\n[Peer]\nPublicKey = {BOB}\n");
    for n in 0..=u16::MAX {
        let longest = "fdff:ffff:ffff:ffff:ffff:ffff:ffff";
        writeln!(text, "AllowedIPs = {longest}:{n:x}/128").unwrap();
    }
    f.wg("setconf", &[path(&file(&text))]).await.unwrap();
    let networks = f.show_peers("allowed-ips").await;
    assert_eq!(networks[0].split(' ').count(), 65_536);
}
