//! Files with secrets.
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use shared_daemon::error::Failure;
use zeroize::Zeroizing;

/// More than any key or certificate.
const MAX_BYTES: u64 = 1 << 20;

/// Make a file that only its owner can read.
///
/// # Errors
/// It is there already and `force` is not set, or can't be written.
pub(super) fn write_private(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            exists(path)
        } else {
            Failure::Environment(format!("{}: {error}", path.display()))
        }
    };
    if force {
        // A new file, so that the old one's mode and links play no part.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Whether [`write_private`] may: asked before anything is done that a failure would leave half done.
///
/// # Errors
/// It is there already and `force` is not set.
pub(super) fn check_free(path: &Path, force: bool) -> Result<(), Failure> {
    if force || !path.exists() {
        return Ok(());
    }
    Err(exists(path))
}

fn exists(path: &Path) -> Failure {
    Failure::Other(format!(
        "{} exists already; --force replaces it",
        path.display()
    ))
}

/// Text of a file; `-` is standard input. White space around it is left out.
///
/// # Errors
/// It can't be read, is no text, or far too large.
pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(error) => Err(Failure::Environment(format!("{}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.conf");
        write_private(&path, "one\n", false).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let refused = write_private(&path, "two\n", false).unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert!(check_free(&path, false).is_err() && check_free(&path, true).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, "two\n", true).unwrap();
        assert_eq!(*read_secret(&path).unwrap(), "two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
