//! From a packet of the kernel to packets for the network.
//!
//! 1. [`segments`] reads the virtio-net header: a packet that is complete is handed out as it is;
//! 2. another packet of its own gets its checksum completed ([`complete_checksum`]);
//! 3. a large packet of TCP segments or UDP datagrams is cut ([`Template`]): [`Segments::next_packet`] writes the header
//!    of each segment **in front of its payload inside the buffer**, over bytes that have been sent already, so that no
//!    payload is copied. The headers themselves are copied to the end of the buffer first.
use super::vnet_hdr::{GsoKind, VNET_HDR_LEN, VnetHdr};
use crate::wg::device::OutboundPacket;
use crate::wire::{checksum::Sum, ipv4, ipv6, protocol, put, tcp, udp};

/// Bytes behind every packet that may be used, as [`OutboundPacket`] promises.
pub const SEGMENT_TAILROOM: usize = 16;

/// Bytes that must be free behind a frame: those, and room for a copy of its headers.
pub const FRAME_TAILROOM: usize = SEGMENT_TAILROOM + MAX_HEADERS_LEN;

/// Longest chain of headers of a large packet; longer ones (many IPv6 extension headers) are refused.
const MAX_HEADERS_LEN: usize = 256;

/// Why a frame read from TUN is of no use. Only a kernel at odds with `virtio_net.h` makes such frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Shorter than the virtio-net header, or longer than the buffer less its tailroom.
    #[error("a frame of {0} bytes from TUN does not fit between its header and the buffer")]
    Length(usize),
    /// A kind of large packet that was not asked for.
    #[error("a large packet of unknown kind {0} from TUN, though it was not asked for")]
    UnknownKind(u8),
    /// The checksum field lies outside of the packet.
    #[error("the checksum field of a packet from TUN lies outside of the packet")]
    ChecksumField,
    /// Headers and kind of a large packet don't match, or the size of its segments is zero.
    #[error("the headers of a large packet from TUN do not fit its kind")]
    Headers,
}

/// The packets of one frame, each handed out in place.
#[derive(Debug)]
pub struct Segments<'a> {
    /// The frame without its virtio-net header, and [`SEGMENT_TAILROOM`].
    buffer: &'a mut [u8],
    /// Bytes of the large packet.
    length: usize,
    /// Payload that was handed out.
    sent: usize,
    /// Packets that were handed out; counts like the field of IPv4, modulo 2^16.
    index: u16,
    form: Form<'a>,
}

#[derive(Debug)]
enum Form<'a> {
    Whole,
    Cut(Template<'a>),
    Finished,
}

/// Cut the frame of `length` bytes at the start of `buffer` into packets.
#[inline]
pub fn segments(buffer: &mut [u8], length: usize) -> Result<Segments<'_>, SegmentError> {
    if length < VNET_HDR_LEN || length + FRAME_TAILROOM > buffer.len() {
        return Err(SegmentError::Length(length));
    }
    // The short way, since such a packet may come alone: nothing is in the cache then.
    if buffer.first_chunk().is_some_and(VnetHdr::is_complete) {
        return Ok(Segments {
            buffer: buffer.get_mut(VNET_HDR_LEN..).unwrap_or_default(),
            length: length - VNET_HDR_LEN,
            sent: 0,
            index: 0,
            form: Form::Whole,
        });
    }
    incomplete(buffer, length)
}

/// A packet with a checksum to be completed, or a large one.
#[inline(never)]
fn incomplete(buffer: &mut [u8], length: usize) -> Result<Segments<'_>, SegmentError> {
    let (header, buffer) = buffer
        .split_first_chunk_mut::<VNET_HDR_LEN>()
        .ok_or(SegmentError::Length(length))?;
    let (buffer, copy) = buffer
        .split_last_chunk_mut::<MAX_HEADERS_LEN>()
        .ok_or(SegmentError::Length(length))?;
    let header = VnetHdr::parse(header).map_err(SegmentError::UnknownKind)?;
    let length = length - VNET_HDR_LEN;
    let packet = buffer.get_mut(..length).unwrap_or_default();
    let form = if header.gso == GsoKind::None {
        complete_checksum(packet, header).ok_or(SegmentError::ChecksumField)?;
        Form::Whole
    } else {
        Form::Cut(Template::parse(packet, header, copy).ok_or(SegmentError::Headers)?)
    };
    Ok(Segments {
        buffer,
        length,
        sent: 0,
        index: 0,
        form,
    })
}

/// Finish a checksum that the kernel left to the device (`CHECKSUM_PARTIAL` of `include/linux/skbuff.h`): the field holds
/// the sum of the pseudo-header, so summing from the transport header on gives the whole.
fn complete_checksum(packet: &mut [u8], header: VnetHdr) -> Option<()> {
    let message = packet.get_mut(usize::from(header.csum_start)..)?;
    let field = usize::from(header.csum_offset);
    message.get(field..field + 2)?;
    let checksum = nonzero(Sum::default().bytes(message).checksum());
    put(message, field, checksum.to_be_bytes());
    Some(())
}

/// A UDP checksum of zero would mean "none" (RFC 768); in one's complement its other zero is the same number, for TCP too.
const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

impl Segments<'_> {
    /// The next packet, ready to be sent, with [`SEGMENT_TAILROOM`] bytes behind it that belong to later packets.
    #[inline]
    pub fn next_packet(&mut self) -> Option<OutboundPacket<'_>> {
        match &self.form {
            Form::Finished => None,
            Form::Whole => {
                self.form = Form::Finished;
                Some(OutboundPacket {
                    buffer: self.buffer.get_mut(..self.length + SEGMENT_TAILROOM)?,
                    length: self.length,
                })
            }
            Form::Cut(_) => self.next_segment(),
        }
    }

    #[inline(never)]
    fn next_segment(&mut self) -> Option<OutboundPacket<'_>> {
        match &self.form {
            Form::Finished | Form::Whole => None,
            Form::Cut(template) => {
                let start = self.sent; // the payload of this segment starts `headers` bytes later
                let left = self.length - template.headers.len() - start;
                let size = left.min(template.segment_size);
                let length = template.headers.len() + size;
                let buffer = self
                    .buffer
                    .get_mut(start..start + length + SEGMENT_TAILROOM)?;
                let place = Place {
                    sent: start,
                    index: self.index,
                    last: size == left,
                };
                template.write(buffer.get_mut(..length)?, place);
                self.sent += size;
                self.index = self.index.wrapping_add(1);
                if size == left {
                    self.form = Form::Finished;
                }
                Some(OutboundPacket { buffer, length })
            }
        }
    }
}

/// The headers of a large packet. A copy, since short segments overwrite the original while it is still needed.
#[derive(Debug)]
struct Template<'a> {
    headers: &'a [u8],
    /// Bytes of payload per segment; not zero.
    segment_size: usize,
    network: Network,
    transport: Transport,
    /// Offset of the transport header.
    transport_offset: usize,
    /// Sum of the pseudo-header but for the length, which differs in the last segment.
    pseudo_header: Sum,
}

/// Which of the segments it is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Payload before it.
    sent: usize,
    /// Segments before it.
    index: u16,
    last: bool,
}

#[derive(Debug)]
enum Network {
    Ipv4 { identification: u16 },
    Ipv6,
}

#[derive(Debug)]
enum Transport {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl<'a> Template<'a> {
    /// Find the headers and copy them. Their length comes from the headers themselves: `hdr_len` is only a hint.
    fn parse(packet: &[u8], header: VnetHdr, copy: &'a mut [u8; MAX_HEADERS_LEN]) -> Option<Self> {
        let (network, protocol, transport_offset, pseudo_header) = match packet.first()? >> 4 {
            4 => {
                // The total length of a large packet is right, but not needed: `packet` ends where the frame ends.
                let ip = ipv4::Packet::parse(packet)?;
                let identification = ip.identification();
                let sum = ip.pseudo_header(0);
                let network = Network::Ipv4 { identification };
                (network, ip.protocol(), ip.header_len(), sum)
            }
            6 => {
                let ip = ipv6::Packet::parse(packet)?;
                let transport = ip.transport().filter(|found| !found.is_fragment)?;
                let sum = ip.pseudo_header(transport.protocol, 0);
                (Network::Ipv6, transport.protocol, transport.offset, sum)
            }
            _ => return None,
        };
        let message = packet.get(transport_offset..)?;
        let kind_fits = match header.gso {
            GsoKind::Tcp4 => protocol == protocol::TCP && matches!(network, Network::Ipv4 { .. }),
            GsoKind::Tcp6 => protocol == protocol::TCP && matches!(network, Network::Ipv6),
            GsoKind::UdpL4 => protocol == protocol::UDP,
            GsoKind::None => false,
        };
        if !kind_fits {
            return None;
        }
        let (transport, transport_len) = if protocol == protocol::TCP {
            let segment = tcp::Segment::parse(message)?;
            let (sequence, flags) = (segment.sequence(), segment.flags());
            (Transport::Tcp { sequence, flags }, segment.header_len())
        } else {
            message.first_chunk::<{ udp::HEADER_LEN }>()?;
            (Transport::Udp, udp::HEADER_LEN)
        };
        let length = transport_offset + transport_len;
        let segment_size = usize::from(header.gso_size);
        if segment_size == 0 {
            return None;
        }
        let headers = copy.get_mut(..length)?;
        headers.copy_from_slice(packet.get(..length)?);
        Some(Self {
            headers,
            segment_size,
            network,
            transport,
            transport_offset,
            pseudo_header,
        })
    }

    /// Write the headers of the segment at this place.
    ///
    /// `segment` has room for the headers and then the payload. The same as `tcp_gso_segment` and `__udp_gso_segment` of
    /// the kernel's `net/ipv4/{tcp,udp}_offload.c`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "lengths inside one frame are below 2^17, those inside one segment below 2^16; the rest wraps by design"
    )]
    fn write(&self, segment: &mut [u8], place: Place) {
        let Place { sent, index, last } = place;
        let length = segment.len();
        if let Some(room) = segment.get_mut(..self.headers.len()) {
            room.copy_from_slice(self.headers);
        }
        let Some((network, message)) = segment.split_at_mut_checked(self.transport_offset) else {
            return; // `parse` has checked that the transport header is part of the headers
        };
        match self.network {
            Network::Ipv4 { identification } => {
                let identification = identification.wrapping_add(index);
                ipv4::rewrite_header(network, length as u16, identification);
            }
            Network::Ipv6 => {
                ipv6::rewrite_header(network, (length - ipv6::HEADER_LEN) as u16);
            }
        }
        let message_len = message.len() as u32;
        let sum = self.pseudo_header.u32(message_len);
        match self.transport {
            Transport::Tcp { sequence, flags } => {
                let mut flags = flags;
                if !last {
                    flags &= !(tcp::flags::FIN | tcp::flags::PSH);
                }
                if sent > 0 {
                    flags &= !tcp::flags::CWR;
                }
                tcp::put_flags(message, flags);
                tcp::put_sequence(message, sequence.wrapping_add(sent as u32));
                tcp::put_checksum(message, 0);
                let checksum = sum.bytes(message).checksum();
                tcp::put_checksum(message, checksum);
            }
            Transport::Udp => {
                udp::rewrite_header(message, message_len as u16, 0);
                let checksum = nonzero(sum.bytes(message).checksum());
                udp::put_checksum(message, checksum);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
