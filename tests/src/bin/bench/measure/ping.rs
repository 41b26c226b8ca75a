//! Round-trip times from the gateway to the LAN end, through the tunnel.
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tests::world::addresses::LAN_SERVER;

use super::tcp::{iperf, received};
use crate::figure;
use crate::meter::Meter;
use crate::options::Pace;
use crate::record::Sample;
use crate::site::Site;

/// Echo requests per second: 10 ms apart.
const PER_SECOND: u32 = 100;
/// Between the start of the stream and the first request.
const SLOW_START: Duration = Duration::from_secs(1);

pub(super) fn measure(site: &Site, loaded: bool, pace: Pace) -> Result<Sample> {
    let count = PER_SECOND * pace.seconds;
    let meter = Meter::start()?;
    let mut sample = Sample::default();
    let times = if loaded {
        thread::scope(|scope| {
            let stream = scope.spawn(|| iperf(site, pace.seconds + 2, &[]));
            thread::sleep(SLOW_START);
            let times = round_trips(site, count);
            let stream = stream
                .join()
                .map_err(|_| anyhow!("the stream's thread panicked"))?;
            let (_, rate) = received(&stream?, "sum_received")?;
            sample.note(figure::THROUGHPUT, rate);
            times
        })?
    } else {
        round_trips(site, count)?
    };
    meter.stop(&site.sessions())?.note(&mut sample);
    for (name, percent) in [(figure::PING_P50, 50), (figure::PING_P99, 99)] {
        let time = figure::quantile(&times, percent).context("no echo request was answered")?;
        sample.note(name, time);
    }
    let answered = figure::share(times.len() as u64, count.into());
    sample.note(figure::PING_LOST, 1.0 - answered);
    Ok(sample)
}

/// Times of those that were answered, in microseconds.
fn round_trips(site: &Site, count: u32) -> Result<Vec<f64>> {
    let (to, count) = (LAN_SERVER.to_string(), count.to_string());
    let output = site
        .gw
        .output(&["ping", "-n", "-c", &count, "-i", "0.01", "-W", "1", &to])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("time=")?;
        let millis: f64 = rest.split_whitespace().next()?.parse().ok()?;
        Some(millis * 1e3)
    });
    Ok(times.collect())
}
