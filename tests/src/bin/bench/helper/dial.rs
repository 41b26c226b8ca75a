//! Initiators of handshakes: many peers, each with a key, an address and a socket of its own, in a closed loop.
//!
//! Each lane has one handshake under way: initiation, response, the first data message (which lets the responder use the
//! session), then the lane's next peer. A cookie reply is honoured at once by an initiation that carries the cookie.
//! The initiator is boringtun's, on one thread: it does the same number of scalar multiplications as the responder, so
//! that on two cores neither is far from being what limits.
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shared::model::{PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// Milliseconds after which lanes are looked at even when nothing came.
const TICK: u16 = 50;
/// Room for any message of a handshake.
const MESSAGE: usize = 256;
/// First byte of a response (whitepaper §5.4.3).
const RESPONSE: u8 = 2;
/// First byte of a cookie reply (whitepaper §5.4.7).
const COOKIE_REPLY: u8 = 3;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// Every peer has had one handshake, or failed.
    EachOnce,
    /// This much time has passed.
    Elapsed(Duration),
}

/// One peer.
pub(super) struct Caller {
    tunnel: Tunn,
    socket: UdpSocket,
    /// When the handshake that is under way is given up.
    deadline: Instant,
}

/// What came back.
#[derive(Default)]
struct Counts {
    responses: u64,
    cookies: u64,
    lost: u64,
}

/// A peer for each private key of the file, at addresses that follow each other.
pub(super) fn callers(
    to: SocketAddrV4,
    key: &PublicKey,
    keys: &Path,
    first: Ipv4Addr,
) -> Result<Vec<Caller>> {
    let text = fs::read_to_string(keys)?;
    (0..)
        .zip(text.lines())
        .map(|(number, line)| {
            let own: PrivateKey = line.parse().context("not a key")?;
            let address = Ipv4Addr::from_bits(first.to_bits() + number);
            let socket = UdpSocket::bind((address, 0))
                .with_context(|| format!("can't bind to {address}"))?;
            socket.set_nonblocking(true)?;
            socket.connect(to)?;
            let own_public = own.public_key();
            // A limiter of its own would take responses for a flood.
            let unlimited = RateLimiter::new(&(*own_public.as_bytes()).into(), u64::MAX);
            Ok(Caller {
                tunnel: Tunn::new(
                    StaticSecret::from(*own.as_bytes()),
                    (*key.as_bytes()).into(),
                    None,
                    None,
                    number,
                    Some(Arc::new(unlimited)),
                ),
                socket,
                deadline: Instant::now(),
            })
        })
        .collect()
}

/// Shake hands; returns "responses cookies lost seconds".
pub(super) fn run(callers: &mut [Caller], in_flight: usize, until: Until) -> Result<String> {
    ensure!(!callers.is_empty() && in_flight > 0, "nobody dials");
    let began = Instant::now();
    let mut counts = Counts::default();
    // Peer n is of lane n modulo the number of lanes, so that no peer is ever in two of them.
    let lanes = in_flight.min(callers.len());
    let mut at: Vec<Option<usize>> = (0..lanes).map(Some).collect();
    for caller in callers.iter_mut().take(lanes) {
        caller.initiate()?;
    }
    while at.iter().any(Option::is_some) {
        if matches!(until, Until::Elapsed(time) if began.elapsed() >= time) {
            break;
        }
        let ready = wait(callers, &at)?;
        let now = Instant::now();
        for ((lane, place), ready) in at.iter_mut().enumerate().zip(ready) {
            let Some(caller) = place.and_then(|peer| callers.get_mut(peer)) else {
                continue;
            };
            let finished = if ready {
                caller.handle_datagrams(&mut counts)?
            } else if now > caller.deadline {
                counts.lost += 1;
                true
            } else {
                false
            };
            if !finished {
                continue;
            }
            let next = place.map(|peer| peer + lanes);
            *place = match (next.filter(|&peer| peer < callers.len()), until) {
                (None, Until::Elapsed(_)) => Some(lane),
                (next, _) => next,
            };
            if let Some(caller) = place.and_then(|peer| callers.get_mut(peer)) {
                caller.initiate()?;
            }
        }
    }
    if matches!(until, Until::EachOnce) && counts.responses == 0 {
        bail!("no handshake of {} was answered", callers.len());
    }
    let Counts {
        responses,
        cookies,
        lost,
    } = counts;
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!("{responses} {cookies} {lost} {seconds:.6}"))
}

/// Wait until a lane's peer has an answer, or for a tick; says which.
fn wait(callers: &[Caller], at: &[Option<usize>]) -> Result<Vec<bool>> {
    let peers = at
        .iter()
        .map(|place| place.and_then(|peer| callers.get(peer)));
    let mut polled: Vec<PollFd<'_>> = peers
        .clone()
        .flatten()
        .map(|caller| PollFd::new(caller.socket.as_fd(), PollFlags::POLLIN))
        .collect();
    poll(&mut polled, PollTimeout::from(TICK))?;
    let mut polled = polled.iter();
    Ok(peers
        .map(|caller| caller.is_some() && polled.next().and_then(PollFd::any) == Some(true))
        .collect())
}

impl Caller {
    fn initiate(&mut self) -> Result<()> {
        self.deadline = Instant::now() + PATIENCE;
        let mut room = [0; MESSAGE];
        let made = self.tunnel.format_handshake_initiation(&mut room, true);
        let TunnResult::WriteToNetwork(initiation) = made else {
            bail!("no initiation: {made:?}");
        };
        self.send(initiation);
        Ok(())
    }

    /// Take what has come; returns whether the handshake is over.
    fn handle_datagrams(&mut self, counts: &mut Counts) -> Result<bool> {
        let (mut datagram, mut room) = ([0; MESSAGE], [0; MESSAGE]);
        let mut finished = false;
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let datagram = datagram.get(..length).unwrap_or_default();
            let answer = self.tunnel.decapsulate(None, datagram, &mut room);
            match (datagram.first(), answer) {
                (Some(&RESPONSE), TunnResult::WriteToNetwork(first)) => {
                    counts.responses += 1;
                    finished = true;
                    let _ = self.socket.send(first);
                }
                (Some(&COOKIE_REPLY), TunnResult::Done) => {
                    counts.cookies += 1;
                    self.initiate()?;
                }
                _ => {} // an answer that came too late
            }
        }
        Ok(finished)
    }

    /// A datagram that can't be sent is one that is lost.
    fn send(&self, datagram: &[u8]) {
        let _ = self.socket.send(datagram);
    }
}
