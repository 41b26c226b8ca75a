//! Receiving: as many buffers per call as there are, each with all datagrams that the kernel has merged.
use std::io;

use shared::wg::{Ecn, Path};

use super::{Family, Sockets, address, control};
use crate::sys::message::{Incoming, RECEIVE_BATCH, recvmmsg};

/// Room for the largest merged buffer: `UDP_GRO` merges up to 65,535 bytes with headers.
const BUFFER_LEN: usize = 1 << 16;

/// Buffers of a call after one that did not fill all.
const FEW: usize = 2;

/// Room for one receive call, reused; which socket it was received from does not matter.
#[derive(Debug)]
pub struct ReceiveBuffers {
    data: Box<[u8]>,
    incoming: Box<[Incoming]>,
    received: usize,
    /// Buffers of the next call: few where little comes, so that a packet that comes alone is quick.
    wanted: usize,
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
            received: 0,
            wanted: FEW,
        }
    }
}

impl ReceiveBuffers {
    /// What the last [`Sockets::receive`] received.
    pub fn received(&self) -> impl Iterator<Item = Received<'_>> {
        self.incoming
            .iter()
            .zip(self.data.chunks_exact(BUFFER_LEN))
            .take(self.received)
            .filter_map(|(incoming, data)| read(incoming, data))
    }
}

/// `None` for what came truncated, or from nowhere.
fn read<'a>(incoming: &Incoming, data: &'a [u8]) -> Option<Received<'a>> {
    if incoming.truncated {
        return None;
    }
    let bytes = data.get(..incoming.length)?;
    let told = control::decode(&incoming.control);
    Some(Received {
        path: Path {
            remote: address::decode(&incoming.address)?,
            local: told.local,
        },
        ecn: told.ecn,
        bytes,
        stride: told.segment_size.unwrap_or(bytes.len()).max(1),
    })
}

impl Sockets {
    /// Receive what is there, without waiting. Returns whether there was something; an error is counted and says that
    /// nothing was received, never that the socket is of no more use.
    pub fn receive(&mut self, family: Family, buffers: &mut ReceiveBuffers) -> io::Result<bool> {
        buffers.received = 0;
        let Some(socket) = self.fd(family) else {
            return Ok(false);
        };
        let incoming = buffers.incoming.get_mut(..buffers.wanted);
        let incoming = incoming.unwrap_or_default();
        match recvmmsg(socket, incoming, &mut buffers.data, BUFFER_LEN) {
            Ok(received) => {
                buffers.received = received;
                let all_filled = received == buffers.wanted;
                buffers.wanted = if all_filled { RECEIVE_BATCH } else { FEW };
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                return Ok(false);
            }
            Err(error) => {
                self.counters.rx_errors += 1;
                return Err(error);
            }
        }
        self.count(buffers);
        Ok(buffers.received > 0)
    }

    fn count(&mut self, buffers: &ReceiveBuffers) {
        let counters = &mut self.counters;
        let filled = buffers.incoming.iter().take(buffers.received);
        counters.rx_truncated += filled.filter(|incoming| incoming.truncated).count() as u64;
        for received in buffers.received() {
            let datagrams = received.bytes.len().div_ceil(received.stride) as u64;
            counters.rx_datagrams += datagrams;
            counters.rx_bytes += received.bytes.len() as u64;
            counters.rx_merged += u64::from(datagrams > 1);
        }
    }
}
