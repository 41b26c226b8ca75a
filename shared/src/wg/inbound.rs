//! A datagram's way from the network to TUN:
//!
//! 1. [`Device::handle_datagram`]: type and length say what it is; what it is not, ends here without an answer.
//! 2. Handshakes: [`Device::handle_initiation`] behind the gate of `limits.rs`, [`Device::handle_response`] and
//!    [`Device::handle_cookie_reply`] by an index that we gave out.
//! 3. Data, [`Device::handle_data`]: receiver index → peer and session → authentic message → roaming and timers.
//! 4. [`Device::admit`]: the device-wide owner of the source is this peer, and the ECN bits of the way are carried over.
use std::time::Instant;

use super::constants::REJECT_AFTER_MESSAGES;
use super::index::IndexPrefix;
use super::inner::{InnerHeader, decapsulated_ecn, set_ecn};
use super::limits::Verdict;
use super::noise::Opened;
use super::peer_table::PeerSlot;
use super::wire::Message;
use super::{Device, DropReason, Ecn, HandshakeResult, PacketBuffer, Path, TransmitQueue};

impl Device {
    /// Inbound: a datagram becomes a packet in `inbound` (which must be empty), an answer in `out`, both, or neither.
    pub fn handle_datagram(
        &mut self,
        path: Path,
        ecn: Ecn,
        datagram: &[u8],
        inbound: &mut PacketBuffer,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let message = Message::parse(datagram);
        let result = match message {
            Some(Message::Data {
                receiver_index,
                counter,
            }) if counter < REJECT_AFTER_MESSAGES => {
                self.handle_data(path, ecn, receiver_index, datagram, inbound, out, now)
            }
            Some(Message::Data { .. }) => Err(DropReason::CounterExhausted),
            Some(Message::Initiation) => self.handle_initiation(path, datagram, out, now),
            Some(Message::Response { receiver_index }) => {
                self.handle_response(path, receiver_index, datagram, out, now)
            }
            Some(Message::CookieReply { receiver_index }) => {
                self.handle_cookie_reply(receiver_index, datagram, now)
            }
            None => Err(DropReason::NotWireGuard),
        };
        if let Err(reason) = result {
            self.drops.add(reason, 1);
            if let Some(Message::Initiation | Message::Response { .. }) = message {
                self.handshakes.add(HandshakeResult::Refused);
            }
        }
        result
    }

    #[cold] // beside data: what is done with each message stays short
    #[inline(never)]
    fn handle_initiation(
        &mut self,
        path: Path,
        initiation: &[u8],
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NoPrivateKey)?;
        if !identity.mac1.accepts(initiation) {
            return Err(DropReason::InvalidMac1);
        }
        let source = path.remote.ip();
        match self.gate.admit(source, now) {
            Verdict::Pass => {}
            Verdict::Drop => return Err(DropReason::RateLimited),
            Verdict::DemandCookie => {
                if let Err(length) =
                    identity
                        .noise
                        .check_cookie(path.remote, initiation, out.slot())
                {
                    if length > 0 {
                        out.commit(path, Ecn::NotEct, length);
                    }
                    return Err(DropReason::CookieDemanded);
                }
                if !self.gate.admit_verified(source, now) {
                    return Err(DropReason::RateLimited);
                }
            }
        }
        let slot = identity
            .noise
            .claimed_sender(initiation)
            .and_then(|key| self.peers.find(&key))
            .ok_or(DropReason::UnknownPeer)?;
        self.ensure_engine(slot);
        let peer = self.peers.get_mut(slot).ok_or(DropReason::UnknownPeer)?;
        let result = peer.handle_initiation(path, initiation, out, now);
        self.reschedule(slot);
        result
    }

    /// No cookie is demanded for a response, not even under load: it must name one of our last two initiations, and
    /// each of them allows only a few tries.
    #[cold]
    #[inline(never)]
    fn handle_response(
        &mut self,
        path: Path,
        receiver_index: u32,
        response: &[u8],
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NoPrivateKey)?;
        let slot = self
            .indices
            .find(IndexPrefix::of(receiver_index))
            .ok_or(DropReason::UnexpectedAnswer)?;
        if !identity.mac1.accepts(response) {
            return Err(DropReason::InvalidMac1);
        }
        let peer = self
            .peers
            .get_mut(slot)
            .ok_or(DropReason::UnexpectedAnswer)?;
        let result = peer.handle_response(path, receiver_index, response, out, now);
        if result.is_ok() {
            self.handshakes.add(HandshakeResult::Completed);
        }
        self.reschedule(slot);
        result
    }

    /// A cookie reply moves no endpoint: only who made it is authenticated, not that it is new.
    #[cold]
    #[inline(never)]
    fn handle_cookie_reply(
        &mut self,
        receiver_index: u32,
        reply: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let slot = self
            .indices
            .find(IndexPrefix::of(receiver_index))
            .ok_or(DropReason::UnexpectedAnswer)?;
        let peer = self
            .peers
            .get_mut(slot)
            .ok_or(DropReason::UnexpectedAnswer)?;
        peer.handle_cookie_reply(reply, now)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what the datagram is, then what handle_datagram got"
    )]
    fn handle_data(
        &mut self,
        path: Path,
        ecn: Ecn,
        receiver_index: u32,
        message: &[u8],
        inbound: &mut PacketBuffer,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let slot = self
            .indices
            .find(IndexPrefix::of(receiver_index))
            .ok_or(DropReason::UnknownReceiver)?;
        let peer = self
            .peers
            .get_mut(slot)
            .ok_or(DropReason::UnknownReceiver)?;
        peer.check_session(receiver_index, now)?;
        let opened = peer.open(message, inbound.room())?;
        let completed =
            peer.data_message_received(path, receiver_index, message.len(), opened, out, now);
        if completed {
            self.handshakes.add(HandshakeResult::Completed);
        }
        let succeeds_another = peer.succeeds.is_some();
        self.reschedule(slot);
        if succeeds_another {
            self.take_over_allowed_ips(slot);
        }
        match opened {
            Opened::Keepalive => Ok(()),
            Opened::Packet(length) => self.admit(slot, ecn, length, inbound),
            Opened::Malformed => Err(DropReason::MalformedInnerPacket),
        }
    }

    /// Take the packet at the start of the buffer, if this peer may send it.
    fn admit(
        &mut self,
        sender: PeerSlot,
        outer: Ecn,
        length: usize,
        inbound: &mut PacketBuffer,
    ) -> Result<(), DropReason> {
        let packet = inbound.room().get_mut(..length).unwrap_or_default();
        let header = InnerHeader::parse(packet).ok_or(DropReason::MalformedInnerPacket)?;
        if self.allowed_ips.peer_of(header.source) != Some(sender) {
            return Err(DropReason::SourceNotAllowed);
        }
        let ecn = decapsulated_ecn(header.ecn, outer).ok_or(DropReason::CongestionMarkLost)?;
        if ecn != header.ecn {
            set_ecn(packet, ecn);
        }
        inbound.fill(header.length);
        Ok(())
    }
}
