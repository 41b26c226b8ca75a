//! Kernel switches under `/proc/sys`, without shelling out.
//!
//! `/proc/sys/net` is that of the network namespace of the calling thread, so everything here is synchronous: a thread
//! pool might live in another namespace. Procfs never blocks.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use shared::plan::{LiveSysctl, Sysctl, same_value};

use crate::atomic_file;

const ROOT: &str = "/proc/sys";

/// Why a switch could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A part of the path is empty, `.`, `..` or holds a slash.
    #[error("{path:?} is not the path of a kernel switch")]
    Path {
        /// The parts.
        path: Vec<String>,
    },
    /// The kernel has no such switch.
    #[error("the kernel has no switch {}{}", .path.display(), absence(.path))]
    Absent {
        /// File.
        path: PathBuf,
    },
    /// `/proc/sys` is mounted read-only.
    #[error(
        "{key} can't be set to {value}: /proc/sys is mounted read-only, as containers and systemd's \
         ProtectKernelTunables=yes do; put `{key} = {value}` into a file in /etc/sysctl.d of the host and run \
         `sysctl --system`"
    )]
    ReadOnly {
        /// Name of the switch.
        key: String,
        /// What was to be written.
        value: String,
    },
    /// No permission.
    #[error(
        "{key} can't be set to {value}: missing privilege; put `{key} = {value}` into a file in /etc/sysctl.d and run \
         `sysctl --system`, or run as root"
    )]
    Privilege {
        /// Name of the switch.
        key: String,
        /// What was to be written.
        value: String,
    },
    /// The kernel refused the value.
    #[error("{} does not take the value {value:?}", .path.display())]
    Value {
        /// File.
        path: PathBuf,
        /// What was written.
        value: String,
    },
    /// Another error.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

fn absence(path: &Path) -> &'static str {
    if path.starts_with("/proc/sys/net/ipv6") && !Path::new("/proc/sys/net/ipv6").exists() {
        ": IPv6 is switched off in this kernel (ipv6.disable=1)"
    } else {
        ""
    }
}

/// The value of a switch; `None` where the kernel has none of this path.
pub fn read(path: &[String]) -> Result<LiveSysctl, SysctlError> {
    let file = file(path)?;
    let value = match fs::read_to_string(&file) {
        Ok(value) => Some(value.trim().to_owned()),
        Err(error) if is_absent(&error) => None,
        Err(source) => return Err(SysctlError::Io { path: file, source }),
    };
    Ok(LiveSysctl {
        path: path.to_vec(),
        value,
    })
}

/// Sets a switch.
pub fn write(path: &[String], value: &str) -> Result<(), SysctlError> {
    let file = file(path)?;
    fs::write(&file, value).map_err(|source| refusal(path, file, value, source))
}

/// Whether a switch has its value, or could be given it. Changes nothing.
pub fn check(sysctl: &Sysctl) -> Result<(), SysctlError> {
    let live = read(&sysctl.path)?.value;
    if live.is_some_and(|live| same_value(&live, &sysctl.value)) {
        return Ok(());
    }
    let file = file(&sysctl.path)?;
    match fs::OpenOptions::new().write(true).open(&file) {
        Ok(_) => Ok(()),
        Err(source) => Err(refusal(&sysctl.path, file, &sysctl.value, source)),
    }
}

fn refusal(parts: &[String], path: PathBuf, value: &str, source: io::Error) -> SysctlError {
    let value = value.to_owned();
    match source.raw_os_error() {
        _ if is_absent(&source) => SysctlError::Absent { path },
        Some(libc::EROFS) => SysctlError::ReadOnly {
            key: key(parts),
            value,
        },
        Some(libc::EPERM | libc::EACCES) => SysctlError::Privilege {
            key: key(parts),
            value,
        },
        Some(libc::EINVAL | libc::ERANGE) => SysctlError::Value { path, value },
        _ => SysctlError::Io { path, source },
    }
}

/// As a line of `sysctl.d(5)` begins: with slashes where a part holds dots.
fn key(parts: &[String]) -> String {
    let dotted = parts.iter().any(|part| part.contains('.'));
    parts.join(if dotted { "/" } else { "." })
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The file of a switch. Parts rather than a dotted name, since names of links may hold dots.
fn file(parts: &[String]) -> Result<PathBuf, SysctlError> {
    let is_part = |part: &String| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0'])
    };
    if parts.is_empty() || !parts.iter().all(is_part) {
        return Err(SysctlError::Path {
            path: parts.to_vec(),
        });
    }
    Ok(Path::new(ROOT).join(parts.iter().collect::<PathBuf>()))
}

/// What switches were before us, so that `down` can put them back. Lives in a file that survives restarts and crashes.
///
/// [`note`](Self::note) comes before the write: a crash between the two leaves a note about a switch that was not
/// changed, which [`restore`](Self::restore) then leaves alone.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    switches: BTreeMap<Vec<String>, Note>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    /// What it was before us.
    before: String,
    /// What we set last.
    ours: String,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: Vec<String>,
    before: String,
    ours: String,
}

/// Why the notes can't be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum RememberedError {
    /// The file can't be read, written or removed.
    #[error("the former values of kernel switches can't be kept in {}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} is not a list of kernel switches: {source}; `down` can't restore them: look at it, then remove it",
        .path.display()
    )]
    Content {
        /// File.
        path: PathBuf,
        /// The error.
        source: serde_json::Error,
    },
}

/// What [`Remembered::restore`] did with a switch.
#[derive(Debug)]
pub enum Restored {
    /// Put back.
    Back {
        /// Parts of the path.
        path: Vec<String>,
        /// The value it had before us and has again.
        value: String,
    },
    /// Someone has changed it since, or it is gone: left alone.
    LeftAlone {
        /// Parts of the path.
        path: Vec<String>,
        /// Its value.
        value: Option<String>,
    },
    /// Could not be put back; still remembered.
    Failed(SysctlError),
}

impl Remembered {
    /// The notes in `state_dir/sysctl.json`, none if there is no such file.
    pub fn open(state_dir: &Path) -> Result<Self, RememberedError> {
        let path = state_dir.join("sysctl.json");
        let lines: Vec<Line> = match fs::read(&path) {
            Ok(content) => {
                serde_json::from_slice(&content).map_err(|source| RememberedError::Content {
                    path: path.clone(),
                    source,
                })?
            }
            Err(error) if is_absent(&error) => Vec::new(),
            Err(source) => return Err(RememberedError::Io { path, source }),
        };
        let switches = lines
            .into_iter()
            .map(|Line { path, before, ours }| (path, Note { before, ours }))
            .collect();
        Ok(Self { path, switches })
    }

    /// To be called before a switch is set: notes what it was. The first value wins, also over restarts, so that a value
    /// of ours is never taken for the former one. Switches of our own links go with the link and are not noted.
    pub fn note(&mut self, sysctl: &Sysctl, was: Option<&str>) -> Result<(), RememberedError> {
        let Some(was) = was.filter(|_| !sysctl.of_our_link) else {
            return Ok(());
        };
        let note = Note {
            before: was.to_owned(),
            ours: sysctl.value.clone(),
        };
        match self.switches.get_mut(&sysctl.path) {
            Some(known) if known.ours == note.ours => return Ok(()),
            Some(known) => known.ours = note.ours,
            None => drop(self.switches.insert(sysctl.path.clone(), note)),
        }
        self.save()
    }

    /// Puts back every switch that still has the value we set, and forgets it. Removes the file when nothing is left.
    pub fn restore(&mut self) -> Result<Vec<Restored>, RememberedError> {
        let mut outcomes = Vec::new();
        let mut failed = BTreeMap::new();
        for (path, note) in std::mem::take(&mut self.switches) {
            let outcome = restore_one(&path, &note).unwrap_or_else(Restored::Failed);
            if matches!(outcome, Restored::Failed(_)) {
                failed.insert(path, note);
            }
            outcomes.push(outcome);
        }
        self.switches = failed;
        self.save()?;
        Ok(outcomes)
    }

    fn save(&self) -> Result<(), RememberedError> {
        let lines: Vec<Line> = self
            .switches
            .iter()
            .map(|(path, note)| Line {
                path: path.clone(),
                before: note.before.clone(),
                ours: note.ours.clone(),
            })
            .collect();
        let result = if lines.is_empty() {
            atomic_file::remove_if_there(&self.path)
        } else {
            serde_json::to_vec_pretty(&lines)
                .map_err(io::Error::from)
                .and_then(|content| atomic_file::write(&self.path, &content, 0o600))
        };
        result.map_err(|source| RememberedError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

fn restore_one(path: &[String], note: &Note) -> Result<Restored, SysctlError> {
    let live = read(path)?;
    let path = path.to_vec();
    let is_ours = live
        .value
        .as_deref()
        .is_some_and(|value| same_value(value, &note.ours));
    if !is_ours {
        return Ok(Restored::LeftAlone {
            path,
            value: live.value,
        });
    }
    write(&path, &note.before)?;
    Ok(Restored::Back {
        path,
        value: note.before.clone(),
    })
}
