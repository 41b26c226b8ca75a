//! How handshakes end.

/// How a handshake, or the attempt at one, ended; counted by variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HandshakeResult {
    /// Both ends have proven that they hold the session: as initiator with the response, as responder with the first data
    /// message.
    Completed,
    /// The peer did not answer our initiations for 90 seconds.
    GivenUp,
    /// An initiation or response that was not accepted; its [`DropReason`](super::DropReason) says why. One that we
    /// answered with a cookie is among them.
    Refused,
}

impl HandshakeResult {
    /// Every result, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Completed, Self::GivenUp, Self::Refused];

    /// The name as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::GivenUp => "given_up",
            Self::Refused => "refused",
        }
    }
}

/// How often each result occurred. Belongs to the device, so that what peers did outlives them.
#[derive(Debug, Default)]
pub(super) struct HandshakeCounters([u64; HandshakeResult::ALL.len()]);

impl HandshakeCounters {
    pub(super) fn add(&mut self, result: HandshakeResult) {
        if let Some(counter) = self.0.get_mut(result as usize) {
            *counter += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (HandshakeResult, u64)> {
        HandshakeResult::ALL.into_iter().zip(self.0)
    }
}
