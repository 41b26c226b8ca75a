//! Requests to nftables and their answers, one at a time over one socket.
use std::io;

use nftnl_sys::libc;

use crate::error::Error;
use crate::sys::{Message, Payload, Socket, Verb, to_bytes};

/// `NFNL_SUBSYS_NFTABLES` in the high byte of a message type.
const SUBSYSTEM: u16 = 10;
/// Where `struct nlmsgerr` has its error: after the 16 bytes of the message's header.
const ERROR_CODE: std::ops::Range<usize> = 16..20;

/// The socket and the number of the last request.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    seq: u32,
}

/// A message from the kernel that is no data.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Number of the message that it answers.
    pub(crate) seq: u32,
    /// 0, or why the message was refused.
    pub(crate) errno: i32,
}

impl Answer {
    /// The refusal as an error.
    pub(crate) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

/// One message of what the socket delivered.
enum Received<'a> {
    Data(Message<'a>),
    Done,
    Answer(Answer),
    /// Something that nobody asked for.
    Other,
}

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open().map_err(Error::Open)?,
            seq: 0,
        })
    }

    /// The address of the socket, by which the kernel knows the owner of a table.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Sends a request and gives each message of its answer to `each`, which returns `None` for one that it can't read.
    ///
    /// `Ok(None)`: there is no such object.
    pub(crate) fn request(
        &mut self,
        what: &'static str,
        verb: Verb,
        payload: &dyn Payload,
        mut each: impl FnMut(Message<'_>) -> Option<()>,
    ) -> Result<Option<()>, Error> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.send(what, &to_bytes(seq, verb, payload))?;
        let mut interrupted = false;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(what, |header, received| {
                if header.seq != seq {
                    return Ok(());
                }
                interrupted |= i32::from(header.flags) & libc::NLM_F_DUMP_INTR != 0;
                match received {
                    Received::Data(message) => each(message).ok_or(Error::Malformed { what })?,
                    Received::Done => outcome = Some(0),
                    Received::Answer(answer) => outcome = Some(answer.errno),
                    Received::Other => {}
                }
                Ok(())
            })?;
        }
        match outcome.unwrap_or_default() {
            0 if interrupted => Err(interruption(what)),
            0 => Ok(Some(())),
            libc::ENOENT => Ok(None),
            libc::EPERM => Err(Error::NotPermitted),
            libc::EINTR => Err(interruption(what)),
            errno => Err(Error::Exchange {
                what,
                source: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Sends a whole batch as one datagram, which makes it one transaction, and returns every answer.
    ///
    /// The kernel has queued all answers when `send` returns (`nfnetlink_rcv_batch` runs in the sender's call).
    pub(crate) fn transact(&mut self, batch: &[u8]) -> Result<Vec<Answer>, Error> {
        let what = "writing a transaction";
        self.socket.make_room(batch.len());
        self.send(what, batch)?;
        let mut answers = Vec::new();
        loop {
            let received = self.receive(what, |_, received| {
                if let Received::Answer(answer) = received {
                    answers.push(answer);
                }
                Ok(())
            });
            match received {
                Ok(()) => {}
                Err(Error::NoAnswer { .. }) => return Ok(answers),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
        self.drain();
        match self.socket.send(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Error::NoAnswer { what }),
            Err(source) => Err(Error::Exchange { what, source }),
        }
    }

    /// Forgets what an exchange that failed left behind: a batch numbers its messages from 1 each time.
    fn drain(&mut self) {
        while self.receive("", |_, _| Ok(())).is_ok() {}
    }

    /// Gives the messages of one datagram to `each`; [`Error::NoAnswer`] when none is waiting.
    fn receive(
        &mut self,
        what: &'static str,
        mut each: impl FnMut(Header, Received<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = match self.socket.receive() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::NoAnswer { what });
            }
            Err(source) => return Err(Error::Exchange { what, source }),
        };
        while !rest.is_empty() {
            let (header, message, after) = split(rest).ok_or(Error::Malformed { what })?;
            let received = classify(header, message).ok_or(Error::Malformed { what })?;
            each(header, received)?;
            rest = after;
        }
        Ok(())
    }
}

fn interruption(what: &'static str) -> Error {
    Error::Exchange {
        what,
        source: io::ErrorKind::Interrupted.into(),
    }
}

/// The fields of `struct nlmsghdr` that matter.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u16,
    flags: u16,
    seq: u32,
}

/// The first message of a datagram, and the rest.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let length = usize::try_from(word(0)?).ok()?;
    let header = Header {
        kind: half(4)?,
        flags: half(6)?,
        seq: word(8)?,
    };
    let message = bytes.get(..length).filter(|m| m.len() >= 16)?;
    // Messages begin at multiples of four bytes; the padding of the last one may be missing.
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, message, rest))
}

/// `None` for a message that is cut.
fn classify(header: Header, message: &[u8]) -> Option<Received<'_>> {
    Some(match i32::from(header.kind) {
        libc::NLMSG_ERROR => {
            let code = i32::from_ne_bytes(message.get(ERROR_CODE)?.try_into().ok()?);
            Received::Answer(Answer {
                seq: header.seq,
                errno: code.saturating_neg(),
            })
        }
        libc::NLMSG_DONE => Received::Done,
        _ if header.kind >> 8 == SUBSYSTEM => Received::Data(Message::new(message)?),
        _ => Received::Other,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes at an address that is a multiple of eight, as in the socket's buffer.
    fn with_aligned<T>(bytes: &[u8], test: impl FnOnce(&[u8]) -> T) -> T {
        let mut buffer = vec![0_u8; bytes.len() + 8];
        let start = buffer.as_ptr().align_offset(8);
        let aligned = &mut buffer[start..start + bytes.len()];
        aligned.copy_from_slice(bytes);
        test(aligned)
    }

    fn message(kind: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), [0; 4], seq.to_ne_bytes(), [0; 4]].concat();
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_refusal_tells_number_and_errno() {
        let bytes = message(2, 7, &(-libc::EPERM).to_ne_bytes());
        let (header, message, rest) = split(&bytes).unwrap();
        assert!(rest.is_empty());
        let Some(Received::Answer(answer)) = classify(header, message) else {
            panic!("no answer")
        };
        assert_eq!((answer.seq, answer.errno), (7, libc::EPERM));
    }

    #[test]
    fn a_refusal_without_its_error_is_cut() {
        let bytes = message(2, 7, &[0, 0]);
        let (header, message, _) = split(&bytes).unwrap();
        assert!(classify(header, message).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_panic_and_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            with_aligned(&bytes, |mut rest| {
                while let Some((header, message, after)) = split(rest) {
                    assert!(message.len() >= 16 && after.len() < rest.len());
                    let _ = classify(header, message);
                    rest = after;
                }
            });
        }

        #[test]
        fn messages_come_apart_as_they_were_put_together(payloads in prop::collection::vec(0_usize..40, 1..5)) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|len| message(0x0a01, 1, &vec![1; *len])).collect();
            let mut rest = bytes.as_slice();
            for len in payloads {
                let (header, message, after) = split(rest).unwrap();
                prop_assert_eq!((header.kind, header.seq, message.len()), (0x0a01, 1, 16 + len));
                rest = after;
            }
            prop_assert!(rest.is_empty());
        }
    }
}
