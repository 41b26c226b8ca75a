//! Clients that are not `wg`: several requests on a connection, slow, many, rude.
use std::path::PathBuf;
use std::time::Duration;

use shared::uapi::MAX_REQUEST_BYTES;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::MemoryDevice;
use crate::uapi::{MAX_CONNECTIONS, REQUEST_TIMEOUT, Server};

const GET: &[u8] = b"get=1\n\n";
const DONE: &[u8] = b"errno=0\n\n";

struct Fixture {
    directory: TempDir,
    server: JoinHandle<std::io::Result<()>>,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let server = Server::bind_in(directory.path(), &"edge0".parse().unwrap()).unwrap();
        let server = tokio::spawn(server.serve(MemoryDevice::new()));
        Self { directory, server }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("edge0.sock")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Send `request` and read the answer to the end of the connection.
    async fn converse(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read_exactly(stream: &mut UnixStream, expected: &[u8]) {
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let f = Fixture::new();
    let mut stream = f.connect().await;
    for _ in 0..3 {
        stream.write_all(b"set=1\nfwmark=7\n\n").await.unwrap();
        read_exactly(&mut stream, DONE).await;
        stream.write_all(GET).await.unwrap();
        read_exactly(&mut stream, b"fwmark=7\nerrno=0\n\n").await;
    }
    let pipelined = f.converse(b"set=1\nfwmark=8\n\nget=1\n\n").await;
    assert_eq!(pipelined, "errno=0\n\nfwmark=8\nerrno=0\n\n");
}

#[tokio::test]
async fn a_wrong_request_is_answered_as_a_whole_and_changes_nothing() {
    let f = Fixture::new();
    let answers = f
        .converse(b"set=1\nfwmark=7\nlisten_port=x\n\nget=1\n\n")
        .await;
    assert_eq!(answers, "errno=-22\n\nerrno=0\n\n");
}

#[tokio::test]
async fn error_numbers_are_those_of_wireguard_go() {
    let f = Fixture::new();
    for (request, errno) in [
        ("set=1\nno_such_key=1\n\n", -22),
        ("set=1\nno equals sign\n\n", -71),
        ("set=1\nlisten_port=1\n\n", -98),
        ("get=1\nmore\n\n", -22),
        ("nonsense\n\n", -22),
        ("set=1\nfwmark=7\n", -71), // ends before its empty line
    ] {
        let answer = f.converse(request.as_bytes()).await;
        assert_eq!(answer, format!("errno={errno}\n\n"), "{request:?}");
    }
    assert_eq!(f.converse(GET).await, "errno=0\n\n");
}

#[tokio::test]
async fn too_large_a_request_gets_its_answer() {
    let f = Fixture::new();
    let mut request = b"set=1\n".to_vec();
    request.resize(MAX_REQUEST_BYTES * 2, b'\n');
    request[6..].fill(b'x');
    assert_eq!(f.converse(&request).await, "errno=-71\n\n"); // one endless line
    for line in request[6..].chunks_exact_mut(16) {
        line.copy_from_slice(b"listen_port=123\n");
    }
    assert_eq!(f.converse(&request).await, "errno=-7\n\n");
}

#[tokio::test]
async fn more_clients_than_slots_wait_their_turn() {
    let f = Fixture::new();
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = f.connect().await;
        stream.write_all(GET).await.unwrap();
        read_exactly(&mut stream, DONE).await; // so it has its slot
        idle.push(stream);
    }
    let mut late = f.connect().await;
    late.write_all(GET).await.unwrap();
    let early = timeout(Duration::from_millis(100), late.read_u8()).await;
    assert!(early.is_err(), "served beyond the limit");
    idle.pop();
    read_exactly(&mut late, DONE).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_too_little_is_cut_off() {
    let f = Fixture::new();
    for beginning in ["", "set=1\nfwmark="] {
        let mut stream = f.connect().await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let started = tokio::time::Instant::now();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap_or_default();
        assert!(answer.is_empty());
        assert!(started.elapsed() >= REQUEST_TIMEOUT);
    }
}

#[tokio::test]
async fn a_server_that_ends_cuts_its_clients_off() {
    let f = Fixture::new();
    let mut stream = f.connect().await;
    stream.write_all(GET).await.unwrap();
    read_exactly(&mut stream, DONE).await;
    std::fs::remove_file(f.socket()).unwrap();
    let end = timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
    end.expect("cut off").unwrap_or_default();
}
