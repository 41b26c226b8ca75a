//! Servers that tell their callers who they are, and transfers whose content is checked.
//!
//! A TCP server first writes `you are ADDRESS:PORT`, as it sees its peer, then obeys lines:
//!
//! | line | answer |
//! |---|---|
//! | `echo TEXT` | `TEXT` |
//! | `download BYTES` | that many bytes of the [stream](fill) |
//! | `upload BYTES`, then the bytes | `received CHECKSUM` |
//!
//! A UDP server answers every datagram with `you are ADDRESS:PORT`.
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket;

use crate::node::Node;

/// How long a caller waits for an answer before it calls the service unreachable.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a UDP server looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes moved by one call; a multiple of 8, so that the stream's words never straddle two calls.
const CHUNK: usize = 64 * 1024;
/// What an answer begins with.
const GREETING: &str = "you are ";

/// A server inside a node, served by threads of this process. Stopped when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    listener: Option<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answer TCP callers on this address.
    pub fn tcp(node: &Node, address: SocketAddr) -> Result<Self> {
        // A caller that goes away in the middle is part of the tests.
        Self::tcp_by(node, address, |stream, peer| drop(converse(stream, peer)))
    }

    /// Hand the TCP callers of this address to `answer`, each on a thread of its own.
    pub fn tcp_by(
        node: &Node,
        address: SocketAddr,
        answer: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = node.enter(|| {
            TcpListener::bind(address).with_context(|| format!("cannot listen on tcp {address}"))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, stopped) = (listener.try_clone()?, stop.clone());
        let answer = Arc::new(answer);
        let thread = thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let answer = Arc::clone(&answer);
                thread::spawn(move || answer(stream, peer));
            }
        });
        Ok(Self {
            stop,
            listener: Some(listener),
            thread: Some(thread),
        })
    }

    /// Answer UDP callers on this address.
    pub fn udp(node: &Node, address: SocketAddr) -> Result<Self> {
        let socket = node.enter(|| {
            UdpSocket::bind(address).with_context(|| format!("cannot listen on udp {address}"))
        })?;
        socket.set_read_timeout(Some(STOP_INTERVAL))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(greeting(peer).as_bytes(), peer);
                }
            }
        });
        Ok(Self {
            stop,
            listener: None,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            // Linux ends a blocked accept(2) with EINVAL.
            let _ = socket::shutdown(listener.as_fd().as_raw_fd(), socket::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a caller.
fn greeting(peer: SocketAddr) -> String {
    format!("{GREETING}{peer}\n")
}

/// The server's side of a TCP connection.
fn converse(mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting(peer).as_bytes())?;
    let mut reader = BufReader::with_capacity(CHUNK, stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (verb, rest) = line
            .trim_end()
            .split_once(' ')
            .context("a line without a space")?;
        match verb {
            "echo" => writeln!(stream, "{rest}")?,
            "download" => send_stream(&mut stream, rest.parse()?)?,
            "upload" => {
                let checksum = receive_stream(&mut reader, rest.parse()?)?;
                writeln!(stream, "received {checksum:016x}")?;
            }
            _ => return Ok(()),
        }
    }
}

/// The caller's side of a TCP connection to a [`Server`].
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    seen_as: SocketAddr,
}

impl Conversation {
    /// Connect from `node` and hear who we are.
    pub fn open(node: &Node, to: SocketAddr) -> Result<Self> {
        let stream = node.enter(|| {
            TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)
                .with_context(|| format!("no connection to tcp {to}"))
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut reader = BufReader::with_capacity(CHUNK, stream.try_clone()?);
        let seen_as = parse_greeting(&read_line(&mut reader)?)?;
        Ok(Self {
            stream,
            reader,
            seen_as,
        })
    }

    /// Our address as the server sees it.
    pub fn seen_as(&self) -> SocketAddr {
        self.seen_as
    }

    /// Our own address as we see it.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }

    /// How long a silent server is waited for; 2 seconds unless changed.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        Ok(self.stream.set_write_timeout(Some(patience))?)
    }

    /// One line there and back.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        writeln!(self.stream, "echo {text}")?;
        let answer = read_line(&mut self.reader)?;
        ensure!(answer == text, "sent `{text}`, got `{answer}`");
        Ok(())
    }

    /// Receive and check this many bytes.
    pub fn download(&mut self, bytes: u64) -> Result<()> {
        writeln!(self.stream, "download {bytes}")?;
        let received = receive_stream(&mut self.reader, bytes)
            .with_context(|| format!("download of {bytes} bytes broke off"))?;
        ensure!(
            received == checksum_of_stream(bytes),
            "download of {bytes} bytes: wrong checksum"
        );
        Ok(())
    }

    /// Send this many bytes and have the server check them.
    pub fn upload(&mut self, bytes: u64) -> Result<()> {
        writeln!(self.stream, "upload {bytes}")?;
        send_stream(&mut self.stream, bytes)
            .with_context(|| format!("upload of {bytes} bytes broke off"))?;
        let answer = read_line(&mut self.reader)?;
        let expected = format!("received {:016x}", checksum_of_stream(bytes));
        ensure!(
            answer == expected,
            "upload of {bytes} bytes: wrong checksum: {answer}"
        );
        Ok(())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Our address as the TCP server at `to` sees it.
pub fn ask_tcp(node: &Node, to: SocketAddr) -> Result<SocketAddr> {
    Ok(Conversation::open(node, to)?.seen_as())
}

/// Our address as the UDP server at `to` sees it. One datagram, no retry.
pub fn ask_udp(node: &Node, to: SocketAddr) -> Result<SocketAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = node.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket
            .connect(to)
            .with_context(|| format!("no way to udp {to}"))?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send(b"who am I")?;
    let mut buffer = [0; 2048];
    let length = socket
        .recv(&mut buffer)
        .with_context(|| format!("no answer from udp {to}"))?;
    parse_greeting(&String::from_utf8_lossy(
        buffer.get(..length).unwrap_or_default(),
    ))
}

fn parse_greeting(line: &str) -> Result<SocketAddr> {
    let address = line.trim_end().strip_prefix(GREETING);
    Ok(address
        .with_context(|| format!("not a greeting: {line:?}"))?
        .parse()?)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(0) => anyhow::bail!("the server closed the connection"),
        Ok(_) => Ok(line.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(anyhow::Error::new(error).context("no answer in time"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The stream of a transfer: words that depend on their place (a Weyl sequence), so that lost, doubled, swapped and foreign
/// bytes are all seen. `word` is the number of the first word of `chunk`.
fn fill(chunk: &mut [u8], word: u64) {
    for (number, bytes) in (word..).zip(chunk.chunks_mut(8)) {
        let value = (number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_le_bytes();
        bytes.copy_from_slice(value.get(..bytes.len()).unwrap_or_default());
    }
}

/// Mix a chunk into a checksum.
fn mix(mut checksum: u64, chunk: &[u8]) -> u64 {
    for bytes in chunk.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        checksum = (checksum.rotate_left(5) ^ u64::from_le_bytes(word))
            .wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    checksum
}

/// Call `work` with the stream's chunks one after the other.
fn for_each_chunk(bytes: u64, mut work: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0u64;
    while done < bytes {
        let length = usize::try_from(bytes - done).unwrap_or(CHUNK).min(CHUNK);
        if let Some(chunk) = buffer.get_mut(..length) {
            work(chunk, done / 8)?;
        }
        done += length as u64;
    }
    Ok(())
}

fn checksum_of_stream(bytes: u64) -> u64 {
    let mut checksum = 0;
    let _ = for_each_chunk(bytes, |chunk, word| {
        fill(chunk, word);
        checksum = mix(checksum, chunk);
        Ok(())
    });
    checksum
}

fn send_stream(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    for_each_chunk(bytes, |chunk, word| {
        fill(chunk, word);
        Ok(stream.write_all(chunk)?)
    })
}

fn receive_stream(reader: &mut BufReader<TcpStream>, bytes: u64) -> Result<u64> {
    let mut checksum = 0;
    for_each_chunk(bytes, |chunk, _| {
        reader.read_exact(chunk)?;
        checksum = mix(checksum, chunk);
        Ok(())
    })?;
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_sees_lost_swapped_and_changed_words() {
        let mut stream = vec![0; 64];
        fill(&mut stream, 0);
        let whole = mix(0, &stream);
        let mut swapped = stream.clone();
        swapped.swap(0, 8);
        swapped.swap(1, 9);
        assert_ne!(mix(0, &swapped), whole);
        assert_ne!(mix(0, &stream[8..]), whole);
        stream[63] ^= 1;
        assert_ne!(mix(0, &stream), whole);
    }

    #[test]
    fn stream_does_not_depend_on_the_chunks() {
        let mut whole = vec![0; 2 * CHUNK + 13];
        fill(&mut whole, 0);
        assert_eq!(mix(0, &whole), checksum_of_stream(whole.len() as u64));
    }
}
