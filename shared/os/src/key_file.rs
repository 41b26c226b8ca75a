//! Keys in files: readable by their owner only, made when missing, never half written.
//!
//! A file may be a credential of systemd (`LoadCredential=`, systemd.exec(5)): then systemd decides who reads it, and we
//! never make one.
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use shared::model::key::KEY_LEN;
use shared::model::{KeyError, PrivateKey};
use zeroize::Zeroizing;

use crate::atomic_file;
use crate::random::{self, RandomError};
use crate::sys::process as syscall;

/// Permissions of a key file.
const FILE_MODE: u32 = 0o600;
/// Permissions of a directory for key files.
const DIR_MODE: u32 = 0o700;
/// Where systemd puts the credentials of its services, each in a directory named like the unit: the way for files that can't
/// hold [`CREDENTIALS_VARIABLE`].
const CREDENTIALS_DIR: &str = "/run/credentials";
/// The directory of this service's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// A key takes 44 bytes and a line end; anything much longer is another file.
const MAX_FILE_LEN: u16 = 4096;

/// Why there is no key. Never holds the content of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file can't be read.
    #[error("the key file {} can't be read: {source}", .path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Others may read the file.
    #[error(
        "the key file {} is open to others (mode {mode:04o}): run `chmod 600 {}`; if others may have read it, make a new key",
        .path.display(), .path.display()
    )]
    Mode {
        /// File.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A credential is not there.
    #[error(
        "systemd has passed no credential {}; add `LoadCredential={}:PATH-OF-THE-KEY` to the unit of this service",
        .path.display(), .path.file_name().unwrap_or_default().to_string_lossy()
    )]
    NoCredential {
        /// File.
        path: PathBuf,
    },
    /// Someone else owns the file and could open it to others.
    #[error(
        "the key file {} belongs to user {owner}, not to root or the user {user} that runs this: run `chown {user} {}`",
        .path.display(), .path.display()
    )]
    Owner {
        /// File.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Our user's number.
        user: u32,
    },
    /// Not a regular file.
    #[error("the key file {} is not a regular file", .path.display())]
    NotAFile {
        /// File.
        path: PathBuf,
    },
    /// The content is not a key.
    #[error("the key file {} holds no key: {source}", .path.display())]
    Key {
        /// File.
        path: PathBuf,
        /// What it should be.
        source: KeyError,
    },
    /// The file could not be made.
    #[error("the key file {} can't be made: {source}", .path.display())]
    Create {
        /// File.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// No randomness for a new key.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Reads a key: private or preshared. Refuses a file that others may read or could have changed.
pub fn read<K: FromStr<Err = KeyError>>(path: &Path) -> Result<K, KeyFileError> {
    let text = read_private(path)?;
    text.parse().map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Reads the private key, or makes one when there is no file. `true` tells that it is new. When two processes race, both
/// get the key of the one that was first.
pub fn read_or_create(path: &Path) -> Result<(PrivateKey, bool), KeyFileError> {
    match read(path) {
        Ok(key) => return Ok((key, false)),
        Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if is_credential(path) {
        // It would be gone with the next restart, and this end another one.
        return Err(KeyFileError::NoCredential {
            path: path.to_owned(),
        });
    }
    let seed = Zeroizing::new(random::bytes::<KEY_LEN>()?);
    let key = PrivateKey::from_bytes(*seed);
    match create(path, &key) {
        Ok(()) => Ok((key, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path).map(|key| (key, false))
        }
        Err(source) => Err(KeyFileError::Create {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes a directory, and those above it, that only we may enter. Leaves an existing one as it is.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
}

/// The file appears under its name complete and on the disk, or not at all: link(2) does not replace an existing one.
fn create(path: &Path, key: &PrivateKey) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        create_dir(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    atomic_file::remove_if_there(&temporary)?;
    let mut line = key.to_base64();
    line.push('\n');
    let result = atomic_file::create(&temporary, line.as_bytes(), FILE_MODE)
        .and_then(|()| fs::hard_link(&temporary, path))
        .and_then(|()| atomic_file::sync_dir_of(path));
    atomic_file::remove_if_there(&temporary)?;
    result
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?)?;
    // Room for the longest text at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::from(MAX_FILE_LEN) + 1));
    file.take(MAX_FILE_LEN.into())
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn is_credential(path: &Path) -> bool {
    let of_service = std::env::var_os(CREDENTIALS_VARIABLE);
    path.starts_with(CREDENTIALS_DIR)
        || of_service.is_some_and(|dir| path.parent() == Some(Path::new(&dir)))
}

/// Checks the open file, not the path, so that it can't be exchanged in between.
fn check(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path });
    }
    let mode = metadata.mode() & 0o7777;
    // systemd lets the service's user read a credential by an access control list where the file system has these: its mask
    // stands where else the group's permissions are (acl(5)).
    let to_others = if is_credential(&path) { 0o037 } else { 0o077 };
    if mode & to_others != 0 {
        return Err(KeyFileError::Mode { path, mode });
    }
    let (owner, user) = (metadata.uid(), syscall::effective_user());
    if [user, 0].contains(&owner) || (user == 0 && Some(owner) == owner_of_dir(&path)) {
        return Ok(());
    }
    Err(KeyFileError::Owner { path, owner, user })
}

/// Whose directory a file is in. A service's key belongs to its user, and root reads it in the course of a command.
fn owner_of_dir(path: &Path) -> Option<u32> {
    let dir = path.parent()?;
    fs::metadata(dir).ok().map(|dir| dir.uid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn missing_key_is_made_once_and_only_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/gateway.key");
        let (made, new) = read_or_create(&path).unwrap();
        assert!(new);
        let (read_again, new) = read_or_create(&path).unwrap();
        assert!(!new);
        assert!(made == read_again);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        let state_dir = path.parent().unwrap();
        assert_eq!(
            fs::metadata(state_dir).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        assert_eq!(fs::read_dir(state_dir).unwrap().count(), 1);
    }

    #[test]
    fn root_reads_the_key_of_a_service_in_its_own_directory_alone() {
        const SERVICE: u32 = 61_001;
        if syscall::effective_user() != 0 {
            return; // nobody else may give files away
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        let (made, _) = read_or_create(&path).unwrap();
        let give = |path: &Path, to| std::os::unix::fs::chown(path, Some(to), Some(to));
        give(&path, SERVICE).unwrap();
        let error = read::<PrivateKey>(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Owner { owner: SERVICE, .. }),
            "{error:?}"
        );
        give(dir.path(), SERVICE).unwrap();
        assert!(read::<PrivateKey>(&path).unwrap() == made);
        assert!(read_or_create(&path).unwrap().0 == made);
    }

    #[test]
    fn file_that_others_may_read_is_refused_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        read_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read::<PrivateKey>(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o})")), "{error}");
            assert!(
                error.contains(&format!("chmod 600 {}", path.display())),
                "{error}"
            );
        }
    }

    #[test]
    fn missing_credential_is_not_made() {
        let path = Path::new(CREDENTIALS_DIR).join("wg-edge-gateway.service/gateway.key");
        let error = read_or_create(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "systemd has passed no credential /run/credentials/wg-edge-gateway.service/gateway.key; add \
             `LoadCredential=gateway.key:PATH-OF-THE-KEY` to the unit of this service"
        );
        assert!(!path.exists());
    }

    #[test]
    fn content_that_is_no_key_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        atomic_file::write(&path, b"c2VjcmV0LXRoYXQtaXMtdG9vLXNob3J0", 0o600).unwrap();
        let error = read::<PrivateKey>(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Key { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        assert!(read_or_create(&path).is_err(), "a bad key is not replaced");
    }

    #[test]
    fn directory_is_not_a_key() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read::<PrivateKey>(dir.path()).unwrap_err(),
            KeyFileError::NotAFile { .. }
        ));
    }

    #[test]
    fn racing_processes_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        let other = PrivateKey::from_bytes([9; KEY_LEN]);
        create(&path, &other).unwrap();
        assert_eq!(
            create(&path, &PrivateKey::from_bytes([8; KEY_LEN]))
                .unwrap_err()
                .kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(read::<PrivateKey>(&path).unwrap() == other);
    }
}
