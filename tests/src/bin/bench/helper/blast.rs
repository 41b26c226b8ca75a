//! A paced sender of UDP datagrams. No `UDP_SEGMENT`: each datagram is a packet of its own from the start.
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg, setsockopt};

/// Most datagrams of one system call.
const BATCH: usize = 64;
/// Most of them where flows take turns, so that these are mixed finely.
const MIXED_BATCH: usize = BATCH / 8;
/// Pause between two looks at what is due.
const TICK: Duration = Duration::from_micros(200);
/// How late the kernel may end a pause, in nanoseconds.
const TIMER_SLACK: u64 = 1000;
/// Bytes that the kernel may queue at each socket.
const SOCKET_BUFFER: usize = 4 << 20;

/// Send for this time; returns "sent seconds".
pub(super) fn run(
    to: SocketAddrV4,
    size: usize,
    rate: f64,
    time: Duration,
    flows: usize,
) -> Result<String> {
    let sockets = (0..flows)
        .map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            setsockopt(&socket, SndBufForce, &SOCKET_BUFFER)?;
            socket.connect(to)?;
            Ok(socket)
        })
        .collect::<Result<Vec<_>>>()?;
    let payload = vec![0; size];
    let messages = [[IoSlice::new(&payload)]; BATCH];
    // Addresses of no length, since the sockets are connected.
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let most = if flows > 1 { MIXED_BATCH } else { BATCH };
    set_timerslack(TIMER_SLACK)?;

    let began = Instant::now();
    let (mut sent, mut turns) = (0, sockets.iter().cycle());
    while began.elapsed() < time {
        let mut due = due(rate, began.elapsed()).saturating_sub(sent);
        while due > 0 && began.elapsed() < time {
            let Some(socket) = turns.next() else { break };
            let number = due.min(most);
            let batch = messages.iter().take(number);
            let nowhere = [None; BATCH];
            let control: [ControlMessage<'_>; 0] = [];
            let result = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                batch,
                nowhere,
                control,
                MsgFlags::empty(),
            );
            // Refused by ICMP or for want of room: what is due is tried again after the pause.
            let Ok(accepted) = result.map(Iterator::count) else {
                break;
            };
            sent += accepted;
            due -= accepted.min(due);
        }
        thread::sleep(TICK);
    }
    Ok(format!("{sent} {:.6}", began.elapsed().as_secs_f64()))
}

/// Datagrams that should have been sent by now.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate times a time is neither negative nor beyond 2^53"
)]
fn due(rate: f64, elapsed: Duration) -> usize {
    if rate <= 0.0 {
        return usize::MAX;
    }
    (rate * elapsed.as_secs_f64()) as usize
}
