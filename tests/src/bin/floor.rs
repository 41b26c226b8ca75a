//! The ceiling of the architecture: what TUN, UDP and the cipher cost when nothing else is done.
//!
//! It moves what a WireGuard device would move, by the same system calls: frames with a virtio-net header from TUN, cut
//! into chunks of 1400 bytes, each sealed on its own, runs of them sent by `UDP_SEGMENT` and received by `UDP_GRO`, one
//! thread that drains and then polls. It has no handshake, reads no inner header, computes no checksum, routes nothing and
//! keeps no window: a daemon that does all that can't be faster in this form, and how close it comes says what it wastes.
//! The key is a constant. **It protects nothing; never use it.**
//!
//! `script/bench` starts it at both ends, configured by the environment that it gives to programs which configure
//! themselves: `WGB_IF`, `WGB_ADDR`, `WGB_MTU`, `WGB_PORT`, `WGB_PEER_ENDPOINT`. `FLOOR_CRYPTO=0` leaves the cipher out.
use std::env;
use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce, UdpGroSegment};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use shared_os::tun::{FRAME_BUFFER_LEN, Offload, Options, Tun};

/// Bytes of a frame that are sealed together: about what a WireGuard message carries at an MTU of 1420.
const CHUNK: usize = 1400;
/// Counter (8 bytes), length of the frame (4), place of the chunk in it (4).
const HEADER: usize = 16;
/// Authentication tag of ChaCha20-Poly1305.
const TAG: usize = 16;
/// Bytes of a full datagram.
const SEGMENT: usize = HEADER + CHUNK + TAG;
/// `SEGMENT` for the kernel.
const SEGMENT_SIZE: u16 = 1432;
const _: () = assert!(SEGMENT_SIZE as usize == SEGMENT);
/// Most datagrams of one send: as many as fit into 65,535 bytes.
const MAX_SEGMENTS: usize = 65_535 / SEGMENT;
/// Frames, and buffers of the socket, that are handled before the other direction has its turn.
const TURN: usize = 16;
/// Bytes that the kernel may queue at the socket, each way.
const SOCKET_BUFFER: usize = 8 << 20;
/// Milliseconds to wait for room in the socket's queue.
const FULL_QUEUE_WAIT: u16 = 100;

fn main() -> Result<()> {
    let mut floor = Floor::from_environment()?;
    loop {
        let mut moved = false;
        for _ in 0..TURN {
            if !floor.handle_datagrams()? {
                break;
            }
            moved = true;
        }
        for _ in 0..TURN {
            if !floor.handle_frame()? {
                break;
            }
            moved = true;
        }
        if !moved {
            floor.wait()?;
        }
    }
}

/// The link, the socket, the key and every buffer.
struct Floor {
    tun: Tun,
    socket: UdpSocket,
    /// `None` sends in the clear.
    key: Option<LessSafeKey>,
    /// Number of the last datagram sent.
    counter: u64,
    /// The frame read last.
    frame: Vec<u8>,
    /// The datagrams made of it.
    sealed: Vec<u8>,
    /// The datagrams received last.
    received: Vec<u8>,
    /// The frame that is put together of them.
    whole: Vec<u8>,
    /// Bytes of it that are there; `None` after a loss.
    have: Option<usize>,
}

impl Floor {
    fn from_environment() -> Result<Self> {
        let name = variable("WGB_IF")?;
        let tun = Tun::open(&Options {
            name: name.parse()?,
            persist: false,
            offload: Offload::Uso,
            multi_queue: false,
        })?;
        let socket = UdpSocket::bind(format!("0.0.0.0:{}", variable("WGB_PORT")?))?;
        socket.connect(variable("WGB_PEER_ENDPOINT")?)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, UdpGroSegment, &true).context("no UDP_GRO")?;
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)?;
        setsockopt(&socket, SndBufForce, &SOCKET_BUFFER)?;
        ip(&["addr", "add", &variable("WGB_ADDR")?, "dev", &name])?;
        ip(&["link", "set", &name, "mtu", &variable("WGB_MTU")?, "up"])?;
        let in_the_clear = env::var("FLOOR_CRYPTO").is_ok_and(|value| value == "0");
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]);
        let key = LessSafeKey::new(key.map_err(|_| anyhow!("the key is refused"))?);
        Ok(Self {
            tun,
            socket,
            key: (!in_the_clear).then_some(key),
            counter: 0,
            frame: vec![0; FRAME_BUFFER_LEN],
            sealed: vec![0; MAX_SEGMENTS * SEGMENT],
            received: vec![0; 1 << 16],
            whole: vec![0; FRAME_BUFFER_LEN],
            have: Some(0),
        })
    }

    /// From TUN to the network: one frame. Returns whether there was one.
    fn handle_frame(&mut self) -> Result<bool> {
        let Some(length) = unless_empty(self.tun.read(&mut self.frame))? else {
            return Ok(false);
        };
        let Self {
            frame,
            sealed,
            key,
            counter,
            socket,
            ..
        } = self;
        let total = u32::try_from(length)?.to_le_bytes();
        let mut filled = 0;
        let frame = frame.get(..length).unwrap_or_default();
        for (place, chunk) in (0_u32..).step_by(CHUNK).zip(frame.chunks(CHUNK)) {
            *counter += 1;
            let slot = sealed.get_mut(filled..).unwrap_or_default();
            filled += seal(
                key.as_ref(),
                *counter,
                total,
                place.to_le_bytes(),
                chunk,
                slot,
            )
            .context("a chunk does not fit")?;
            if filled == sealed.len() {
                send(socket, sealed)?;
                filled = 0;
            }
        }
        send(socket, sealed.get(..filled).unwrap_or_default())?;
        Ok(true)
    }

    /// From the network to TUN: what the kernel has merged into one buffer. Returns whether there was something.
    fn handle_datagrams(&mut self) -> Result<bool> {
        let Some(length) = unless_empty(self.socket.recv(&mut self.received))? else {
            return Ok(false);
        };
        let Self {
            received,
            key,
            whole,
            have,
            tun,
            ..
        } = self;
        for datagram in received
            .get_mut(..length)
            .unwrap_or_default()
            .chunks_mut(SEGMENT)
        {
            let Some((total, place, payload)) = open(key.as_ref(), datagram) else {
                continue;
            };
            if place == 0 {
                *have = Some(0);
            }
            let end = place + payload.len();
            match whole.get_mut(place..end) {
                Some(room) if *have == Some(place) => room.copy_from_slice(payload),
                _ => {
                    *have = None;
                    continue;
                }
            }
            *have = Some(end);
            if end == total {
                write(tun, whole.get(..total).unwrap_or_default())?;
                *have = Some(0);
            }
        }
        Ok(true)
    }

    /// Wait until there is something to do.
    fn wait(&self) -> Result<()> {
        let mut polled = [self.tun.as_fd(), self.socket.as_fd()]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::NONE) {
            Err(error) if error != Errno::EINTR => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Make a datagram of a chunk at the start of `slot`; returns its length, `None` where it has no room.
fn seal(
    key: Option<&LessSafeKey>,
    counter: u64,
    total: [u8; 4],
    place: [u8; 4],
    chunk: &[u8],
    slot: &mut [u8],
) -> Option<usize> {
    let (header, rest) = slot.split_at_mut_checked(HEADER)?;
    let (payload, rest) = rest.split_at_mut_checked(chunk.len())?;
    let (number, place_in_frame) = header.split_at_mut_checked(8)?;
    let (length, offset) = place_in_frame.split_at_mut_checked(4)?;
    number.copy_from_slice(&counter.to_le_bytes());
    length.copy_from_slice(&total);
    offset.copy_from_slice(&place);
    payload.copy_from_slice(chunk);
    let tag = rest.get_mut(..TAG)?;
    if let Some(key) = key {
        let sealed = key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), payload);
        tag.copy_from_slice(sealed.ok()?.as_ref());
    }
    Some(HEADER + chunk.len() + TAG)
}

/// Length of the frame, place of the chunk and the chunk itself; `None` for what is not ours.
fn open<'a>(key: Option<&LessSafeKey>, datagram: &'a mut [u8]) -> Option<(usize, usize, &'a [u8])> {
    let (header, payload) = datagram.split_first_chunk_mut::<HEADER>()?;
    let (number, place) = header.split_first_chunk::<8>()?;
    let (total, place) = place.split_first_chunk::<4>()?;
    let counter = u64::from_le_bytes(*number);
    let total = usize::try_from(u32::from_le_bytes(*total)).ok()?;
    let place = usize::try_from(u32::from_le_bytes(*place.first_chunk()?)).ok()?;
    let length = payload.len().checked_sub(TAG)?;
    if let Some(key) = key {
        key.open_in_place(nonce(counter), Aad::empty(), payload)
            .ok()?;
    }
    Some((total, place, payload.get(..length)?))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    if let Some(low) = bytes.last_chunk_mut() {
        *low = counter.to_le_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Send datagrams of [`SEGMENT`] bytes, the last of which may be shorter. What can't be sent is lost.
fn send(socket: &UdpSocket, datagrams: &[u8]) -> Result<()> {
    if datagrams.is_empty() {
        return Ok(());
    }
    let parts = [IoSlice::new(datagrams)];
    let in_pieces = [ControlMessage::UdpGsoSegments(&SEGMENT_SIZE)];
    // One datagram alone needs no control message, and is sent faster without.
    let control = if datagrams.len() > SEGMENT {
        in_pieces.as_slice()
    } else {
        &[]
    };
    let descriptor = socket.as_raw_fd();
    while sendmsg::<()>(descriptor, &parts, control, MsgFlags::empty(), None) == Err(Errno::EAGAIN)
    {
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::from(FULL_QUEUE_WAIT))?;
    }
    Ok(())
}

/// Write a frame, as often as it takes while TUN's queue is full.
fn write(tun: &Tun, frame: &[u8]) -> Result<()> {
    loop {
        match tun.write(frame) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                return Err(error.into());
            }
            _ => return Ok(()), // a frame that the kernel refuses is lost
        }
    }
}

/// `None` where there is nothing to read, or an error that passes.
fn unless_empty(read: io::Result<usize>) -> Result<Option<usize>> {
    match read {
        Ok(0) => Ok(None),
        Ok(length) => Ok(Some(length)),
        Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => Err(error.into()),
        Err(_) => Ok(None), // nothing there; or ICMP's word that the other end is not up yet
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: see script/bench"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    ensure!(status.success(), "`ip {}` failed", arguments.join(" "));
    Ok(())
}
