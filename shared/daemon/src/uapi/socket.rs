//! The socket file: made so that nobody else can ever open it, known again, removed at the end.
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shared::model::InterfaceName;
use tokio::net::{UnixListener, UnixSocket};

use super::watch::Watch;

/// Clients that may wait for being accepted.
const BACKLOG: u32 = 128;

/// Why there is no UAPI socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The directory can't be made or opened.
    #[error("the directory {} can't be used; run as root, or have it made so that this user may write there, as packaging/tmpfiles.d does", directory.display())]
    Directory {
        /// Usually [`DIRECTORY`](super::DIRECTORY).
        directory: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process serves this name.
    #[error("another process already serves {}; stop it or choose another interface name", path.display())]
    InUse {
        /// The socket file.
        path: PathBuf,
    },
    /// Something else than a socket has the name.
    #[error("{} exists and is not a socket; move it away", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("the socket {} can't be made", path.display())]
    Socket {
        /// The socket file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A socket file of ours, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: FileId,
    watch: Watch,
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl SocketFile {
    /// Make `directory` if need be, and in it the socket of `interface`.
    pub(super) fn bind(
        directory: &Path,
        interface: &InterfaceName,
    ) -> Result<(Self, UnixListener), BindError> {
        let _locked = lock(directory).map_err(|source| BindError::Directory {
            directory: directory.to_owned(),
            source,
        })?;
        let path = directory.join(format!("{interface}.sock"));
        make_way(&path)?;
        let made = || {
            let listener = listen(&path)?;
            let id = file_id(&path)?;
            let watch = Watch::new(&path)?;
            Ok((id, watch, listener))
        };
        match made() {
            Ok((id, watch, listener)) => Ok((Self { path, id, watch }, listener)),
            Err(source) => Err(BindError::Socket { path, source }),
        }
    }

    /// Wait until there is no file of ours any more. Cancel-safe.
    pub(super) async fn removed(&self) -> io::Result<()> {
        while self.is_there() {
            self.watch.changed().await?;
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        file_id(&self.path).is_ok_and(|id| id == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_there() {
            return; // another process has made its own there
        }
        if let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the UAPI socket can't be removed");
        }
    }
}

/// Make the directory, and keep others who make sockets there out until the answer is dropped: of two processes that find the same
/// dead socket, the second must not remove what the first has just put in its place.
fn lock(directory: &Path) -> io::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let file = File::open(directory)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Remove the socket of a dead process at `path`, and nothing else.
fn make_way(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Socket {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let path = path.to_owned();
            return Err(BindError::NotASocket { path });
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(failed),
        // AGAIN: it lives, its backlog is full.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn try_connect(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)
}

/// Bind a socket whose file is 0600 from its first moment. Linux gives the file the mode of the unbound socket
/// (`unix_bind_bsd` in `net/unix/af_unix.c`), so neither the process-wide umask has to be changed nor is there a moment
/// in which the file is open to others.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}
