//! What `packaging/` installs, as systemd's own tools see it: units without mistakes and hardened, the user, the directories.
//! The packages themselves are looked at by `script/package` and `script/test-package`.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use tests::edge::binary;
use tests::privilege::namespaces_allowed;

/// Most that `systemd-analyze security` may say, in tenths: from 0 (locked up) to 100 (may do anything).
const MOST_EXPOSED: &str = "20";

fn packaging(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging")).join(path)
}

fn text(path: &str) -> String {
    let path = packaging(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a tool, which has to be there.
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"))
}

fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams
        .map(|stream| String::from_utf8_lossy(stream))
        .concat()
}

/// The unit of a program in a directory of its own, with the program where it was built.
fn unit(name: &str) -> (Scratch, String) {
    let scratch = Scratch::new(&format!("unit-{name}"));
    let file = format!("wg-edge-{name}.service");
    let installed = format!("/usr/sbin/{name} ");
    let unit = text(&format!("systemd/{file}"));
    assert!(
        unit.contains(&installed),
        "{installed} is not what it starts"
    );
    let built = format!("{} ", binary(name).expect("a built program"));
    let path = scratch.0.join(file);
    fs::write(&path, unit.replace(&installed, &built)).expect("a unit in a scratch directory");
    (scratch, path.to_str().expect("a path in UTF-8").to_owned())
}

/// A directory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = format!("wg-edge-packaging-{}-{number}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(dir);
        fs::create_dir(&dir).expect("a scratch directory");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn units_have_no_mistakes() {
    for name in ["gateway", "lan-server"] {
        let (_scratch, path) = unit(name);
        let output = run(
            "systemd-analyze",
            &["verify", "--man=no", "--recursive-errors=no", &path],
        );
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        // A key that this version does not know is a warning only.
        let of_ours = said.lines().find(|line| line.contains("wg-edge-"));
        assert_eq!(of_ours, None, "{said}");
    }
}

#[test]
fn units_are_exposed_by_2_of_10_at_most() {
    for name in ["gateway", "lan-server"] {
        let (_scratch, path) = unit(name);
        let threshold = format!("--threshold={MOST_EXPOSED}");
        let arguments = [
            "security",
            "--no-pager",
            "--offline=true",
            &threshold,
            &path,
        ];
        let output = run("systemd-analyze", &arguments);
        let said = said(&output);
        assert!(said.contains("Overall exposure level"), "{said}");
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn units_differ_in_names_only() {
    let [gateway, lan_server] = ["gateway", "lan-server"].map(|name| {
        let unit = text(&format!("systemd/wg-edge-{name}.service"));
        let settings = unit.lines().filter(|line| !line.starts_with(['#', 'D']));
        let settings: Vec<String> = settings.map(|line| line.replace(name, "NAME")).collect();
        settings
    });
    assert_eq!(gateway, lan_server);
}

#[test]
fn user_and_directories_are_made() {
    if !namespaces_allowed().unwrap() {
        return; // only root gives directories away
    }
    let scratch = Scratch::new("root");
    fs::create_dir(scratch.0.join("etc")).unwrap();
    let root = format!("--root={}", scratch.0.display());
    let file = |path: &str| packaging(path).to_str().unwrap().to_owned();
    let output = run(
        "systemd-sysusers",
        &[&root, &file("sysusers.d/wg-edge.conf")],
    );
    assert!(output.status.success(), "{}", said(&output));
    let users = fs::read_to_string(scratch.0.join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("wg-edge:"));
    let user: Vec<&str> = user.expect("the user").split(':').collect();
    assert_eq!(
        (user[5], user[6]),
        ("/var/lib/wg-edge", "/usr/sbin/nologin")
    );

    let output = run(
        "systemd-tmpfiles",
        &[&root, "--create", &file("tmpfiles.d/wg-edge.conf")],
    );
    assert!(output.status.success(), "{}", said(&output));
    let sockets = fs::metadata(scratch.0.join("run/wireguard")).unwrap();
    assert_eq!(sockets.mode() & 0o7777, 0o1770);
    assert_eq!(
        (sockets.uid().to_string(), sockets.gid().to_string()),
        ("0".to_owned(), user[3].to_owned())
    );
    assert!(scratch.0.join("etc/wg-edge").is_dir());
}

/// What architecture.md lists as "sysctls of others" can be preset: each stands in the file, in force or to be taken over.
#[test]
fn sysctls_of_others_are_in_the_file() {
    let file = text("sysctl.d/wg-edge.conf");
    for (line, in_force) in [
        ("net.ipv4.ip_forward = 1", true),
        ("net.ipv6.conf.all.forwarding = 1", false),
        ("net.ipv6.conf.eth0.accept_ra = 2", false),
    ] {
        let wanted = if in_force {
            line.to_owned()
        } else {
            format!("#{line}")
        };
        assert!(file.lines().any(|line| line == wanted), "{wanted}");
    }
}

/// Quadlet, Butane and cloud-init name images and packages by their version, and nobody reads them when it changes.
#[test]
fn images_and_packages_are_named_by_this_version() {
    for (file, times) in [
        ("quadlet/wg-edge-gateway.container", 1),
        ("quadlet/wg-edge-lan-server.container", 1),
        ("flatcar/gateway.bu", 3),
        ("flatcar/lan-server.bu", 3),
        ("cloud-init/gateway.yml", 1),
    ] {
        let text = text(file);
        let versions: Vec<&str> = text.split("wg-edge-").filter_map(version).collect();
        assert_eq!(versions, vec![env!("CARGO_PKG_VERSION"); times], "{file}");
    }
}

/// The version in the name of a file or image, of which the beginning is left out.
fn version(name: &str) -> Option<&str> {
    let name = name
        .strip_prefix("gateway")
        .or_else(|| name.strip_prefix("lan-server"))?;
    let version = name.strip_prefix(['-', '_', ':'])?;
    let version = version.split(['-', '_', '\n']).next()?;
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then_some(version)
}

#[test]
fn configuration_in_butane_is_right() {
    let butane = text("flatcar/gateway.bu");
    let butane: serde_yaml_ng::Value = serde_yaml_ng::from_str(&butane).unwrap();
    let files = butane["storage"]["files"].as_sequence().unwrap();
    let file = files
        .iter()
        .find(|file| file["path"] == "/etc/wg-edge/gateway.toml");
    let content = &file.expect("the configuration")["contents"]["inline"];
    let scratch = Scratch::new("butane");
    let path = scratch.0.join("gateway.toml");
    fs::write(&path, content.as_str().unwrap()).unwrap();
    let config = format!("--config={}", path.display());
    let output = run(&binary("gateway").unwrap(), &["check", &config]);
    assert!(output.status.success(), "{}", said(&output));
}
