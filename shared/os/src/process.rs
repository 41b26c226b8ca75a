//! The process itself: one instance at a time, its privileges, its memory.
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::atomic_file;
use crate::sys::{code, process as syscall};

/// `CAP_NET_ADMIN` of `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Proof that no other instance runs. The lock ends with the process, however it ends; the file stays.
#[derive(Debug)]
pub struct Instance {
    _file: File,
}

/// Why this instance must not run.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another one runs.
    #[error("{name} is already running{}; stop it first, or choose another runtime_dir", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Running {
        /// Name of the program.
        name: String,
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// The lock file can't be used.
    #[error("the pid file {} can't be used: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl Instance {
    /// Takes `runtime_dir/NAME.pid`, which then holds our process id. Makes the directory when missing.
    pub fn acquire(runtime_dir: &Path, name: &str) -> Result<Self, InstanceError> {
        let path = runtime_dir.join(format!("{name}.pid"));
        let failed = |source| InstanceError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(runtime_dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // holds the other's pid until we have the lock
            .mode(0o644)
            // Root must not write where a link leads that the directory's owner, a service without privileges, has made.
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        atomic_file::give_to_owner_of(runtime_dir, &file).map_err(failed)?;
        if !syscall::try_lock(&file).map_err(failed)? {
            return Err(InstanceError::Running {
                name: name.to_owned(),
                pid: pid(&mut file),
            });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The process id of the instance that runs, if one does: for commands that talk to the daemon.
pub fn running(runtime_dir: &Path, name: &str) -> Option<u32> {
    let mut file = File::open(runtime_dir.join(format!("{name}.pid"))).ok()?;
    match syscall::try_lock(&file) {
        Ok(false) => pid(&mut file),
        Ok(true) | Err(_) => None,
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Asks the instance with this process id to end. One that has just ended by itself is a success.
pub fn terminate(pid: u32) -> io::Result<()> {
    match syscall::terminate(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        outcome => outcome,
    }
}

/// Asks the instance with this process id to take its configuration anew.
pub fn hang_up(pid: u32) -> io::Result<()> {
    syscall::hang_up(pid)
}

/// The user as whom this process opens files.
pub fn effective_user() -> u32 {
    syscall::effective_user()
}

/// Keys live in our memory: no core dumps, and no other process of our user may look into it.
pub fn disable_core_dumps() -> io::Result<()> {
    syscall::set_not_dumpable()?;
    syscall::forbid_core_files()
}

/// Lets this process open as many files as the system allows it at all, and returns that limit. The usual 1024 are for
/// programs that call select(2); ours holds more connections than that.
pub fn raise_file_limit() -> io::Result<u64> {
    syscall::raise_file_limit()
}

/// Gives memory back to the system after a start or a new configuration, which need much for a moment: what was freed, as far
/// as it makes whole pages (by itself where the C library does so), and the program's code, of which most has been run for the
/// last time. The kernel maps 64 KB of it around each place that is run.
pub fn return_memory() {
    if let Err(error) = code::unmap() {
        tracing::debug!(%error, "the program's code stays mapped");
    }
    syscall::trim_heap();
}

/// Keeps keys out of swap. Fails without `CAP_IPC_LOCK` where the limit for locked memory is small (`LimitMEMLOCK=` in
/// systemd): worth a warning, not an end.
pub fn lock_memory() -> io::Result<()> {
    syscall::lock_memory()
}

/// Without this capability nothing of what we do to the kernel is possible.
#[derive(Debug, thiserror::Error)]
#[error(
    "missing privilege: changing links, routes and rules needs the capability CAP_NET_ADMIN; run as root, or give it to \
     the service (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
)]
pub struct MissingPrivilege;

/// Checks that this thread may configure the network.
pub fn require_net_admin() -> Result<(), MissingPrivilege> {
    // A system without /proc tells nothing: then the first change will.
    let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") else {
        return Ok(());
    };
    match effective_capabilities(&status) {
        Some(capabilities) if capabilities & (1 << CAP_NET_ADMIN) == 0 => Err(MissingPrivilege),
        _ => Ok(()),
    }
}

/// The line `CapEff:` of `proc_pid_status(5)`: a bit mask in hexadecimal.
fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_instance_is_refused_and_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::acquire(dir.path(), "gateway").unwrap();
        let error = Instance::acquire(dir.path(), "gateway").unwrap_err();
        let expected = format!("gateway is already running (pid {})", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert_eq!(running(dir.path(), "gateway"), Some(std::process::id()));
        drop(first);
        assert_eq!(running(dir.path(), "gateway"), None);
        Instance::acquire(dir.path(), "gateway").unwrap();
    }

    #[test]
    fn file_of_a_dead_instance_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("gateway.pid"),
            "4294967295 and a long rest\n",
        )
        .unwrap();
        let _instance = Instance::acquire(dir.path(), "gateway").unwrap();
        let text = std::fs::read_to_string(dir.path().join("gateway.pid")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn link_in_the_place_of_the_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (dir.path().join("elsewhere"), dir.path().join("gateway.pid"));
        std::fs::write(&elsewhere, "of others").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let error = Instance::acquire(dir.path(), "gateway").unwrap_err();
        assert!(matches!(error, InstanceError::Io { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(elsewhere).unwrap(), "of others");
    }

    #[test]
    fn gateway_and_lan_server_may_run_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let _gateway = Instance::acquire(dir.path(), "gateway").unwrap();
        let _lan_server = Instance::acquire(dir.path(), "lan-server").unwrap();
    }

    #[test]
    fn file_limit_is_raised_as_far_as_it_goes() {
        let limit = raise_file_limit().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        let values: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(values[0], values[1], "{line}");
        if values[1] != "unlimited" {
            assert_eq!(limit.to_string(), values[1]);
        }
    }

    /// What this process holds of such memory, kB.
    fn resident(kind: &str) -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(kind));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse().unwrap()
    }

    #[test]
    fn code_does_not_stay_mapped() {
        let before = resident("RssFile:");
        return_memory();
        let after = resident("RssFile:");
        assert!(after < before, "{before} kB, then {after} kB");
    }

    #[test]
    fn freed_memory_is_given_back() {
        let block = |number: usize| vec![1_u8; 1000 + number % 7];
        let mut blocks: Vec<_> = (0..32_000).map(block).collect();
        // Every tenth stays, so that the end of the heap does not come down by itself.
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 10 == 0
        });
        let before = resident("RssAnon:");
        return_memory();
        let after = resident("RssAnon:");
        assert_eq!(blocks.len(), 3200);
        assert!(after + 8_000 < before, "{before} kB, then {after} kB");
    }

    #[test]
    fn capabilities_are_read_from_status() {
        let none = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n";
        assert_eq!(effective_capabilities(none), Some(0));
        let admin = "CapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(admin), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
        assert!(
            MissingPrivilege
                .to_string()
                .starts_with("missing privilege: ")
        );
    }
}
