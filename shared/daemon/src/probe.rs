//! Whether published services answer: a connection is opened to each, as a visitor's would be, and closed again.
//!
//! The gateway's connections go through the tunnel with its own tunnel address, which the LAN end lets reach published
//! VIP:port pairs; those of the LAN end go straight to the VIP. Datagrams (UDP) can't be tried without a word of the
//! service's own protocol, so nobody tries.
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use shared::api::probe::{Health, Probe, ProbeState};
use shared::config::common::Protocol;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::model::{Model, PublishModel};

/// How often a service that answers is tried, give or take a tenth.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often one that does not: that it is back shall be seen soon.
const INTERVAL_DOWN: Duration = Duration::from_secs(2);
/// How long a service may take. One lost packet is sent again within it (RFC 6298 §2: after a second).
const TIMEOUT: Duration = Duration::from_secs(2);
/// Ports of a service that are tried, the first ones: those of a range are one service as a rule.
const PORTS: usize = 4;
/// Connections that are opened at the same time.
const AT_ONCE: usize = 32;

/// What was found, by address.
#[derive(Debug, Default)]
pub struct Probes {
    found: Mutex<BTreeMap<SocketAddr, Found>>,
    again: Notify,
}

/// The latest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    outcome: Result<Duration, String>,
    since: SystemTime,
    checked_at: SystemTime,
    began: Instant,
}

impl Probes {
    /// The latest attempts, in the order of the configuration; a service over UDP has none.
    pub fn of(&self, publishes: &[PublishModel]) -> Vec<Probe> {
        let found = self.lock();
        let each = publishes.iter();
        each.flat_map(|publish| targets(publish).map(move |target| (publish, target)))
            .map(|(publish, target)| probe(&publish.name, target, found.get(&target)))
            .collect()
    }

    /// All ports of a service together; `None` over UDP.
    pub fn health(&self, publish: &PublishModel) -> Option<Health> {
        let found = self.lock();
        let probes: Vec<Probe> = targets(publish)
            .map(|target| probe(&publish.name, target, found.get(&target)))
            .collect();
        summary(&probes)
    }

    /// Try all at once: something was changed on the way.
    pub fn try_again(&self) {
        self.again.notify_one();
    }

    /// Whether the latest attempt began after this moment.
    pub fn is_tried_since(&self, target: SocketAddr, moment: std::time::Instant) -> bool {
        let found = self.lock();
        let latest = found.get(&target);
        latest.is_some_and(|latest| latest.began.into_std() > moment)
    }

    fn note(&self, target: SocketAddr, attempt: Attempt, now: SystemTime) {
        let Attempt { outcome, began } = attempt;
        let mut found = self.lock();
        let before = found.get(&target);
        let lasting = before.filter(|before| before.outcome.is_ok() == outcome.is_ok());
        let since = lasting.map_or(now, |before| before.since);
        let latest = Found {
            outcome,
            since,
            checked_at: now,
            began,
        };
        found.insert(target, latest);
    }

    fn retain(&self, wanted: &BTreeSet<SocketAddr>) {
        self.lock().retain(|target, _| wanted.contains(target));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt to open a connection.
#[derive(Debug)]
struct Attempt {
    began: Instant,
    outcome: Result<Duration, String>,
}

/// Try what each model publishes, until the task is aborted or the model's owner is gone.
pub async fn run(mut model: watch::Receiver<Arc<Model>>, probes: Arc<Probes>) {
    let mut due: BTreeMap<SocketAddr, Instant> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<SocketAddr> = {
            let model = model.borrow_and_update();
            model.publishes.iter().flat_map(targets).collect()
        };
        due.retain(|target, _| wanted.contains(target));
        probes.retain(&wanted);
        let now = Instant::now();
        for target in wanted {
            due.entry(target).or_insert(now);
        }
        let ready: Vec<SocketAddr> = due
            .iter()
            .filter(|&(_, at)| *at <= now)
            .map(|(&target, _)| target)
            .collect();
        let mut attempts = stream::iter(ready)
            .map(|target| async move { (target, connect(target).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((target, attempt)) = attempts.next().await {
            let pause = pause(attempt.outcome.is_ok());
            probes.note(target, attempt, SystemTime::now());
            due.insert(target, Instant::now() + pause);
        }
        let next = due.values().min().copied();
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = model.changed() => if changed.is_err() { return },
            () = probes.again.notified() => due.clear(),
            () = wait => {}
        }
    }
}

/// What is tried of a service.
pub(crate) fn targets(publish: &PublishModel) -> impl Iterator<Item = SocketAddr> + use<> {
    let ports: Vec<u16> = match publish.protocol {
        Protocol::Tcp => {
            let ranges = publish.ports.iter().map(|ports| ports.target);
            let ports = ranges.flat_map(|range| range.first..=range.last);
            ports.take(PORTS).collect()
        }
        Protocol::Udp => Vec::new(),
    };
    let vip = publish.vip;
    ports
        .into_iter()
        .map(move |port| SocketAddr::new(vip, port))
}

/// How long it takes to open a connection, or why none could be opened.
async fn connect(target: SocketAddr) -> Attempt {
    let began = Instant::now();
    let outcome = match timeout(TIMEOUT, TcpStream::connect(target)).await {
        Ok(Ok(_closed_at_once)) => Ok(began.elapsed()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err("connection refused: nobody listens there".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    Attempt { began, outcome }
}

/// Give or take a tenth, so that many ends don't try the same service at the same moment.
fn pause(is_up: bool) -> Duration {
    let random = RandomState::new().hash_one(());
    let tenths_of_percent = u32::try_from(random % 200).unwrap_or(100) + 900;
    let interval = if is_up { INTERVAL } else { INTERVAL_DOWN };
    interval * tenths_of_percent / 1000
}

fn probe(publish: &str, target: SocketAddr, found: Option<&Found>) -> Probe {
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    let outcome = found.map(|found| &found.outcome);
    Probe {
        publish: publish.to_owned(),
        vip: target.ip(),
        port: target.port(),
        state: match outcome {
            Some(Ok(_)) => ProbeState::Up,
            Some(Err(_)) => ProbeState::Down,
            None => ProbeState::Unknown,
        },
        since: found.map(|found| time(found.since)),
        checked_at: found.map(|found| time(found.checked_at)),
        connect_milliseconds: outcome
            .and_then(|outcome| outcome.as_ref().ok())
            .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        error: outcome.and_then(|outcome| outcome.as_ref().err()).cloned(),
    }
}

/// The worst state; `None` without probes.
fn summary(probes: &[Probe]) -> Option<Health> {
    let in_state = |state| probes.iter().find(|probe| probe.state == state);
    let worst = in_state(ProbeState::Down)
        .or_else(|| in_state(ProbeState::Unknown))
        .or_else(|| probes.first())?;
    let same = || probes.iter().filter(|probe| probe.state == worst.state);
    // Down since the first port is; up since the last one is.
    let times = same().filter_map(|probe| probe.since.as_ref());
    let since = match worst.state {
        ProbeState::Down => times.min(),
        ProbeState::Up | ProbeState::Unknown => times.max(),
    };
    Some(Health {
        state: worst.state,
        since: since.cloned(),
        connect_milliseconds: same().filter_map(|probe| probe.connect_milliseconds).max(),
        error: worst
            .error
            .as_ref()
            .map(|error| format!("port {}: {error}", worst.port)),
    })
}

#[cfg(test)]
mod tests {
    use shared::config::common::{PortMap, PortRange, SourceIp};

    use super::*;

    fn publish(name: &str, protocol: Protocol, ports: &[(u16, u16)]) -> PublishModel {
        let ports = ports.iter().map(|&(first, last)| PortMap {
            listen: PortRange {
                first: first + 1000,
                last: last + 1000,
            },
            target: PortRange { first, last },
        });
        PublishModel {
            name: name.to_owned(),
            vip: "127.0.0.1".parse().unwrap(),
            protocol,
            ports: ports.collect(),
            source_ip: SourceIp::Preserve,
        }
    }

    fn took(milliseconds: u64) -> Attempt {
        Attempt {
            began: Instant::now(),
            outcome: Ok(Duration::from_millis(milliseconds)),
        }
    }

    fn failed(why: &str) -> Attempt {
        Attempt {
            outcome: Err(why.to_owned()),
            ..took(0)
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_ports_of_the_vip_are_tried_and_none_of_udp() {
        let tcp = publish("a", Protocol::Tcp, &[(80, 80), (100, 64_000)]);
        let ports: Vec<u16> = targets(&tcp).map(|target| target.port()).collect();
        assert_eq!(ports, [80, 100, 101, 102]);
        let udp = publish("b", Protocol::Udp, &[(53, 53)]);
        assert_eq!(targets(&udp).count(), 0);
        assert_eq!(Probes::default().health(&udp), None);
    }

    #[test]
    fn a_service_is_down_when_one_port_is_since_it_was() {
        let service = publish("a", Protocol::Tcp, &[(80, 80), (443, 443)]);
        let probes = Probes::default();
        let health = || probes.health(&service).unwrap();
        assert_eq!(health().state, ProbeState::Unknown);
        let target = |port| SocketAddr::new(service.vip, port);
        let before = std::time::Instant::now();
        probes.note(target(80), took(3), at(1));
        assert_eq!(health().state, ProbeState::Unknown, "half of it");
        probes.note(target(443), took(5), at(2));
        probes.note(target(80), took(4), at(11));
        let up = health();
        assert_eq!(
            (up.state, up.connect_milliseconds),
            (ProbeState::Up, Some(5))
        );
        assert_eq!(up.since.as_deref(), Some("1970-01-01T00:00:02Z"));
        probes.note(target(443), failed("no answer"), at(12));
        probes.note(target(443), failed("refused"), at(14));
        let down = health();
        assert_eq!(
            (down.state, down.connect_milliseconds),
            (ProbeState::Down, None)
        );
        assert_eq!(down.since.as_deref(), Some("1970-01-01T00:00:12Z"));
        assert_eq!(down.error.as_deref(), Some("port 443: refused"));
        let each = probes.of(std::slice::from_ref(&service));
        let states: Vec<_> = each.iter().map(|probe| (probe.port, probe.state)).collect();
        assert_eq!(states, [(80, ProbeState::Up), (443, ProbeState::Down)]);
        assert!(probes.is_tried_since(target(80), before));
        assert!(!probes.is_tried_since(target(80), std::time::Instant::now()));
        assert!(!probes.is_tried_since(target(81), before), "never");
    }

    #[test]
    fn pauses_are_near_their_interval_and_not_all_the_same() {
        let pauses: BTreeSet<Duration> = (0..100).map(|_| pause(true)).collect();
        assert!(pauses.len() > 10);
        let (first, last) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*first >= INTERVAL * 9 / 10 && *last <= INTERVAL * 11 / 10);
    }

    #[tokio::test]
    async fn a_service_that_is_published_later_is_tried_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let model = |publishes| Model {
            interface: "edge0".parse().unwrap(),
            desired: desired(),
            peers: Vec::new(),
            publishes,
        };
        let (sender, receiver) = watch::channel(Arc::new(model(Vec::new())));
        let probes = Arc::new(Probes::default());
        let task = tokio::spawn(run(receiver, Arc::clone(&probes)));
        let service = publish("a", Protocol::Tcp, &[(port, port)]);
        sender.send_replace(Arc::new(model(vec![service.clone()])));
        let (_stream, _) = listener.accept().await.unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while probes.health(&service).unwrap().state != ProbeState::Up {
            assert!(Instant::now() < deadline, "{probes:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sender.send_replace(Arc::new(model(Vec::new())));
        while !probes.lock().is_empty() {
            assert!(
                Instant::now() < deadline,
                "what is not published is forgotten"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(sender);
        task.await.unwrap();
    }

    fn desired() -> shared::plan::Desired {
        shared::plan::Desired {
            protocol: 1,
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            sysctls: Vec::new(),
            ruleset: shared::plan::Ruleset {
                table: "t".to_owned(),
                sets: Vec::new(),
                maps: Vec::new(),
                chains: Vec::new(),
            },
        }
    }
}
