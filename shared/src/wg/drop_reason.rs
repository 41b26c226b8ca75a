//! Every way in which a datagram or packet can end before its destination.

/// Why a datagram or packet was dropped; counted by variant, logged at TRACE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropReason {
    /// Outbound: neither an IPv4 nor an IPv6 packet, or shorter than its header.
    MalformedPacket,
    /// Outbound: no peer has the destination among its allowed IPs.
    NoPeerForDestination,
    /// Outbound: the peer's endpoint is not known yet.
    NoEndpoint,
    /// The device has no private key.
    NoPrivateKey,
    /// Outbound: the oldest of too many packets that waited for a handshake.
    StagedOverflow,
    /// Outbound: waited for a handshake that was given up.
    HandshakeGivenUp,
    /// The buffer for what comes next was full: the caller did not empty it in time.
    NoRoom,
    /// Inbound: no message of WireGuard by type and length.
    NotWireGuard,
    /// Handshake: the first MAC is wrong, so the sender does not know our public key.
    InvalidMac1,
    /// Handshake: too many from this address (IPv4) or /64 (IPv6).
    RateLimited,
    /// Handshake: we are under load and answered with a cookie.
    CookieDemanded,
    /// Handshake: made for another key, or by a peer that we don't have.
    UnknownPeer,
    /// Handshake: the initiation is not newer than the last one, so perhaps a replay.
    ReplayedInitiation,
    /// Handshake: less than 20 ms after the peer's last one.
    TooManyInitiations,
    /// Handshake: does not authenticate; another preshared key does this too.
    InvalidHandshake,
    /// Handshake: a response or cookie to nothing we sent.
    UnexpectedAnswer,
    /// Inbound: no session has this receiver index.
    UnknownReceiver,
    /// Inbound: the session is older than 180 s.
    SessionExpired,
    /// Inbound: the counter is beyond the last that a session may use.
    CounterExhausted,
    /// Inbound: the counter was seen already, or is too old to tell.
    Replayed,
    /// Inbound: the data message does not authenticate.
    NotAuthentic,
    /// Inbound: authentic, but what is inside is no IP packet of the stated length.
    MalformedInnerPacket,
    /// Inbound: the source address belongs to another peer or to none.
    SourceNotAllowed,
    /// Inbound: congestion was marked on the way, but the inner packet can't carry the mark (RFC 6040 §4.2).
    CongestionMarkLost,
}

impl DropReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 24] = [
        Self::MalformedPacket,
        Self::NoPeerForDestination,
        Self::NoEndpoint,
        Self::NoPrivateKey,
        Self::StagedOverflow,
        Self::HandshakeGivenUp,
        Self::NoRoom,
        Self::NotWireGuard,
        Self::InvalidMac1,
        Self::RateLimited,
        Self::CookieDemanded,
        Self::UnknownPeer,
        Self::ReplayedInitiation,
        Self::TooManyInitiations,
        Self::InvalidHandshake,
        Self::UnexpectedAnswer,
        Self::UnknownReceiver,
        Self::SessionExpired,
        Self::CounterExhausted,
        Self::Replayed,
        Self::NotAuthentic,
        Self::MalformedInnerPacket,
        Self::SourceNotAllowed,
        Self::CongestionMarkLost,
    ];

    /// The name as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedPacket => "malformed_packet",
            Self::NoPeerForDestination => "no_peer_for_destination",
            Self::NoEndpoint => "no_endpoint",
            Self::NoPrivateKey => "no_private_key",
            Self::StagedOverflow => "staged_overflow",
            Self::HandshakeGivenUp => "handshake_given_up",
            Self::NoRoom => "no_room",
            Self::NotWireGuard => "not_wireguard",
            Self::InvalidMac1 => "invalid_mac1",
            Self::RateLimited => "rate_limited",
            Self::CookieDemanded => "cookie_demanded",
            Self::UnknownPeer => "unknown_peer",
            Self::ReplayedInitiation => "replayed_initiation",
            Self::TooManyInitiations => "too_many_initiations",
            Self::InvalidHandshake => "invalid_handshake",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::UnknownReceiver => "unknown_receiver",
            Self::SessionExpired => "session_expired",
            Self::CounterExhausted => "counter_exhausted",
            Self::Replayed => "replayed",
            Self::NotAuthentic => "not_authentic",
            Self::MalformedInnerPacket => "malformed_inner_packet",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::CongestionMarkLost => "congestion_mark_lost",
        }
    }
}

/// How often each reason occurred.
#[derive(Debug, Default)]
pub(super) struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    pub(super) fn add(&mut self, reason: DropReason, count: u64) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += count;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let mut counters = DropCounters::default();
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            counters.add(reason, place as u64 + 1);
        }
        for (place, (reason, count)) in counters.iter().enumerate() {
            assert_eq!((reason, count), (DropReason::ALL[place], place as u64 + 1));
        }
        let names: std::collections::BTreeSet<_> = DropReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
