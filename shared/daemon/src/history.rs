//! The last minutes, as the status was every ten seconds: what is over when somebody asks.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use shared::api::probe::ProbeState;
use shared::api::status::Status;

use crate::readiness::NO_PATH;

/// How long it is remembered.
const MINUTES: i64 = 15;

/// What was seen lately.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Sample>>);

/// The status at a moment, as far as it tells something later.
#[derive(Debug)]
struct Sample {
    at: Timestamp,
    /// What did not work, and why.
    down: BTreeMap<String, String>,
    /// Counters that only grow.
    counted: BTreeMap<String, u64>,
}

/// What happened between the oldest status that is remembered and the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// How far back it goes.
    pub minutes: u64,
    /// What did not work for a while, the latest first.
    pub outages: Vec<Outage>,
    /// By how much counters have grown: `connections NAME`, `refused COUNTER`, `dropped REASON`.
    pub counted: BTreeMap<String, u64>,
}

/// Something that did not work for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// A service with its address, a peer, or `this end`.
    pub of: String,
    /// When it was seen first.
    pub from: Timestamp,
    /// When it was seen last.
    pub until: Timestamp,
    /// Why.
    pub why: String,
}

impl History {
    /// Remember what this status tells.
    pub fn note(&self, status: &Status, at: Timestamp) {
        let mut samples = self.lock();
        let oldest = at - jiff::SignedDuration::from_mins(MINUTES);
        while samples.front().is_some_and(|sample| sample.at < oldest) {
            samples.pop_front();
        }
        samples.push_back(Sample {
            at,
            down: down(status),
            counted: counted(status),
        });
    }

    /// What happened lately.
    pub fn window(&self) -> Window {
        let samples = self.lock();
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Window::default();
        };
        let grown = last.counted.iter().map(|(name, count)| {
            // One that begins anew has grown from nothing.
            let before = first.counted.get(name).copied().unwrap_or_default();
            (name.clone(), count.checked_sub(before).unwrap_or(*count))
        });
        let minutes = last.at.duration_since(first.at).as_mins();
        Window {
            minutes: u64::try_from(minutes).unwrap_or_default(),
            outages: outages(&samples),
            counted: grown.filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outages(samples: &VecDeque<Sample>) -> Vec<Outage> {
    let mut open: BTreeMap<&str, Outage> = BTreeMap::new();
    let mut found = Vec::new();
    for sample in samples {
        // For another reason it is another outage: who asks for what an error comes from asks for reasons.
        let is_over = |(of, outage): &(&&str, &Outage)| {
            let why = sample.down.get(**of);
            why != Some(&outage.why)
        };
        let over: Vec<&str> = open.iter().filter(is_over).map(|(of, _)| *of).collect();
        found.extend(over.iter().filter_map(|of| open.remove(of)));
        for (of, why) in &sample.down {
            let outage = open.entry(of).or_insert_with(|| Outage {
                of: of.clone(),
                from: sample.at,
                until: sample.at,
                why: why.clone(),
            });
            outage.until = sample.at;
        }
    }
    found.extend(open.into_values());
    found.sort_by_key(|outage| std::cmp::Reverse(outage.until));
    found
}

fn down(status: &Status) -> BTreeMap<String, String> {
    let probes = status.probes.iter();
    let probes = probes.filter(|probe| probe.state == ProbeState::Down);
    let services = probes.map(|probe| {
        let of = format!(
            "{} {}",
            probe.publish,
            std::net::SocketAddr::new(probe.vip, probe.port)
        );
        (of, probe.error.clone().unwrap_or_default())
    });
    let peers = status.peers.iter();
    let far_ends = peers.filter(|peer| peer.kind != "peer" && !peer.online);
    let far_ends = far_ends.filter_map(|peer| {
        let name = peer.name.as_ref()?;
        Some((
            format!("the tunnel to {name}"),
            "there was no session".to_owned(),
        ))
    });
    // That nothing answers is known by service, with reasons.
    let mut problems = status.problems.iter();
    let problem = problems.find(|&problem| problem != NO_PATH);
    let this = problem.map(|problem| ("this end".to_owned(), problem.clone()));
    services.chain(far_ends).chain(this).collect()
}

fn counted(status: &Status) -> BTreeMap<String, u64> {
    let publishes = status.publishes.iter();
    let connections =
        publishes.filter_map(|of| Some((format!("connections {}", of.name), of.connections?)));
    let named = |kind: &'static str, counters: &BTreeMap<String, u64>| {
        let named = counters
            .iter()
            .map(|(name, count)| (format!("{kind} {name}"), *count));
        named.collect::<Vec<_>>()
    };
    let refused = named("refused", &status.refused_packets);
    let dropped = named("dropped", &status.dropped_packets);
    connections.chain(refused).chain(dropped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: i64, down: &[(&str, &str)], counted: &[(&str, u64)]) -> Sample {
        let owned = |&(of, why): &(&str, &str)| (of.to_owned(), why.to_owned());
        Sample {
            at: Timestamp::from_second(seconds).unwrap(),
            down: down.iter().map(owned).collect(),
            counted: counted
                .iter()
                .map(|&(name, count)| (name.to_owned(), count))
                .collect(),
        }
    }

    #[test]
    fn outages_have_a_beginning_and_an_end_and_counters_what_they_have_grown_by() {
        let refused = ("ingress 10.17.5.30:443", "connection refused");
        let history = History(Mutex::new(VecDeque::from([
            sample(0, &[], &[("connections ingress", 10), ("dropped junk", 7)]),
            sample(
                10,
                &[refused],
                &[("connections ingress", 11), ("dropped junk", 7)],
            ),
            sample(
                20,
                &[refused, ("this end", "x")],
                &[("connections ingress", 12)],
            ),
            sample(
                30,
                &[("this end", "y")],
                &[("connections ingress", 15), ("dropped junk", 7)],
            ),
            sample(
                130,
                &[refused, ("this end", "y")],
                &[("connections ingress", 2), ("dropped junk", 7)],
            ),
        ])));
        let window = history.window();
        assert_eq!(window.minutes, 2);
        let counted: Vec<_> = window
            .counted
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        // It began anew.
        assert_eq!(counted, [("connections ingress", 2)]);
        let outages = window.outages.iter();
        let outages: Vec<_> = outages
            .map(|of| {
                (
                    of.of.as_str(),
                    of.from.as_second(),
                    of.until.as_second(),
                    of.why.as_str(),
                )
            })
            .collect();
        assert_eq!(
            outages,
            [
                ("ingress 10.17.5.30:443", 130, 130, "connection refused"),
                ("this end", 30, 130, "y"),
                ("ingress 10.17.5.30:443", 10, 20, "connection refused"),
                ("this end", 20, 20, "x"),
            ]
        );
        assert_eq!(History::default().window(), Window::default());
    }
}
