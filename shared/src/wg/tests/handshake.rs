//! Facts about handshakes.
use std::time::Duration;

use super::world::{World, address, preshared_key, stranger};
use crate::wg::DropReason;

#[test]
fn one_packet_takes_one_handshake_and_arrives() {
    let mut world = World::pair();
    world.send(0, 1, 100).unwrap();
    assert_eq!(world.deliver(), []);
    assert_eq!(world.overheard_kinds(), [1, 2, 4]);
    assert_eq!(world.nodes[1].received.len(), 1);
    for node in 0..2 {
        assert_eq!(
            world.peer_status(node).latest_handshake,
            Some(Duration::ZERO)
        );
    }
}
