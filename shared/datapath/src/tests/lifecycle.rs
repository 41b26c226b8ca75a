//! Start, change, failure and end.
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use shared::wg::DeviceChange;
use shared_os::{netns, tun, udp};

use super::super::{ApplyError, Config, Datapath, Limits, StartError, WorkerError, WorkerGone};
use super::world::{Host, LISTEN_PORT, World, config, wait_for};

fn start() -> Datapath {
    Datapath::start(&config(Limits::default())).unwrap()
}

fn change_port(port: u16) -> DeviceChange {
    DeviceChange {
        listen_port: Some(port),
        fwmark: Some(0x51),
        ..DeviceChange::default()
    }
}

#[test]
fn taken_port_leaves_port_and_mark_as_they_were() {
    netns::run(|| {
        let datapath = start();
        let control = datapath.control();
        let _taken = UdpSocket::bind("0.0.0.0:7001").unwrap();
        let refused = wait_for(control.apply(change_port(7001))).unwrap_err();
        assert!(
            matches!(
                refused,
                ApplyError::Udp(udp::BindError::InUse { port: 7001, .. })
            ),
            "{refused:?}"
        );
        let status = wait_for(control.status()).unwrap();
        assert_eq!((status.listen_port, status.fwmark), (LISTEN_PORT, 0));
        UdpSocket::bind(("0.0.0.0", LISTEN_PORT)).expect_err("the old socket is still bound");
    });
}

#[test]
fn another_port_moves_both_sockets_and_frees_the_old_ones() {
    netns::run(|| {
        let datapath = start();
        let control = datapath.control();
        wait_for(control.apply(change_port(7002))).unwrap();
        let status = wait_for(control.status()).unwrap();
        assert_eq!((status.listen_port, status.fwmark), (7002, 0x51));
        for address in ["0.0.0.0", "::"] {
            UdpSocket::bind((address, LISTEN_PORT)).unwrap();
            UdpSocket::bind((address, 7002)).unwrap_err();
        }
        wait_for(control.apply(change_port(0))).unwrap();
        let status = wait_for(control.status()).unwrap();
        assert!(status.listen_port != 0 && status.listen_port != 7002);
    });
}

#[test]
fn second_data_path_on_the_same_link_or_port_is_refused_with_the_reason() {
    netns::run(|| {
        let _first = start();
        let error = Datapath::start(&config(Limits::default())).unwrap_err();
        assert!(
            matches!(error, StartError::Tun(tun::OpenError::InUse { .. })),
            "{error:?}"
        );
        let mut other = config(Limits::default());
        other.interface = "wg1".parse().unwrap();
        let error = Datapath::start(&other).unwrap_err();
        assert!(
            matches!(error, StartError::Udp(udp::BindError::InUse { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn removed_link_ends_the_worker_with_an_error_that_names_it() {
    let Some(host) = Host::new() else { return };
    let datapath = host.run(start);
    host.sh("ip link set wg0 up && ip link delete wg0");
    let error =
        wait_for(async { tokio::time::timeout(Duration::from_secs(5), datapath.failed()).await })
            .expect("the worker ends");
    assert!(
        matches!(&error, WorkerError::TunRemoved { name, .. } if name.as_str() == "wg0"),
        "{error:?}"
    );
    let gone = wait_for(datapath.control().status()).unwrap_err();
    assert_eq!(gone, WorkerGone);
}

#[test]
fn removed_link_is_made_anew_when_that_is_asked_for() {
    let Some(world) = World::with_config(|config| config.outlives_link = true) else {
        return;
    };
    let near = &world.near;
    near.host.sh("ping -c 1 -W 5 10.9.0.2");
    for _ in 0..2 {
        near.host.sh("ip link delete wg0");
        let status = wait_for(near.control.status()).unwrap();
        assert_eq!(status.peers.len(), 1, "the worker goes on");
        wait_for(near.control.replace_link()).unwrap();
        near.host
            .sh("ip address add 10.9.0.1/24 dev wg0 && ip link set wg0 up");
        near.host.sh("ping -c 1 -W 5 10.9.0.2");
    }
}

#[test]
fn link_that_was_taken_to_another_namespace_is_made_anew_and_that_one_goes() {
    let Some(world) = World::with_config(|config| config.outlives_link = true) else {
        return;
    };
    let near = &world.near.host;
    let elsewhere = Host::new().unwrap();
    let thread = elsewhere.thread_id();
    near.sh(&format!("ip link set wg0 netns {thread}"));
    elsewhere.sh("ip link show wg0");
    wait_for(world.near.control.replace_link()).unwrap();
    near.sh("ip address add 10.9.0.1/24 dev wg0 && ip link set wg0 up");
    near.sh("ping -c 1 -W 5 10.9.0.2");
    elsewhere.sh("! ip link show wg0 2>/dev/null");
}

#[test]
fn worker_without_a_link_does_not_run_hot() {
    let Some(world) = World::with_config(|config| config.outlives_link = true) else {
        return;
    };
    world.near.host.sh("ip link delete wg0");
    let used = cpu_ticks_in_two_seconds(&world.near.host);
    assert!(used <= 4, "{used} ticks of 10 ms in 2 s");
}

#[test]
fn stopped_data_path_leaves_no_link_and_no_socket() {
    let Some(host) = Host::new() else { return };
    let datapath = host.run(start);
    let control = datapath.control();
    let before = Instant::now();
    datapath.stop();
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(wait_for(control.counters()).unwrap_err(), WorkerGone);
    host.sh("! ip link show wg0 2>/dev/null && test -z \"$(ss -Huln)\"");
}

/// Whatever the worker is at, above all between its look for commands and its sleep. Each has a link of its own: programs
/// that other tests start keep what was open here until they run.
#[test]
fn data_path_stops_however_soon_it_is_asked_to() {
    netns::run(|| {
        for round in 0..500 {
            let config = Config {
                interface: format!("wg{round}").parse().unwrap(),
                listen_port: 0,
                ..config(Limits::default())
            };
            let datapath = Datapath::start(&config).unwrap();
            std::thread::sleep(Duration::from_micros(round % 100));
            let before = Instant::now();
            datapath.stop();
            assert!(before.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn persistent_link_survives_and_can_be_attached_to_again() {
    let Some(host) = Host::new() else { return };
    let persistent = || {
        let mut config = config(Limits::default());
        config.persist = true;
        Datapath::start(&config).unwrap()
    };
    host.run(persistent).stop();
    host.sh("ip link show wg0");
    host.run(start).stop();
    host.sh("! ip link show wg0 2>/dev/null");
}

#[test]
fn idle_worker_sleeps() {
    let Some(world) = World::new(Limits::default(), Limits::default()) else {
        return;
    };
    world.near.host.sh("ping -c 1 -W 5 10.9.0.2");
    let used = cpu_ticks_in_two_seconds(&world.near.host);
    assert!(used <= 4, "{used} ticks of 10 ms in 2 s");
}

/// Processor time of the worker in a host's namespace.
fn cpu_ticks_in_two_seconds(host: &Host) -> u64 {
    let cpu_ticks = || {
        // Fields 14 and 15 of stat(5), in ticks of 10 ms; those of the threads of this test process named wg-worker-0
        // can't be told apart between tests, so look for the one of our namespace.
        let link = std::fs::read_link(host.namespace_path()).unwrap();
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| {
                let path = task.unwrap().path();
                let name = std::fs::read_to_string(path.join("comm")).ok()?;
                let namespace = std::fs::read_link(path.join("ns/net")).ok()?;
                (name.trim() == "wg-worker-0" && namespace == link).then_some(path)
            })
            .map(|path| {
                let stat = std::fs::read_to_string(path.join("stat")).unwrap();
                let fields: Vec<&str> = stat.split_whitespace().collect();
                fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
            })
            .sum::<u64>()
    };
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_secs(2));
    cpu_ticks() - before
}

#[test]
fn downed_link_counts_packets_and_comes_back() {
    let Some(world) = World::new(Limits::default(), Limits::default()) else {
        return;
    };
    world.near.host.sh("ping -c 1 -W 5 10.9.0.2");
    world.far.host.sh("ip link set wg0 down");
    world
        .near
        .host
        .sh("ping -c 2 -i 0.05 -W 1 10.9.0.2 || true");
    let counters = wait_for(world.far.control.counters()).unwrap();
    assert!(counters.tun.link_down > 0, "{counters:?}");
    world.far.host.sh("ip link set wg0 up");
    world.near.host.sh("ping -c 1 -W 5 10.9.0.2");
}

#[test]
fn address_that_went_away_is_forgotten_as_source() {
    let Some(world) = World::new(Limits::default(), Limits::default()) else {
        return;
    };
    world.near.host.sh("ping -c 1 -W 5 10.9.0.2");
    // The far end answers from 192.0.2.2, which it was contacted at; that moves to .3.
    world
        .far
        .host
        .sh("ip address delete 192.0.2.2/24 dev veth; ip address add 192.0.2.3/24 dev veth");
    world.far.host.sh("ping -c 2 -i 0.05 -W 5 10.9.0.1");
    let counters = wait_for(world.far.control.counters()).unwrap();
    assert!(counters.udp.tx_source_cleared > 0, "{counters:?}");
    let peers = wait_for(world.near.control.status()).unwrap().peers;
    assert_eq!(
        peers[0].endpoint.unwrap().ip(),
        IpAddr::from([192, 0, 2, 3])
    );
}

#[test]
fn tunnel_runs_over_ipv4_where_ipv6_is_switched_off() {
    let Some(host) = Host::new() else { return };
    host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    let datapath = host.run(start);
    let offloads = wait_for(datapath.control().offloads()).unwrap();
    assert!(offloads.udp4.is_some());
}
