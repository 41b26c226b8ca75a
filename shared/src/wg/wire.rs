//! The fields of WireGuard's messages that stand there in the clear (whitepaper §5.4).
use super::constants::{
    COOKIE_REPLY_LEN, DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN, TYPE_COOKIE_REPLY, TYPE_DATA,
    TYPE_INITIATION, TYPE_RESPONSE,
};

/// A datagram that has the type and length of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Initiation,
    Response { receiver_index: u32 },
    CookieReply { receiver_index: u32 },
    Data { receiver_index: u32, counter: u64 },
}

impl Message {
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        match (message_type(datagram)?, datagram.len()) {
            (TYPE_DATA, DATA_OVERHEAD..) => Some(Self::Data {
                receiver_index: u32_at(datagram, 4)?,
                counter: u64::from_le_bytes(datagram.get(8..16)?.try_into().ok()?),
            }),
            (TYPE_INITIATION, INITIATION_LEN) => Some(Self::Initiation),
            (TYPE_RESPONSE, RESPONSE_LEN) => Some(Self::Response {
                receiver_index: u32_at(datagram, 8)?,
            }),
            (TYPE_COOKIE_REPLY, COOKIE_REPLY_LEN) => Some(Self::CookieReply {
                receiver_index: u32_at(datagram, 4)?,
            }),
            _ => None,
        }
    }
}

/// The type with its three reserved zero bytes.
pub(super) fn message_type(datagram: &[u8]) -> Option<u32> {
    u32_at(datagram, 0)
}

/// The index by which the sender of an initiation or response knows the session.
pub(super) fn sender_index(handshake: &[u8]) -> Option<u32> {
    u32_at(handshake, 4)
}

fn u32_at(datagram: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        datagram.get(at..at + 4)?.try_into().ok()?,
    ))
}
