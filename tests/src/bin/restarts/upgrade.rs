//! From another version's programs to ours, one end at a time, in either order: mixed in between, and with what the other
//! version has written.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::edge::{Edge, Setup, binary};
use tests::world::LightWorld;

use super::event::End;
use super::row::Row;
use super::visitors::Visitors;
use super::wait_for_notes;

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer that the other version's API made.
const PEER: &str = "alice";

/// The gateway first, then the LAN server first.
pub(crate) fn both_ways(from: &Path, connections: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for order in [
        [End::Gateway, End::LanServer],
        [End::LanServer, End::Gateway],
    ] {
        rows.extend(upgrade(from, connections, order)?);
    }
    Ok(rows)
}

fn upgrade(from: &Path, connections: usize, order: [End; 2]) -> Result<Vec<Row>> {
    let program = |name: &str| -> Result<String> {
        let path = from.join(name).canonicalize();
        let path = path.with_context(|| format!("no {name} in {}", from.display()))?;
        Ok(path.to_str().context("its path is not UTF-8")?.to_owned())
    };
    let world = LightWorld::new()?;
    let programs = [program("gateway")?, program("lan-server")?];
    let mut setup = Setup::new()?;
    // Versions before it know no such table.
    setup.refresh.clear();
    let mut edge = Edge::start_programs(&world, setup, programs)?;
    edge.gateway
        .command(&["peer", "add", PEER, "--role", "kube-admin"])?;
    let mut visitors = Visitors::come(&world, connections)?;
    wait_for_notes(&world)?;
    let mut rows = Vec::new();
    let mut other = "another version";
    for end in order {
        let mut row = Row::new(end, format!("upgraded, the other end {other}"));
        let instance = end.of(&mut edge);
        let since = Instant::now();
        instance.daemon.stop(Signal::SIGTERM, PATIENCE)?;
        instance.program = binary(end.name())?;
        instance.restart()?;
        row.add(visitors.longest_silence(since)?, visitors.lost());
        rows.push(row);
        other = "this version";
    }
    let peers = edge.gateway.command(&["peer", "list"])?;
    ensure!(peers.contains(PEER), "the peer {PEER} is gone:\n{peers}");
    Ok(rows)
}
