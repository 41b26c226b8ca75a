//! What every test begins with.
use std::time::Duration;

use anyhow::Result;
use tests::edge::{Edge, Setup};
use tests::privilege::namespaces_allowed;
use tests::topology::Topology;
use tests::world::{LightWorld, ReferenceWorld};

/// Lines of each log that a failure shows.
const LOG_LINES: usize = 40;

/// How long something may take that needs no handshake and no retransmission.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Run a test in an empty world of its own.
#[track_caller]
pub(crate) fn in_topology(test: impl FnOnce(&mut Topology) -> Result<()>) {
    if !allowed() {
        return;
    }
    let mut topology = Topology::new().expect("an empty world can be made");
    let result = test(&mut topology);
    report(result, &topology);
}

/// Run a test in a light world of its own; a failure shows the end of every log.
#[track_caller]
pub(crate) fn in_light_world(test: impl FnOnce(&mut LightWorld) -> Result<()>) {
    if !allowed() {
        return;
    }
    let mut world = LightWorld::new().expect("the world of the test can be built");
    let result = test(&mut world);
    report(result, &world.topology);
}

/// The same in the whole reference world, which takes seconds to build.
#[track_caller]
pub(crate) fn in_reference_world(test: impl FnOnce(&mut ReferenceWorld) -> Result<()>) {
    if !allowed() {
        return;
    }
    let world = Topology::new().and_then(ReferenceWorld::new);
    let mut world = world.expect("the world of the test can be built");
    let result = test(&mut world);
    report(result, &world.topology);
}

/// [`in_light_world`] with both daemons running and the tunnel up.
#[track_caller]
pub(crate) fn with_edge(setup: Setup, test: impl FnOnce(&mut LightWorld, &mut Edge) -> Result<()>) {
    in_light_world(|world| {
        let mut edge = Edge::start(world, setup)?;
        let result = test(world, &mut edge);
        if let Err(error) = &result {
            pause_if_asked(error, &world.topology);
        }
        result
    });
}

#[expect(clippy::print_stdout, reason = "a test that was left out says so")]
fn allowed() -> bool {
    match namespaces_allowed() {
        Ok(true) => true,
        Ok(false) => {
            println!("unprivileged run: left out, it needs network namespaces");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn report(result: Result<()>, topology: &Topology) {
    if let Err(error) = result {
        // Not `{:?}`, which would add a backtrace longer than all the rest.
        let reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
        panic!(
            "{}\n{}",
            reasons.join("\n  because "),
            topology.logs(LOG_LINES)
        );
    }
}

/// With `WG_EDGE_PAUSE=1` a failed world with its daemons stays up until the file that is named here is removed.
#[expect(clippy::print_stderr, reason = "someone sits in front of it")]
fn pause_if_asked(error: &anyhow::Error, topology: &Topology) {
    if std::env::var_os("WG_EDGE_PAUSE").is_none_or(|value| value != "1") {
        return;
    }
    let path = topology.dir().join("paused");
    std::fs::write(&path, "").expect("the world's directory can be written");
    let names: Vec<&str> = topology
        .nodes()
        .iter()
        .map(tests::node::Node::netns)
        .collect();
    eprintln!("{error:#}\nlook around with `ip netns exec NAME …`: {names:?}");
    eprintln!("then: rm {}", path.display());
    while path.exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
