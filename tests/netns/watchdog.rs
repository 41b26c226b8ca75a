//! What systemd hears: when the daemon is ready, when it reloads, and that it lives.
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::daemon::Daemon;
use tests::edge::{Instance, Setup, Start};
use tests::expect::{eventually, holds};
use tests::node::Node;

use crate::support::{SOON, in_light_world};

/// A sign of life is missed after this.
const LIMIT: Duration = Duration::from_millis(600);

/// The socket of a service manager, and what it has heard.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        let heard = Vec::new();
        Ok(Self { socket, heard })
    }

    /// All lines so far.
    fn heard(&mut self) -> Result<&[String]> {
        let mut message = [0; 4096];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text = message.get(..length).unwrap_or_default();
                    let text = String::from_utf8_lossy(text).into_owned();
                    self.heard.extend(text.lines().map(str::to_owned));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(&self.heard),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn count(&mut self, line: &str) -> Result<usize> {
        Ok(self.heard()?.iter().filter(|heard| *heard == line).count())
    }

    fn signs(&mut self) -> Result<usize> {
        self.count("WATCHDOG=1")
    }

    /// Wait for so many more signs of life; how long that took.
    fn wait_for_signs(&mut self, more: usize) -> Result<Duration> {
        let (start, before) = (Instant::now(), self.signs()?);
        eventually(LIMIT * 10, "signs of life", || {
            let now = self.signs()?;
            holds(now >= before + more, || format!("{before}, then {now}"))
        })?;
        Ok(start.elapsed())
    }
}

/// A gateway that a service manager starts, ready.
fn start_watched(node: &Node, manager: &mut Manager, socket: &Path) -> Result<Instance> {
    let config = Setup::new()?.install_gateway(node)?;
    // The process id is part of what systemd says; the shell knows its own, and becomes the daemon.
    let script = format!(
        "export NOTIFY_SOCKET={} WATCHDOG_USEC={} WATCHDOG_PID=$$; exec \"$@\"",
        socket.display(),
        LIMIT.as_micros()
    );
    let by = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let start = Start {
        by,
        ..Start::default()
    };
    let mut gateway = Instance::start_with(node, "gateway", config, start)?;
    gateway.daemon.wait_until(SOON, "READY=1", || {
        let ready = manager.count("READY=1")?;
        holds(ready == 1, || format!("{ready} times"))
    })?;
    Ok(gateway)
}

#[test]
fn signs_of_life_end_when_the_packet_worker_stands_still() {
    in_light_world(|world| {
        let socket = world.vps.dir().join("notify.sock");
        let mut manager = Manager::listen(&socket)?;
        let mut gateway = start_watched(&world.vps, &mut manager, &socket)?;
        let took = manager.wait_for_signs(4)?;
        ensure!(took < LIMIT * 4, "4 signs took {took:?}");

        // A tracer that stands still itself holds this one thread at its next system call.
        let worker = worker_of(gateway.daemon.pid())?;
        let tracer = ["strace", "-o", "/dev/null", "-p", &worker];
        let mut tracer = Daemon::start(&world.vps, "strace", &tracer)?;
        tracer.wait_until(SOON, "the worker's tracer", || traced(&worker))?;
        tracer.signal(Signal::SIGSTOP)?;
        gateway
            .daemon
            .wait_for_log(SOON, 0, &["the packet worker does not answer"])?;
        let before = manager.signs()?;
        std::thread::sleep(LIMIT * 2);
        let silent = manager.signs()? == before;
        gateway.daemon.alive()?;
        tracer.kill();
        ensure!(
            silent,
            "a daemon whose packets stand still says that it lives"
        );
        manager.wait_for_signs(2).map(drop)
    });
}

#[test]
fn reload_and_stop_are_told() {
    in_light_world(|world| {
        let socket = world.vps.dir().join("notify.sock");
        let mut manager = Manager::listen(&socket)?;
        let mut gateway = start_watched(&world.vps, &mut manager, &socket)?;
        gateway.reload(str::to_owned)?;
        eventually(SOON, "the end of the reload", || {
            let ready = manager.count("READY=1")?;
            holds(ready == 2, || format!("{ready} times"))
        })?;
        // Type=notify-reload wants the time with it.
        let heard = manager.heard()?;
        let at = heard.iter().position(|line| line == "RELOADING=1");
        let next = heard.get(at.context("no RELOADING=1")? + 1);
        let with_time = next.is_some_and(|line| line.starts_with("MONOTONIC_USEC="));
        ensure!(with_time, "{heard:?}");
        gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        ensure!(manager.count("STOPPING=1")? == 1, "{:?}", manager.heard);
        Ok(())
    });
}

/// Thread id of the packet worker.
fn worker_of(pid: i32) -> Result<String> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        if fs::read_to_string(thread.path().join("comm"))?.trim() == "wg-worker-0" {
            return Ok(thread.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no thread of {pid} is called wg-worker-0")
}

/// Whether a thread has a tracer.
fn traced(thread: &str) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    let tracer = tracer.context("no TracerPid")?.trim().to_owned();
    holds(tracer != "0", || "none yet".to_owned())
}
