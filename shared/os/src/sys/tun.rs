//! The ioctls of `/dev/net/tun` (`include/uapi/linux/if_tun.h`).
#![expect(unsafe_code, reason = "ioctl has no safe form")]
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::check;

/// `TUNSETIFF`: attach to the link of this name, which is made if there is none. Returns the name that the kernel chose.
pub(crate) fn set_interface(
    tun: BorrowedFd<'_>,
    name: &str,
    flags: libc::c_short,
) -> io::Result<String> {
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1; // the last byte stays zero
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(name_in(&request))
}

/// `TUNGETIFF`: the link that a descriptor is attached to, and how. `EBADFD` when it is attached to none, or not any more;
/// `ENOTTY` when it is something else.
pub(crate) fn interface(tun: BorrowedFd<'_>) -> io::Result<(String, libc::c_short)> {
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives until the call returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF has written the flags, and any bits are a value of them.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_in(&request), flags))
}

fn name_in(request: &libc::ifreq) -> String {
    let name = request.ifr_name.iter().take_while(|&&byte| byte != 0);
    name.map(|byte| char::from(byte.to_ne_bytes()[0])).collect()
}

/// `TUNSETOFFLOAD`: what kinds of packets the kernel may hand over without cutting them and summing them up.
pub(crate) fn set_offload(tun: BorrowedFd<'_>, mask: libc::c_uint) -> io::Result<()> {
    let mask = libc::c_ulong::from(mask);
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, mask) })?;
    Ok(())
}

/// `TUNSETVNETHDRSZ`: length of the virtio-net header.
pub(crate) fn set_vnet_hdr_len(tun: BorrowedFd<'_>, length: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives until the call returns.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })?;
    Ok(())
}

/// `TUNSETPERSIST`: whether the link stays when the last descriptor is closed.
pub(crate) fn set_persist(tun: BorrowedFd<'_>, persist: bool) -> io::Result<()> {
    let persist = libc::c_ulong::from(persist);
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, persist) })?;
    Ok(())
}
