//! Changes of many peers and the traffic of others.
//!
//! ```text
//!  road_warrior  alice, made by the API ── iperf3 TCP, iperf3 UDP ──┐
//!  stranger      bob, made by the API ──── ping, 20 a second ───────┴─► gateway ◄── 8 callers: 2,000 peers come, change, go
//!  client        a visitor ─────────────── downloads ───────────────► published service on the LAN
//! ```
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::Api;
use tests::daemon::Daemon;
use tests::edge::Setup;
use tests::expect::eventually;
use tests::keys::KeyPair;
use tests::node::Node;
use tests::servers::Conversation;
use tests::world::addresses::{API_PORT, API_VIP, GATEWAY, at, public};

use crate::support::{SOON, with_edge};

/// Peers that come and go.
const PEERS: usize = 2000;
/// Connections that change them at the same time.
const CALLERS: usize = 8;
/// One server each: iperf3 serves one client at a time.
const TCP_PORT: &str = "5201";
const UDP_PORT: &str = "5202";
/// One run of iperf3: short, so that the last one does not outlast the changes by much.
const RUN_SECONDS: &str = "3";

/// Each caller adds its share, changes every peer, and removes all of them.
fn churn(mut api: Api, caller: usize) -> Result<()> {
    let mut ids = Vec::new();
    for number in 0..PEERS / CALLERS {
        let wish = json!({"name": format!("crowd-{caller}-{number}"), "generate_key": true,
            "role": "kube-admin"});
        ids.push(api.create_id(&wish)?);
    }
    for id in &ids {
        api.patch(id, &json!({"role": null}))?;
    }
    ids.iter().try_for_each(|id| api.delete(id))
}

/// Numbers of the pings that were answered, in the order of the answers.
fn answered(log: &str) -> Vec<u32> {
    let numbers = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("icmp_seq=")?;
        rest.split(' ').next()?.parse().ok()
    });
    numbers.collect()
}

/// One run of iperf3 after the other until `done`; each is handed to `check`. Returns how many there were. One of them may end
/// without a sum: the last exchange of iperf3's two ends fails now and then on a busy machine, after all packets have come.
fn measure(
    laptop: &Node,
    options: &[&str],
    done: &AtomicBool,
    check: impl Fn(&Value) -> Result<()>,
) -> Result<u32> {
    let gateway = GATEWAY.to_string();
    let mut command = vec!["iperf3", "-J", "-c", &gateway, "-t", RUN_SECONDS];
    command.extend(options);
    let (mut runs, mut without_sum) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let text = laptop.run(&command)?;
        let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let has_sum = |name| report.pointer(name).is_some();
        if !has_sum("/end/sum") && !has_sum("/end/sum_received") {
            without_sum += 1;
            ensure!(without_sum == 1, "no sum again: {text}");
            continue;
        }
        check(&report).with_context(|| format!("run {runs} of {options:?}"))?;
        runs += 1;
    }
    Ok(runs)
}

/// Every datagram has arrived.
fn lost_none(report: &Value) -> Result<()> {
    let number = |name: &str| report.pointer(&format!("/end/sum/{name}"))?.as_u64();
    let (lost, packets) = (number("lost_packets"), number("packets"));
    ensure!(
        lost == Some(0) && packets > Some(100),
        "{lost:?} of {packets:?} datagrams were lost"
    );
    Ok(())
}

/// At no time nothing moved.
fn never_stood_still(report: &Value) -> Result<()> {
    let intervals = report
        .get("intervals")
        .and_then(Value::as_array)
        .context("no intervals")?;
    ensure!(intervals.len() >= 3, "{} intervals", intervals.len());
    for interval in intervals {
        let sum = interval.get("sum").context("no sum")?;
        // What is left over at the end is too short to say anything.
        if sum["seconds"].as_f64() > Some(0.25) && sum["bytes"].as_u64().unwrap_or(0) == 0 {
            bail!("nothing moved from {} s to {} s", sum["start"], sum["end"]);
        }
    }
    Ok(())
}

#[test]
fn thousands_of_changes_cost_a_neighbour_not_one_packet() {
    let mut setup = Setup::new().unwrap();
    setup.more_gateway = format!(
        "\n[[role]]\nname = \"measure\"\nallow = [\"{GATEWAY}:{TCP_PORT}/tcp\", \"{GATEWAY}:{UDP_PORT}/tcp\", \
         \"{GATEWAY}:{UDP_PORT}/udp\", \"{API_VIP}:{API_PORT}/tcp\"]\n"
    );
    with_edge(setup, |world, edge| {
        let mut api = Api::of(&edge.gateway, "gateway")?;
        let mut tunnels = Vec::new();
        for (node, name, address) in [
            (&world.road_warrior, "alice", "10.17.0.77"),
            (&world.stranger, "bob", "10.17.0.78"),
        ] {
            let keys = KeyPair::generate()?;
            let wish = json!({"name": name, "public_key": keys.public.to_string(), "role": "measure",
                "preshared_key": "none", "addresses": [address]});
            api.create(&wish)?;
            tunnels.push(edge.setup.dial_in(node, &keys, address.parse()?)?);
            node.pings(&GATEWAY.to_string())?;
        }
        let laptop = &world.road_warrior;
        let gateway = GATEWAY.to_string();
        let mut servers = Vec::new();
        for port in [TCP_PORT, UDP_PORT] {
            let serve = ["iperf3", "-s", "-B", &gateway, "-p", port];
            servers.push(Daemon::start(
                &world.vps,
                &format!("iperf3-{port}"),
                &serve,
            )?);
            eventually(SOON, "iperf3 serves", || {
                let call = format!("exec 3<>/dev/tcp/{GATEWAY}/{port}");
                world.vps.run(&["bash", "-c", &call])
            })?;
        }
        let mut kept = Conversation::open(laptop, at(API_VIP, API_PORT))?;
        let command = ["ping", "-n", "-i", "0.05", &gateway];
        let mut ping = Daemon::start(&world.stranger, "ping", &command)?;
        let done = AtomicBool::new(false);
        let socket = world.vps.dir().join("run/wg-edge/gateway.sock");
        let runs = thread::scope(|scope| -> Result<[u32; 3]> {
            let tcp = scope.spawn(|| {
                let options = ["-p", TCP_PORT, "-b", "20M", "-i", "0.5"];
                measure(laptop, &options, &done, never_stood_still)
            });
            let udp = scope.spawn(|| {
                let options = ["-p", UDP_PORT, "-u", "-b", "2M", "-l", "1200"];
                measure(laptop, &options, &done, lost_none)
            });
            let transfer = scope.spawn(|| -> Result<u32> {
                let mut download = Conversation::open(&world.client, public(80))?;
                download.set_patience(Duration::from_secs(10))?;
                let mut moved = 0;
                while !done.load(Ordering::Relaxed) {
                    download.download(1_000_000).context("a visitor")?;
                    moved += 1;
                }
                Ok(moved)
            });
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let api = Api::unix(&socket);
                    scope.spawn(move || {
                        churn(api?, caller).with_context(|| format!("caller {caller}"))
                    })
                })
                .collect();
            let changed: Result<()> = callers
                .into_iter()
                .try_for_each(|caller| caller.join().expect("no panic"));
            done.store(true, Ordering::Relaxed);
            let ended = [tcp, udp, transfer].map(|thread| thread.join().expect("no panic"));
            changed?;
            let [tcp, udp, transfer] = ended;
            Ok([tcp?, udp?, transfer?])
        })?;
        assert!(runs.iter().all(|&count| count > 0), "{runs:?}");
        // What was on its way when the last change was made has come back.
        let so_far = answered(&ping.log()).len();
        let log_path = ping.log_path().to_owned();
        ping.wait_until(SOON, "answers after the last change", || {
            let log = std::fs::read_to_string(&log_path)?;
            ensure!(answered(&log).len() > so_far + 5, "not yet");
            Ok(())
        })?;
        ping.stop(Signal::SIGINT, SOON)?;
        let numbers = answered(&ping.log());
        let last = *numbers.last().context("no answer")?;
        let lost: Vec<u32> = (1..last)
            .filter(|number| !numbers.contains(number))
            .collect();
        assert!(
            last > 40 && lost.is_empty(),
            "of {last} pings were lost: {lost:?}"
        );
        assert!(!ping.log().contains("DUP"), "{}", ping.log());
        kept.echo("still here")
            .context("a connection from before the changes")?;
        // The connection of before was closed meanwhile: it had said nothing for too long.
        let page = Api::of(&edge.gateway, "gateway")?.get("/v1/peers?managed_by=api")?;
        assert_eq!(
            page["items"].as_array().map(Vec::len),
            Some(2),
            "alice and bob"
        );
        edge.gateway.command(&["audit", "verify"])?;
        Ok(())
    });
}
