//! Data messages of a peer, out and in.
use std::fmt;
use std::time::Instant;

use super::Peer;
use crate::wg::constants::{DATA_OVERHEAD, INITIATION_LEN, MAX_STAGED_PACKETS};
use crate::wg::drop_reason::DropCounters;
use crate::wg::noise::{Engine as _, Opened};
use crate::wg::timers::Timer;
use crate::wg::{DropReason, Ecn, Path, TransmitQueue};

/// A padded packet that waits for a session.
pub(super) struct Staged {
    padded: Box<[u8]>,
    ecn: Ecn,
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({} bytes)", self.padded.len())
    }
}

/// Why a packet could not be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    NoSession,
    NoRoom,
}

impl Peer {
    /// Send a padded packet, or keep it until there is a session.
    pub(in crate::wg) fn send(
        &mut self,
        padded: &[u8],
        ecn: Ecn,
        out: &mut TransmitQueue,
        drops: &mut DropCounters,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.endpoint.is_none() {
            return Err(DropReason::NoEndpoint);
        }
        if self.tunnel.is_none() {
            return Err(DropReason::NoPrivateKey);
        }
        if self.staged.is_empty() {
            match self.seal(padded, ecn, out, now) {
                Ok(()) => return Ok(()),
                Err(Unsent::NoRoom) => return Err(DropReason::NoRoom),
                Err(Unsent::NoSession) => {}
            }
        }
        if self.staged.len() >= MAX_STAGED_PACKETS {
            self.staged.pop_front();
            drops.add(DropReason::StagedOverflow, 1);
        }
        self.staged.push_back(Staged {
            padded: padded.into(),
            ecn,
        });
        self.flush_staged(out, now);
        Ok(())
    }

    /// Send what is staged; without a session, start a handshake.
    pub(super) fn flush_staged(&mut self, out: &mut TransmitQueue, now: Instant) {
        while let Some(staged) = self.staged.pop_front() {
            match self.seal(&staged.padded, staged.ecn, out, now) {
                Ok(()) => {}
                Err(unsent) => {
                    self.staged.push_front(staged);
                    match unsent {
                        Unsent::NoRoom => self.timers.set(Timer::FlushStaged, now),
                        Unsent::NoSession => self.start_handshake(out, now),
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn seal(
        &mut self,
        padded: &[u8],
        ecn: Ecn,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), Unsent> {
        let (Some(path), Some(tunnel)) = (self.endpoint, &mut self.tunnel) else {
            return Err(Unsent::NoSession);
        };
        let keypair = self.keypairs.usable(now).ok_or(Unsent::NoSession)?;
        if out.slot().len() < INITIATION_LEN.max(padded.len() + DATA_OVERHEAD) {
            return Err(Unsent::NoRoom);
        }
        let Some(length) = tunnel.seal(padded, out.slot()) else {
            self.keypairs.clear(); // the engine counts the time in suspend too and ended the session before us
            return Err(Unsent::NoSession);
        };
        keypair.sent += 1;
        let stale = keypair.is_stale_for_sending(now);
        self.commit(path, ecn, length, out, now);
        if !padded.is_empty() {
            self.data_sent(now);
        }
        if stale {
            self.start_handshake(out, now);
        }
        Ok(())
    }

    pub(super) fn send_keepalive(&mut self, out: &mut TransmitQueue, now: Instant) {
        if !self.staged.is_empty() {
            self.flush_staged(out, now);
        } else if self.seal(&[], Ecn::NotEct, out, now) == Err(Unsent::NoSession) {
            self.start_handshake(out, now);
        }
    }

    pub(super) fn commit(
        &mut self,
        path: Path,
        ecn: Ecn,
        length: usize,
        out: &mut TransmitQueue,
        now: Instant,
    ) {
        out.commit(path, ecn, length);
        self.tx_bytes += length as u64;
        self.authentic_message_sent();
        self.authentic_message_either_way(now);
    }

    /// The session with this index, if it may still be used.
    pub(in crate::wg) fn check_session(
        &self,
        receiver_index: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        let keypair = self
            .keypairs
            .find(receiver_index)
            .ok_or(DropReason::UnknownReceiver)?;
        if keypair.is_expired(now) {
            return Err(DropReason::SessionExpired);
        }
        Ok(())
    }

    /// Read a data message whose session was checked.
    pub(in crate::wg) fn open(
        &mut self,
        message: &[u8],
        slot: &mut [u8],
    ) -> Result<Opened, DropReason> {
        if slot.len() < message.len() {
            return Err(DropReason::NoRoom);
        }
        let tunnel = self.tunnel.as_mut().ok_or(DropReason::NoPrivateKey)?;
        tunnel.open(message, slot)
    }

    /// All that follows from an authentic data message before its packet is looked at. Returns whether it completed a
    /// handshake.
    pub(in crate::wg) fn data_message_received(
        &mut self,
        path: Path,
        receiver_index: u32,
        length: usize,
        opened: Opened,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> bool {
        self.endpoint = Some(path); // to see whether it is another one would take longer
        self.authentic_message_received(length, now);
        if opened != Opened::Keepalive {
            self.data_received(now);
        }
        let completed = self.keypairs.received_with(receiver_index);
        if completed {
            self.handshake.replay_guarded = true;
            self.handshake_complete(now);
            self.flush_staged(out, now);
        }
        let stale = self
            .keypairs
            .current()
            .is_some_and(|keypair| keypair.is_stale_for_receiving(now));
        if stale && !self.handshake.renewed_on_receive {
            self.handshake.renewed_on_receive = true;
            self.start_handshake(out, now);
        }
        completed
    }
}
