//! The tunnel to one other end: session, echo, path MTU.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shared::api::diagnosis::{Hop, HopKind};
use shared::wg::PeerStatus;
use shared_os::udp::connected;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::hop::{failed, ok, skipped, timed, warning};
use super::{Scene, echo};
use crate::cli::output::span;
use crate::model::{PeerKind, PeerModel};
use crate::product::FarEnd;
use crate::report::is_online;

/// How long a host may take to say that nobody listens.
const REFUSAL: Duration = Duration::from_millis(700);

/// The least that every IPv6 link carries, which a tunnel carries in any case (RFC 8200 §5).
const LEAST_MTU: u16 = 1280;
/// How exact the size is that still comes through.
const STEP: u16 = 20;

impl Scene {
    /// The peer that stands for this end; `None` for a LAN host that has not joined.
    pub(super) fn peer(&self, far_end: &FarEnd) -> Option<&PeerModel> {
        let kind = if self.is_gateway() {
            PeerKind::LanServer
        } else {
            PeerKind::Gateway
        };
        let peers = self.model.peers.iter().map(AsRef::as_ref);
        let mut peers = peers.filter(|peer| peer.kind == kind && peer.name == far_end.name);
        peers.next()
    }

    /// The command that knows more.
    pub(super) fn at_the_other_end(&self, name: &str) -> String {
        let program = if self.is_gateway() {
            "lan-server"
        } else {
            "gateway"
        };
        format!("run `{program} doctor` on {name}")
    }
}

pub(super) async fn hops(scene: &Scene, far_end: &FarEnd) -> Vec<Hop> {
    let name = &far_end.name;
    let Some(peer) = scene.peer(far_end) else {
        return vec![failed(
            HopKind::Session,
            name,
            "it has no key yet: no LAN host has joined under this name",
            format!("`gateway invite {name}` here, `lan-server join` with its token there"),
        )];
    };
    let Some(&address) = far_end.addresses.first() else {
        return Vec::new();
    };
    let ping = echo::ping(address).await;
    let is_alive = matches!(ping, Ok(Some(_)));
    // Afterwards: the echo has made a session where none was.
    let device = scene.control.status().await.ok();
    let peers = device.iter().flat_map(|device| &device.peers);
    let mut peers = peers.filter(|seen| seen.public_key == peer.public_key);
    let Some(seen) = peers.next() else {
        let evidence = "the WireGuard device does not know it";
        return vec![failed(
            HopKind::Session,
            name,
            evidence,
            "look at the log of this daemon",
        )];
    };
    let has_session = is_alive || is_online(seen);
    let silence = if is_alive {
        None
    } else {
        Some(Silence::look(scene, far_end, seen).await)
    };
    let session = session(scene, name, seen, has_session, silence.as_ref());
    let echo = answer(
        scene,
        name,
        address,
        &ping,
        seen,
        silence.filter(|_| has_session),
    );
    let mut hops = vec![session, echo];
    if is_alive {
        hops.push(path_mtu(scene, name, address).await);
    }
    hops
}

/// What is to be said of an end that does not answer.
struct Silence {
    evidence: String,
    remedy: String,
}

impl Silence {
    async fn look(scene: &Scene, far_end: &FarEnd, seen: &PeerStatus) -> Self {
        let there = scene.at_the_other_end(&far_end.name);
        // A port that a peer has called from is open for nobody but us, and not for another socket.
        let (true, Some(endpoint)) = (far_end.endpoint.is_some(), seen.endpoint) else {
            let evidence = seen.endpoint.map_or_else(
                || "it has never called".to_owned(),
                |endpoint| format!("it was last heard at {endpoint}"),
            );
            return Self {
                evidence,
                remedy: there,
            };
        };
        match calls_back(endpoint, scene.settings.fwmark).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self {
                evidence: format!("nobody listens on UDP {endpoint}: that host says so"),
                remedy: format!("start the gateway there, or put its endpoint right here; {there}"),
            },
            Err(error) => Self {
                evidence: format!("{endpoint} can't be reached: {error}"),
                remedy: format!(
                    "look at the way there (`tracepath {}`); {there}",
                    endpoint.ip()
                ),
            },
            Ok(()) => Self {
                evidence: format!("nothing comes back from UDP {endpoint}"),
                remedy: format!(
                    "let UDP to {endpoint} out at the router of this network and in at the firewalls of the VPS and its \
                     provider; are the keys of both ends right? {there}"
                ),
            },
        }
    }
}

/// Whether a host or a router on the way refuses a datagram; silence is no refusal.
async fn calls_back(endpoint: SocketAddr, fwmark: u32) -> io::Result<()> {
    let socket = UdpSocket::from_std(connected(endpoint, fwmark)?)?;
    // Less than any message of WireGuard, so that no daemon answers it.
    socket.send(&[0]).await?;
    match timeout(REFUSAL, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn session(
    scene: &Scene,
    name: &str,
    seen: &PeerStatus,
    has_session: bool,
    silence: Option<&Silence>,
) -> Hop {
    let handshake = handshake(seen);
    if has_session {
        let endpoint = seen.endpoint.map(|endpoint| format!(" with {endpoint}"));
        let evidence = format!("{handshake}{}", endpoint.unwrap_or_default());
        return ok(HopKind::Session, name, evidence);
    }
    let (evidence, remedy) = match silence {
        Some(silence) => (
            format!(
                "{handshake}; {} bytes received, {} sent; {}",
                seen.rx_bytes, seen.tx_bytes, silence.evidence
            ),
            silence.remedy.clone(),
        ),
        None => (handshake, scene.at_the_other_end(name)),
    };
    failed(HopKind::Session, name, evidence, remedy)
}

fn handshake(seen: &PeerStatus) -> String {
    match seen.latest_handshake {
        Some(age) => format!("the last handshake was {} ago", span(age.as_secs())),
        None => "there was no handshake yet".to_owned(),
    }
}

fn answer(
    scene: &Scene,
    name: &str,
    address: IpAddr,
    ping: &io::Result<Option<Duration>>,
    seen: &PeerStatus,
    silence: Option<Silence>,
) -> Hop {
    match (ping, silence) {
        (Ok(Some(took)), _) => timed(ok(HopKind::Ping, name, format!("{address} answers")), *took),
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => Hop {
            remedy: Some("sysctl -w net.ipv4.ping_group_range='0 2147483647'".to_owned()),
            ..skipped(
                HopKind::Ping,
                name,
                "this daemon may not send echoes: its group is not in net.ipv4.ping_group_range, and it has no CAP_NET_RAW",
            )
        },
        (Err(error), _) => failed(
            HopKind::Ping,
            name,
            format!("no echo can be sent to {address}: {error}"),
            "look at routes and firewall of this host",
        ),
        (Ok(None), None) => skipped(HopKind::Ping, name, "there is no session"),
        (Ok(None), Some(silence)) => failed(
            HopKind::Ping,
            name,
            format!(
                "no answer from {address}, although {}; {}",
                handshake(seen),
                silence.evidence
            ),
            if silence.remedy.is_empty() {
                scene.at_the_other_end(name)
            } else {
                silence.remedy
            },
        ),
    }
}

async fn path_mtu(scene: &Scene, name: &str, address: IpAddr) -> Hop {
    let mtu = scene.settings.mtu;
    let lengths: Vec<u16> = lengths(mtu).collect();
    let fits = match echo::largest(address, &lengths).await {
        Ok(fits) => fits,
        Err(error) => return skipped(HopKind::PathMtu, name, error.to_string()),
    };
    match fits {
        Some(length) if length == mtu => {
            let evidence = format!("packets of {mtu} bytes, the tunnel's MTU, come through");
            ok(HopKind::PathMtu, name, evidence)
        }
        Some(length) => failed(
            HopKind::PathMtu,
            name,
            format!(
                "packets of {mtu} bytes, the tunnel's MTU, are lost and nobody says so; {length} bytes come through"
            ),
            format!("`mtu = {length}` in `[tunnel]` of both ends"),
        ),
        None => warning(
            HopKind::PathMtu,
            name,
            format!("no packet of {LEAST_MTU} to {mtu} bytes was answered"),
            "try again; packets are being lost",
        ),
    }
}

/// What is tried, the largest first.
fn lengths(mtu: u16) -> impl Iterator<Item = u16> {
    let steps = (1..).map(move |step| mtu.saturating_sub(step * STEP));
    let below = steps.take_while(|&length| length > LEAST_MTU);
    [mtu]
        .into_iter()
        .chain(below)
        .chain((mtu > LEAST_MTU).then_some(LEAST_MTU))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_is_tried_first_and_then_less_down_to_what_every_link_carries() {
        let of = |mtu| lengths(mtu).collect::<Vec<_>>();
        assert_eq!(of(1330), [1330, 1310, 1290, 1280]);
        assert_eq!(of(1280), [1280]);
        assert_eq!(of(1200), [1200]);
    }
}
