//! What this program does inside a node, started by itself: senders, sinks, callers. Each prints its figures as numbers in
//! one line.
mod blast;
mod connect;
mod dial;
mod sink;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shared::model::PublicKey;

/// A part to play in a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Helper {
    /// Send datagrams at a rate; prints how many were sent and in how many seconds.
    #[command(hide = true)]
    Blast {
        /// Where to.
        to: SocketAddrV4,
        /// Bytes of payload.
        size: usize,
        /// Datagrams per second; 0 sends what it can.
        rate: f64,
        /// For how long.
        seconds: f64,
        /// Sockets that take turns.
        flows: usize,
    },
    /// Hold a UDP port and read nothing, close TCP connections at once.
    #[command(hide = true)]
    Sink {
        /// The UDP port.
        udp: u16,
        /// The TCP port.
        tcp: u16,
    },
    /// Open TCP connections again and again; prints how many were opened, how many failed, and in how many seconds.
    #[command(hide = true)]
    Connect {
        /// Where to.
        to: SocketAddrV4,
        /// Clients at a time.
        clients: usize,
        /// For how long.
        seconds: f64,
    },
    /// Shake hands again and again; prints responses, cookie replies, initiations without
    /// answer and seconds, first of one handshake each, then of the time asked for.
    #[command(hide = true)]
    Dial {
        /// The responder.
        to: SocketAddrV4,
        /// Its key.
        key: PublicKey,
        /// A file with a private key a line.
        keys: PathBuf,
        /// The address of the first key; the others follow.
        first: Ipv4Addr,
        /// Handshakes that are under way at a time.
        in_flight: usize,
        /// For how long.
        seconds: f64,
    },
}

impl Helper {
    /// Play it to its end.
    pub(crate) fn run(&self) -> Result<String> {
        match self {
            Self::Blast {
                to,
                size,
                rate,
                seconds,
                flows,
            } => blast::run(*to, *size, *rate, duration(*seconds)?, *flows),
            Self::Sink { udp, tcp } => sink::run(*udp, *tcp),
            Self::Connect {
                to,
                clients,
                seconds,
            } => connect::run(*to, *clients, duration(*seconds)?),
            Self::Dial {
                to,
                key,
                keys,
                first,
                in_flight,
                seconds,
            } => {
                raise_open_files()?;
                let mut callers = dial::callers(*to, key, keys, *first)?;
                // Every key once before the clock starts: where cookies are demanded, each has one then.
                let first = dial::run(&mut callers, *in_flight, dial::Until::EachOnce)?;
                let time = dial::Until::Elapsed(duration(*seconds)?);
                Ok(format!(
                    "{first} {}",
                    dial::run(&mut callers, *in_flight, time)?
                ))
            }
        }
    }
}

fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).context("not a time")
}

/// As many open files as this process may have.
fn raise_open_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
