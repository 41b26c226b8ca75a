//! A long-running program of a node.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::expect::{eventually, holds};
use crate::node::{self, Node};

/// A program in the background, in a process group of its own, whose output is a log file of the node. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    node: Node,
    log_path: PathBuf,
    /// Where in the log this process began: a predecessor of the same name wrote what stands before.
    log_start: usize,
    /// `None` once it was waited for or released.
    child: Option<Child>,
    pid: Pid,
}

impl Daemon {
    /// Start a program; a log of that name is continued.
    pub fn start(node: &Node, name: &str, command: &[&str]) -> Result<Self> {
        Self::start_with_env(node, name, command, &[])
    }

    /// [`start`](Self::start) with more environment variables.
    pub fn start_with_env(
        node: &Node,
        name: &str,
        command: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut built = node::build(command)?;
        built.process_group(0);
        Self::spawn(node, name, built, env)
    }

    /// The same in a session of its own, as a service manager starts it: the scheduler weighs sessions against each other
    /// (`sched(7)`, autogroups), and everything that it starts can be told by its session, which is [`pid`](Self::pid).
    pub fn start_in_session(
        node: &Node,
        name: &str,
        command: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        // setsid(1) becomes the program, without a process in between, when it leads no process group.
        let mut built = node::build(&["setsid"])?;
        built.args(command);
        Self::spawn(node, name, built, env)
    }

    fn spawn(node: &Node, name: &str, mut command: Command, env: &[(&str, &str)]) -> Result<Self> {
        let log_path = node.dir().join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let log_start = usize::try_from(log.metadata()?.len())?;
        let child = node.enter(|| {
            command
                .envs(env.iter().copied())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))
        })?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self {
            name: name.to_owned(),
            node: node.clone(),
            log_path,
            log_start,
            child: Some(child),
            pid,
        })
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The node that it runs on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        let whole = fs::read(&self.log_path).unwrap_or_default();
        String::from_utf8_lossy(whole.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// Fails, with the log, when it has ended.
    pub fn alive(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else {
            bail!("{} on {} was stopped", self.name, self.node.name());
        };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                bail!(
                    "{} on {} ended with {status}; its log:\n{}",
                    self.name,
                    self.node.name(),
                    self.log()
                )
            }
        }
    }

    /// Wait until `ready` holds; fails at once when the program ends.
    pub fn wait_until<T>(
        &mut self,
        within: Duration,
        what: &str,
        mut ready: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let mut ended = None;
        let found = eventually(within, what, || {
            if let Err(error) = self.alive() {
                ended = Some(error);
                return Ok(None);
            }
            ready().map(Some)
        });
        match (ended, found) {
            (Some(error), _) => Err(error.context(format!("before {what}"))),
            (None, Ok(Some(found))) => Ok(found),
            (None, Ok(None)) => Err(anyhow!("{}: neither ended nor ready", self.name)),
            (None, Err(error)) => {
                Err(error.context(format!("log of {}:\n{}", self.name, self.log())))
            }
        }
    }

    /// Wait until it has written `text`, after the first `skip` bytes of its log.
    pub fn wait_for_log(&mut self, within: Duration, skip: usize, text: &[&str]) -> Result<()> {
        let (path, start) = (self.log_path.clone(), self.log_start + skip);
        self.wait_until(within, &format!("one of {text:?} in the log"), || {
            let whole = fs::read(&path)?;
            let new = String::from_utf8_lossy(whole.get(start..).unwrap_or_default());
            holds(text.iter().any(|text| new.contains(text)), || {
                "not there yet".to_owned()
            })
        })
    }

    /// Send a signal to the program itself.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Send a signal and wait for the end.
    pub fn stop(&mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(within)
    }

    /// Wait for the end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("already stopped")?;
        let status = eventually(within, &format!("end of {}", self.name), || {
            child.try_wait()?.context("it still runs")
        })
        .with_context(|| {
            format!(
                "log of {}:\n{}",
                self.name,
                fs::read_to_string(&self.log_path).unwrap_or_default()
            )
        })?;
        self.child = None;
        Ok(status)
    }

    /// SIGKILL to the whole process group, and wait.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = killpg(self.pid, Signal::SIGKILL);
            let _ = child.kill(); // a session that was only just started has no group of its own yet
            let _ = child.wait();
        }
    }

    /// Let it run on when this is dropped; it can no longer be waited for.
    pub fn release(&mut self) {
        self.child = None;
    }

    /// Resident memory, with the pages of the program file.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// Resident memory that is the daemon's own.
    pub fn own_bytes(&self) -> Result<u64> {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kibibytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .with_context(|| format!("no {field} in /proc/PID/status"))?
            .trim()
            .parse()?;
        Ok(kibibytes * 1024)
    }

    /// Processor time used so far, user and system (`proc_pid_stat(5)`, fields 14 and 15).
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The program's name stands in parentheses and may hold anything; what follows begins with field 3.
        let (_, rest) = stat.rsplit_once(')').context("unexpected /proc/PID/stat")?;
        let mut fields = rest.split_whitespace().skip(11);
        let user: u64 = fields.next().context("field 14 is missing")?.parse()?;
        let system: u64 = fields.next().context("field 15 is missing")?.parse()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
        let per_second = u64::try_from(per_second)?;
        Ok(Duration::from_millis((user + system) * 1000 / per_second))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
