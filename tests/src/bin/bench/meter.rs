//! Who used the processors between two moments, and waiting until nobody else does.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, getpid, sysconf};

use crate::figure;
use crate::record::Sample;

/// The thread that starts all kernel threads.
const KTHREADD: i32 = 2;
/// Share of the machine that others may use at the start of a measurement.
const IDLE_SHARE: f64 = 0.12;
/// How long an idle machine is waited for.
const IDLE_PATIENCE: Duration = Duration::from_secs(15);
/// How long is looked whether it is idle.
const IDLE_LOOK: Duration = Duration::from_millis(400);
/// Share of one core that others may use during a measurement, before it counts as disturbed.
const NOISE_SHARE: f64 = 0.05;

/// A measurement's beginning.
pub(crate) struct Meter {
    began: Instant,
    processes: Processes,
    machine: Machine,
}

/// What was used until its end, in seconds of processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Length of the measurement.
    pub(crate) took: Duration,
    /// By the daemons that were asked for, and what they started.
    pub(crate) daemons: f64,
    /// By all.
    machine: f64,
    kernel_threads: f64,
    foreign: f64,
    stolen: f64,
}

impl Meter {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            processes: Processes::read()?,
            machine: Machine::read()?,
            began: Instant::now(),
        })
    }

    /// What was used; daemons are named by their sessions.
    pub(crate) fn stop(&self, sessions: &[i32]) -> Result<Usage> {
        let took = self.began.elapsed();
        let machine = Machine::read()?;
        let processes = Processes::read()?;
        let used = |select: fn(&Processes, &[i32]) -> f64| {
            // What ends meanwhile without being waited for takes its time along: never less than nothing.
            (select(&processes, sessions) - select(&self.processes, sessions)).max(0.0)
        };
        Ok(Usage {
            took,
            daemons: used(Processes::of_sessions),
            kernel_threads: used(|processes, _| processes.of_kernel_threads()),
            foreign: used(|processes, _| processes.of_others()),
            machine: machine.busy - self.machine.busy,
            stolen: machine.stolen - self.machine.stolen,
        })
    }
}

impl Usage {
    /// Write down everything, and whether it was disturbed.
    pub(crate) fn note(&self, sample: &mut Sample) {
        let seconds = self.took.as_secs_f64();
        for (name, value) in [
            (figure::SECONDS, seconds),
            (figure::CPU_DAEMONS, self.daemons),
            (figure::CPU_KERNEL_THREADS, self.kernel_threads),
            (figure::CPU_MACHINE, self.machine),
            (figure::CPU_FOREIGN, self.foreign),
            (figure::CPU_STOLEN, self.stolen),
        ] {
            sample.figures.insert(name.to_owned(), value);
        }
        sample.noisy = self.foreign + self.stolen > NOISE_SHARE * seconds;
    }

    /// The same, and what each 10⁹ bytes of payload cost.
    pub(crate) fn note_with_bytes(&self, sample: &mut Sample, bytes: u64) {
        self.note(sample);
        let gigabytes = figure::count(bytes) / 1e9;
        for (name, value) in [
            (figure::DAEMON_SECONDS_PER_GB, self.daemons),
            (figure::MACHINE_SECONDS_PER_GB, self.machine),
        ] {
            sample.figures.insert(name.to_owned(), value / gigabytes);
        }
    }
}

/// Wait until others leave the machine alone; gives up after a while, the measurement then shows how much they used.
pub(crate) fn wait_until_idle() -> Result<()> {
    let deadline = Instant::now() + IDLE_PATIENCE;
    let cores = figure::count(thread::available_parallelism()?.get() as u64);
    loop {
        let (before, began) = (Machine::read()?, Instant::now());
        thread::sleep(IDLE_LOOK);
        let busy = Machine::read()?.busy - before.busy;
        if busy / began.elapsed().as_secs_f64() / cores < IDLE_SHARE || Instant::now() > deadline {
            return Ok(());
        }
    }
}

/// Load average of one minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Greatest resident memory so far of all processes of these sessions, in bytes.
pub(crate) fn peak_memory(sessions: &[i32]) -> Result<u64> {
    let processes = Processes::read()?.0;
    let ours = processes
        .iter()
        .filter(|(_, process)| sessions.contains(&process.session));
    Ok(ours
        .filter_map(|(pid, _)| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))?;
            let kibibytes = line.trim().strip_suffix("kB")?.trim();
            kibibytes.parse::<u64>().ok()
        })
        .map(|kibibytes| kibibytes * 1024)
        .sum())
}

/// Processor time of the machine, in seconds since it was started.
struct Machine {
    /// Neither idle, nor waiting for a disk, nor stolen.
    busy: f64,
    stolen: f64,
}

impl Machine {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map_while(|word| word.parse().ok())
            .collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = *ticks else {
            anyhow::bail!("unexpected /proc/stat: {line}");
        };
        Ok(Self {
            busy: seconds(user + nice + system + irq + softirq),
            stolen: seconds(steal),
        })
    }
}

/// Every process by its id.
struct Processes(BTreeMap<i32, Process>);

#[derive(Clone, Copy)]
struct Process {
    parent: i32,
    session: i32,
    /// Clock ticks that it used itself.
    own: u64,
    /// Clock ticks of its children that have ended and were waited for, and of theirs. With them nothing is lost of
    /// what begins and ends within a measurement, as compilers do.
    children: u64,
}

impl Processes {
    fn read() -> Result<Self> {
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(pid) = pid else { continue };
            // One that ends in between is as if it had ended before.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            if let Some(process) = Process::parse(&stat) {
                processes.insert(pid, process);
            }
        }
        Ok(Self(processes))
    }

    fn of_sessions(&self, sessions: &[i32]) -> f64 {
        self.sum(|_, process| sessions.contains(&process.session))
    }

    fn of_kernel_threads(&self) -> f64 {
        self.sum(|pid, process| pid == KTHREADD || process.parent == KTHREADD)
    }

    /// Of everything that is neither a kernel thread nor started by us.
    fn of_others(&self) -> f64 {
        let ours = self.descendants(getpid().as_raw());
        self.sum(|pid, process| {
            pid != KTHREADD && process.parent != KTHREADD && !ours.contains(&pid)
        })
    }

    fn sum(&self, select: impl Fn(i32, &Process) -> bool) -> f64 {
        let selected = self
            .0
            .iter()
            .filter(|(pid, process)| select(**pid, process));
        seconds(
            selected
                .map(|(_, process)| process.own + process.children)
                .sum(),
        )
    }

    fn descendants(&self, root: i32) -> BTreeSet<i32> {
        let mut found = BTreeSet::from([root]);
        // Process ids wrap around, so a child's may be the smaller one: look until nobody new is found.
        loop {
            let before = found.len();
            for (pid, process) in &self.0 {
                if found.contains(&process.parent) {
                    found.insert(*pid);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }
}

impl Process {
    /// Fields 4, 6 and 14 to 17 of `proc_pid_stat(5)`.
    fn parse(stat: &str) -> Option<Self> {
        // The program's name stands in parentheses and may hold anything; what follows begins with field 3.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let id = |field: usize| fields.get(field - 3)?.parse::<i32>().ok();
        Some(Self {
            parent: id(4)?,
            session: id(6)?,
            own: number(14)? + number(15)?,
            children: number(16)? + number(17)?,
        })
    }
}

/// Clock ticks as seconds.
fn seconds(ticks: u64) -> f64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    figure::count(ticks) / figure::count(u64::try_from(per_second).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a ) (b) S 3 7 5 0 -1 0 0 0 0 0 10 20 30 40 20 0 1";
        let process = Process::parse(stat).unwrap();
        assert_eq!((process.parent, process.session), (3, 5));
        assert_eq!((process.own, process.children), (30, 70));
    }
}
