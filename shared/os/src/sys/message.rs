//! `recvmmsg(2)`, `recvmsg(2)`, `sendmmsg(2)` and `sendmsg(2)`.
//!
//! Only pointers are put together here. Socket addresses and control messages are bytes that
//! [`udp::address`](crate::udp::address) and [`udp::control`](crate::udp::control) read and write.
#![expect(unsafe_code, reason = "the message calls have no safe form")]
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::check;

/// Most messages of one call to send.
pub(crate) const SEND_BATCH: usize = 32;

/// Most messages of one call to receive: 8 are no faster and take twice the memory, 2 cost more where both directions are
/// full.
pub(crate) const RECEIVE_BATCH: usize = 4;

/// Bytes of a `sockaddr_in6`, the longest address used here.
pub(crate) const ADDRESS_LEN: usize = 28;

/// Room for the control messages of one datagram: packet info (40), traffic class (24), segment size (24).
pub(crate) const CONTROL_LEN: usize = 128;

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Address {
    pub(crate) bytes: [u8; ADDRESS_LEN],
    /// Bytes that count.
    pub(crate) length: libc::socklen_t,
}

/// Control messages, each beginning at a multiple of 8.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Control {
    pub(crate) bytes: [u8; CONTROL_LEN],
    /// Bytes that count.
    pub(crate) length: usize,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            bytes: [0; ADDRESS_LEN],
            length: 0,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            bytes: [0; CONTROL_LEN],
            length: 0,
        }
    }
}

/// What came with a received buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Incoming {
    pub(crate) address: Address,
    pub(crate) control: Control,
    /// Bytes received.
    pub(crate) length: usize,
    /// Data or control messages did not fit (`MSG_TRUNC`, `MSG_CTRUNC`).
    pub(crate) truncated: bool,
}

/// A message to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outgoing {
    pub(crate) address: Address,
    pub(crate) control: Control,
    /// Where its bytes lie.
    pub(crate) range: Range<usize>,
}

// One message goes by `syscall(2)`. The C library's own functions are cancellation points, which takes two calls more in a
// program of several threads; for a packet that comes alone nothing of them is in the cache.

// Headers are made anew for each call, in room for as many messages as it has, roughly: clearing room for 32 would touch as
// much memory as all the rest that is done with a packet that comes alone.

fn empty_headers<const N: usize>() -> [libc::mmsghdr; N] {
    // SAFETY: headers are plain data (numbers and pointers) for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

const fn empty_header() -> libc::msghdr {
    // SAFETY: a header is plain data (numbers and pointers) for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

const fn empty_vectors<const N: usize>() -> [libc::iovec; N] {
    const EMPTY: libc::iovec = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    [EMPTY; N]
}

/// Make `header` ask for an address, control messages and the bytes that `vector` then points to.
const fn expect(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    incoming: &mut Incoming,
    data: &mut [u8],
) {
    vector.iov_base = data.as_mut_ptr().cast();
    vector.iov_len = data.len();
    header.msg_name = incoming.address.bytes.as_mut_ptr().cast();
    header.msg_namelen = 28;
    header.msg_control = incoming.control.bytes.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN as _;
    header.msg_iov = vector;
    header.msg_iovlen = 1;
}

/// Note what the kernel wrote to the header, and how many bytes it received.
const fn note(incoming: &mut Incoming, header: &libc::msghdr, length: usize) {
    incoming.length = length;
    incoming.address.length = header.msg_namelen;
    incoming.control.length = header.msg_controllen as _;
    incoming.truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
}

/// Receive into the chunks of `data`, of `chunk_len` bytes each, one message per chunk and entry of `incoming`, but no
/// more than [`RECEIVE_BATCH`]. Returns how many were received; they are the first ones.
pub(crate) fn recvmmsg(
    socket: BorrowedFd<'_>,
    incoming: &mut [Incoming],
    data: &mut [u8],
    chunk_len: usize,
) -> io::Result<usize> {
    let mut headers = empty_headers::<RECEIVE_BATCH>();
    let mut vectors = empty_vectors::<RECEIVE_BATCH>();
    let mut count: libc::c_uint = 0;
    let slots = incoming.iter_mut().zip(data.chunks_exact_mut(chunk_len));
    for ((slot, chunk), (entry, vector)) in slots.zip(headers.iter_mut().zip(&mut vectors)) {
        expect(&mut entry.msg_hdr, vector, slot, chunk);
        count += 1;
    }
    let no_timeout = std::ptr::null_mut();
    let pointer = headers.as_mut_ptr();
    // SAFETY: the first `count` headers point to addresses, control buffers and vectors with their true lengths, all of
    // which live until the call returns and to which no other pointer leads.
    let received =
        check(unsafe { libc::recvmmsg(socket.as_raw_fd(), pointer, count, 0, no_timeout) })?;
    let received = usize::try_from(received).unwrap_or(0);
    for (slot, entry) in incoming.iter_mut().zip(&headers).take(received) {
        note(slot, &entry.msg_hdr, entry.msg_len as usize);
    }
    Ok(received)
}

/// Receive one message into `data`.
pub(crate) fn recvmsg(
    socket: BorrowedFd<'_>,
    incoming: &mut Incoming,
    data: &mut [u8],
) -> io::Result<()> {
    let mut header = empty_header();
    let [mut vector] = empty_vectors();
    expect(&mut header, &mut vector, incoming, data);
    // SAFETY: the header points to an address, a control buffer and a vector with their true lengths, all of which live
    // until the call returns and to which no other pointer leads.
    let received =
        unsafe { libc::syscall(libc::SYS_recvmsg, socket.as_raw_fd(), &raw mut header, 0) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    note(incoming, &header, length);
    Ok(())
}

/// Make `header` describe the message, whose bytes `vector` then points to. The kernel only reads through these pointers.
fn describe(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    outgoing: &Outgoing,
    bytes: &[u8],
) {
    let payload = bytes.get(outgoing.range.clone()).unwrap_or_default();
    vector.iov_base = payload.as_ptr().cast_mut().cast();
    vector.iov_len = payload.len();
    header.msg_name = outgoing.address.bytes.as_ptr().cast_mut().cast();
    header.msg_namelen = outgoing.address.length;
    if outgoing.control.length > 0 {
        header.msg_control = outgoing.control.bytes.as_ptr().cast_mut().cast();
        header.msg_controllen = outgoing.control.length as _;
    }
    header.msg_iov = vector;
    header.msg_iovlen = 1;
}

/// Send messages, no more than [`SEND_BATCH`], whose bytes lie in `bytes`. Returns how many were sent; an error is that of
/// the first message, since the kernel reports one only when nothing was sent.
pub(crate) fn sendmmsg(
    socket: BorrowedFd<'_>,
    outgoing: &[Outgoing],
    bytes: &[u8],
) -> io::Result<usize> {
    match outgoing.len() {
        0..=1 => send::<1>(socket, outgoing, bytes),
        2..=8 => send::<8>(socket, outgoing, bytes),
        _ => send::<SEND_BATCH>(socket, outgoing, bytes),
    }
}

fn send<const N: usize>(
    socket: BorrowedFd<'_>,
    outgoing: &[Outgoing],
    bytes: &[u8],
) -> io::Result<usize> {
    let mut headers = empty_headers::<N>();
    let mut vectors = empty_vectors::<N>();
    let mut count: libc::c_uint = 0;
    for (message, (entry, vector)) in outgoing.iter().zip(headers.iter_mut().zip(&mut vectors)) {
        describe(&mut entry.msg_hdr, vector, message, bytes);
        count += 1;
    }
    let pointer = headers.as_mut_ptr();
    // SAFETY: the first `count` headers point to addresses, control messages and vectors with their true lengths, all of
    // which live until the call returns; the kernel reads them and writes only to `msg_len` of the headers.
    let sent = check(unsafe { libc::sendmmsg(socket.as_raw_fd(), pointer, count, 0) })?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

/// Send one message whose bytes lie in `bytes`.
pub(crate) fn sendmsg(socket: BorrowedFd<'_>, outgoing: &Outgoing, bytes: &[u8]) -> io::Result<()> {
    let mut header = empty_header();
    let [mut vector] = empty_vectors();
    describe(&mut header, &mut vector, outgoing, bytes);
    // SAFETY: the header points to an address, control messages and a vector with their true lengths, all of which live
    // until the call returns; the kernel only reads them.
    let sent =
        unsafe { libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const header, 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
