//! The engine's own clock, which no other test moves: it must never end what our timers keep alive.
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn persistent_keepalive(world: &mut World) {
    let mut change = world.peer(1);
    change.persistent_keepalive_secs = Some(25);
    world.change_peer(0, change);
}

fn initiations(world: &World) -> usize {
    world
        .overheard
        .iter()
        .filter(|sent| sent.kind() == 1)
        .count()
}

/// Three tunnels for five minutes: busy, idle with keepalives, and one whose link is down from 20 s to 260 s, longer
/// than the engine keeps a session (180 s) or a pending handshake (90 s).
#[test]
#[ignore = "takes five minutes of real time"]
#[expect(clippy::disallowed_methods, reason = "about the real clock")]
fn sessions_and_handshakes_live_as_long_by_the_engines_clock_as_by_ours() {
    let [mut busy, mut idle, mut broken] = [(); 3].map(|()| World::connected_pair());
    persistent_keepalive(&mut idle);
    persistent_keepalive(&mut broken);
    let start = Instant::now();
    let mut next_packet = start;
    let mut sent = 0;
    let mut reconnected = None;
    while start.elapsed() < 300 * SECOND {
        sleep(Duration::from_millis(20));
        let now = Instant::now();
        for world in [&mut busy, &mut idle, &mut broken] {
            world.now = now + SECOND; // connected_pair let a second pass
        }
        let down = (20..260).contains(&start.elapsed().as_secs());
        busy.pass(Duration::ZERO);
        idle.pass(Duration::ZERO);
        broken.pass(Duration::ZERO);
        if now >= next_packet {
            next_packet += SECOND;
            sent += 1;
            busy.send(0, 1, 100).unwrap();
            busy.send(1, 0, 100).unwrap();
        }
        assert_eq!(busy.deliver(), [], "after {:?}", start.elapsed());
        assert_eq!(idle.deliver(), [], "after {:?}", start.elapsed());
        if down {
            broken.intercept();
            reconnected = None;
        } else {
            broken.deliver();
            let age = broken.peer_status(0).latest_handshake.unwrap();
            if reconnected.is_none() && age < SECOND {
                reconnected = Some(start.elapsed());
            }
        }
    }
    let received = busy.nodes.iter().map(|node| node.received.len());
    assert_eq!(received.collect::<Vec<_>>(), [sent, sent]);
    assert_eq!(initiations(&busy), 3);
    assert_eq!(initiations(&idle), 3);
    assert!(
        reconnected.is_some_and(|at| at < 281 * SECOND),
        "{reconnected:?}"
    );
}
