//! `poll(2)`.
#![expect(unsafe_code, reason = "poll has no safe form")]
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use super::check;

/// Wait until one of the descriptors can be read or is in error, or the time is over; `None` waits for ever. Says which;
/// none after the time is over or when a signal came.
pub fn readable<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| entry(fd, libc::POLLIN));
    wait(&mut polled, timeout)?;
    Ok(polled.map(|entry| entry.revents != 0))
}

/// Wait until the descriptor can be written, or the time is over. Says which.
pub fn writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut polled = [entry(Some(fd), libc::POLLOUT)];
    wait(&mut polled, Some(timeout))?;
    Ok(polled.iter().any(|entry| entry.revents != 0))
}

fn entry(fd: Option<BorrowedFd<'_>>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()), // negative ones are skipped
        events,
        revents: 0,
    }
}

fn wait(polled: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up, or a deadline less than a millisecond ahead would be polled for in a busy loop.
    let millis = timeout.map_or(-1, |timeout| {
        libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    // SAFETY: `polled` is an array of `count` entries that lives until the call returns.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), count, millis) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::event::Event;
    use super::*;

    #[test]
    fn raised_event_is_readable_until_lowered() {
        let event = Event::new().unwrap();
        let ready = || readable([Some(event.as_fd()), None], Some(Duration::ZERO)).unwrap();
        assert_eq!(ready(), [false, false]);
        event.raise();
        event.raise();
        assert_eq!(ready(), [true, false]);
        assert!(event.lower());
        assert!(!event.lower());
        assert_eq!(ready(), [false, false]);
    }
}
