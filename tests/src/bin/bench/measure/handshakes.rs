//! Handshakes per second of the gateway with peers that dial from the internet's side, each from an address of its own.
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use tests::edge::LISTEN_PORT;
use tests::world::addresses::{CLIENT, VPS};

use crate::figure;
use crate::meter::Meter;
use crate::options::Pace;
use crate::product::Keys;
use crate::record::Sample;
use crate::site::Site;

/// Handshakes that are under way at a time.
const IN_FLIGHT: usize = 64;
/// The peers' addresses: from the range for benchmarks (RFC 2544).
const PEERS: &str = "198.18.0.0/16";
const FIRST_PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

pub(super) fn measure(site: &Site, keys: &Keys, peers: usize, pace: Pace) -> Result<Sample> {
    // All of the range is the client's own, without an address a peer.
    site.client
        .ip(&format!("route replace local {PEERS} dev lo"))?;
    // By way of the client: thousands of neighbours would be more than the kernel's table holds (gc_thresh3).
    site.gw.ip(&format!(
        "route replace {PEERS} via {CLIENT} dev eth0 onlink"
    ))?;
    let mut lines = String::new();
    for (_, key) in keys.peers(peers) {
        writeln!(lines, "{}", key.private.to_base64().as_str())?;
    }
    let path = site.client.write("peers.keys", &lines)?;
    let gateway = site.gateway_session();
    let meter = Meter::start()?;
    let numbers = site.call(&[
        "dial",
        &format!("{VPS}:{LISTEN_PORT}"),
        &keys.gateway.public.to_string(),
        &path.display().to_string(),
        &FIRST_PEER.to_string(),
        &IN_FLIGHT.to_string(),
        &pace.seconds.to_string(),
    ])?;
    let usage = meter.stop(&gateway)?;
    // Numbers of the first handshake of every peer, then those of the measured time.
    let [first, _, _, _, responses, cookies, lost, seconds] = *numbers else {
        bail!("the peers printed {numbers:?}");
    };
    let mut sample = Sample::default();
    usage.note(&mut sample);
    for (name, value) in [
        (figure::HANDSHAKES, responses / seconds),
        (figure::HANDSHAKES_LOST, lost),
        (figure::COOKIES, cookies),
        (
            figure::DAEMON_US_PER_HANDSHAKE,
            usage.daemons / (first + responses) * 1e6,
        ),
    ] {
        sample.note(name, value);
    }
    Ok(sample)
}
