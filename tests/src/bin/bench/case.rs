//! The tests by name.
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// One TCP stream from client to server.
    Tcp(Streams),
    /// The highest rate of UDP datagrams with this many bytes from this many ports.
    Udp {
        /// Bytes of payload.
        size: usize,
        /// Sockets that take turns.
        flows: usize,
    },
    /// Round-trip times through the tunnel.
    Ping {
        /// While a TCP stream fills it.
        loaded: bool,
    },
    /// TCP connections, opened and closed.
    Connects,
    /// Handshakes with the gateway.
    Handshakes,
}

/// Streams of a TCP test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// From client to server.
    One,
    /// Four of them.
    Four,
    /// From server to client.
    Reverse,
    /// One each way.
    Both,
}

/// What the world of a test is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Variant {
    /// Peers of the gateway beside the LAN end.
    pub(crate) peers: usize,
    /// Whether the cables of the tunnel do without GRO, GSO and TSO.
    pub(crate) without_offloads: bool,
}

/// A test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    /// What is done.
    pub(crate) work: Work,
    /// In which world.
    pub(crate) variant: Variant,
}

/// The tests of a whole run. Those of one world stand together, since worlds are made anew.
pub(crate) const ALL: &str = "tcp1,tcp4,tcp1r,bidir,udp64,udp64f16,udp1200,udp1200f16,ping,pingload,connects,\
                              tcp1p100,udp64p100,pingp100,tcp1p2000,udp64p2000,pingp2000,handshakes,tcp1off,tcp4off";

/// The tests of a quick run.
pub(crate) const QUICK: &str = "tcp1,tcp4,tcp1r,bidir,udp64,udp1200,ping,pingload,connects";

/// Peers of the gateway in the test of handshakes, each of which shakes hands.
const HANDSHAKE_PEERS: usize = 2000;

/// A comma-separated list.
pub(crate) fn list(names: &str) -> Result<Vec<Case>> {
    names.split(',').map(str::parse).collect()
}

impl FromStr for Case {
    type Err = anyhow::Error;

    /// `tcp1`, `udp64f16`; with further peers `tcp1p2000`; without offloads `tcp1off`.
    fn from_str(name: &str) -> Result<Self> {
        let mut variant = Variant::default();
        if let Some(work) = work(name) {
            if work == Work::Handshakes {
                variant.peers = HANDSHAKE_PEERS;
            }
            return Ok(Self { work, variant });
        }
        if let Some(work) = name.strip_suffix("off").and_then(work) {
            variant.without_offloads = true;
            return Ok(Self { work, variant });
        }
        if let Some((stem, peers)) = name.rsplit_once('p') {
            if let (Some(work), Ok(peers)) = (work(stem), peers.parse()) {
                variant.peers = peers;
                return Ok(Self { work, variant });
            }
        }
        bail!(
            "no test `{name}`: there are tcp1, tcp4, tcp1r, bidir, udpSIZE, udpSIZEfFLOWS, ping, pingload, connects and \
             handshakes, each also with the suffix pNUMBER (further peers) or off (without offloads)"
        )
    }
}

fn work(name: &str) -> Option<Work> {
    Some(match name {
        "tcp1" => Work::Tcp(Streams::One),
        "tcp4" => Work::Tcp(Streams::Four),
        "tcp1r" => Work::Tcp(Streams::Reverse),
        "bidir" => Work::Tcp(Streams::Both),
        "ping" => Work::Ping { loaded: false },
        "pingload" => Work::Ping { loaded: true },
        "connects" => Work::Connects,
        "handshakes" => Work::Handshakes,
        _ => {
            let numbers = name.strip_prefix("udp")?;
            let (size, flows) = numbers.split_once('f').unwrap_or((numbers, "1"));
            Work::Udp {
                size: size.parse().ok()?,
                flows: flows.parse().ok().filter(|&flows| flows > 0)?,
            }
        }
    })
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Tcp(Streams::One) => f.write_str("tcp1")?,
            Work::Tcp(Streams::Four) => f.write_str("tcp4")?,
            Work::Tcp(Streams::Reverse) => f.write_str("tcp1r")?,
            Work::Tcp(Streams::Both) => f.write_str("bidir")?,
            Work::Udp { size, flows: 1 } => write!(f, "udp{size}")?,
            Work::Udp { size, flows } => write!(f, "udp{size}f{flows}")?,
            Work::Ping { loaded: false } => f.write_str("ping")?,
            Work::Ping { loaded: true } => f.write_str("pingload")?,
            Work::Connects => f.write_str("connects")?,
            Work::Handshakes => f.write_str("handshakes")?,
        }
        match self.variant {
            Variant {
                without_offloads: true,
                ..
            } => f.write_str("off"),
            Variant { peers, .. } if peers == 0 || self.is_plain_handshakes() => Ok(()),
            Variant { peers, .. } => write!(f, "p{peers}"),
        }
    }
}

impl Case {
    fn is_plain_handshakes(&self) -> bool {
        self.work == Work::Handshakes && self.variant.peers == HANDSHAKE_PEERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ALL.split(',').chain(["handshakesp100", "udp1200f4off"]) {
            assert_eq!(name.parse::<Case>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn suffixes_choose_the_world() {
        let case: Case = "pingp100".parse().unwrap();
        assert_eq!(case.variant.peers, 100);
        assert!(!case.variant.without_offloads);
        assert!("tcp4off".parse::<Case>().unwrap().variant.without_offloads);
        assert_eq!("handshakes".parse::<Case>().unwrap().variant.peers, 2000);
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["tcp", "tcp1p", "udp", "udp64f0", "pingpong", ""] {
            assert!(name.parse::<Case>().is_err(), "{name}");
        }
    }
}
