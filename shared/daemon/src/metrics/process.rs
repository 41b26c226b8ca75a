//! What the process costs, from `/proc/self` (`proc(5)`); names are those of Prometheus' own client libraries.
use std::fs;
use std::time::Duration;

/// What could be read: on a system without `/proc` nothing is, and then nothing is claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// Memory that is in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time of all threads, user and system.
    pub cpu_time: Option<Duration>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many may be open (soft limit); `None` also when there is no limit.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Of this process, now.
    pub fn of_self() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        // One of those that are counted is the directory that we read them from.
        let open = fs::read_dir("/proc/self/fd").ok();
        Self {
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            cpu_time: cpu_time(&stat, rustix::param::clock_ticks_per_second()),
            open_fds: open.map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: max_open_files(&limits),
        }
    }
}

/// A line `NAME     123 kB` of `/proc/PID/status`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

/// Fields 14 and 15 of `/proc/PID/stat`. Field 2 is the program's name in parentheses and may hold anything, so counting
/// begins behind the last of them, with field 3.
fn cpu_time(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let millis = (user + system).checked_mul(1000)?;
    Some(Duration::from_millis(millis.checked_div(ticks_per_second)?))
}

/// The soft limit in `/proc/PID/limits`.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_in_proc() {
        let process = Process::of_self();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.cpu_time.is_some());
        // Other tests of this program open and close files meanwhile, so no exact number holds.
        assert!((3..100_000).contains(&process.open_fds.unwrap()));
    }

    #[test]
    fn a_program_may_be_named_like_fields_of_its_own_state() {
        let stat = "7 (a) S 1 (b)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 12345";
        assert_eq!(cpu_time(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("", 100), None);
        assert_eq!(cpu_time(stat, 0), None);
    }

    #[test]
    fn no_limit_is_no_number() {
        let limits = |soft: &str| format!("Max open files            {soft}    524288    files\n");
        assert_eq!(max_open_files(&limits("1024")), Some(1024));
        assert_eq!(max_open_files(&limits("unlimited")), None);
    }
}
