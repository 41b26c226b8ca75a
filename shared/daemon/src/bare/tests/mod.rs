//! The device as a process, configured by the real `wg` and `ip`, beside itself and beside wireguard-go.
//!
//! ```text
//!   namespace A                          namespace B
//!   10.9.0.1 uN ── 192.0.2.1 wan ─────── wan 192.0.2.2 ── uM 10.9.0.2
//! ```
mod life;
mod traffic;
mod world;

use super::run;

/// The process that the other tests start; not a test.
#[tokio::test]
#[ignore = "started by the other tests as a process of its own"]
async fn device_process() {
    crate::logging::init();
    let name = std::env::var(world::DEVICE_VARIABLE).expect("started by a test");
    if let Err(error) = run(name.parse().unwrap()).await {
        panic!("{}", crate::error::chain(&error));
    }
}
