//! Facts about connections: callers that send too much, too slowly, or nothing at all.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde_json::Value;

use super::*;
use crate::admin::body::BODY_TIMEOUT;
use crate::admin::extract::{ApiJson, MAX_BODY_BYTES};

/// More than any socket buffers.
const LARGE: usize = 64 << 20;

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// A server on loopback, in a thread of its own.
struct World {
    address: SocketAddr,
    handled: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let handled = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&handled);
        let take = move |ApiJson(_): ApiJson<Value>| async move {
            seen.fetch_add(1, Ordering::Relaxed);
            "taken"
        };
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(|| async { vec![b'x'; LARGE] }))
            .route("/take", post(take))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        // Ends with the process of the test.
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                serve_tcp(listener, router).await.unwrap();
            });
        });
        Self { address, handled }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// The status of an ordinary request, and how long it took.
    fn ask(&self) -> (u16, Duration) {
        let began = Instant::now();
        let mut stream = self.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        (status(&mut stream), began.elapsed())
    }
}

/// Status of the answer; 0 when the connection is closed without one.
fn status(stream: &mut TcpStream) -> u16 {
    let mut text = Vec::new();
    let mut byte = [0];
    while text.len() < 12 && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        text.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    text.get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

fn post_head(length: &str) -> String {
    format!("POST /take HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n")
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let world = World::new();
    let mut stream = world.connect();
    let head = post_head("content-length: 1073741824");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(status(&mut stream), 413);
    assert_eq!(world.ask().0, 200);
}

#[test]
fn an_endless_body_is_refused_after_64_kib() {
    let world = World::new();
    let mut stream = world.connect();
    let head = post_head("transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let mut sent = 0_u64;
    // The kernel's buffers take some after the server has stopped to read.
    while sent < 64 << 20 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += 0x1000;
    }
    assert!(sent < 64 << 20, "the server took {sent} bytes");
    assert_eq!(world.handled.load(Ordering::Relaxed), 0);
    assert_eq!(world.ask().0, 200);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::new();
    let mut stream = world.connect();
    stream
        .write_all(post_head("content-length: 10").as_bytes())
        .unwrap();
    stream.write_all(b"{").unwrap();
    let began = Instant::now();
    assert_eq!(status(&mut stream), 408);
    assert!(began.elapsed() >= BODY_TIMEOUT / 2, "{:?}", began.elapsed());
}

#[test]
fn who_is_refused_before_its_body_has_come_hears_why_and_may_go_on() {
    let world = World::new();
    let mut stream = world.connect();
    let head = "POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n";
    for request in [
        head,
        "{}",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        // Each in a packet of its own, the answer has its chance to come in between.
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let (refusal, answer) = answers.split_once("\r\n\r\n").unwrap();
    assert!(refusal.starts_with("HTTP/1.1 404"), "{answers}");
    assert!(answer.ends_with("here"), "{answers}");
}

#[test]
fn who_waits_for_a_word_before_it_sends_its_body_is_not_kept_waiting() {
    let world = World::new();
    let mut stream = world.connect();
    let head =
        "POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    assert_eq!(status(&mut stream), 404);
    assert!(began.elapsed() < Duration::from_millis(900));
}

#[test]
fn who_does_not_read_its_answer_is_not_waited_for() {
    let world = World::new();
    let mut stream = world.connect();
    stream
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    std::thread::sleep(WRITE_TIMEOUT + Duration::from_secs(1));
    let mut read = Vec::new();
    // The end of the connection, with or without a reset, before the end of the answer.
    let _reset = stream.read_to_end(&mut read);
    assert!((1..LARGE).contains(&read.len()), "{}", read.len());
}

#[test]
fn header_floods_end_the_connection_and_nothing_else() {
    let world = World::new();
    let many = "x: 1\r\n".repeat(100);
    let large = format!("x: {}\r\n", "1".repeat(64 << 10));
    for headers in [many, large] {
        let mut stream = world.connect();
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        // It may hang up before all is written.
        let _cut_off = stream.write_all(request.as_bytes());
        let got = status(&mut stream);
        assert!(matches!(got, 431 | 0), "{got}");
    }
    assert_eq!(world.ask().0, 200);
}

#[test]
fn slow_sockets_keep_nobody_from_the_door() {
    let world = World::new();
    let began = Instant::now();
    let slow: Vec<TcpStream> = [[127, 0, 0, 3], [127, 0, 0, 4]]
        .into_iter()
        .cycle()
        .take(1000)
        .map(|neighbour| {
            // Two neighbours who mean harm.
            let mut stream = connect_from(neighbour, world.address);
            // Hung up on at once when one address has too many.
            let _refused = stream.write_all(b"GET / HTTP/1.1\r\nhost:");
            stream
        })
        .collect();
    let opened = began.elapsed();
    let (status_elsewhere, took) = ask_from([127, 0, 0, 2], world.address);
    assert_eq!(status_elsewhere, 200);
    assert!(took < Duration::from_secs(2), "{took:?} after {opened:?}");
    // Those that were taken are let go when their time is up.
    let mut last = slow.into_iter().next().unwrap();
    assert!(matches!(status(&mut last), 408 | 0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(world.ask().0, 200);
}

#[test]
fn an_address_has_so_many_connections_and_the_next_one_has_its_own() {
    let world = World::new();
    let taken: Vec<TcpStream> = (0..MAX_CONNECTIONS_PER_ADDRESS)
        .map(|_| connect_from([127, 0, 0, 3], world.address))
        .collect();
    // It is served in the order of arrival: when this is answered, all of them have been counted.
    assert_eq!(ask_from([127, 0, 0, 4], world.address).0, 200);
    assert_eq!(ask_from([127, 0, 0, 3], world.address).0, 0, "one too many");
    drop(taken);
    let deadline = Instant::now() + Duration::from_secs(5);
    while ask_from([127, 0, 0, 3], world.address).0 != 200 {
        assert!(Instant::now() < deadline, "its connections have ended");
    }
}

/// Of 127.0.0.0/8 everything is ours.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let stream = runtime().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

fn ask_from(source: [u8; 4], to: SocketAddr) -> (u16, Duration) {
    let began = Instant::now();
    let mut stream = connect_from(source, to);
    // Who has too many is hung up on, perhaps before it has said a word.
    let _hung_up = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    (status(&mut stream), began.elapsed())
}
