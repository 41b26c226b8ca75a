//! The socket and the clock of [`Caller`].
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use shared::config::common::Endpoint;
use shared::pairing::{Caller, Reply, Request, Token};
use shared_daemon::error::Failure;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

/// How long an answer may take: two handshakes that get lost (whitepaper §6.1, Rekey-Timeout), and the third.
const PATIENCE: Duration = Duration::from_secs(12);
/// Longer than any of the gateway's datagrams.
const DATAGRAM_LEN: usize = 2048;

/// With a gateway, as the peer that the token invites.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: UdpSocket,
    remote: SocketAddr,
    caller: Caller,
}

impl Conversation {
    /// Nothing is sent yet.
    pub(super) async fn open(token: &Token) -> Result<Self, Failure> {
        let remote = resolve(&token.endpoint).await?;
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let opened = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(remote).await?;
            Ok(socket)
        };
        let socket = opened.await.map_err(|error: std::io::Error| {
            Failure::Environment(format!("there is no way to {remote}: {error}"))
        })?;
        Ok(Self {
            socket,
            remote,
            caller: Caller::new(token, remote, Instant::now()),
        })
    }

    /// Ask, and wait for the answer.
    ///
    /// # Errors
    /// There was none in time.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        let end = Instant::now() + PATIENCE;
        self.caller.ask(request, Instant::now());
        let mut buffer = vec![0; DATAGRAM_LEN];
        loop {
            for datagram in self.caller.take_datagrams() {
                // What can't be sent now is sent again; if it never can, that is no answer.
                let _again_later = self.socket.send(&datagram).await;
            }
            let now = Instant::now();
            if now >= end {
                return Err(self.silence(now));
            }
            let due = self.caller.poll_timeout().map_or(end, |due| due.min(end));
            let wait = due.saturating_duration_since(now);
            match timeout(wait, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if let Some(reply) = self.caller.handle_datagram(datagram, Instant::now()) {
                        return Ok(reply);
                    }
                }
                // An ICMP error: somebody may answer later.
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(_) => {}
            }
            self.caller.handle_timeout(Instant::now());
        }
    }

    /// Why there is no answer, as far as can be told from here.
    fn silence(&self, now: Instant) -> Failure {
        let (remote, seconds) = (self.remote, PATIENCE.as_secs());
        Failure::Other(if self.caller.is_connected(now) {
            format!(
                "the gateway at {remote} knows the token, but does not answer in {seconds} s; does `gateway run` say that \
                 no LAN host can join? Run this again: the token may be used by this host as often as needed"
            )
        } else {
            format!(
                "no answer from {remote} in {seconds} s. Either nobody listens there (does `gateway run` run, and does \
                 every firewall in front of it let this UDP port in?), or the token is over: a newer one was made for the \
                 same LAN server, or it was taken back (`gateway invite NAME` makes a new one)"
            )
        })
    }
}

async fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, Failure> {
    let (host, port) = match endpoint {
        Endpoint::Address(address) => return Ok(*address),
        Endpoint::Name { host, port } => (host.as_str(), *port),
    };
    let found = lookup_host((host, port)).await.map_err(|error| {
        Failure::Environment(format!("{host}: the name can't be resolved: {error}"))
    })?;
    let addresses: Vec<SocketAddr> = found.collect();
    addresses
        .first()
        .copied()
        .ok_or_else(|| Failure::Environment(format!("{host}: the name has no address")))
}
