//! The process and its files: namespace, lock, core dumps, memory.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use super::check;

/// Moves this thread alone into a new, empty network namespace (unshare(2)).
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: takes no pointer; only the calling thread changes its namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Takes the lock of an open file without waiting; `false` when another process has it (flock(2)). The lock goes with
/// the last descriptor of the open file, so a dead process never leaves one behind.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: takes no pointer; the descriptor is open for as long as `file` lives.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// No core dumps, no ptrace by other processes of the user, `/proc/self/mem` for root only (prctl(2), `PR_SET_DUMPABLE`).
pub(crate) fn set_not_dumpable() -> io::Result<()> {
    // SAFETY: `PR_SET_DUMPABLE` takes a number and no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0 as libc::c_ulong) }).map(drop)
}

/// Core files of at most 0 bytes, also for child processes (setrlimit(2)).
pub(crate) fn forbid_core_files() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is that of a live `rlimit`, which is only read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }).map(drop)
}

/// Lets this process open as many files as it may give itself: the soft limit becomes the hard one (setrlimit(2)). Returns
/// the limit.
pub(crate) fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is that of a live `rlimit`, which is only written.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is that of a live `rlimit`, which is only read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Keeps all memory of this process, present and future, out of swap (mlockall(2)).
pub(crate) fn lock_memory() -> io::Result<()> {
    // SAFETY: takes no pointer and changes no memory's content.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) }).map(drop)
}

/// Gives whole free pages of the heap back (`malloc_trim(3)`).
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, may be called at any time, touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Asks a process to end (kill(2), SIGTERM).
pub(crate) fn terminate(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGTERM)
}

/// Tells a process that its configuration has changed (kill(2), SIGHUP).
pub(crate) fn hang_up(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGHUP)
}

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid <= 0 {
        // 0 would mean our own process group.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: takes no pointer.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// User id as which files are accessed (geteuid(2)).
pub(crate) fn effective_user() -> u32 {
    // SAFETY: always succeeds and has no preconditions.
    unsafe { libc::geteuid() }
}
