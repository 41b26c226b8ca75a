//! Open connections outlive the daemons: a crash, a stop and start (an upgrade) and a reload of either end lose none of them.
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::edge::{Edge, Instance, Setup};
use tests::expect::eventually;
use tests::servers::Conversation;
use tests::world::World;
use tests::world::addresses::public;

use crate::support::{SOON, with_edge};

/// As many as P7 of the design asks for.
const CONNECTIONS: usize = 100;
/// For an answer that is on its way while an end is away: TCP sends again after 0.2, 0.6, 1.4, 3 s (RFC 6298).
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to a daemon.
#[derive(Debug, Clone, Copy)]
enum Event {
    Crash,
    StopAndStart,
    Reload,
}

const EVENTS: [Event; 3] = [Event::Crash, Event::StopAndStart, Event::Reload];

impl Event {
    fn happens_to(self, instance: &mut Instance) -> Result<()> {
        match self {
            Self::Crash => {
                instance.daemon.kill();
                instance.restart()
            }
            Self::StopAndStart => {
                instance.daemon.stop(Signal::SIGTERM, SOON)?;
                instance.restart()
            }
            Self::Reload => instance.reload(|text| format!("{text}\n# changed\n")),
        }
    }
}

fn open(world: &World) -> Result<Vec<Conversation>> {
    let connections = (0..CONNECTIONS).map(|_| {
        let mut connection = Conversation::open(&world.client, public(80))?;
        connection.set_patience(PATIENCE)?;
        connection.echo("before")?;
        Ok(connection)
    });
    connections.collect()
}

fn all_go_on(connections: &mut [Conversation]) -> Result<()> {
    for (number, connection) in connections.iter_mut().enumerate() {
        let echoed = connection.echo("after");
        echoed.with_context(|| format!("connection {number} of {CONNECTIONS} is lost"))?;
    }
    Ok(())
}

fn survive(of: fn(&mut Edge) -> &mut Instance) {
    let setup = Setup::new().expect("random numbers");
    with_edge(setup, |world, edge| {
        let mut connections = open(world)?;
        // The gateway can't know where the LAN end behind NAT is but from what it wrote down: every two seconds.
        let endpoints = world.vps.dir().join("state/endpoints.json");
        eventually(SOON, "the endpoint of the LAN end on disk", || {
            Ok(std::fs::metadata(&endpoints)?)
        })?;
        for event in EVENTS {
            event.happens_to(of(edge))?;
            all_go_on(&mut connections).with_context(|| format!("after {event:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn connections_outlive_the_gateway() {
    survive(|edge| &mut edge.gateway);
}

#[test]
fn connections_outlive_the_lan_server() {
    survive(|edge| &mut edge.lan_server);
}
