//! Network namespaces joined by veth pairs, with devices in them as processes of their own.
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shared_os::netns::UNPRIVILEGED;
use tempfile::TempDir;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells the process that [`super::device_process`] is which device to be.
pub(super) const DEVICE_VARIABLE: &str = "WG_EDGE_TEST_DEVICE";

/// A name that nothing else on this host has: namespaces and UAPI sockets are seen by all.
pub(super) fn unique_name(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{kind}{}x{number}", std::process::id())
}

/// Run a program; its standard output, or its standard error if it failed.
pub(super) fn try_run(arguments: &[&str]) -> Result<String, String> {
    let (program, arguments) = arguments.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .env("WG_HIDE_KEYS", "never")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[track_caller]
pub(super) fn run(arguments: &[&str]) -> String {
    try_run(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

/// Wait until `fact` holds; a test that waits longer has failed.
#[track_caller]
pub(super) fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < PATIENCE, "not in ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A network namespace, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) name: String,
}

impl Namespace {
    pub(super) fn new() -> Self {
        let name = unique_name("uapi");
        if let Err(error) = try_run(&["ip", "netns", "add", &name]) {
            panic!(
                "this test needs root to make a network namespace ({error}); {UNPRIVILEGED}=1 skips it"
            );
        }
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    pub(super) fn ip(&self, arguments: &str) -> String {
        let mut command = vec!["ip", "-n", &self.name];
        command.extend(arguments.split(' '));
        run(&command)
    }

    pub(super) fn has_link(&self, link: &str) -> bool {
        try_run(&["ip", "-n", &self.name, "link", "show", link]).is_ok()
    }

    /// Join both by a veth pair, whose ends are `link`, with 192.0.2.`ours`/24 and 192.0.2.`theirs`/24.
    pub(super) fn join(&self, link: &str, ours: u8, other: &Self, theirs: u8) {
        self.ip(&format!(
            "link add {link} type veth peer name {link} netns {}",
            other.name
        ));
        for (namespace, host) in [(self, ours), (other, theirs)] {
            namespace.ip(&format!("address add 192.0.2.{host}/24 dev {link}"));
            namespace.ip(&format!("link set {link} up"));
        }
    }

    /// Whether one of `count` pings to `address` is answered.
    pub(super) fn pings(&self, address: &str, count: u32) -> bool {
        let count = count.to_string();
        let options = ["-q", "-c", &count, "-i", "0.1", "-W", "1", address];
        let mut command = vec!["ip", "netns", "exec", &self.name, "ping"];
        command.extend(options);
        try_run(&command).is_ok()
    }

    #[track_caller]
    pub(super) fn must_ping(&self, address: &str) {
        eventually(&format!("{address} answers"), || self.pings(address, 1));
        assert!(self.pings(address, 5));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Also after a failed test; nothing can be done about an error.
        let _removed = try_run(&["ip", "netns", "delete", &self.name]);
    }
}

/// Which implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Ours,
    WireguardGo,
}

/// A running device, ended when dropped.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) interface: String,
    pub(super) public_key: String,
    process: Child,
    files: TempDir,
}

impl Device {
    /// Start a device in `namespace` and wait for its socket.
    #[track_caller]
    pub(super) fn start(engine: Engine, namespace: &Namespace) -> Self {
        let mut device = Self::launch(engine, namespace, &unique_name("u"));
        eventually("the device is ready", || {
            assert!(device.exit_status().is_none(), "{}", device.log());
            device.socket().exists() && try_run(&["wg", "show", &device.interface]).is_ok()
        });
        device
    }

    /// Start a device without waiting.
    pub(super) fn launch(engine: Engine, namespace: &Namespace, interface: &str) -> Self {
        let files = TempDir::new().unwrap();
        let log = File::create(files.path().join("log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]);
        match engine {
            Engine::Ours => command
                .arg(std::env::current_exe().unwrap())
                .args([
                    "bare::tests::device_process",
                    "--exact",
                    "--ignored",
                    "--nocapture",
                ])
                .env(DEVICE_VARIABLE, interface),
            Engine::WireguardGo => command.args(["wireguard-go", "-f", interface]),
        };
        let process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            interface: interface.to_owned(),
            public_key: String::new(),
            process,
            files,
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap()
    }

    pub(super) fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/run/wireguard/{}.sock", self.interface))
    }

    /// `wg set INTERFACE ARGUMENTS…`
    #[track_caller]
    pub(super) fn set(&self, arguments: &str) {
        let mut command = vec!["wg", "set", &self.interface];
        command.extend(arguments.split_whitespace());
        run(&command);
    }

    #[track_caller]
    pub(super) fn show(&self, what: &str) -> String {
        run(&["wg", "show", &self.interface, what])
    }

    /// Give the device a new private key.
    pub(super) fn set_new_key(&mut self) {
        let key = run(&["wg", "genkey"]);
        let path = self.files.path().join("key");
        fs::write(&path, &key).unwrap();
        self.set(&format!("private-key {}", path.display()));
        self.public_key = self.show("public-key").trim().to_owned();
    }

    /// A file with these bytes, for `wg`.
    pub(super) fn file(&self, text: &str) -> String {
        let path = self.files.path().join(unique_name("file"));
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The number of a column of `wg show` for the only peer: `latest-handshakes`, or the sum of `transfer`.
    pub(super) fn number(&self, what: &str) -> u64 {
        let line = self.show(what);
        let numbers = line.split_whitespace().skip(1);
        numbers.map(|number| number.parse::<u64>().unwrap()).sum()
    }

    /// How the process ended, if it did.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Wait for the end of the process; its exit code.
    #[track_caller]
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        eventually("the process ends", || self.exit_status().is_some());
        self.exit_status().and_then(|status| status.code())
    }

    pub(super) fn signal(&self, signal: &str) {
        run(&["kill", signal, &self.process.id().to_string()]);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        // Asked, it removes its socket file, as it would not when killed.
        let _ended_before = try_run(&["kill", &self.process.id().to_string()]);
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Two devices, joined, with keys, addresses 10.9.0.1 and 10.9.0.2, up, and each other's only peer.
pub(super) struct Pair {
    pub(super) a: Device,
    pub(super) b: Device,
    pub(super) at_a: Namespace,
    pub(super) at_b: Namespace,
}

impl Pair {
    #[track_caller]
    pub(super) fn new(a: Engine, b: Engine) -> Self {
        let (at_a, at_b) = (Namespace::new(), Namespace::new());
        at_a.join("wan", 1, &at_b, 2);
        let mut pair = Self {
            a: Device::start(a, &at_a),
            b: Device::start(b, &at_b),
            at_a,
            at_b,
        };
        for (namespace, device, host) in
            [(&pair.at_a, &mut pair.a, 1), (&pair.at_b, &mut pair.b, 2)]
        {
            device.set_new_key();
            device.set(&format!("listen-port {}", 1000 + host));
            let link = &device.interface;
            namespace.ip(&format!("address add 10.9.0.{host}/24 dev {link}"));
            namespace.ip(&format!("link set {link} up"));
        }
        pair
    }

    /// Make each the other's peer; only A knows where the other is, so A has to begin.
    pub(super) fn introduce(&self) {
        self.b.set(&format!(
            "peer {} allowed-ips 10.9.0.1/32",
            self.a.public_key
        ));
        self.a.set(&format!(
            "peer {} allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:1002",
            self.b.public_key
        ));
    }
}
