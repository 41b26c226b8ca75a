//! A configuration on trial: what there is to go back to, and what was well before it.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::api::probe::{Probe, ProbeState};

use super::Wanted;
use super::guard::Guard;
use crate::endpoints::Endpoints;
use crate::probe::Probes;
use crate::product::Product;

/// How often it is tried again to go back when that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// From its begin to the answer.
#[derive(Debug)]
pub(super) struct Trial<P: Product> {
    /// When it was in place: connections that were opened before prove nothing.
    pub since: Instant,
    /// When it ends by itself.
    pub until: Instant,
    /// What ran before.
    pub before: Wanted<P>,
    /// Where the peers were then: those that it has taken out are called there again.
    pub endpoints: Endpoints,
    /// What was well then.
    pub well: Well,
    /// Goes back should this process die.
    pub guard: Guard,
}

impl<P: Product> Trial<P> {
    /// Going back failed: once more in a moment.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.until = now + AGAIN;
    }
}

/// How things were before.
#[derive(Debug)]
pub(super) struct Well {
    problems: Arc<[String]>,
    answered: Vec<SocketAddr>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Whether everything was looked at.
    pub checked: bool,
    /// What was well and is not.
    pub problems: Vec<String>,
}

impl Well {
    /// These were the problems, and these the latest attempts.
    pub(super) fn new(problems: Arc<[String]>, probes: &[Probe]) -> Self {
        let up = probes.iter().filter(|probe| probe.state == ProbeState::Up);
        Self {
            problems,
            answered: up.map(target).collect(),
        }
    }

    /// What is not any more, in a configuration that has been in place since then. What is not published any more is not
    /// missed: somebody wanted that.
    pub(super) fn compare(
        &self,
        problems: &[String],
        published: &[Probe],
        probes: &Probes,
        since: Instant,
    ) -> Findings {
        let new = problems.iter().filter(|now| !self.problems.contains(now));
        let mut findings = Findings {
            checked: true,
            problems: new.cloned().collect(),
        };
        let answered = published
            .iter()
            .filter(|probe| self.answered.contains(&target(probe)));
        for probe in answered {
            if !probes.is_tried_since(target(probe), since) {
                findings.checked = false;
            } else if probe.state == ProbeState::Down {
                findings.problems.push(format!(
                    "{} does not answer any more on {}: {}",
                    probe.publish,
                    target(probe),
                    probe.error.as_deref().unwrap_or("it is not known why")
                ));
            }
        }
        findings
    }
}

fn target(probe: &Probe) -> SocketAddr {
    SocketAddr::new(probe.vip, probe.port)
}
