//! What is measured, one way of measuring a file.
mod connects;
mod handshakes;
mod ping;
mod tcp;
mod udp;

use anyhow::Result;

use crate::case::{Case, Work};
use crate::figure;
use crate::meter;
use crate::options::Pace;
use crate::product::Keys;
use crate::record::Sample;
use crate::site::Site;

/// Measure once. Nothing of it is written down yet but the figures.
pub(crate) fn measure(case: Case, site: &Site, keys: &Keys, pace: Pace) -> Result<Sample> {
    let mut sample = match case.work {
        Work::Tcp(streams) => tcp::measure(site, streams, pace)?,
        Work::Udp { size, flows } => udp::measure(site, size, flows, pace)?,
        Work::Ping { loaded } => ping::measure(site, loaded, pace)?,
        Work::Connects => connects::measure(site, pace)?,
        Work::Handshakes => handshakes::measure(site, keys, case.variant.peers, pace)?,
    };
    let memory = meter::peak_memory(&site.sessions())?;
    sample.note(figure::PEAK_MEMORY, figure::count(memory));
    sample.note(figure::LOAD, meter::load_average());
    Ok(sample)
}

impl Sample {
    fn note(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }
}
