//! Receiving: as many buffers per call as there are, each with all datagrams that the kernel has merged.
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};

use shared::wg::{Ecn, Path};

use super::{Family, Sockets, address, control};
use crate::sys::message::{Incoming, RECEIVE_BATCH, recvmmsg, recvmsg};

/// Room for the largest merged buffer: `UDP_GRO` merges up to 65,535 bytes with headers.
const BUFFER_LEN: usize = 1 << 16;

/// How much a call may receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// One buffer: the quickest for a datagram that comes alone.
    One,
    /// As many buffers as there are, up to a limit.
    Batch,
}

/// Room for one receive call, reused; which socket it was received from does not matter.
#[derive(Debug)]
pub struct ReceiveBuffers {
    data: Box<[u8]>,
    incoming: Box<[Incoming]>,
    /// What the last call received.
    messages: Vec<Message>,
}

/// A buffer that was received.
#[derive(Debug)]
struct Message {
    path: Path,
    ecn: Ecn,
    /// Its bytes among those of all.
    range: Range<usize>,
    /// Length of each datagram but the last.
    stride: usize,
}

impl Message {
    /// What came in the buffer with this number; `None` for what came truncated, or from nowhere. A socket that has one of our
    /// addresses for itself is not told by the kernel which it is.
    fn read(number: usize, incoming: &Incoming, local: Option<IpAddr>) -> Option<Self> {
        if incoming.truncated {
            return None;
        }
        let told = control::decode(&incoming.control);
        let start = number * BUFFER_LEN;
        Some(Self {
            path: Path {
                remote: address::decode(&incoming.address)?,
                local: local.or(told.local),
            },
            ecn: told.ecn,
            range: start..start + incoming.length,
            stride: told.segment_size.unwrap_or(incoming.length).max(1),
        })
    }

    const fn datagrams(&self) -> usize {
        (self.range.end - self.range.start).div_ceil(self.stride)
    }
}

/// Datagrams of one sender.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who sent them, and to which of our addresses.
    pub path: Path,
    /// ECN bits of their headers.
    pub ecn: Ecn,
    /// The datagrams, side by side.
    bytes: &'a [u8],
    /// Length of each but the last.
    stride: usize,
}

impl<'a> Received<'a> {
    /// The datagrams, one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.stride)
    }
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self {
            data: vec![0; RECEIVE_BATCH * BUFFER_LEN].into_boxed_slice(),
            incoming: vec![Incoming::default(); RECEIVE_BATCH].into_boxed_slice(),
            messages: Vec::with_capacity(RECEIVE_BATCH),
        }
    }
}

impl ReceiveBuffers {
    /// Fill buffers; returns how many, which is none when nothing is there.
    fn fill(&mut self, socket: BorrowedFd<'_>, most: Most) -> io::Result<usize> {
        let filled = match most {
            Most::One => self.fill_one(socket),
            Most::Batch => recvmmsg(socket, &mut self.incoming, &mut self.data, BUFFER_LEN),
        };
        match filled {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(0),
            filled => filled,
        }
    }

    fn fill_one(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let data = self.data.get_mut(..BUFFER_LEN);
        let (Some(incoming), Some(data)) = (self.incoming.first_mut(), data) else {
            return Ok(0);
        };
        recvmsg(socket, incoming, data).map(|()| 1)
    }

    /// Whether the last [`Sockets::receive`] received one datagram and no more.
    pub fn is_one_datagram(&self) -> bool {
        matches!(&*self.messages, [only] if only.range.len() <= only.stride)
    }

    /// What the last [`Sockets::receive`] received.
    pub fn received(&self) -> impl Iterator<Item = Received<'_>> {
        self.messages.iter().map(|message| Received {
            path: message.path,
            ecn: message.ecn,
            bytes: self.data.get(message.range.clone()).unwrap_or_default(),
            stride: message.stride,
        })
    }
}

impl Sockets {
    /// Receive what is there, without waiting. Returns whether there was something; an error is counted and says that
    /// nothing was received, never that the socket is of no more use.
    pub fn receive(
        &mut self,
        family: Family,
        most: Most,
        buffers: &mut ReceiveBuffers,
    ) -> io::Result<bool> {
        buffers.messages.clear();
        let Some(socket) = self.fd(family) else {
            return Ok(false);
        };
        match buffers.fill(socket, most) {
            Ok(received) => {
                self.read(received, buffers, None);
                Ok(received > 0)
            }
            Err(error) => {
                self.counters.rx_errors += 1;
                Err(error)
            }
        }
    }

    /// The same from the socket that one line has for itself. An error is the end of that socket and of nothing else.
    pub fn receive_direct(&mut self, most: Most, buffers: &mut ReceiveBuffers) -> bool {
        buffers.messages.clear();
        let Some(direct) = &self.direct else {
            return false;
        };
        if direct.older > 0 {
            let family = Family::of(direct.path.remote);
            return self.receive_older(family, buffers);
        }
        let local = direct.path.local;
        let Ok(received) = buffers.fill(direct.fd.as_fd(), most) else {
            self.drop_direct();
            return false;
        };
        self.read(received, buffers, local);
        received > 0
    }

    /// What came on the line before it had its own socket lies in that of everybody. It goes first; when there is no more of
    /// it, what has come since.
    #[cold]
    fn receive_older(&mut self, family: Family, buffers: &mut ReceiveBuffers) -> bool {
        let older = matches!(self.receive(family, Most::Batch, buffers), Ok(true));
        let received = u32::try_from(buffers.messages.len()).unwrap_or(u32::MAX);
        if let Some(direct) = &mut self.direct {
            direct.older = if older {
                direct.older.saturating_sub(received)
            } else {
                0
            };
        }
        older || self.receive_direct(Most::Batch, buffers)
    }

    /// What came to sockets that lines had for themselves and have no longer; call it, whenever
    /// [`take_direct_changed`](Self::take_direct_changed) says so, until there is nothing.
    pub fn receive_left(&mut self, buffers: &mut ReceiveBuffers) -> bool {
        buffers.messages.clear();
        while let Some(direct) = self.left.first() {
            let local = direct.path.local;
            match buffers.fill(direct.fd.as_fd(), Most::Batch) {
                Ok(received) if received > 0 => {
                    self.read(received, buffers, local);
                    return true;
                }
                _ => {
                    self.left.remove(0);
                }
            }
        }
        false
    }

    fn read(&mut self, received: usize, buffers: &mut ReceiveBuffers, local: Option<IpAddr>) {
        let counters = &mut self.counters;
        for (number, incoming) in buffers.incoming.iter().take(received).enumerate() {
            counters.rx_truncated += u64::from(incoming.truncated);
            let Some(message) = Message::read(number, incoming, local) else {
                continue;
            };
            let datagrams = message.datagrams() as u64;
            counters.rx_datagrams += datagrams;
            counters.rx_bytes += message.range.len() as u64;
            counters.rx_merged += u64::from(datagrams > 1);
            buffers.messages.push(message);
        }
    }
}
