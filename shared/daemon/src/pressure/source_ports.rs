//! Source ports of connections that are translated to an address of this host (`source_ip = "masquerade"` or a pool): to one destination
//! there are only so many, and a new connection fails without a word when none is free.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use shared::api::status::{Conntrack, SourcePorts};
use shared::config::common::Protocol;
use shared_os::netlink::ReadError;
use shared_os::netlink::conntrack::{self, Entry, status};
use tokio::sync::Mutex;
use tracing::warn;

use super::MUCH;

/// The ports that a connection from an unprivileged one may get (`nf_nat_l4proto_unique_tuple` of
/// `net/netfilter/nf_nat_core.c`). Those from privileged ports share the few privileged ones.
const FIRST: u16 = 1024;
pub const LIMIT: u64 = 65_536 - 1024;

/// How long a count is good for. Counting reads the whole table.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What the ports are counted for: no two connections may have all of it and the port in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    protocol: Protocol,
    zone: u16,
    source: IpAddr,
    destination: SocketAddr,
}

/// The latest count.
#[derive(Debug, Default)]
pub struct Looks {
    latest: Mutex<Option<(Instant, Vec<SourcePorts>)>>,
}

impl Looks {
    /// Destinations for which most ports are in use. Costs nothing while the whole table has fewer connections than that.
    pub async fn look(&self, tracked: Option<Conntrack>) -> Vec<SourcePorts> {
        let Some(tracked) = tracked.filter(|tracked| is_much(tracked.entries)) else {
            return Vec::new();
        };
        let mut latest = self.latest.lock().await;
        if let Some((at, found)) = &*latest {
            if at.elapsed() < GOOD_FOR {
                return found.clone();
            }
        }
        let counted = tokio::task::spawn_blocking(move || count(tracked.entries, translated)).await;
        let found = match counted {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                let error = crate::error::chain(&error);
                warn!(%error, "can't count source ports");
                Vec::new()
            }
            Err(error) => {
                warn!(%error, "source ports were not counted");
                Vec::new()
            }
        };
        *latest = Some((Instant::now(), found.clone()));
        found
    }
}

/// That few ports are left, and what to do.
pub fn warning(of: &SourcePorts) -> String {
    let SourcePorts {
        protocol,
        source,
        destination,
        used,
        limit,
    } = of;
    format!(
        "connections to {destination}/{protocol} have {used} of the {limit} ports of {source}, which stands for the callers, and \
         new ones fail when there is none: let callers keep their addresses (`source_ip = \"preserve\"`), or give several addresses \
         to stand for them (`source_ip = \"FIRST-LAST\"`)"
    )
}

const fn is_much(ports: u64) -> bool {
    ports * 100 >= LIMIT * MUCH
}

fn translated(look: &mut dyn FnMut(&Entry)) -> Result<(), ReadError> {
    conntrack::each(status::SRC_NAT, |entry| {
        look(entry);
        ControlFlow::Continue(())
    })
}

/// In two readings, and in little memory however many destinations there are: the first one finds who may be concerned, the
/// second one counts.
///
/// Whoever has more than an `n`-th of all is among the `n` that are left when a connection of another one, as soon as all `n`
/// places are taken, takes one away from each (Misra and Gries, *Finding repeated elements*, 1982).
fn count<Error>(
    entries: u64,
    mut read: impl FnMut(&mut dyn FnMut(&Entry)) -> Result<(), Error>,
) -> Result<Vec<SourcePorts>, Error> {
    // Twice as many as there were: more may come before they are read.
    let places = usize::try_from(entries * 2 * 100 / (LIMIT * MUCH)).unwrap_or(1) + 1;
    let mut left: BTreeMap<Way, u64> = BTreeMap::new();
    read(&mut |entry| {
        let Some(way) = way(entry) else { return };
        if let Some(count) = left.get_mut(&way) {
            *count += 1;
        } else if left.len() < places {
            left.insert(way, 1);
        } else {
            left.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    })?;
    for count in left.values_mut() {
        *count = 0;
    }
    read(&mut |entry| {
        if let Some(count) = way(entry).and_then(|way| left.get_mut(&way)) {
            *count += 1;
        }
    })?;
    let much = left.into_iter().filter(|(_, used)| is_much(*used));
    Ok(much
        .map(|(way, used)| SourcePorts {
            protocol: way.protocol.to_string(),
            source: way.source,
            destination: way.destination,
            used,
            limit: LIMIT,
        })
        .collect())
}

/// Where the answers of a translated connection come from and go to.
fn way(entry: &Entry) -> Option<Way> {
    let ours = entry.reply.destination;
    let is_translated = entry.original.source != ours && ours.port() >= FIRST;
    is_translated.then(|| Way {
        protocol: entry.protocol,
        zone: entry.zone,
        source: ours.ip(),
        destination: entry.reply.source,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use shared_os::netlink::conntrack::Tuple;

    use super::*;

    /// A connection to a VIP of which the LAN host's address has a port.
    fn entry(number: u32, port: u16, vip: &str) -> Entry {
        let caller = IpAddr::from([10, 17, 0, u8::try_from(number % 200).unwrap()]);
        let source = |address: IpAddr, port: u16| SocketAddr::new(address, port);
        let vip: SocketAddr = vip.parse().unwrap();
        let ours = source("10.17.5.1".parse().unwrap(), port);
        Entry::new(
            Protocol::Tcp,
            Tuple {
                source: source(caller, 40_000),
                destination: vip,
            },
            Tuple {
                source: vip,
                destination: ours,
            },
        )
    }

    fn counted(all: &[Entry]) -> Vec<SourcePorts> {
        let entries = u64::try_from(all.len()).unwrap();
        let read = |look: &mut dyn FnMut(&Entry)| -> Result<(), Infallible> {
            all.iter().for_each(look);
            Ok(())
        };
        count(entries, read).unwrap()
    }

    fn to_one(vip: &str, ports: std::ops::Range<u16>) -> Vec<Entry> {
        let ports = ports.into_iter();
        ports
            .map(|port| entry(u32::from(port), port, vip))
            .collect()
    }

    #[test]
    fn four_fifths_of_the_ports_to_one_destination_are_worth_a_word() {
        let mut all = to_one("10.17.5.30:443", 1024..1024 + 51_609);
        assert_eq!(counted(&all), []);
        all.push(entry(0, 60_000, "10.17.5.30:443"));
        // Privileged ports are others.
        all.push(entry(0, 600, "10.17.5.30:443"));
        let found = counted(&all);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].used, found[0].limit), (51_610, 64_512));
        let text = warning(&found[0]);
        assert!(
            text.contains("10.17.5.30:443/tcp have 51610 of the 64512 ports of 10.17.5.1"),
            "{text}"
        );
    }

    #[test]
    fn many_to_several_destinations_are_not_many_to_one() {
        let vips = ["10.17.5.30:443", "10.17.5.30:80", "10.17.5.10:6443"];
        let spread: Vec<Entry> = vips
            .iter()
            .flat_map(|vip| to_one(vip, 1024..31_024))
            .collect();
        assert_eq!(counted(&spread), []);
    }

    #[test]
    fn one_among_very_many_destinations_is_found_wherever_it_stands() {
        let heavy = to_one("10.17.5.30:443", 1024..53_024);
        let others: Vec<Entry> = (0..150_000_u32)
            .map(|number| {
                let [_, a, b, c] = number.to_be_bytes();
                entry(number, 2000, &format!("198.{a}.{b}.{c}:443"))
            })
            .collect();
        let mixed: Vec<Entry> = heavy
            .iter()
            .zip(others.chunks(2))
            .flat_map(|(heavy, others)| [*heavy].into_iter().chain(others.iter().copied()))
            .collect();
        for all in [
            [heavy.clone(), others.clone()].concat(),
            [others.clone(), heavy.clone()].concat(),
            mixed,
        ] {
            let found = counted(&all);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].used, 52_000);
        }
    }

    #[tokio::test]
    async fn a_small_table_is_not_read() {
        let looks = Looks::default();
        let tracked = |entries| Some(Conntrack { entries, limit: 0 });
        assert_eq!(looks.look(None).await, []);
        assert_eq!(looks.look(tracked(51_609)).await, []);
        assert!(looks.latest.lock().await.is_none());
    }
}
