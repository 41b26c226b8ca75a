//! What systemd hears: when the daemon is ready, when it reloads, and that it lives.
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::daemon::Daemon;
use tests::edge::{Instance, Setup};
use tests::expect::{eventually, holds};
use tests::node::Node;

use crate::service_manager::Manager;
use crate::support::{SOON, in_light_world};

/// A sign of life is missed after this.
const LIMIT: Duration = Duration::from_millis(600);

/// A gateway that a service manager watches, ready.
fn start_watched(node: &Node, manager: &mut Manager) -> Result<Instance> {
    let config = Setup::new()?.install_gateway(node)?;
    let limit = LIMIT.as_micros();
    let start = manager.start(&format!("export WATCHDOG_USEC={limit} WATCHDOG_PID=$$"));
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
        let mut manager = Manager::listen(&world.vps.dir().join("notify.sock"))?;
        let mut gateway = start_watched(&world.vps, &mut manager)?;
        let took = manager.wait_for_signs(4, LIMIT * 10)?;
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
        let before = manager.signs_of_life()?;
        std::thread::sleep(LIMIT * 2);
        let silent = manager.signs_of_life()? == before;
        gateway.daemon.alive()?;
        tracer.kill();
        ensure!(
            silent,
            "a daemon whose packets stand still says that it lives"
        );
        manager.wait_for_signs(2, LIMIT * 10).map(drop)
    });
}

#[test]
fn reload_and_stop_are_told() {
    in_light_world(|world| {
        let mut manager = Manager::listen(&world.vps.dir().join("notify.sock"))?;
        let mut gateway = start_watched(&world.vps, &mut manager)?;
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
        ensure!(manager.count("STOPPING=1")? == 1, "{:?}", manager.heard()?);
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
