//! Files that are either the old or the new ones, whatever happens in between.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use crate::sys::process as syscall;

/// Replaces the content of `path` and returns when it is on the disk: temporary file, fsync, rename, fsync of the
/// directory. A crash leaves the old file or the new one, and at most a `.new` file that the next call takes over.
///
/// One process at a time may write a given path.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?
        .to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // Left over from a crash: might have other permissions, which `mode` would not change.
    remove_if_there(&temporary)?;
    let result = create(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        let _ = remove_if_there(&temporary); // the first error is the one to tell
        return Err(error);
    }
    sync_dir_of(path)
}

/// Writes a file that must not exist yet (`AlreadyExists`) and returns when its content is on the disk. Its directory
/// entry is not, see [`sync_dir_of`].
pub(crate) fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    give_to_owner_of(dir_of(path), &file)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What root makes in the directory of a service's user belongs to that user, so that the service can go on with it. Does
/// nothing for anyone but root.
pub fn give_to_owner_of(dir: &Path, file: &File) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if syscall::effective_user() != 0 || file.metadata()?.uid() == owner.uid() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Makes additions to and removals from the directory of `path` durable.
pub fn sync_dir_of(path: &Path) -> io::Result<()> {
    File::open(dir_of(path))?.sync_all()
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Removes a file; that it is not there is a success.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(dir.path().join("state.new"), "left over").unwrap();
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        const SERVICE: u32 = 64_123;
        if syscall::effective_user() != 0 {
            return; // nobody else may give files away
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(SERVICE), Some(SERVICE)).unwrap();
        let path = dir.path().join("state");
        write(&path, b"one", 0o600).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (SERVICE, SERVICE));
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn failure_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap(); // a file can't be renamed over a directory
        assert!(write(&path, b"new", 0o600).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
