use super::super::testing::{Form, Parts, checksums_are_valid, packet, super_frame};
use super::*;
use crate::wire::be16;

/// The packets of a frame.
pub(crate) fn cut(frame: &[u8]) -> Result<Vec<Vec<u8>>, SegmentError> {
    let mut buffer = frame.to_vec();
    buffer.resize(frame.len() + FRAME_TAILROOM, 0xaa);
    let mut segments = segments(&mut buffer, frame.len())?;
    let mut packets = Vec::new();
    while let Some(packet) = segments.next_packet() {
        assert!(packet.buffer.len() >= packet.length + SEGMENT_TAILROOM);
        packets.push(packet.buffer[..packet.length].to_vec());
    }
    Ok(packets)
}

#[test]
fn plain_packet_is_handed_out_as_it_is() {
    let packet = packet(&Parts::default());
    let frame = [&VnetHdr::PLAIN.to_bytes()[..], &packet].concat();
    assert_eq!(cut(&frame), Ok(vec![packet]));
}

#[test]
fn checksum_that_the_kernel_left_is_completed() {
    for form in Form::ALL {
        let expected = packet(&Parts {
            form,
            ..Parts::default()
        });
        let offset = form.transport_offset();
        let field = offset + form.checksum_offset();
        let mut partial = expected.clone();
        let sum = form.pseudo_header(&expected).folded();
        partial[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let header = VnetHdr {
            needs_csum: true,
            csum_start: u16::try_from(offset).unwrap(),
            csum_offset: u16::try_from(form.checksum_offset()).unwrap(),
            ..VnetHdr::PLAIN
        };
        let frame = [&header.to_bytes()[..], &partial].concat();
        assert_eq!(cut(&frame), Ok(vec![expected]), "{form:?}");
    }
}

#[test]
fn completed_udp_checksum_is_never_zero() {
    // Of all payloads of two bytes one makes the sum 0xffff, so that its complement would be 0: "no checksum".
    let zero_like = (0..=u16::MAX).map(|payload| {
        packet(&Parts {
            form: Form::Udp4,
            payload: payload.to_be_bytes().to_vec(),
            ..Parts::default()
        })
    });
    let field = Form::Udp4.transport_offset() + 6;
    let mut found = 0;
    for expected in zero_like.filter(|packet| be16(packet, field) == 0xffff) {
        found += 1;
        let mut partial = expected.clone();
        let sum = Form::Udp4.pseudo_header(&expected).folded();
        partial[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let header = VnetHdr {
            needs_csum: true,
            csum_start: 20,
            csum_offset: 6,
            ..VnetHdr::PLAIN
        };
        let frame = [&header.to_bytes()[..], &partial].concat();
        assert_eq!(cut(&frame), Ok(vec![expected]));
    }
    assert_eq!(found, 1);
}

#[test]
fn large_packet_becomes_segments_with_valid_headers() {
    for form in Form::ALL {
        let parts = Parts {
            form,
            identification: 0xfffe,
            sequence: u32::MAX - 1000,
            tcp_flags: 0x99, // CWR, ACK, PSH, FIN
            payload: (0..=255).cycle().take(2500).collect(),
            ..Parts::default()
        };
        let packets = cut(&super_frame(&parts, 1000)).unwrap();
        assert_eq!(packets.len(), 3, "{form:?}");
        let mut payload: Vec<u8> = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            assert!(checksums_are_valid(packet), "{form:?} {index}");
            payload.extend(&packet[form.headers_len()..]);
            let transport = &packet[form.transport_offset()..];
            if form.is_ipv4() {
                let expected = 0xfffe_u16.wrapping_add(u16::try_from(index).unwrap());
                assert_eq!(be16(packet, 4), expected);
            }
            if form.is_tcp() {
                let segment = tcp::Segment::parse(transport).unwrap();
                let sent = u32::try_from(index * 1000).unwrap();
                assert_eq!(segment.sequence(), parts.sequence.wrapping_add(sent));
                assert_eq!(segment.flags(), [0x90, 0x10, 0x19][index]);
                assert_eq!(segment.options(), parts.options);
            } else {
                assert!(udp::Datagram::parse(transport).is_some());
            }
        }
        assert_eq!(payload, parts.payload, "{form:?}");
    }
}

#[test]
fn segments_shorter_than_their_headers_are_cut_rightly_too() {
    for form in Form::ALL {
        let parts = Parts {
            form,
            payload: (0..100).collect(),
            ..Parts::default()
        };
        let packets = cut(&super_frame(&parts, 7)).unwrap();
        assert_eq!(packets.len(), 15);
        assert!(packets.iter().all(|packet| checksums_are_valid(packet)));
        let payload: Vec<u8> = packets
            .iter()
            .flat_map(|packet| packet[form.headers_len()..].to_vec())
            .collect();
        assert_eq!(payload, parts.payload, "{form:?}");
    }
}

#[test]
fn ipv6_extension_headers_are_repeated_in_every_segment() {
    let parts = Parts {
        form: Form::Tcp6,
        payload: vec![1; 250],
        ..Parts::default()
    };
    let options = [6, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop: TCP follows; padding
    let extend = |bytes: &[u8], start: usize| {
        let mut extended = bytes.to_vec();
        let length = be16(bytes, start + 4) + 8;
        extended[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
        extended[start + 6] = 0;
        extended.splice(start + 40..start + 40, options);
        extended
    };
    let frame = super_frame(&parts, 100);
    let expected: Vec<_> = cut(&frame)
        .unwrap()
        .iter()
        .map(|packet| extend(packet, 0))
        .collect();
    assert_eq!(cut(&extend(&frame, VNET_HDR_LEN)), Ok(expected));
}

#[test]
fn hint_of_the_header_length_is_ignored() {
    let parts = Parts {
        payload: vec![1; 300],
        ..Parts::default()
    };
    let mut frame = super_frame(&parts, 100);
    frame[2..4].copy_from_slice(&9u16.to_ne_bytes());
    assert_eq!(cut(&frame), cut(&super_frame(&parts, 100)));
}

#[test]
fn malformed_frames_are_refused() {
    let parts = Parts {
        payload: vec![1; 300],
        ..Parts::default()
    };
    let frame = super_frame(&parts, 100);
    let with = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        cut(&frame).unwrap_err()
    };
    assert_eq!(cut(&frame[..9]), Err(SegmentError::Length(9)));
    assert_eq!(cut(&frame[..10]), Err(SegmentError::Headers));
    assert_eq!(with(1, 3), SegmentError::UnknownKind(3));
    assert_eq!(with(1, 4), SegmentError::Headers, "IPv6 type on IPv4");
    assert_eq!(with(1, 5), SegmentError::Headers, "UDP type on TCP");
    assert_eq!(with(10, 0x15), SegmentError::Headers, "IP version");
    assert_eq!(
        with(10 + 20 + 12, 0x40),
        SegmentError::Headers,
        "TCP offset"
    );
    let mut zero = frame.clone();
    zero[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(cut(&zero), Err(SegmentError::Headers), "segment size");
    let header = VnetHdr {
        needs_csum: true,
        csum_start: 20,
        csum_offset: 0xfff0,
        ..VnetHdr::PLAIN
    };
    let packet = packet(&Parts::default());
    let frame = [&header.to_bytes()[..], &packet].concat();
    assert_eq!(cut(&frame), Err(SegmentError::ChecksumField));
}

proptest::proptest! {
    #[test]
    fn no_frame_makes_it_panic(
        mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 10..400),
        kind in proptest::sample::select(vec![0u8, 1, 4, 5]),
        version in proptest::sample::select(vec![0x45u8, 0x60]),
        size in 1u16..200,
    ) {
        frame[1] = kind;
        frame[4..6].copy_from_slice(&size.to_ne_bytes());
        if frame.len() > 20 {
            frame[10] = version;
            let length = u16::try_from(frame.len()).unwrap();
            frame[12..14].copy_from_slice(&(length - 10).to_be_bytes());
            frame[14..16].copy_from_slice(&length.saturating_sub(50).to_be_bytes());
            frame[16] = 17;
            frame[19] = 6;
        }
        let _result = cut(&frame);
    }
}
