//! The kernel's table of connections, read through `NETLINK_NETFILTER` (ctnetlink, `net/netfilter/nf_conntrack_netlink.c`).
//!
//! A socket of its own for each reading: the table may have hundreds of thousands of entries, which are looked at one by one
//! and kept nowhere, on a thread that may wait. Needs `CAP_NET_ADMIN`; changes nothing.
mod entry;

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{ReadError, RequestError};

pub use entry::{Entry, Tuple, status};

/// `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET` of the subsystem `NFNL_SUBSYS_CTNETLINK`, which is the high byte.
const SUBSYSTEM: u16 = 1 << 8;
const ENTRY: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
/// `CTA_STATUS` and `CTA_STATUS_MASK`: Linux 5.19 leaves out what differs; an older one gives everything.
const STATUS: u16 = 3;
const STATUS_MASK: u16 = 26;
/// Length of `struct nlmsghdr`, and with `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;
/// Twice the longest datagram of a dump (`netlink_recvmsg` allocates at most 32 KiB).
const DATAGRAM: usize = 64 << 10;
/// The kernel answers from the system call that asks; only a lost answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives every connection of TCP and UDP that has these bits of [`status`] to `look`, until that breaks off.
///
/// The socket belongs to the network namespace of the calling thread, which waits.
///
/// # Errors
/// The kernel refuses, or its answer can't be read.
pub fn each(bits: u32, look: impl FnMut(&Entry) -> ControlFlow<()>) -> Result<(), ReadError> {
    dump(bits, look).map_err(ReadError::of("connections"))
}

fn dump(bits: u32, mut look: impl FnMut(&Entry) -> ControlFlow<()>) -> Result<(), RequestError> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(RequestError::Open)?;
    socket.bind_auto().map_err(RequestError::Open)?;
    let set = set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE));
    set.map_err(|error| RequestError::Open(error.into()))?;
    let refused = |error: io::Error| RequestError::Refused {
        error,
        detail: None,
    };
    let to_kernel = SocketAddr::new(0, 0);
    socket
        .send_to(&request(bits), &to_kernel, 0)
        .map_err(refused)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        if let Err(error) = socket.recv(&mut buffer, 0) {
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock => RequestError::Timeout,
                _ => refused(error),
            });
        }
        match read(&buffer, bits, &mut look)? {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(()) => return Ok(()),
        }
    }
}

fn request(bits: u32) -> Vec<u8> {
    let attribute = |kind: u16| {
        let head = [8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat();
        [head, bits.to_be_bytes().to_vec()].concat()
    };
    // A mask of nothing would be refused.
    let attributes = match bits {
        0 => Vec::new(),
        _ => [attribute(STATUS), attribute(STATUS_MASK)].concat(),
    };
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or_default();
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(GET.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Number and port, then family (any), version and resource.
    bytes.extend([0; 12]);
    bytes.extend(attributes);
    bytes
}

/// The messages of one datagram; breaks off with the last one of the answer.
fn read(
    mut rest: &[u8],
    bits: u32,
    look: &mut impl FnMut(&Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, RequestError> {
    while !rest.is_empty() {
        let (kind, message, after) = split(rest).ok_or(RequestError::Malformed)?;
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(ControlFlow::Break(())),
            libc::NLMSG_ERROR => {
                let code = message.get(HEADER..HEADERS).and_then(|b| b.try_into().ok());
                let code = code.map(i32::from_ne_bytes);
                let code = code.ok_or(RequestError::Malformed)?;
                return Err(RequestError::refused(code.saturating_neg(), None));
            }
            _ if kind == ENTRY => {
                let attributes = message.get(HEADERS..).ok_or(RequestError::Malformed)?;
                let entry = entry::parse(attributes).map_err(|_| RequestError::Malformed)?;
                let entry = entry.filter(|entry| entry.status & bits == bits);
                if entry.is_some_and(|entry| look(&entry).is_break()) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            _ => {}
        }
        rest = after;
    }
    Ok(ControlFlow::Continue(()))
}

/// Kind and bytes of the first message, and what follows it; `None` when it is cut.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let message = bytes.get(..length).filter(|of| of.len() >= HEADER)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, message, rest))
}

#[cfg(test)]
mod tests;
