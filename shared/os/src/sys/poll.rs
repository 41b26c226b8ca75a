//! Waiting for descriptors: `epoll(7)` for those that are waited for again and again, `poll(2)` for one.
//!
//! The kernel looks at all descriptors of a `poll` twice, before it sleeps and after; of an `epoll` at those that are ready.
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// `N` descriptors, or places without one, that are waited for together, level-triggered.
#[derive(Debug)]
pub struct Poller<const N: usize>(OwnedFd);

impl<const N: usize> Poller<N> {
    /// For these. One that is closed is no longer waited for.
    pub fn new(fds: [Option<BorrowedFd<'_>>; N]) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (place, fd) in (0..).zip(fds) {
            if let Some(fd) = fd {
                epoll::add(&epoll, fd, EventData::new_u64(place), EventFlags::IN)?;
            }
        }
        Ok(Self(epoll))
    }

    /// Wait until one can be read or is in error, or the time is over; `None` waits for ever. Says which; none after the
    /// time is over or when a signal came.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<[bool; N]> {
        const NONE: Event = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let (mut events, mut ready) = ([NONE; N], [false; N]);
        match epoll::wait(&self.0, &mut events, timespec(timeout).as_ref()) {
            Ok(count) => {
                for event in events.iter().take(count) {
                    let data = event.data;
                    let place = usize::try_from(data.u64()).ok();
                    if let Some(place) = place.and_then(|place| ready.get_mut(place)) {
                        *place = true;
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ready)
    }
}

/// Wait until the descriptor can be written, or the time is over, or a signal came. Says which.
pub fn writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    match poll(&mut polled, timespec(Some(timeout)).as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Beyond what the kernel can count is for ever.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    Timespec::try_from(timeout?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::super::event::Event;
    use super::Poller;
    use crate::clock;

    #[test]
    fn raised_event_is_readable_until_lowered() {
        let event = Event::new().unwrap();
        let poller = Poller::new([None, Some(event.as_fd())]).unwrap();
        let ready = || poller.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(ready(), [false, false]);
        event.raise();
        event.raise();
        assert_eq!(ready(), [false, true]);
        assert!(event.lower());
        assert!(!event.lower());
        assert_eq!(ready(), [false, false]);
    }

    #[test]
    fn closed_descriptor_is_no_longer_waited_for() {
        let (event, other) = (Event::new().unwrap(), Event::new().unwrap());
        let poller = Poller::new([Some(event.as_fd()), Some(other.as_fd())]).unwrap();
        event.raise();
        other.raise();
        assert_eq!(poller.wait(None).unwrap(), [true, true]);
        drop(event);
        assert_eq!(poller.wait(None).unwrap(), [false, true]);
    }

    #[test]
    fn time_is_up_no_sooner_than_asked() {
        let event = Event::new().unwrap();
        let poller = Poller::new([Some(event.as_fd())]).unwrap();
        let start = clock::now();
        let asked = Duration::from_micros(1100);
        assert_eq!(poller.wait(Some(asked)).unwrap(), [false]);
        assert!(start.elapsed() >= asked);
    }
}
