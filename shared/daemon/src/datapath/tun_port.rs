//! The TUN side of a worker: frames in, packets joined and out, errors judged.
use std::io;
use std::time::Instant;

use shared::offload::{self, CoalesceKinds, Coalescer, Segments, SuperKind, VNET_HDR_LEN, Write};
use shared::wg::PacketBatch;
use shared_os::tun::{FRAME_BUFFER_LEN, Offload, Tun};

use super::TunCounters;
use super::log_limit::LogLimit;

/// A TUN queue with its buffers.
#[derive(Debug)]
pub(super) struct TunPort {
    tun: Tun,
    frame: Box<[u8]>,
    coalescer: Coalescer,
    kinds: CoalesceKinds,
    /// Kinds of which the kernel has taken a joined write.
    taken: CoalesceKinds,
    pub(super) counters: TunCounters,
    log: LogLimit,
}

/// Why nothing can be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Nothing there.
    Empty,
    /// Something there, but of no use; it was counted.
    Useless,
    /// The link was removed: nothing will ever be there.
    Removed(io::Error),
}

impl TunPort {
    /// UDP is joined only where the kernel knows UDP segmentation offload (6.2): older ones refuse such writes.
    pub(super) fn new(tun: Tun, kinds: CoalesceKinds) -> Self {
        let udp = kinds.udp && tun.offload() == Offload::Uso;
        Self {
            kinds: CoalesceKinds { udp, ..kinds },
            taken: CoalesceKinds {
                tcp: false,
                udp: false,
            },
            tun,
            frame: vec![0; FRAME_BUFFER_LEN].into_boxed_slice(),
            coalescer: Coalescer::default(),
            counters: TunCounters::default(),
            log: LogLimit::default(),
        }
    }

    pub(super) const fn tun(&self) -> &Tun {
        &self.tun
    }

    pub(super) const fn kinds(&self) -> CoalesceKinds {
        self.kinds
    }

    /// Read a frame, whose packets are then handed out one by one.
    pub(super) fn read(&mut self, now: Instant) -> Result<Segments<'_>, ReadError> {
        let length = match self.tun.read(&mut self.frame) {
            Ok(length) => length,
            Err(error) => return Err(self.judge_read_error(error, now)),
        };
        self.counters.frames_read += 1;
        match offload::segments(&mut self.frame, length) {
            Ok(segments) => Ok(segments),
            Err(error) => {
                self.counters.frames_malformed += 1;
                if let Some(suppressed) = self.log.allow(now) {
                    tracing::warn!(%error, suppressed, "frame from TUN dropped");
                }
                Err(ReadError::Useless)
            }
        }
    }

    fn judge_read_error(&mut self, error: io::Error, now: Instant) -> ReadError {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => ReadError::Empty,
            // `tun_chr_read_iter`: the queue has no link any more; `tun_ring_recv`: it is being taken away.
            Some(libc::EBADFD | libc::ENODEV | libc::EFAULT) => ReadError::Removed(error),
            _ => {
                self.counters.read_errors += 1;
                if let Some(suppressed) = self.log.allow(now) {
                    tracing::warn!(%error, suppressed, "reading from TUN failed");
                }
                ReadError::Empty
            }
        }
    }

    /// Write all packets, joined where possible, and forget them.
    pub(super) fn write(&mut self, batch: &mut PacketBatch, now: Instant) {
        let Self {
            tun,
            coalescer,
            kinds,
            taken,
            counters,
            log,
            ..
        } = self;
        let at_start = *kinds;
        for write in coalescer.coalesce(batch, at_start) {
            counters.writes += 1;
            let result = tun.write(write.head(), write.parts());
            let (Err(error), Some(kind)) = (&result, write.kind()) else {
                if result.is_ok() {
                    note_taken(taken, write);
                    counters.joined_writes += u64::from(write.packet_count() > 1);
                }
                count(counters, log, now, write.packets(), &result);
                continue;
            };
            if error.raw_os_error() != Some(libc::EINVAL) {
                count(counters, log, now, write.packets(), &result);
                continue;
            }
            counters.joined_writes_refused += 1;
            stop_joining(kinds, *taken, kind);
            for packet in write.packets() {
                let result = tun.write(&[0; VNET_HDR_LEN], std::iter::once(packet));
                count(counters, log, now, std::iter::once(packet), &result);
            }
        }
        batch.clear();
    }
}

fn note_taken(taken: &mut CoalesceKinds, write: Write<'_>) {
    match write.kind() {
        Some(SuperKind::Tcp) => taken.tcp = true,
        Some(SuperKind::Udp) => taken.udp = true,
        None => {}
    }
}

/// Some stable kernels of 2024 refuse every joined write. One that has taken such a write refuses for another reason.
fn stop_joining(kinds: &mut CoalesceKinds, taken: CoalesceKinds, kind: SuperKind) {
    let (allowed, taken) = match kind {
        SuperKind::Tcp => (&mut kinds.tcp, taken.tcp),
        SuperKind::Udp => (&mut kinds.udp, taken.udp),
    };
    if *allowed && !taken {
        *allowed = false;
        tracing::warn!(
            ?kind,
            "this kernel refuses joined packets: they are written one by one"
        );
    }
}

/// Count packets that were written, or why they were not.
fn count(
    counters: &mut TunCounters,
    log: &mut LogLimit,
    now: Instant,
    packets: impl Iterator<Item: AsRef<[u8]>>,
    result: &io::Result<()>,
) {
    let (mut number, mut bytes) = (0, 0);
    for packet in packets {
        number += 1;
        bytes += packet.as_ref().len() as u64;
    }
    let Err(error) = result else {
        counters.packets_written += number;
        counters.bytes_written += bytes;
        return;
    };
    match error.raw_os_error() {
        Some(libc::EIO) => counters.link_down += number, // `tun_get_user`: the link is not up
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => counters.no_room += number,
        _ => counters.write_errors += number,
    }
    if let Some(suppressed) = log.allow(now) {
        tracing::debug!(%error, packets = number, suppressed, "packets not written to TUN");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn kinds(tcp: bool, udp: bool) -> CoalesceKinds {
        CoalesceKinds { tcp, udp }
    }

    #[test]
    fn refused_kind_is_no_longer_joined_and_the_other_is() {
        let mut allowed = kinds(true, true);
        stop_joining(&mut allowed, kinds(false, false), SuperKind::Udp);
        assert_eq!(allowed, kinds(true, false));
    }

    #[test]
    fn kind_that_was_once_taken_is_joined_on() {
        let mut allowed = kinds(true, true);
        stop_joining(&mut allowed, kinds(true, false), SuperKind::Tcp);
        assert_eq!(allowed, kinds(true, true));
    }
}
