//! Clients that connect, wait for the end and connect again.
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a connection may take to be made, and then to be ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connect for this time; returns "connected failed seconds".
pub(super) fn run(to: SocketAddrV4, clients: usize, time: Duration) -> Result<String> {
    let began = Instant::now();
    let client = || {
        let (mut connected, mut failed) = (0_u64, 0_u64);
        while began.elapsed() < time {
            if connect(to.into()) {
                connected += 1;
            } else {
                failed += 1;
            }
        }
        (connected, failed)
    };
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a client panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    let connected: u64 = counts.iter().map(|(connected, _)| connected).sum();
    let failed: u64 = counts.iter().map(|(_, failed)| failed).sum();
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!("{connected} {failed} {seconds:.6}"))
}

/// Whether a connection was made, and ended by the server.
fn connect(to: SocketAddr) -> bool {
    let ended = match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(mut stream) => stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.read(&mut [0])),
        // The reset can come before this thread runs again: a port that nobody serves would refuse instead.
        Err(error) => Err(error),
    };
    match ended {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}
