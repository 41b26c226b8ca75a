//! The TUN side of a worker: frames in, in their turn; packets joined and out; errors judged.
use std::io;
use std::time::Instant;

use shared::offload::{
    self, Backlog, CoalesceKinds, Coalescer, Frame, SegmentError, Segments, SuperKind, Turn,
    VNET_HDR_LEN, Write,
};
use shared_os::tun::{FRAME_BUFFER_LEN, Offload, Tun};

use super::TunCounters;
use super::log_limit::LogLimit;

/// A TUN queue with its buffers.
#[derive(Debug)]
pub(super) struct TunPort {
    tun: Tun,
    /// Room for the next frame.
    frame: Box<[u8]>,
    backlog: Backlog,
    /// Buffers that the backlog gave back, the last one first: it is most likely still in the cache.
    spare: Vec<Box<[u8]>>,
    coalescer: Coalescer,
    output: Output,
}

/// What is known of writing.
#[derive(Debug)]
struct Output {
    kinds: CoalesceKinds,
    /// Kinds of which the kernel has taken a joined write.
    taken: CoalesceKinds,
    counters: TunCounters,
    log: LogLimit,
}

/// Why nothing can be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Nothing there.
    Empty,
    /// Something there that is not to be sent now: it waits, or it was of no use and was counted.
    Passed,
    /// The link was removed: nothing will ever be there.
    Removed(io::Error),
}

impl TunPort {
    /// UDP is joined only where the kernel knows UDP segmentation offload (6.2): older ones refuse such writes.
    pub(super) fn new(tun: Tun, kinds: CoalesceKinds) -> Self {
        let udp = kinds.udp && tun.offload() == Offload::Uso;
        Self {
            output: Output {
                kinds: CoalesceKinds { udp, ..kinds },
                taken: CoalesceKinds {
                    tcp: false,
                    udp: false,
                },
                counters: TunCounters::default(),
                log: LogLimit::default(),
            },
            tun,
            frame: new_buffer(),
            backlog: Backlog::default(),
            spare: Vec::new(),
            coalescer: Coalescer::default(),
        }
    }

    pub(super) const fn tun(&self) -> &Tun {
        &self.tun
    }

    /// Go on with another link; what waits goes the same way as before.
    pub(super) fn replace(&mut self, tun: Tun) {
        self.tun = tun;
    }

    pub(super) const fn kinds(&self) -> CoalesceKinds {
        self.output.kinds
    }

    pub(super) const fn counters(&self) -> TunCounters {
        self.output.counters
    }

    pub(super) const fn count_read(&mut self, packets: u64, bytes: usize) {
        self.output.counters.packets_read += packets;
        self.output.counters.bytes_read += bytes as u64;
    }

    /// Whether frames that were read wait.
    pub(super) fn has_waiting(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Read a frame. If it is its turn, its packets are handed out, one by one; `time_left` says whether the round may
    /// take more than what is small.
    pub(super) fn read(
        &mut self,
        time_left: bool,
        now: Instant,
    ) -> Result<Segments<'_>, ReadError> {
        let length = match self.tun.read(&mut self.frame) {
            Ok(length) => length,
            Err(error) => return Err(self.output.judge_read_error(error, now)),
        };
        self.output.counters.frames_read += 1;
        let frame = self.frame.get(..length).unwrap_or_default();
        match self.backlog.turn_of(frame, time_left) {
            Turn::Now => self.output.segments(&mut self.frame, length, now),
            Turn::Later(key) => {
                while let Some(dropped) = self.backlog.make_room(length) {
                    self.output.counters.backlog_full += 1;
                    self.spare.push(dropped.buffer);
                }
                let next = self.spare.pop().unwrap_or_else(new_buffer);
                let buffer = std::mem::replace(&mut self.frame, next);
                self.backlog.push(Frame { buffer, length }, key);
                Err(ReadError::Passed)
            }
        }
    }

    /// The packets of the frame that has waited longest; `None` when none waits.
    pub(super) fn next_waiting(&mut self, now: Instant) -> Option<Result<Segments<'_>, ReadError>> {
        let Frame { buffer, length } = self.backlog.pop()?;
        self.spare.push(std::mem::replace(&mut self.frame, buffer));
        Some(self.output.segments(&mut self.frame, length, now))
    }

    /// Take a packet that goes to the kernel; it may wait for others until [`flush`](Self::flush).
    pub(super) fn write(&mut self, packet: &[u8], now: Instant) {
        let Self {
            tun,
            coalescer,
            output,
            ..
        } = self;
        let kinds = output.kinds;
        coalescer.push(packet, kinds, |write| output.write(tun, write, now));
    }

    /// Write a packet, behind a virtio-net header of zeros, that need not wait, since nothing came with it and nothing
    /// waits.
    pub(super) fn write_alone(&mut self, frame: &[u8], now: Instant) {
        let result = self.tun.write(frame);
        self.output.counters.writes += 1;
        let bytes = frame.len() - VNET_HDR_LEN;
        self.output.count(1, bytes as u64, &result, now);
    }

    /// Write what still waits.
    pub(super) fn flush(&mut self, now: Instant) {
        let Self {
            tun,
            coalescer,
            output,
            ..
        } = self;
        coalescer.flush(|write| output.write(tun, write, now));
    }
}

fn new_buffer() -> Box<[u8]> {
    vec![0; FRAME_BUFFER_LEN].into_boxed_slice()
}

impl Output {
    #[inline]
    fn segments<'a>(
        &mut self,
        frame: &'a mut [u8],
        length: usize,
        now: Instant,
    ) -> Result<Segments<'a>, ReadError> {
        offload::segments(frame, length).map_err(|error| self.drop_frame(error, now))
    }

    #[cold]
    fn drop_frame(&mut self, error: SegmentError, now: Instant) -> ReadError {
        self.counters.frames_malformed += 1;
        if let Some(suppressed) = self.log.allow(now) {
            tracing::warn!(%error, suppressed, "frame from TUN dropped");
        }
        ReadError::Passed
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

    fn write(&mut self, tun: &Tun, mut write: Write<'_>, now: Instant) {
        self.counters.writes += 1;
        let (header, packet) = write.frame();
        let result = tun.write_behind(header, packet);
        let (packets, bytes) = (write.packet_count() as u64, write.packet_bytes() as u64);
        match (&result, write.kind()) {
            (Err(error), Some(kind)) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.counters.joined_writes_refused += 1;
                stop_joining(&mut self.kinds, self.taken, kind);
                self.write_one_by_one(tun, &mut write, now);
            }
            (Ok(()), kind) => {
                note_taken(&mut self.taken, kind);
                self.counters.joined_writes += u64::from(packets > 1);
                self.count(packets, bytes, &result, now);
            }
            (Err(_), _) => self.count(packets, bytes, &result, now),
        }
    }

    fn write_one_by_one(&mut self, tun: &Tun, write: &mut Write<'_>, now: Instant) {
        let Some(mut segments) = write.cut() else {
            return;
        };
        while let Some(packet) = segments.next_packet() {
            let bytes = packet.buffer.get(..packet.length).unwrap_or_default();
            let result = tun.write_behind(&[0; VNET_HDR_LEN], bytes);
            self.count(1, bytes.len() as u64, &result, now);
        }
    }

    /// Count packets that were written, or why they were not.
    fn count(&mut self, packets: u64, bytes: u64, result: &io::Result<()>, now: Instant) {
        let counters = &mut self.counters;
        let Err(error) = result else {
            counters.packets_written += packets;
            counters.bytes_written += bytes;
            return;
        };
        match error.raw_os_error() {
            Some(libc::EIO) => counters.link_down += packets, // `tun_get_user`: the link is not up
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => counters.no_room += packets,
            _ => counters.write_errors += packets,
        }
        if let Some(suppressed) = self.log.allow(now) {
            tracing::debug!(%error, packets, suppressed, "packets not written to TUN");
        }
    }
}

const fn note_taken(taken: &mut CoalesceKinds, kind: Option<SuperKind>) {
    match kind {
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
