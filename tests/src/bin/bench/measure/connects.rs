//! TCP connections per second from the client through the gateway's DNAT and the tunnel to the VIP.
use anyhow::{Result, bail};
use tests::world::addresses::VPS;

use crate::figure;
use crate::meter::Meter;
use crate::options::Pace;
use crate::record::Sample;
use crate::site::{CONNECT_PORT, Site};

/// Clients that connect at the same time.
const CLIENTS: usize = 16;

/// The server ends every connection with a reset, so that no port waits in TIME-WAIT; connection tracking forgets what
/// was reset after a second instead of ten, and the client has all ports: neither ports nor the table's size limit. How
/// full the table was is noted.
pub(super) fn measure(site: &Site, pace: Pace) -> Result<Sample> {
    for node in [&site.gw, &site.lan] {
        node.set_sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    }
    site.client
        .set_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    let meter = Meter::start()?;
    let numbers = site.call(&[
        "connect",
        &format!("{VPS}:{CONNECT_PORT}"),
        &CLIENTS.to_string(),
        &pace.seconds.to_string(),
    ])?;
    let usage = meter.stop(&site.sessions())?;
    let tracked = |name: &str| -> Result<f64> {
        Ok(site.gw.sysctl(&format!("net/netfilter/{name}"))?.parse()?)
    };
    let (entries, most) = (tracked("nf_conntrack_count")?, tracked("nf_conntrack_max")?);
    let [connected, failed, seconds] = *numbers else {
        bail!("the clients printed {numbers:?}");
    };
    if connected <= 0.0 {
        bail!("no connection was made, {failed} failed");
    }
    let mut sample = Sample::default();
    usage.note(&mut sample);
    for (name, value) in [
        (figure::CONNECTIONS, connected / seconds),
        (figure::CONNECTIONS_FAILED, failed),
        (
            figure::DAEMON_US_PER_CONNECTION,
            usage.daemons / connected * 1e6,
        ),
        (figure::CONNTRACK_ENTRIES, entries),
        (figure::CONNTRACK_MAX, most),
    ] {
        sample.note(name, value);
    }
    Ok(sample)
}
