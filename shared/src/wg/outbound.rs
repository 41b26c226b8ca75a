//! A packet's way from TUN to the network:
//!
//! 1. [`Device::handle_tun_packet`]: the header says where to.
//! 2. `AllowedIps::peer_of`: the longest network with the destination says to whom.
//! 3. [`padded_length`], [`with_zeroed_tail`]: lengths on the wire tell less.
//! 4. `Peer::send`: a data message in the queue, or a place among the staged packets and an initiation.
use std::time::Instant;

use super::constants::PADDING_MULTIPLE;
use super::device::OutboundPacket;
use super::inner::InnerHeader;
use super::{Device, DropReason, TransmitQueue};

impl Device {
    /// Outbound: a packet from TUN becomes a datagram in `out`, or waits for a handshake whose initiation goes to `out`.
    pub fn handle_tun_packet(
        &mut self,
        packet: OutboundPacket<'_>,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let result = self.route_outbound(packet, out, now);
        if let Err(reason) = result {
            self.drops.add(reason, 1);
        }
        result
    }

    fn route_outbound(
        &mut self,
        packet: OutboundPacket<'_>,
        out: &mut TransmitQueue,
        now: Instant,
    ) -> Result<(), DropReason> {
        let OutboundPacket { buffer, length } = packet;
        let header = buffer
            .get(..length)
            .and_then(InnerHeader::parse)
            .ok_or(DropReason::MalformedPacket)?;
        let slot = self
            .allowed_ips
            .peer_of(header.destination)
            .ok_or(DropReason::NoPeerForDestination)?;
        self.ensure_engine(slot);
        let peer = self
            .peers
            .get_mut(slot)
            .ok_or(DropReason::NoPeerForDestination)?;
        let padded = padded_length(length, self.mtu);
        let drops = &mut self.drops;
        let result = with_zeroed_tail(buffer, length, padded, |padded| {
            // RFC 6040 §4.1, normal mode: the outer header carries the ECN bits of the inner one.
            peer.send(padded, header.ecn, out, drops, now)
        });
        self.reschedule(slot);
        result
    }
}

/// A multiple of 16, but no more than the MTU allows: a full packet must still fit into one datagram.
fn padded_length(length: usize, mtu: usize) -> usize {
    length
        .next_multiple_of(PADDING_MULTIPLE)
        .min(mtu.max(length))
}

/// Call `send` with the packet and its padding; behind the packet there is foreign data, which is put back. What may have
/// to be cleared is a number of 16 bytes: clearing as many as are meant would be a call of the C library.
fn with_zeroed_tail(
    buffer: &mut [u8],
    length: usize,
    padded: usize,
    send: impl FnOnce(&[u8]) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let tail = room_behind(buffer, length).ok_or(DropReason::MalformedPacket)?;
    let saved = *tail;
    let padding_bits = u32::try_from(8 * (padded - length)).unwrap_or(u32::MAX);
    let kept = u128::MAX.checked_shl(padding_bits).unwrap_or(0);
    *tail = (u128::from_le_bytes(saved) & kept).to_le_bytes();
    let result = send(buffer.get(..padded).unwrap_or_default());
    if let Some(tail) = room_behind(buffer, length) {
        *tail = saved;
    }
    result
}

/// What stands behind the packet, as far as padding may go.
fn room_behind(buffer: &mut [u8], length: usize) -> Option<&mut [u8; PADDING_MULTIPLE]> {
    buffer.get_mut(length..)?.first_chunk_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_a_multiple_of_16_up_to_the_mtu() {
        for length in 1..=2000 {
            let padded = padded_length(length, 1420);
            assert!(padded >= length && padded - length < 16);
            assert!(padded % 16 == 0 || padded == 1420 || padded == length);
            assert!(padded <= length.max(1420));
        }
        assert_eq!(padded_length(1409, 1420), 1420);
        assert_eq!(padded_length(1500, 1420), 1500);
    }

    #[test]
    fn what_stands_behind_the_packet_is_restored() {
        let mut buffer = [1_u8; 32];
        let sent = with_zeroed_tail(&mut buffer, 5, 16, |padded| {
            assert_eq!(padded[..5], [1; 5]);
            assert_eq!(padded[5..], [0; 11]);
            Err(DropReason::NoEndpoint)
        });
        assert_eq!(sent, Err(DropReason::NoEndpoint));
        assert_eq!(buffer, [1; 32]);
        let unreachable = with_zeroed_tail(&mut buffer, 30, 40, |_| Ok(()));
        assert_eq!(unreachable, Err(DropReason::MalformedPacket));
    }
}
