//! ICMP echoes through the tunnel.
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use shared_os::echo::{LARGEST, open};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};

/// When an echo is asked for that has not been answered yet, and when nobody waits any more. A session that has to be made anew
/// takes a round trip more, a lost packet another try.
const TRIES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(700),
];
const PATIENCE: Duration = Duration::from_millis(1200);

/// Between packets of different lengths.
const GAP: Duration = Duration::from_millis(2);

/// A short packet (`ping` sends as much).
const SHORT: u16 = 84;

/// How long an answer takes; `None` without one.
///
/// # Errors
/// Echoes can't be asked for.
pub(super) async fn ping(address: IpAddr) -> io::Result<Option<Duration>> {
    let mut asked = Vec::new();
    let answered = answered(address, &[SHORT], |_, at| asked.push(at)).await?;
    let last = asked.iter().rev().find(|at| {
        let answer = answered.at;
        answer.is_some_and(|answer| **at <= answer)
    });
    Ok(answered
        .at
        .zip(last)
        .map(|(answer, asked)| answer.duration_since(*asked)))
}

/// The largest of these packet lengths, in descending order, that comes through unfragmented; `None` when none does.
///
/// # Errors
/// Echoes can't be asked for.
pub(super) async fn largest(address: IpAddr, lengths: &[u16]) -> io::Result<Option<u16>> {
    let answered = answered(address, lengths, |_, _| {}).await?;
    let first = answered.indexes.first();
    Ok(first
        .and_then(|&index| lengths.get(usize::from(index)))
        .copied())
}

#[derive(Debug, Default)]
struct Answered {
    /// Which of the lengths.
    indexes: BTreeSet<u16>,
    /// When the last answer came.
    at: Option<Instant>,
}

/// Asks for echoes of all lengths until the first one was answered, or nobody waits any more.
async fn answered(
    address: IpAddr,
    lengths: &[u16],
    mut note: impl FnMut(u16, Instant),
) -> io::Result<Answered> {
    let (socket, echo) = open(address)?;
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = vec![0; LARGEST];
    let began = Instant::now();
    let mut answered = Answered::default();
    let ends = TRIES.iter().skip(1).copied().chain([PATIENCE]);
    for end in ends {
        for (index, length) in (0_u16..).zip(lengths) {
            if answered.indexes.contains(&index) {
                continue;
            }
            note(index, Instant::now());
            // One by one: what comes together goes as one packet through cards and links that cut it up later, and would be lost as
            // one.
            if index > 0 {
                sleep(GAP).await;
            }
            // Too large for the link, or dropped on this host: no answer says the same.
            let _unsent = socket.send(&echo.request(index, *length)).await;
        }
        loop {
            if answered.indexes.contains(&0) {
                return Ok(answered);
            }
            tokio::select! {
                received = socket.recv(&mut buffer) => {
                    // An error is what a router says of one of them; the next answer may come all the same.
                    let length = received.unwrap_or_default();
                    if let Some(index) = buffer.get(..length).and_then(|packet| echo.answer(packet)) {
                        answered.indexes.insert(index);
                        answered.at = Some(Instant::now());
                    }
                }
                () = sleep_until(began + end) => break,
            }
        }
    }
    Ok(answered)
}
