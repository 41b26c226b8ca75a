//! Configuration files that commands write: asked for before, with what was there kept beside.
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use shared_os::atomic_file;

use crate::error::Failure;

/// Everyone may read a configuration: it holds no secret.
const MODE: u32 = 0o644;

/// The text that is there, if a file is.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Environment(format!(
            "{}: can't be read: {error}",
            path.display()
        ))),
    }
}

/// Where the text of before is kept when `command` writes another one.
pub fn kept(path: &Path, command: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".before-{command}"));
    PathBuf::from(name)
}

/// Put `text` in the place of what was there `before`, on the disk when this returns.
pub fn replace(
    path: &Path,
    before: Option<&str>,
    text: &str,
    command: &str,
) -> Result<(), Failure> {
    let write = |path: &Path, text: &str| {
        atomic_file::write(path, text.as_bytes(), MODE).map_err(|error| {
            Failure::Environment(format!("{}: can't be written: {error}", path.display()))
        })
    };
    if let Some(before) = before {
        write(&kept(path, command), before)?;
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|error| {
            Failure::Environment(format!("{}: can't be made: {error}", dir.display()))
        })?;
    }
    write(path, text)
}

/// Ask a person; only yes is yes.
///
/// # Errors
/// Nobody can be asked, or the answer is no. `untouched` says what that leaves as it is.
pub fn confirm(question: &str, untouched: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Other(format!(
            "nobody can be asked here: say --yes; {untouched}"
        )));
    }
    let mut stderr = io::stderr();
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::other(&error))?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::other(&error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Other(untouched.to_owned())),
    }
}
