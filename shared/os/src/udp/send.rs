//! Sending.
//!
//! A datagram that is alone goes at once ([`Sockets::send_alone`]), by the line's own socket if it has one (`direct.rs`), and if
//! that fails, like all others:
//!
//! 1. [`Sockets::send_runs`] walks over the runs of a queue with a [`Position`];
//! 2. [`Sockets::fill`] turns the next ones to the same socket into messages, as large as its [`SendRung`] allows;
//! 3. one system call sends them; how far it came moves the position;
//! 4. on an error [`Sockets::recover`] decides on the first unsent message: send it otherwise, or count and skip its run.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::time::Duration;

use shared::wg::transmit::Run;
use shared::wg::{Ecn, Path, TransmitQueue};

use super::control::{self, Tell};
use super::direct::{ALONE_BEFORE, Direct};
use super::{Family, SendRung, Sockets, address};
use crate::sys::message::{Outgoing, SEND_BATCH, sendmmsg, sendmsg};
use crate::sys::poll;

/// How long a full socket queue may hold up everything else, once per [`Sockets::send`]. At 1 Gbit/s some 2.5 MB leave
/// in that time; what then still does not fit is dropped, as any queue does.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(20);

/// How far a queue was sent, and how its next run is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Position {
    run: usize,
    /// Bytes of that run.
    bytes: usize,
    /// Send without the source address that the run asks for.
    source_cleared: bool,
    /// Send the datagrams of this run one by one, to see whether `UDP_SEGMENT` was what the kernel refused.
    split: bool,
}

/// The message of the last datagram that was sent alone.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    /// Where to and with which ECN bits.
    of: Option<(Path, Ecn)>,
    /// How many like it went before it.
    pub(super) times: u32,
    message: Outgoing,
}

impl Position {
    const fn of_run(run: usize) -> Self {
        Self {
            run,
            bytes: 0,
            source_cleared: false,
            split: false,
        }
    }
}

impl Sockets {
    /// Send everything in the queue: [`send_first`](Self::send_first).
    pub fn send(&mut self, queue: &TransmitQueue) -> Option<IpAddr> {
        self.send_first(queue, queue.runs().len())
    }

    /// Send the first `runs` runs of the queue. What can't be sent is dropped and counted: WireGuard and what it carries cope with
    /// loss, but not with standstill.
    ///
    /// Returns an address of ours that the kernel refused to send from, though it sent without it: whoever asked for it
    /// should not ask again.
    pub fn send_first(&mut self, queue: &TransmitQueue, runs: usize) -> Option<IpAddr> {
        let runs = queue.runs().get(..runs).unwrap_or_default();
        match runs {
            [run] if run.is_one_datagram() && self.send_alone(run, queue.bytes()) => None,
            _ => self.send_runs(runs, queue.bytes()),
        }
    }

    /// Send a datagram that is alone, as those of a quiet line are. Nothing of this path is in the cache then, so that its
    /// length in instructions is what counts: the message of the datagram before is used again. Returns whether it was
    /// sent; if not, what to do about it is decided elsewhere.
    fn send_alone(&mut self, run: &Run, bytes: &[u8]) -> bool {
        let (path, ecn) = (run.path, run.ecn);
        if let Some(direct) = &self.direct {
            if direct.path == path && ecn == Ecn::NotEct {
                if direct.send(bytes.get(run.range.clone()).unwrap_or_default()) {
                    self.count_alone(run);
                    return true;
                }
                self.drop_direct();
            }
        }
        if self.alone.of == Some((path, ecn)) {
            self.alone.times = self.alone.times.saturating_add(1);
            if self.alone.times == ALONE_BEFORE && ecn == Ecn::NotEct && self.options.limits.direct
            {
                self.connect_direct(path);
            }
        } else {
            self.alone = Alone {
                of: Some((path, ecn)),
                times: 0,
                message: message(run, false, 0..0, None),
            };
        }
        self.alone.message.range = run.range.clone();
        let Some(socket) = self.socket(Family::of(path.remote)) else {
            return false;
        };
        if sendmsg(socket.fd.as_fd(), &self.alone.message, bytes).is_err() {
            return false;
        }
        self.count_alone(run);
        true
    }

    const fn count_alone(&mut self, run: &Run) {
        self.counters.tx_calls += 1;
        self.counters.tx_datagrams += 1;
        self.counters.tx_bytes += (run.range.end - run.range.start) as u64;
    }

    /// Give the line that the last datagrams went on alone a socket; that of another line, which is in the way, goes first.
    #[cold]
    fn connect_direct(&mut self, path: Path) {
        self.leave_direct();
        let Some(socket) = self.socket(Family::of(path.remote)) else {
            return;
        };
        let left = self.left.iter().map(|direct| direct.fd.as_fd());
        let beside: Vec<_> = left.chain([socket.fd.as_fd()]).collect();
        match Direct::connect(&beside, path, self.options) {
            Ok(direct) => {
                self.direct = Some(direct);
                self.direct_changed = true;
            }
            Err(error) => tracing::debug!(%error, remote = %path.remote, "no socket of its own"),
        }
    }

    fn send_runs(&mut self, runs: &[Run], bytes: &[u8]) -> Option<IpAddr> {
        let mut unusable = None;
        let mut position = Position::default();
        let mut may_wait = true;
        while let Some(run) = runs.get(position.run) {
            let family = Family::of(run.path.remote);
            let Some(socket) = self.socket(family) else {
                self.counters.tx_no_socket += datagrams(run, position.bytes);
                position = Position::of_run(position.run + 1);
                continue;
            };
            let rung = socket.offloads.send;
            self.fill(runs, position, family, rung);
            match self.call(family, rung, bytes) {
                Ok(0) => position = Position::of_run(position.run + 1), // an empty run: nothing to send
                Ok(sent) => {
                    if position.source_cleared {
                        unusable = run.path.local;
                    }
                    if position.split {
                        self.settle_on_batches(family);
                    }
                    position = self.advance(runs, position, sent);
                }
                Err(error) => {
                    position = self.recover(&error, run, family, position, &mut may_wait);
                }
            }
        }
        unusable
    }

    /// Turn runs from `position` on into messages, while they are of this family and there is room.
    fn fill(&mut self, runs: &[Run], position: Position, family: Family, rung: SendRung) {
        self.outgoing.clear();
        self.marks.clear();
        let most = if rung == SendRung::Single {
            1
        } else {
            SEND_BATCH
        };
        let mut at = position;
        while let Some(run) = runs.get(at.run) {
            if Family::of(run.path.remote) != family {
                return;
            }
            let segmented = rung == SendRung::Segmented && !at.split;
            while at.bytes < run.range.len() {
                if self.outgoing.len() == most {
                    return;
                }
                let (range, segment_size) = piece(run, at.bytes, segmented);
                at.bytes += range.len();
                self.outgoing
                    .push(message(run, at.source_cleared, range, segment_size));
                self.marks.push(at);
            }
            if at.split {
                return; // what the kernel says to this run must not be mixed with others
            }
            at = Position::of_run(at.run + 1);
        }
    }

    fn call(&self, family: Family, rung: SendRung, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = self.socket(family) else {
            return Ok(0);
        };
        match (rung, self.outgoing.first()) {
            (SendRung::Single, Some(only)) => sendmsg(socket.fd.as_fd(), only, bytes).map(|()| 1),
            _ => sendmmsg(socket.fd.as_fd(), &self.outgoing, bytes),
        }
    }

    /// Count what was sent and move behind it. `sendmmsg` may stop early without an error: the rest is sent by the next
    /// call, which reports the error if there is one.
    fn advance(&mut self, runs: &[Run], from: Position, sent: usize) -> Position {
        let counters = &mut self.counters;
        counters.tx_calls += 1;
        let mut position = from;
        for (outgoing, mark) in self.outgoing.iter().zip(&self.marks).take(sent) {
            let Some(run) = runs.get(mark.run) else {
                continue;
            };
            let datagrams = outgoing.range.len().div_ceil(run.stride) as u64;
            counters.tx_datagrams += datagrams;
            counters.tx_bytes += outgoing.range.len() as u64;
            counters.tx_segmented += u64::from(datagrams > 1);
            position = if mark.bytes == run.range.len() {
                Position::of_run(mark.run + 1)
            } else {
                *mark
            };
        }
        position
    }

    /// Where to go on after an error on the message at `position`, which belongs to `run`.
    fn recover(
        &mut self,
        error: &io::Error,
        run: &Run,
        family: Family,
        position: Position,
        may_wait: &mut bool,
    ) -> Position {
        let left = datagrams(run, position.bytes);
        let next = Position::of_run(position.run + 1);
        if error.kind() == io::ErrorKind::Interrupted {
            return position;
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            if std::mem::take(may_wait) && self.wait_for_room(family) {
                return position;
            }
            self.counters.tx_queue_full += left;
            return next;
        }
        let rung = self.socket(family).map(|socket| socket.offloads.send);
        if rung == Some(SendRung::Batch) && error.raw_os_error() == Some(libc::ENOSYS) {
            self.lower(family, SendRung::Single);
            return position;
        }
        // Any error may come from a source address that this host has no longer: 6.18 says ENETUNREACH, others EINVAL.
        if run.path.local.is_some() && !position.source_cleared {
            self.counters.tx_source_cleared += 1;
            return Position {
                source_cleared: true,
                ..position
            };
        }
        // EIO: the network card can't sum up (`udp_send_skb`); EINVAL: it can't cut, or the datagrams exceed its MTU.
        let refused = matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL));
        let segmented = rung == Some(SendRung::Segmented) && !position.split && left > 1;
        if refused && segmented {
            self.counters.tx_segmented_refused += 1;
            return Position {
                split: true,
                ..position
            };
        }
        tracing::trace!(%error, remote = %run.path.remote, datagrams = left, "datagrams not sent");
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            self.counters.tx_too_big += left;
        } else {
            self.counters.tx_errors += left;
        }
        next
    }

    fn wait_for_room(&self, family: Family) -> bool {
        self.fd(family)
            .is_some_and(|fd| poll::writable(fd, FULL_QUEUE_WAIT).unwrap_or(false))
    }

    /// The kernel refused a run in one piece and took it in several: `UDP_SEGMENT` does not work here.
    fn settle_on_batches(&mut self, family: Family) {
        if let Some(socket) = self.socket(family) {
            if socket.offloads.send == SendRung::Segmented {
                tracing::info!(
                    ?family,
                    "UDP segmentation offload does not work here: datagrams are sent one by one"
                );
                self.lower(family, SendRung::Batch);
            }
        }
    }

    const fn lower(&mut self, family: Family, rung: SendRung) {
        if let Some(socket) = self.socket_mut(family) {
            socket.offloads.send = rung;
        }
    }
}

/// Datagrams of a run after `bytes`.
const fn datagrams(run: &Run, bytes: usize) -> u64 {
    (run.range.end - run.range.start - bytes).div_ceil(run.stride) as u64
}

/// The next message of a run from `bytes` on: all of the rest, or one datagram.
fn piece(run: &Run, bytes: usize, segmented: bool) -> (Range<usize>, Option<u16>) {
    let start = run.range.start + bytes;
    let left = run.range.end - start;
    // One datagram alone must not ask for segmentation: some paths refuse that needlessly.
    if segmented && left > run.stride {
        if let Ok(size) = u16::try_from(run.stride) {
            return (start..run.range.end, Some(size));
        }
    }
    (start..start + left.min(run.stride), None)
}

fn message(
    run: &Run,
    source_cleared: bool,
    range: Range<usize>,
    segment_size: Option<u16>,
) -> Outgoing {
    let remote = run.path.remote;
    let (ipv6, scope_id) = match remote {
        SocketAddr::V4(_) => (false, 0),
        SocketAddr::V6(v6) => (true, v6.scope_id()),
    };
    let control = control::encode(Tell {
        local: run.path.local.filter(|_| !source_cleared),
        scope_id,
        ipv6,
        ecn: run.ecn,
        segment_size,
    });
    Outgoing {
        address: address::encode(remote),
        control,
        range,
    }
}
