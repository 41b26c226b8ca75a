//! What the daemons cost.
use std::time::Duration;

use tests::edge::Setup;
use tests::servers::Conversation;
use tests::world::addresses::public;

use crate::support::with_edge;

/// How long idleness is watched.
const WATCH: Duration = Duration::from_secs(5);
/// What follows a start, above all first looks at the kernel and at published services, is over then.
const STARTED: Duration = Duration::from_secs(2);
/// One per cent of [`WATCH`].
const IDLE_CPU: Duration = Duration::from_millis(50);
/// Resident memory that is the daemon's own, after traffic. Without pages of the program file: those of a test build are many
/// times those of a release, and the kernel can drop them at any time.
const MEMORY_BYTES: u64 = 12_000_000;

#[test]
fn idle_daemons_use_less_than_one_per_cent_of_a_core() {
    with_edge(Setup::new().unwrap(), |_world, edge| {
        let daemons = [&edge.gateway.daemon, &edge.lan_server.daemon];
        std::thread::sleep(STARTED);
        let before = [daemons[0].cpu_time()?, daemons[1].cpu_time()?];
        // Nothing to wait for: the time itself is what is watched.
        std::thread::sleep(WATCH);
        for (daemon, before) in daemons.into_iter().zip(before) {
            let used = daemon.cpu_time()?.saturating_sub(before);
            assert!(
                used <= IDLE_CPU,
                "{} used {used:?} in {WATCH:?}",
                daemon.node().name()
            );
        }
        Ok(())
    });
}

#[test]
fn daemons_stay_below_12_megabytes_also_after_traffic() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.set_patience(Duration::from_secs(20))?;
        transfer.download(20_000_000)?;
        transfer.upload(20_000_000)?;
        for daemon in [&edge.gateway.daemon, &edge.lan_server.daemon] {
            let bytes = daemon.own_bytes()?;
            assert!(
                bytes < MEMORY_BYTES,
                "{} holds {bytes} bytes",
                daemon.node().name()
            );
        }
        Ok(())
    });
}
