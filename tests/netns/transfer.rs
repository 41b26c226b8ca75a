//! Bulk data arrives whole.
use std::thread;
use std::time::Duration;

use tests::edge::Setup;
use tests::servers::Conversation;
use tests::world::addresses::{API_PORT, API_VIP, OPERATOR, at, public, public6};

use crate::support::with_edge;

const BYTES: u64 = 100_000_000;
/// A shared test machine may be slow, but a stream that stands still for so long is broken.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_hundred_megabytes_arrive_unchanged_in_both_directions() {
    with_edge(Setup::new().unwrap(), |world, _edge| {
        let mut transfer = Conversation::open(&world.client, public(80))?;
        transfer.set_patience(PATIENCE)?;
        transfer.download(BYTES)?;
        transfer.upload(BYTES)
    });
}

#[test]
fn streams_of_several_visitors_at_once_do_not_mix() {
    with_edge(Setup::new().unwrap(), |world, edge| {
        let _laptop =
            edge.setup
                .dial_in(&world.road_warrior, &edge.setup.operator, OPERATOR.into())?;
        let jobs = [
            (&world.client, public(80), true),
            (&world.client, public(443), false),
            (&world.client, public6(80), true),
            (&world.road_warrior, at(API_VIP, API_PORT), false),
        ];
        thread::scope(|scope| {
            let running: Vec<_> = jobs
                .into_iter()
                .map(|(node, to, down)| {
                    scope.spawn(move || -> anyhow::Result<()> {
                        let mut transfer = Conversation::open(node, to)?;
                        transfer.set_patience(PATIENCE)?;
                        if down {
                            transfer.download(BYTES / 4)
                        } else {
                            transfer.upload(BYTES / 4)
                        }
                    })
                })
                .collect();
            running
                .into_iter()
                .try_for_each(|job| job.join().expect("no panic"))
        })
    });
}
