//! Namespaces and the cables between them.
//!
//! Every world has names of its own (`wgedge<pid>-<number>-<node>`), so any number of them run side by side. A world is removed
//! when it is dropped, also by a panic; what a killed test process left behind is removed by the next one.
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{self, Node};

/// Where `ip netns` keeps its namespaces.
const NETNS_DIR: &str = "/run/netns";
/// What the names of our namespaces and directories begin with.
const PREFIX: &str = "wgedge";

/// One end of a cable: a node and the name of the link in it.
pub type End<'a> = (&'a Node, &'a str);

/// Namespaces of one world, and the directory with everything that its programs write.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    dir: PathBuf,
    nodes: Vec<Node>,
    kept: bool,
}

impl Topology {
    /// An empty world with a name that nobody else has.
    pub fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(remove_worlds_of_the_dead);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("{PREFIX}{}-{number}", std::process::id()))
    }

    /// An empty world with a name of the caller's choice, for worlds that outlive their process.
    pub fn named(prefix: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(prefix);
        fs::create_dir(&dir).with_context(|| {
            format!(
                "cannot make {}: is there another world of this name?",
                dir.display()
            )
        })?;
        Ok(Self {
            prefix: prefix.to_owned(),
            dir,
            nodes: Vec::new(),
            kept: false,
        })
    }

    /// Directory with one directory for each node.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All nodes in the order in which they were added.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// New nodes with these names: loopback up, nothing else.
    pub fn add_nodes<const N: usize>(&mut self, names: [&str; N]) -> Result<[Node; N]> {
        let netns = names.map(|name| format!("{}-{name}", self.prefix));
        ip_batch(netns.iter().map(|name| format!("netns add {name}")))?;
        let mut added = Vec::with_capacity(N);
        for (name, netns) in names.iter().zip(&netns) {
            let node = Node::adopt(name, netns, &self.dir)?;
            self.nodes.push(node.clone());
            // Addresses must work at once, and a host of the tests is no host of the machine: no inherited switches.
            node.enter(|| {
                for (switch, value) in NODE_SWITCHES {
                    fs::write(Path::new("/proc/sys/net").join(switch), value)
                        .with_context(|| format!("cannot set {switch}"))?;
                }
                Ok(())
            })?;
            node.ip("link set lo up\n")?;
            added.push(node);
        }
        match added.try_into() {
            Ok(nodes) => Ok(nodes),
            Err(_) => bail!("the number of nodes changed on the way"),
        }
    }

    /// Lay cables (veth pairs), both ends up.
    pub fn connect(&self, cables: &[(End<'_>, End<'_>)]) -> Result<()> {
        ip_batch(cables.iter().map(|((left, left_name), (right, right_name))| {
            let (left, right) = (left.netns(), right.netns());
            format!("link add {left_name} netns {left} type veth peer name {right_name} netns {right}")
        }))?;
        for node in &self.nodes {
            let lines: Vec<String> = cables
                .iter()
                .flat_map(|(left, right)| [left, right])
                .filter(|(owner, _)| owner.netns() == node.netns())
                .map(|(_, name)| format!("link set {name} up"))
                .collect();
            if !lines.is_empty() {
                node.ip(&lines.join("\n"))?;
            }
        }
        Ok(())
    }

    /// Leave everything in place when this is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// The last lines of every log of the world, for a failure's report.
    pub fn logs(&self, lines_each: usize) -> String {
        let mut report = String::new();
        for node in &self.nodes {
            for path in logs_in(node.dir()) {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                if text.is_empty() {
                    continue;
                }
                let lines: Vec<&str> = text.lines().collect();
                let first = lines.len().saturating_sub(lines_each);
                let last = lines.get(first..).unwrap_or_default().join(
                    "
",
                );
                report.extend([
                    "--- ",
                    &path.display().to_string(),
                    "
",
                    &last,
                    "
",
                ]);
            }
        }
        report
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.nodes.clear();
        // Nothing can be done about what can't be removed, and a panic here would hide the test's own.
        let _ = remove_world(&self.prefix);
    }
}

/// Switches that every node starts with, below `/proc/sys/net`. Reverse path filtering is strict and forwarding off, as a
/// careful administrator has them: what the product needs it must set itself.
const NODE_SWITCHES: [(&str, &str); 8] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/forwarding", "0"),
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/default/send_redirects", "0"),
];

/// Kill what runs in the namespaces of the world with this prefix, and remove them and its directory.
pub fn remove_world(prefix: &str) -> Result<()> {
    let names = netns_names(&format!("{prefix}-"));
    kill_inhabitants(&names);
    ip_batch(names.iter().map(|name| format!("netns delete {name}")))?;
    let dir = std::env::temp_dir().join(prefix);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// Remove the worlds of test processes that were killed.
fn remove_worlds_of_the_dead() {
    let worlds: BTreeSet<String> = netns_names(PREFIX)
        .iter()
        .filter_map(|name| {
            let mut parts = name.splitn(3, '-');
            Some(format!("{}-{}", parts.next()?, parts.next()?))
        })
        .collect();
    for world in worlds {
        let pid = world
            .trim_start_matches(PREFIX)
            .split('-')
            .next()
            .unwrap_or_default();
        let dead = pid
            .parse::<u32>()
            .is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if dead {
            let _ = remove_world(&world);
        }
    }
}

/// Kill every process that lives in one of these namespaces.
fn kill_inhabitants(names: &[String]) {
    let homes: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NETNS_DIR).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let home = fs::metadata(process.path().join("ns/net"));
        if home.is_ok_and(|home| homes.contains(&home.ino())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn netns_names(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

fn logs_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths
}

/// `ip -batch` outside of any node: it only makes and removes namespaces, and links that are born inside them.
fn ip_batch(lines: impl Iterator<Item = String>) -> Result<()> {
    let lines = lines.collect::<Vec<_>>().join("\n");
    if lines.is_empty() {
        return Ok(());
    }
    let mut child = node::build(&["ip", "-batch", "-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: is iproute2 installed?")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`ip -batch` failed: {stderr}\nits input was:\n{lines}"
    );
    Ok(())
}
