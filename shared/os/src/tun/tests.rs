use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use shared::offload::VnetHdr;

use super::*;
use crate::netns;

fn options(offload: Offload) -> Options {
    Options {
        name: "tun0".parse().unwrap(),
        persist: false,
        offload,
        multi_queue: false,
    }
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// How long what was closed may stay open: a process that another test is about to start has our descriptors until it begins.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens what was just closed.
fn reopen(options: &Options) -> Tun {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Tun::open(options) {
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            tun => return tun.unwrap(),
        }
    }
}

#[test]
fn every_rung_of_the_ladder_can_be_had() {
    netns::run(|| {
        for offload in [Offload::None, Offload::Checksum, Offload::Tso, Offload::Uso] {
            let tun = reopen(&options(offload));
            assert_eq!(tun.offload(), offload);
            assert_eq!(tun.name().as_str(), "tun0");
        }
    });
}

#[test]
fn ladder_goes_down_one_rung_at_a_time() {
    let rungs = std::iter::successors(Some(Offload::Uso), |rung| rung.next_lower());
    let masks: Vec<_> = rungs.map(Offload::mask).collect();
    assert_eq!(masks, [0x67, 0x07, 0x01, 0]);
}

/// The virtio-net header of a datagram that leaves over this link.
fn header_of_a_datagram(tun: &Tun) -> VnetHdr {
    ip("address add 10.9.0.1/24 dev tun0");
    ip("link set tun0 up");
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.send_to(&[7; 500], "10.9.0.2:9").unwrap();
    let mut buffer = vec![0; FRAME_BUFFER_LEN];
    loop {
        let length = tun.read(&mut buffer).unwrap(); // the datagram, or before it the kernel's IPv6 discovery
        let (header, packet) = buffer[..length].split_first_chunk().unwrap();
        if packet[0] == 0x45 {
            assert_eq!(packet.len(), 528);
            return VnetHdr::parse(header).unwrap();
        }
    }
}

#[test]
fn offload_of_a_persistent_link_is_that_of_its_last_opening() {
    netns::run(|| {
        let mut persistent = options(Offload::Uso);
        persistent.persist = true;
        let tun = Tun::open(&persistent).unwrap();
        assert!(header_of_a_datagram(&tun).needs_csum);
        drop(tun);
        ip("address flush dev tun0");
        let tun = reopen(&options(Offload::None));
        assert!(!header_of_a_datagram(&tun).needs_csum);
        drop(tun);
        let is_there = || {
            let show = ["link", "show", "tun0"];
            Command::new("ip")
                .args(show)
                .output()
                .unwrap()
                .status
                .success()
        };
        let deadline = Instant::now() + PATIENCE;
        while is_there() {
            assert!(
                Instant::now() < deadline,
                "the last opening was not persistent"
            );
        }
    });
}

#[test]
fn reading_an_idle_link_would_block_and_writing_to_a_downed_one_is_an_io_error() {
    netns::run(|| {
        let tun = Tun::open(&options(Offload::Uso)).unwrap();
        let mut buffer = vec![0; FRAME_BUFFER_LEN];
        let empty = tun.read(&mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let packet = [0x45; 40];
        let down = tun
            .write_behind(&VnetHdr::PLAIN.to_bytes(), &packet)
            .unwrap_err();
        assert_eq!(down.raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn removed_link_is_told_apart_from_an_idle_one() {
    netns::run(|| {
        let tun = Tun::open(&options(Offload::Uso)).unwrap();
        ip("link delete tun0");
        let gone = tun.read(&mut vec![0; FRAME_BUFFER_LEN]).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::EBADFD));
    });
}

#[test]
fn adopted_queue_has_what_came_meanwhile() {
    netns::run(|| {
        let earlier = Tun::open(&options(Offload::Uso)).unwrap();
        ip("address add 10.9.0.1/24 dev tun0");
        ip("link set tun0 up");
        let queue = earlier.as_fd().try_clone_to_owned().unwrap();
        drop(earlier);
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(&[7; 500], "10.9.0.2:9").unwrap();
        let tun = Tun::adopt(queue, &options(Offload::Uso)).unwrap();
        let mut buffer = vec![0; FRAME_BUFFER_LEN];
        let datagram = std::iter::repeat_with(|| tun.read(&mut buffer))
            .map(|read| read.expect("the datagram is before the end of what came"))
            .find(|&length| length == VNET_HDR_LEN + 528);
        assert!(datagram.is_some());
        let after = std::iter::repeat_with(|| tun.read(&mut buffer)).find_map(Result::err);
        let after = after.map(|error| error.kind());
        assert_eq!(after, Some(io::ErrorKind::WouldBlock));
    });
}

#[test]
fn only_queues_of_this_link_are_adopted() {
    netns::run(|| {
        let queue_of = |tun: &Tun| tun.as_fd().try_clone_to_owned().unwrap();
        let refused = |queue: OwnedFd, options: &Options| {
            let error = Tun::adopt(queue, options).unwrap_err();
            assert!(matches!(error, OpenError::NotTun { .. }), "{error:?}");
        };
        let tun = Tun::open(&options(Offload::Uso)).unwrap();
        let mut other = options(Offload::Uso);
        other.name = "tun1".parse().unwrap();
        refused(queue_of(&tun), &other);
        let mut several = options(Offload::Uso);
        several.multi_queue = true;
        refused(queue_of(&tun), &several);
        ip("link delete tun0");
        refused(queue_of(&tun), &options(Offload::Uso));
        refused(UdpSocket::bind("127.0.0.1:0").unwrap().into(), &other);
        refused(open_device(Path::new(DEVICE)).unwrap().into(), &other);
    });
}

#[test]
fn link_in_use_is_refused() {
    netns::run(|| {
        let _tun = Tun::open(&options(Offload::Uso)).unwrap();
        let error = Tun::open(&options(Offload::Uso)).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains("tun0"));
    });
}

#[test]
fn link_of_another_kind_is_refused() {
    netns::run(|| {
        ip("link add tun0 type veth peer name other");
        let error = Tun::open(&options(Offload::Uso)).unwrap_err();
        assert!(matches!(error, OpenError::NotTun { .. }), "{error:?}");
    });
}

#[test]
fn queues_of_one_link_can_be_several() {
    netns::run(|| {
        let mut several = options(Offload::Uso);
        several.multi_queue = true;
        let _first = Tun::open(&several).unwrap();
        let _second = Tun::open(&several).unwrap();
    });
}

#[test]
fn missing_device_file_is_named() {
    let error = open_device(Path::new("/dev/net/no-such-device")).unwrap_err();
    assert!(matches!(error, OpenError::NoDevice(_)), "{error:?}");
}

#[test]
fn errors_of_attaching_are_told_apart() {
    let error = |errno| {
        let name = "tun0".parse().unwrap();
        attach_error(name, io::Error::from_raw_os_error(errno))
    };
    assert!(matches!(error(libc::EPERM), OpenError::Permission { .. }));
    assert!(matches!(error(libc::EBUSY), OpenError::InUse { .. }));
    assert!(matches!(error(libc::EINVAL), OpenError::NotTun { .. }));
    assert!(matches!(error(libc::ENOMEM), OpenError::Other { .. }));
}
