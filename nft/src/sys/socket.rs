//! The netlink socket: what the crate `mnl` offers, and the options that it doesn't set.
use std::ffi::c_void;
use std::io;
use std::os::fd::AsRawFd;

use nftnl_sys::libc;

/// Bytes of answers that may wait: one refusal for each message of a large transaction.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Twice the longest datagram of a dump (`netlink_recvmsg` allocates at most 32 KiB).
const DATAGRAM: usize = 64 << 10;

/// A netlink socket for `nf_tables`.
pub(crate) struct Socket {
    socket: mnl::Socket,
    /// Words, because the headers of netlink messages must be aligned.
    buffer: Vec<u64>,
}

// SAFETY: libmnl's socket is a descriptor and an address on the heap; nothing in it belongs to a thread.
unsafe impl Send for Socket {}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens and binds a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
        close_on_exec_and_non_blocking(&socket)?;
        // Without it, a refusal repeats the message, up to 64 KiB of elements. Kernels before 4.3 lack it.
        let _ = set_option(&socket, SocketOption::CapAck, 1);
        // Needs CAP_NET_ADMIN in the first user namespace; without it the default has room for a few hundred answers.
        let _ = set_option(&socket, SocketOption::ReceiveBufferForce, RECEIVE_BUFFER);
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM / size_of::<u64>()],
        })
    }

    /// Its netlink address.
    pub(crate) fn port(&self) -> u32 {
        self.socket.portid()
    }

    /// Makes the send buffer as large as a datagram needs; if that fails, so will `send`, with `EMSGSIZE`.
    pub(crate) fn make_room(&self, bytes: usize) {
        let size = i32::try_from(bytes.saturating_mul(2)).unwrap_or(i32::MAX);
        if set_option(&self.socket, SocketOption::SendBufferForce, size).is_err() {
            let _ = set_option(&self.socket, SocketOption::SendBuffer, size);
        }
    }

    /// Sends one datagram to the kernel, which handles it before this returns.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(bytes)
    }

    /// Receives one datagram; `WouldBlock` if none is waiting.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        let start = self.buffer.as_mut_ptr().cast::<u8>();
        // SAFETY: the words of the buffer are `DATAGRAM` bytes, and are borrowed mutably for as long as these are.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, DATAGRAM) };
        let length = self.socket.recv_raw(bytes)?;
        Ok(bytes.get(..length).unwrap_or_default())
    }
}

/// An option of a netlink socket.
#[derive(Debug, Clone, Copy)]
enum SocketOption {
    /// `SO_SNDBUFFORCE`: bytes that one message (a whole transaction) may have, beyond `net.core.wmem_max`.
    SendBufferForce,
    /// `SO_SNDBUF`: the same within `net.core.wmem_max`.
    SendBuffer,
    /// `SO_RCVBUFFORCE`: bytes of answers that may wait, beyond `net.core.rmem_max`.
    ReceiveBufferForce,
    /// `NETLINK_CAP_ACK`: an error doesn't repeat the message that it is about.
    CapAck,
}

impl SocketOption {
    const fn level_and_name(self) -> (i32, i32) {
        match self {
            Self::SendBufferForce => (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE),
            Self::SendBuffer => (libc::SOL_SOCKET, libc::SO_SNDBUF),
            Self::ReceiveBufferForce => (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE),
            Self::CapAck => (libc::SOL_NETLINK, libc::NETLINK_CAP_ACK),
        }
    }
}

/// Sets an option.
fn set_option(socket: &impl AsRawFd, option: SocketOption, value: i32) -> io::Result<()> {
    let (level, name) = option.level_and_name();
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or_default();
    // SAFETY: the descriptor is open; the value is an int that lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A child process must not inherit the socket: the table would keep its owner after our death. And reading must not
/// block: the kernel answers nftables requests before `send` and `recv` return, so an empty queue means no answer.
fn close_on_exec_and_non_blocking(socket: &impl AsRawFd) -> io::Result<()> {
    for (command, value) in [
        (libc::F_SETFD, libc::FD_CLOEXEC),
        (libc::F_SETFL, libc::O_NONBLOCK),
    ] {
        // SAFETY: the descriptor is open; both commands take an int.
        if unsafe { libc::fcntl(socket.as_raw_fd(), command, value) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
