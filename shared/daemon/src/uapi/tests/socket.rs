//! The socket file from its making to its end.
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shared::model::InterfaceName;
use tempfile::TempDir;

use super::{MemoryDevice, eventually};
use crate::uapi::{BindError, Server};

struct Place {
    base: TempDir,
    name: InterfaceName,
}

impl Place {
    fn new() -> Self {
        Self {
            base: TempDir::new().unwrap(),
            name: "edge0".parse().unwrap(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.base.path().join("wireguard")
    }

    fn socket(&self) -> PathBuf {
        self.directory().join("edge0.sock")
    }

    fn bind(&self) -> Result<Server, BindError> {
        Server::bind_in(&self.directory(), &self.name)
    }
}

fn mode(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn directory_and_socket_are_for_the_owner_only() {
    let place = Place::new();
    let _server = place.bind().unwrap();
    assert_eq!(mode(place.directory()), 0o700);
    assert_eq!(mode(place.socket()), 0o600);
}

#[tokio::test]
async fn an_existing_directory_keeps_its_mode() {
    let place = Place::new();
    fs::create_dir(place.directory()).unwrap();
    fs::set_permissions(place.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let _server = place.bind().unwrap();
    assert_eq!(mode(place.directory()), 0o755);
    assert_eq!(mode(place.socket()), 0o600);
}

#[tokio::test]
async fn dropping_the_server_removes_the_file() {
    let place = Place::new();
    drop(place.bind().unwrap());
    assert!(!place.socket().exists());
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced() {
    let place = Place::new();
    fs::create_dir(place.directory()).unwrap();
    drop(StdListener::bind(place.socket()).unwrap());
    assert!(place.socket().exists());
    let _server = place.bind().unwrap();
    std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
}

#[tokio::test]
async fn a_live_socket_is_refused_even_when_its_backlog_is_full() {
    let place = Place::new();
    let _server = place.bind().unwrap(); // which does not accept
    let mut waiting = Vec::new();
    loop {
        assert!(matches!(place.bind(), Err(BindError::InUse { .. })));
        match connect_without_waiting(&place) {
            Ok(client) => waiting.push(client),
            Err(Errno::AGAIN) => break,
            Err(errno) => panic!("{errno}"),
        }
    }
    assert!(matches!(place.bind(), Err(BindError::InUse { .. })));
    assert!(place.socket().exists());
}

fn connect_without_waiting(place: &Place) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK;
    let client = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&client, &SocketAddrUnix::new(place.socket())?)?;
    Ok(client)
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.directory()).unwrap();
    fs::write(place.socket(), "precious").unwrap();
    assert!(matches!(place.bind(), Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
}

#[tokio::test]
async fn removing_the_file_ends_the_server() {
    let place = Place::new();
    let server = tokio::spawn(place.bind().unwrap().serve(MemoryDevice::new()));
    tokio::task::yield_now().await;
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o660)).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!server.is_finished(), "a change of mode is no removal");
    fs::remove_file(place.socket()).unwrap();
    eventually("the server ends", || server.is_finished()).await;
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_that_another_process_put_there_is_not_removed() {
    let place = Place::new();
    let server = tokio::spawn(place.bind().unwrap().serve(MemoryDevice::new()));
    fs::remove_file(place.socket()).unwrap();
    let _other = StdListener::bind(place.socket()).unwrap();
    eventually("the server ends", || server.is_finished()).await;
    assert!(
        fs::symlink_metadata(place.socket())
            .unwrap()
            .file_type()
            .is_socket()
    );
}
