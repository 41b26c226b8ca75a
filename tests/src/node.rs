//! A node: one host of a world, made of a network namespace and a mount namespace.
//!
//! The mount namespace gives each node a `/run` of its own. Without it two daemons with an interface `edge0` would fight for
//! `/run/wireguard/edge0.sock`, and keepalived, HAProxy and nginx for their pid files.
use std::fs::{self, File};
use std::io::Write as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Where programs are looked for: root's tools are not on every caller's path.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One host of a world. Cheap to clone; the namespaces are removed by the [`Topology`](crate::topology::Topology).
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Name within the world: `vps`.
    name: String,
    /// Name within the machine: `wgedge4711-0-vps`, for `ip netns exec`.
    netns: String,
    /// Logs, configuration and state of the programs that run here.
    dir: PathBuf,
    net: File,
    mounts: File,
}

impl Node {
    /// The node of a network namespace that exists, with its directory made under `world_dir`.
    pub(crate) fn adopt(name: &str, netns: &str, world_dir: &Path) -> Result<Self> {
        let dir = world_dir.join(name);
        let run_dir = dir.join("run");
        fs::create_dir_all(&run_dir)
            .with_context(|| format!("cannot make {}", run_dir.display()))?;
        let path = Path::new("/run/netns").join(netns);
        let net = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
        let mounts = thread::scope(|scope| {
            join(scope.spawn(|| -> Result<File> {
                setns(&net, CloneFlags::CLONE_NEWNET)?;
                private_run_dir(&run_dir)?;
                Ok(File::open("/proc/thread-self/ns/mnt")?)
            }))
        })
        .with_context(|| format!("cannot make the mount namespace of {name}"))?;
        let inner = Inner {
            name: name.to_owned(),
            netns: netns.to_owned(),
            dir,
            net,
            mounts,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Name within the world.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Name of the network namespace within the machine.
    pub fn netns(&self) -> &str {
        &self.inner.netns
    }

    /// Directory for what programs of this node read and write; seen under the same path inside and outside.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Write a file into [`dir`](Self::dir).
    pub fn write(&self, file_name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir().join(file_name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Run `work` on a thread inside the namespaces. Sockets made there and processes started there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            join(scope.spawn(|| {
                setns(&self.inner.net, CloneFlags::CLONE_NEWNET)?;
                // The kernel refuses a mount namespace to a thread whose root and directory are shared with others.
                unshare(CloneFlags::CLONE_FS)?;
                setns(&self.inner.mounts, CloneFlags::CLONE_NEWNS)?;
                work()
            }))
        })
        .with_context(|| format!("on {}", self.name()))
    }

    /// Run a command to its end and return what it wrote, whatever its exit code.
    pub fn output(&self, command: &[&str]) -> Result<Output> {
        self.output_with_input(command, "")
    }

    /// [`output`](Self::output) with `input` as standard input.
    pub fn output_with_input(&self, command: &[&str], input: &str) -> Result<Output> {
        self.enter(|| {
            let mut child = build(command)?
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))?;
            if let Some(mut stdin) = child.stdin.take() {
                // A program that ends without reading its input is no error of ours: its exit code tells.
                let _ = stdin.write_all(input.as_bytes());
            }
            Ok(child.wait_with_output()?)
        })
    }

    /// Run a command and return its standard output; an exit code other than 0 is an error that holds what it wrote.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        self.run_with_input(command, "")
    }

    /// [`run`](Self::run) with `input` as standard input.
    pub fn run_with_input(&self, command: &[&str], input: &str) -> Result<String> {
        let output = self.output_with_input(command, input)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: `{}` ended with {}\n{stdout}{stderr}{}",
                self.name(),
                command.join(" "),
                output.status,
                if input.is_empty() {
                    String::new()
                } else {
                    format!("its input was:\n{input}")
                }
            );
        }
        Ok(stdout)
    }

    /// Several `ip` commands at once, one a line, without the word `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run_with_input(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// Load an nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.run_with_input(&["nft", "-f", "-"], script).map(drop)
    }

    /// Set a kernel switch, named as under `/proc/sys`: `net/ipv4/ip_forward`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| {
            fs::write(&path, value)
                .with_context(|| format!("cannot set {} to {value}", path.display()))
        })
    }

    /// Read a kernel switch.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.trim().to_owned())
        })
    }

    /// Whether one echo request to `address` is answered within a second.
    pub fn pings(&self, address: &str) -> Result<()> {
        self.run(&["ping", "-n", "-c", "1", "-W", "1", address])
            .map(drop)
    }
}

/// The command with our search path; nothing of it runs yet.
pub(crate) fn build(command: &[&str]) -> Result<Command> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("an empty command");
    };
    let mut built = Command::new(program);
    built.args(arguments).env("PATH", PATH).env("LC_ALL", "C");
    Ok(built)
}

/// A thread's result, with its panic passed on.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// Give the calling thread a mount namespace whose `/run` is `run_dir` and whose `/sys` shows its network namespace.
fn private_run_dir(run_dir: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    // Slave, not private: `ip netns delete` outside must unmount our copy of the namespace file too, or we keep it alive.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(Some(run_dir), "/run", none, MsFlags::MS_BIND, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    Ok(())
}
