//! The cryptography of one peer: the only file that names boringtun.
//!
//! boringtun's [`Tunn`] is used for its handshake and its AEAD alone. Its timers are not: they stand still between calls
//! of `update_timers`, have no jitter, stop for ever after 90 s without an answer and send persistent keepalives into
//! traffic. All of that is in `timers.rs`, `keypairs.rs` and `peer.rs`, which take `now` as an argument; what stays here
//! is [`Tunnel::refresh`]. boringtun reads its own clocks in two places that matter: the time stamp of an initiation is
//! the wall clock when the `Tunn` was made plus what passed since, and sessions end 180 s after they began.
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey as DhPublicKey, StaticSecret};

use super::constants::{COOKIE_REPLY_LEN, DATA_OVERHEAD, INITIATION_LEN, TYPE_DATA};
use super::drop_reason::DropReason;
use super::index::IndexPrefix;
use super::limits::address_with_port;
use super::wire::message_type;
use crate::model::{PresharedKey, PrivateKey, PublicKey};

/// What the device asks of a protocol engine. Every output buffer must have room for the message, and at least
/// [`INITIATION_LEN`] bytes.
pub(super) trait Engine {
    /// Make a data message of a padded packet; `None` when there is no session to send with.
    fn seal(&mut self, padded: &[u8], out: &mut [u8]) -> Option<usize>;

    /// Read a data message.
    fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<Opened, DropReason>;

    /// Make an initiation, also when one is pending: the last two can be answered.
    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize>;

    /// Accept an initiation and make the response.
    fn respond(&mut self, initiation: &[u8], out: &mut [u8]) -> Result<usize, DropReason>;

    /// Accept the response to our initiation and make the empty message that confirms the session.
    fn conclude(
        &mut self,
        response: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<usize, DropReason>;

    /// Accept a cookie for the next initiation or response.
    fn accept_cookie(&mut self, reply: &[u8], now: Instant) -> Result<(), DropReason>;

    /// Forget all sessions and pending handshakes, but not which initiation was the last one accepted.
    fn erase_keys(&mut self, identity: &Identity);
}

/// What an authentic data message contained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// Nothing.
    Keepalive,
    /// A packet of this length.
    Packet(usize),
    /// No packet, or one whose length field lies.
    Malformed,
}

/// Whether a session with one index takes the place of one with the other: `Tunn` keeps eight, by the lowest bits.
pub(super) const fn share_a_place(a: u32, b: u32) -> bool {
    a % 8 == b % 8
}

/// Our key, and what is made from it once for all peers.
pub(super) struct Identity {
    private_key: PrivateKey,
    public_key: PublicKey,
    secret: StaticSecret,
    dh_public: DhPublicKey,
    /// Demands a cookie always, for it is asked only under load.
    cookies: RateLimiter,
    /// Demands one never: `Tunn` counts every handshake, and the decision was made before.
    unlimited: Arc<RateLimiter>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.public_key).finish()
    }
}

impl Identity {
    pub(super) fn new(private_key: PrivateKey) -> Self {
        let secret = StaticSecret::from(*private_key.as_bytes());
        let dh_public = DhPublicKey::from(&secret);
        Self {
            public_key: PublicKey::from_bytes(dh_public.to_bytes()),
            cookies: RateLimiter::new(&dh_public, 0),
            unlimited: Arc::new(RateLimiter::new(&dh_public, u64::MAX)),
            private_key,
            secret,
            dh_public,
        }
    }

    pub(super) const fn private_key(&self) -> &PrivateKey {
        &self.private_key
    }

    pub(super) const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Whether an initiation carries a cookie for its sender's address and port. If not, the answer is written to
    /// `out` and its length returned. The first MAC must have been checked.
    pub(super) fn check_cookie(
        &self,
        remote: SocketAddr,
        initiation: &[u8],
        out: &mut [u8],
    ) -> Result<(), usize> {
        let Some(room) = out.first_chunk_mut::<COOKIE_REPLY_LEN>() else {
            return Err(0);
        };
        let stand_in = address_with_port(remote);
        match self.cookies.verify_packet(Some(stand_in), initiation, room) {
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(reply)) => Err(reply.len()),
            Err(
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => Err(0),
        }
    }

    /// Who an initiation says it is from. Not proven: everybody can make one that names a public key.
    pub(super) fn claimed_sender(&self, initiation: &[u8]) -> Option<PublicKey> {
        let Ok(Packet::HandshakeInit(parsed)) = Tunn::parse_incoming_packet(initiation) else {
            return None;
        };
        let half = parse_handshake_anon(&self.secret, &self.dh_public, &parsed).ok()?;
        Some(PublicKey::from_bytes(half.peer_static_public))
    }

    /// The engine for one peer.
    pub(super) fn tunnel(
        &self,
        peer: &PublicKey,
        preshared_key: Option<&PresharedKey>,
        prefix: IndexPrefix,
    ) -> Tunnel {
        Tunnel {
            tunn: Tunn::new(
                self.secret.clone(),
                DhPublicKey::from(*peer.as_bytes()),
                preshared_key.map(|key| *key.as_bytes()),
                None,
                prefix.get(),
                Some(Arc::clone(&self.unlimited)),
            ),
            prefix,
            attempt_started: None,
        }
    }
}

/// boringtun's engine of one peer.
pub(super) struct Tunnel {
    tunn: Tunn,
    prefix: IndexPrefix,
    /// When `Tunn` started counting the 90 s after which it gives up a handshake.
    attempt_started: Option<Instant>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// `Tunn::update_timers` discards its pending handshake after 90 s: from here on a response is read without it.
const SURELY_PENDING: Duration = Duration::from_secs(80);
/// And from here on it has done so.
const SURELY_GIVEN_UP: Duration = Duration::from_secs(91);

impl Tunnel {
    pub(super) const fn prefix(&self) -> IndexPrefix {
        self.prefix
    }

    /// Bring the clock of `Tunn` up to date, by which it dates and orders sessions, and let it erase what is too old:
    /// sessions after 180 s, all keys after 540 s, cookies after 120 s.
    ///
    /// It may want to send something, which is not its business here. An initiation does not fit into the buffer,
    /// and `Tunn` then changes nothing; an empty message does, and only skips a counter.
    fn refresh(&mut self) {
        let mut discarded = [0; INITIATION_LEN - 1];
        let _discarded = self.tunn.update_timers(&mut discarded);
    }

    /// Refresh while a response is expected. Its clock is then a few seconds behind at worst, for the initiation
    /// refreshed it too.
    fn refresh_keeping_pending(&mut self, now: Instant) {
        if self
            .attempt_started
            .is_none_or(|started| now.saturating_duration_since(started) < SURELY_PENDING)
        {
            self.refresh();
        }
    }
}

impl Engine for Tunnel {
    fn seal(&mut self, padded: &[u8], out: &mut [u8]) -> Option<usize> {
        debug_assert!(out.len() >= INITIATION_LEN.max(padded.len() + DATA_OVERHEAD));
        // Without a session it makes an initiation instead, which nobody waits for.
        message(self.tunn.encapsulate(padded, out))
            .filter(|message| message_type(message) == Some(TYPE_DATA))
            .map(|message| message.len())
    }

    fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<Opened, DropReason> {
        match self.tunn.decapsulate(None, message, out) {
            TunnResult::Done => Ok(Opened::Keepalive),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Opened::Packet(packet.len()))
            }
            // Type and length of the message were checked before: this is about what was inside.
            TunnResult::Err(WireGuardError::InvalidPacket) => Ok(Opened::Malformed),
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::WriteToNetwork(_) => Err(DropReason::NotAuthentic),
        }
    }

    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        self.refresh();
        if self
            .attempt_started
            .is_none_or(|started| now.saturating_duration_since(started) >= SURELY_GIVEN_UP)
        {
            self.attempt_started = Some(now);
        }
        message(self.tunn.format_handshake_initiation(out, true)).map(|message| message.len())
    }

    fn respond(&mut self, initiation: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.refresh();
        let length = answer(self.tunn.decapsulate(None, initiation, out))?;
        self.attempt_started = None;
        Ok(length)
    }

    fn conclude(
        &mut self,
        response: &[u8],
        out: &mut [u8],
        now: Instant,
    ) -> Result<usize, DropReason> {
        self.refresh_keeping_pending(now);
        let length = answer(self.tunn.decapsulate(None, response, out))?;
        self.attempt_started = None;
        Ok(length)
    }

    fn accept_cookie(&mut self, reply: &[u8], now: Instant) -> Result<(), DropReason> {
        self.refresh_keeping_pending(now); // the age of the cookie counts from here
        match self.tunn.decapsulate(None, reply, &mut []) {
            TunnResult::Done => Ok(()),
            TunnResult::Err(error) => Err(refusal(&error)),
            TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::UnexpectedAnswer),
        }
    }

    fn erase_keys(&mut self, identity: &Identity) {
        // Setting the key that it has makes `Tunn` forget its sessions and nothing else.
        self.tunn.set_static_private(
            identity.secret.clone(),
            identity.dh_public,
            Some(Arc::clone(&identity.unlimited)),
        );
        self.refresh();
        self.attempt_started = None;
    }
}

fn message(result: TunnResult<'_>) -> Option<&mut [u8]> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => None,
    }
}

fn answer(result: TunnResult<'_>) -> Result<usize, DropReason> {
    match result {
        TunnResult::WriteToNetwork(message) => Ok(message.len()),
        TunnResult::Err(WireGuardError::InvalidAeadTag) => Err(DropReason::InvalidHandshake),
        TunnResult::Err(error) => Err(refusal(&error)),
        TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Err(DropReason::InvalidHandshake)
        }
    }
}

fn refusal(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidAeadTag => DropReason::NotAuthentic,
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => DropReason::Replayed,
        WireGuardError::WrongIndex | WireGuardError::NoCurrentSession => {
            DropReason::UnknownReceiver
        }
        WireGuardError::WrongKey => DropReason::UnknownPeer,
        WireGuardError::InvalidTai64nTimestamp | WireGuardError::WrongTai64nTimestamp => {
            DropReason::ReplayedInitiation
        }
        WireGuardError::InvalidMac => DropReason::InvalidMac1,
        WireGuardError::UnexpectedPacket => DropReason::UnexpectedAnswer,
        WireGuardError::DestinationBufferTooSmall => DropReason::NoRoom,
        WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket => DropReason::NotWireGuard,
        WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => DropReason::InvalidHandshake,
    }
}
