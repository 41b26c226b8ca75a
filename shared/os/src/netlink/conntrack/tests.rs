//! Datagrams made by hand, and the kernel's own.
use std::net::UdpSocket;

use super::entry::tests::published;
use super::*;
use crate::netns;

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn of_entry(tcp_state: u8) -> Vec<u8> {
    message(ENTRY, &[vec![2, 0, 0, 0], published(tcp_state)].concat())
}

fn count(bytes: &[u8], bits: u32) -> Result<(ControlFlow<()>, u32), RequestError> {
    let mut count = 0;
    let end = read(bytes, bits, &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok((end, count))
}

#[test]
fn a_datagram_is_read_to_the_end_of_the_answer() {
    let two = [of_entry(3), of_entry(7)].concat();
    assert_eq!(count(&two, 0).unwrap(), (ControlFlow::Continue(()), 2));
    let done = u16::try_from(libc::NLMSG_DONE).unwrap();
    let last = [two.clone(), message(done, &[0; 4]), of_entry(3)].concat();
    assert_eq!(count(&last, 0).unwrap(), (ControlFlow::Break(()), 2));
    // What an older kernel gives although it was not asked for.
    assert_eq!(count(&two, status::SRC_NAT).unwrap().1, 0);
    assert_eq!(count(&two, status::DST_NAT).unwrap().1, 2);
    let mut looked = 0;
    let end = read(&two, 0, &mut |_| {
        looked += 1;
        ControlFlow::Break(())
    });
    assert_eq!((end.unwrap(), looked), (ControlFlow::Break(()), 1));
}

#[test]
fn a_refusal_is_told_and_what_is_cut_is_malformed() {
    let kind = u16::try_from(libc::NLMSG_ERROR).unwrap();
    let refusal = message(kind, &(-libc::EPERM).to_ne_bytes());
    assert_eq!(count(&refusal, 0).unwrap_err().errno(), Some(libc::EPERM));
    for bytes in [
        message(kind, &[1]),
        message(ENTRY, &[2]),
        message(ENTRY, &[2, 0, 0, 0]),
        of_entry(3)[..40].to_vec(),
        vec![16, 0, 0],
        vec![0; 16],
    ] {
        let result = count(&bytes, 0);
        assert!(
            matches!(result, Err(RequestError::Malformed)),
            "{bytes:?}: {result:?}"
        );
    }
}

#[test]
fn the_kernel_tells_of_a_connection() {
    netns::run(|| {
        // Tracking begins with the first rule that asks for it.
        let rule =
            "table ip t { chain c { type filter hook output priority 0; ct state new counter; }; }";
        let loaded = std::process::Command::new("nft").arg(rule).status();
        assert!(loaded.unwrap().success());
        let [one, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = other.local_addr().unwrap();
        one.send_to(b"?", to).unwrap();
        let found = |bits| {
            let mut found = Vec::new();
            each(bits, |entry| {
                found.push(*entry);
                ControlFlow::Continue(())
            })
            .unwrap();
            found
        };
        let [entry] = found(0)[..] else {
            panic!("{:?}", found(0))
        };
        assert_eq!(entry.original.source, one.local_addr().unwrap());
        assert_eq!(entry.original.destination, to);
        assert_eq!(entry.reply.source, to);
        assert!(!entry.is_open());
        assert_eq!(found(status::SEEN_REPLY), []);
        other.send_to(b"!", one.local_addr().unwrap()).unwrap();
        assert_eq!(found(status::SEEN_REPLY).len(), 1);
    });
}
