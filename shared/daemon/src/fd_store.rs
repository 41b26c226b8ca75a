//! What outlives this process at systemd (`FileDescriptorStoreMax=`, `sd_pid_notify_with_fds(3)`): the queue of the TUN link.
//!
//! While a daemon is started again after a crash, or in the course of an upgrade, the kernel goes on putting packets for the
//! tunnel into that queue, as many as the link's `txqueuelen`, and the next process sends them on; a link whose queue is closed
//! drops them. Without systemd only the link stays.
//!
//! The UDP sockets are not kept. What arrives meanwhile is sealed for sessions that ended with the process, and a socket that
//! somebody else holds keeps its port from being bound again, after `wg set … listen-port` there and back.
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sd_notify::NotifyState;
use shared_os::sys::inherited;
use shared_os::tun::{OpenError, Options, Tun};
use tracing::{info, warn};

/// Name of the queue in the store.
const TUN: &str = "tun";

const REMOVAL: [NotifyState<'_>; 2] = [NotifyState::FdStoreRemove, NotifyState::FdName(TUN)];

/// Open the TUN link, by the queue that an earlier process has left if it is one of this link. The second value is what is
/// to be left in turn ([`leave`]), once this process will not give the link up again.
pub fn open_tun(options: &Options) -> Result<(Tun, Option<OwnedFd>), OpenError> {
    if let Some(queue) = take() {
        match Tun::adopt(queue, options) {
            Ok(tun) => {
                info!(interface = %options.name, "goes on with the queue of the process before");
                return Ok((tun, None));
            }
            Err(error) => {
                info!(%error, "the queue that the process before has left is of no use");
                // With its last descriptor a link that is not persistent goes.
                said(sd_notify::notify(false, &REMOVAL));
            }
        }
    }
    let tun = Tun::open(options)?;
    let queue = tun.as_fd().try_clone_to_owned();
    let queue = queue.inspect_err(|error| warn!(%error, "nothing is left for the next process"));
    Ok((tun, queue.ok()))
}

/// Leave a queue with systemd, if it has started us and keeps such things.
pub fn leave(queue: &OwnedFd) {
    let state = [NotifyState::FdStore, NotifyState::FdName(TUN)];
    said(sd_notify::notify_with_fds(false, &state, &[queue.as_fd()]));
}

/// Leave another queue in place of the one of before.
pub fn leave_instead(queue: &OwnedFd) {
    said(sd_notify::notify(false, &REMOVAL));
    leave(queue);
}

/// What an earlier process has left.
fn take() -> Option<OwnedFd> {
    let inherited = inherited::take();
    let inherited = inherited
        .inspect_err(|error| warn!(%error, "what systemd hands over can't be taken"))
        .unwrap_or_default();
    let mut queues = inherited.into_iter().filter(|(name, _)| name == TUN);
    queues.next().map(|(_, queue)| queue)
}

fn said(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        warn!(%error, "can't notify systemd");
    }
}
