//! UDP sockets of a WireGuard interface: one for IPv4 and one for IPv6 on the same port.
//!
//! Two sockets, because addresses and control messages of a socket for both would be IPv6 with mapped addresses.
//! Everything goes in batches: [`Sockets::receive`] takes what `UDP_GRO` has merged, [`Sockets::send`] hands over runs of
//! equal datagrams for `UDP_SEGMENT`, and goes down a ladder where the kernel or a network card can't do that.
//!
//! A line that carries datagrams one by one has a third one for itself (`direct.rs`).
pub(crate) mod address;
mod bind;
mod connected;
pub(crate) mod control;
mod direct;
mod receive;
mod send;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use bind::BindError;
pub use connected::connected;
pub use receive::{Most, ReceiveBuffers, Received};

use crate::sys::message::Outgoing;

/// Bytes that the kernel may queue per socket and direction, before it doubles them for its own overhead.
const SOCKET_BUFFER: libc::c_int = 4 << 20;

/// How datagrams are sent, from the simplest to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SendRung {
    /// One system call per datagram.
    Single,
    /// Many datagrams per system call (`sendmmsg`).
    Batch,
    /// And many datagrams in one piece through the network stack (`UDP_SEGMENT`).
    #[default]
    Segmented,
}

/// What is used at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How to send.
    pub send: SendRung,
    /// Whether the kernel may merge received datagrams (`UDP_GRO`).
    pub gro: bool,
    /// Whether a line of single datagrams may have a socket for itself.
    pub direct: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            send: SendRung::Segmented,
            gro: true,
            direct: true,
        }
    }
}

/// What to bind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Port of both sockets; 0 lets the kernel choose.
    pub port: u16,
    /// Mark of outgoing datagrams (`SO_MARK`); 0 is none.
    pub fwmark: u32,
    /// What is used at most.
    pub limits: Limits,
}

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Family of an address.
    pub const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::Ipv4,
            SocketAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// What a socket can do, as found out so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOffloads {
    /// How it sends.
    pub send: SendRung,
    /// Whether it receives merged datagrams.
    pub gro: bool,
}

/// What was received and sent, and what went wrong; never reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Buffers received that held more than one datagram.
    pub rx_merged: u64,
    /// Buffers thrown away because they did not fit.
    pub rx_truncated: u64,
    /// Failed receive calls.
    pub rx_errors: u64,
    /// Datagrams sent.
    pub tx_datagrams: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Messages sent that held more than one datagram.
    pub tx_segmented: u64,
    /// System calls that sent something.
    pub tx_calls: u64,
    /// Datagrams dropped because the socket's queue stayed full.
    pub tx_queue_full: u64,
    /// Datagrams dropped because they were larger than the path's MTU.
    pub tx_too_big: u64,
    /// Datagrams dropped because there was no socket of their family.
    pub tx_no_socket: u64,
    /// Datagrams dropped on any other error.
    pub tx_errors: u64,
    /// Sends repeated without the sticky source address.
    pub tx_source_cleared: u64,
    /// Segmented sends that the kernel refused.
    pub tx_segmented_refused: u64,
}

/// One socket.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    offloads: SocketOffloads,
}

/// The sockets of an interface.
#[derive(Debug)]
pub struct Sockets {
    ipv4: Option<Socket>,
    ipv6: Option<Socket>,
    /// For the line that carries datagrams one by one, if there is one.
    direct: Option<direct::Direct>,
    /// Those of lines that have none any more, until what they hold is received.
    left: Vec<direct::Direct>,
    /// There is another one, or none any more.
    direct_changed: bool,
    options: Options,
    counters: Counters,
    alone: send::Alone,
    outgoing: Vec<Outgoing>,
    /// For each entry of `outgoing` where the queue stands after it.
    marks: Vec<send::Position>,
}

impl Sockets {
    /// Port of both sockets.
    pub const fn port(&self) -> u16 {
        self.options.port
    }

    /// What the socket can do; `None` when there is none, as IPv6 where the kernel has it switched off.
    pub fn offloads(&self, family: Family) -> Option<SocketOffloads> {
        self.socket(family).map(|socket| socket.offloads)
    }

    /// What was received and sent.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Take over the counters of the sockets that these replace.
    pub const fn continue_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// The descriptor to wait for.
    pub fn fd(&self, family: Family) -> Option<BorrowedFd<'_>> {
        self.socket(family).map(|socket| socket.fd.as_fd())
    }

    /// The descriptor of the socket that one line has for itself, if there is one.
    pub fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        self.direct.as_ref().map(|direct| direct.fd.as_fd())
    }

    /// Whether [`direct_fd`](Self::direct_fd) has changed since the last call. If so, what the former one holds is the next to be
    /// received: [`receive_left`](Self::receive_left).
    pub const fn take_direct_changed(&mut self) -> bool {
        std::mem::replace(&mut self.direct_changed, false)
    }

    /// It gets another one when as many datagrams have gone without.
    #[cold]
    fn drop_direct(&mut self) {
        self.leave_direct();
        self.alone.times = 0;
    }

    #[cold]
    fn leave_direct(&mut self) {
        if let Some(direct) = self.direct.take() {
            self.direct_changed = true;
            if direct.silence() {
                self.left.push(direct);
            }
        }
    }

    const fn socket(&self, family: Family) -> Option<&Socket> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    const fn socket_mut(&mut self, family: Family) -> Option<&mut Socket> {
        match family {
            Family::Ipv4 => self.ipv4.as_mut(),
            Family::Ipv6 => self.ipv6.as_mut(),
        }
    }
}

#[cfg(test)]
mod tests;
