//! Figures of this run on this machine. All hosts share its cores, so they compare runs, not products.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tests::expect::{eventually, holds};
use tests::node::Node;
use tests::world::ReferenceWorld;
use tests::world::addresses::{IPERF_PORT, LAN_SERVER, VPS};

use crate::report::Report;

/// Pause between two visits while gaps are looked for.
const VISIT_INTERVAL: Duration = Duration::from_millis(20);
/// A visit that takes longer has failed.
const VISIT_TIMEOUT: Duration = Duration::from_millis(300);
/// How long iperf3's server may take to be free.
const IPERF_TIMEOUT: Duration = Duration::from_secs(5);
/// How long visitors may take to be served again.
const VISITS_TIMEOUT: Duration = Duration::from_secs(15);

/// Throughput and latency through the tunnel.
pub(crate) fn figures(report: &mut Report, world: &ReferenceWorld) {
    report.section("Figures (every host of the picture shares this machine's processors)");
    for (what, direction) in [
        ("client to cluster, one TCP stream", None),
        ("cluster to client", Some("-R")),
    ] {
        report.claim(what, throughput(&world.client, direction));
    }
    match round_trip(&world.vps) {
        Ok(line) => Report::figure("ping through the tunnel", &line),
        Err(error) => report.claim("ping through the tunnel", Err(error)),
    }
}

/// What iperf3 gets through the published port.
fn throughput(node: &Node, direction: Option<&str>) -> Result<String> {
    // The server takes one test at a time and needs a moment after the last one; any other error counts.
    let result = eventually(IPERF_TIMEOUT, "iperf3's server is free", || {
        let result = iperf3(node, direction)?;
        let error = result
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or_default();
        holds(!error.contains("server is busy"), || error.to_owned())?;
        Ok(result)
    })?;
    if let Some(error) = result.get("error").and_then(Value::as_str) {
        return Err(anyhow!("iperf3: {error}"));
    }
    let bits = result
        .pointer("/end/sum_received/bits_per_second")
        .and_then(Value::as_f64)
        .context("iperf3 gave no result")?;
    ensure!(bits > 0.0, "nothing arrived");
    Ok(format!("{:.2} Gbit/s (iperf3, 3 s)", bits / 1e9))
}

/// One run of iperf3; the result says itself what went wrong.
fn iperf3(node: &Node, direction: Option<&str>) -> Result<Value> {
    let (vps, port) = (VPS.to_string(), IPERF_PORT.to_string());
    let mut command = vec!["iperf3", "-J", "-t", "3", "--connect-timeout", "3000"];
    command.extend(["-c", &vps, "-p", &port]);
    command.extend(direction);
    let output = node.output(&command)?;
    serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")
}

/// Between the ends of the tunnel.
fn round_trip(node: &Node) -> Result<String> {
    let output = node.run(&[
        "ping",
        "-n",
        "-q",
        "-c",
        "100",
        "-i",
        "0.01",
        &LAN_SERVER.to_string(),
    ])?;
    let line = output
        .lines()
        .find(|line| line.starts_with("rtt "))
        .context("ping gave no times")?;
    let times = line.split(" = ").nth(1).context("ping gave no times")?;
    let mut times = times.split('/');
    let (least, average) = (times.next().unwrap_or("?"), times.next().unwrap_or("?"));
    Ok(format!(
        "least {least} ms, average {average} ms (100 echoes, vps to lan-host)"
    ))
}

/// What visitors noticed.
pub(crate) struct Gaps {
    /// Longest time between two visits that were served.
    pub(crate) longest: Duration,
    /// Visits served.
    pub(crate) served: usize,
    /// Visits that were not.
    pub(crate) failed: usize,
}

/// Visitors that come one after the other, until [`finish`](Self::finish).
pub(crate) struct Visitors {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Gaps>>,
}

impl Visitors {
    /// Begin to visit `to` from `node`.
    pub(crate) fn start(node: &Node, to: SocketAddr) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count, node) = (stop.clone(), served.clone(), node.clone());
        let thread = thread::spawn(move || node.enter(|| Ok(visit_until(&stopped, &count, to))));
        Self {
            stop,
            served,
            thread,
        }
    }

    /// Wait until this many more were served.
    pub(crate) fn wait_for_more(&self, visits: usize) -> Result<()> {
        let goal = self.served.load(Ordering::Relaxed) + visits;
        eventually(VISITS_TIMEOUT, "more visitors served", || {
            let served = self.served.load(Ordering::Relaxed);
            holds(served >= goal, || format!("{served} of {goal} served"))
        })
    }

    /// End it.
    pub(crate) fn finish(self) -> Result<Gaps> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the visitors' thread panicked"))?
    }
}

fn visit_until(stopped: &AtomicBool, served: &AtomicUsize, to: SocketAddr) -> Gaps {
    let mut gaps = Gaps {
        longest: Duration::ZERO,
        served: 0,
        failed: 0,
    };
    let mut last_served = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        if visit(to).is_ok() {
            gaps.longest = gaps.longest.max(last_served.elapsed());
            last_served = Instant::now();
            gaps.served += 1;
            served.store(gaps.served, Ordering::Relaxed);
        } else {
            gaps.failed += 1;
        }
        thread::sleep(VISIT_INTERVAL);
    }
    gaps
}

fn visit(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, VISIT_TIMEOUT)?;
    stream.set_read_timeout(Some(VISIT_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains("you are"), "not the page");
    Ok(())
}
