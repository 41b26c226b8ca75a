//! Numbers of the protocol (whitepaper §6.1), then our own.
use std::time::Duration;

/// A sender with this many messages under one key starts a handshake.
pub(super) const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No message with this counter or a higher one is sent or accepted: 2^64 - 2^13 - 1. The gap keeps the counter from
/// wrapping inside the engine, which adds without a check.
pub(super) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// The initiator of a session renews it when it sends and the session is this old.
pub(super) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// A session of this age neither seals nor opens anything.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// How long initiations are repeated before giving up.
pub(super) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Least time between two initiations to one peer; a random 0-333 ms come on top of a repetition.
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper end of that random time, in milliseconds.
pub(super) const REKEY_TIMEOUT_JITTER_MAX_MS: u64 = 333;
/// Who received data and sent nothing back for this long sends an empty message.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are erased when no new ones were made for this long.
pub(super) const ERASE_KEYS_AFTER: Duration = Duration::from_secs(3 * REJECT_AFTER_TIME.as_secs());
/// The initiator of a session renews it when it receives and the session is this old.
pub(super) const REKEY_ON_RECEIVE_AFTER: Duration = Duration::from_secs(
    REJECT_AFTER_TIME.as_secs() - KEEPALIVE_TIMEOUT.as_secs() - REKEY_TIMEOUT.as_secs(),
);
/// Sent data that stays without any answer for this long makes us start a handshake.
pub(super) const NO_ANSWER_TIMEOUT: Duration =
    Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());
/// Repetitions of an initiation before giving up (`MAX_TIMER_HANDSHAKES` of the kernel's `messages.h`).
pub(super) const MAX_HANDSHAKE_ATTEMPTS: u64 =
    REKEY_ATTEMPT_TIME.as_secs() / REKEY_TIMEOUT.as_secs();
/// Packets that wait for a session, per peer (`MAX_STAGED_PACKETS` of the kernel's `messages.h`).
pub(super) const MAX_STAGED_PACKETS: usize = 128;
/// Least time between two accepted initiations of one peer: 50 in a second (`INITIATIONS_PER_SECOND`, same file).
pub(super) const MIN_INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// Plaintext is padded with zeros to a multiple of this (whitepaper §5.4.6).
pub(super) const PADDING_MULTIPLE: usize = 16;

/// Message types with their lengths (whitepaper §5.4.2-5.4.7); the type is a little-endian 32-bit number.
pub(super) const TYPE_INITIATION: u32 = 1;
pub(super) const TYPE_RESPONSE: u32 = 2;
pub(super) const TYPE_COOKIE_REPLY: u32 = 3;
pub(super) const TYPE_DATA: u32 = 4;
pub(super) const INITIATION_LEN: usize = 148;
pub(super) const RESPONSE_LEN: usize = 92;
pub(super) const COOKIE_REPLY_LEN: usize = 64;
/// Header (type, receiver index, counter) and authentication tag of a data message.
pub(super) const DATA_OVERHEAD: usize = 16 + 16;

/// Longest wait between two rounds of handshake attempts towards a peer with persistent keepalive: it must come back
/// after an outage of any length.
pub(super) const MAX_RETRY_PAUSE: Duration = Duration::from_secs(15);
/// Responses that are tried per initiation of ours: each costs two scalar multiplications, and who can see the
/// initiation can forge them.
pub(super) const MAX_RESPONSES_PER_INITIATION: u8 = 16;
/// Peers served by one call of `handle_timeout`; an initiation costs some 0.2 ms and packets wait meanwhile.
pub(super) const MAX_PEERS_PER_TIMEOUT: usize = 32;

/// Handshakes per second that need no cookie, all senders together.
pub(super) const HANDSHAKES_PER_SECOND: u32 = 256;
/// Handshakes that may arrive at once without a cookie.
pub(super) const HANDSHAKE_BURST: u32 = 128;
/// How long cookies are demanded after the last handshake too many (as the kernel's `wg_receive_handshake_packet`).
pub(super) const UNDER_LOAD_FOR: Duration = Duration::from_secs(1);
/// Handshakes per second from one IPv4 address or IPv6 /64 (the kernel's `ratelimiter.c`).
pub(super) const SOURCE_HANDSHAKES_PER_SECOND: u32 = 20;
/// Handshakes from one such source at once (same file).
pub(super) const SOURCE_HANDSHAKE_BURST: u32 = 5;
