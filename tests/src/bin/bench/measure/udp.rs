//! The highest rate of datagrams that gets through, and what is left of a flood.
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tests::world::addresses::VPS;

use crate::figure;
use crate::meter::{Meter, Usage};
use crate::options::Pace;
use crate::record::Sample;
use crate::site::{SINK_PORT, Site};

/// Share of datagrams that may be lost.
const LOSS: f64 = 0.01;
/// Share of the wanted rate that the sender must reach, or the rate says nothing.
const REACHED: f64 = 0.95;
/// Datagrams per second to begin with.
const FIRST_RATE: f64 = 10e3;
/// More than any sender here reaches.
const LAST_RATE: f64 = 3.2e6;
/// Tries of a rate, since one hiccup of the machine loses more than 1 % of a second.
const TRIES: usize = 2;
/// Datagrams per second, and seconds, until paths and caches are warm.
const WARM_UP: (f64, f64) = (20e3, 0.5);
/// How long datagrams may be on their way after the last one was sent.
const DRAIN: Duration = Duration::from_millis(100);

/// One rate, tried once.
struct Probe {
    sent_per_second: f64,
    delivered_per_second: f64,
    delivered: u64,
    loss: f64,
    usage: Usage,
}

pub(super) fn measure(site: &Site, size: usize, flows: usize, pace: Pace) -> Result<Sample> {
    let (rate, seconds) = WARM_UP;
    probe(site, size, flows, rate, seconds)?;
    let mut search = Search {
        site,
        size,
        flows,
        seconds: pace.probe_seconds,
        best: None,
        sample: Sample::default(),
    };
    search.run(pace.precision)?;
    let Search {
        best, mut sample, ..
    } = search;
    let flood = probe(site, size, flows, 0.0, 1.5 * pace.probe_seconds)?;
    sample.note(figure::FLOOD_SENT, flood.sent_per_second);
    sample.note(figure::FLOOD_DELIVERED, flood.delivered_per_second);
    if let Some(best) = best {
        sample.note(figure::DATAGRAMS, best.delivered_per_second);
        let each = best.usage.daemons / figure::count(best.delivered);
        sample.note(figure::DAEMON_US_PER_DATAGRAM, each * 1e6);
        best.usage.note(&mut sample);
    } else {
        // A figure, not a failure: it can't carry even the lowest rate.
        sample.note(figure::DATAGRAMS, 0.0);
        flood.usage.note(&mut sample);
    }
    Ok(sample)
}

/// Doubling until a rate is too high, then halving the interval.
struct Search<'a> {
    site: &'a Site,
    size: usize,
    flows: usize,
    seconds: f64,
    best: Option<Probe>,
    sample: Sample,
}

impl Search<'_> {
    fn run(&mut self, precision: f64) -> Result<()> {
        let (mut low, mut high) = (0.0, FIRST_RATE);
        while high <= LAST_RATE && self.passes(high)? {
            (low, high) = (high, high * 2.0);
        }
        while low > 0.0 && high / low > precision {
            let middle = (low * high).sqrt();
            if self.passes(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(())
    }

    fn passes(&mut self, rate: f64) -> Result<bool> {
        for _ in 0..TRIES {
            let probe = probe(self.site, self.size, self.flows, rate, self.seconds)?;
            let (sent, delivered) = (probe.sent_per_second, probe.delivered_per_second);
            self.sample
                .probes
                .push([rate, sent, delivered].map(f64::round));
            if probe.loss < LOSS && sent > REACHED * rate {
                let better = |best: &Probe| delivered > best.delivered_per_second;
                if self.best.as_ref().is_none_or(better) {
                    self.best = Some(probe);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Send at a rate (0: as fast as can be) and count what arrives.
fn probe(site: &Site, size: usize, flows: usize, rate: f64, seconds: f64) -> Result<Probe> {
    let before = site.delivered()?;
    let meter = Meter::start()?;
    let numbers = site.call(&[
        "blast",
        &format!("{VPS}:{SINK_PORT}"),
        &size.to_string(),
        &rate.to_string(),
        &seconds.to_string(),
        &flows.to_string(),
    ])?;
    let [sent, took] = *numbers else {
        bail!("the sender printed {numbers:?}");
    };
    ensure!(sent > 0.0, "the sender could send nothing");
    thread::sleep(DRAIN);
    let usage = meter.stop(&site.sessions())?;
    let delivered = site.delivered()? - before;
    let arrived = figure::count(delivered);
    Ok(Probe {
        sent_per_second: sent / took,
        delivered_per_second: arrived / took,
        delivered,
        loss: 1.0 - arrived / sent,
        usage,
    })
}
