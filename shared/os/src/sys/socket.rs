//! Making, binding and setting up sockets, as far as `std` can't: options must be set before binding.
#![expect(unsafe_code, reason = "socket calls have no safe form")]
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;
use super::message::Address;

/// A nonblocking UDP socket of `AF_INET` or `AF_INET6`.
pub(crate) fn udp(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes its arguments by value.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `bind(2)`.
pub(crate) fn bind(socket: BorrowedFd<'_>, address: &Address) -> io::Result<()> {
    let pointer = address.bytes.as_ptr().cast();
    // SAFETY: the pointer leads to `length` bytes of a socket address, which live until the call returns.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, address.length) })?;
    Ok(())
}

/// `setsockopt(2)` with an `int`.
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer leads to the 4 bytes of an `int`, which live until the call returns.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, LENGTH) })?;
    Ok(())
}
