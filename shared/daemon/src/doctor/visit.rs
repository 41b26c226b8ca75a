//! A connection to one port of a service, as a visitor's would be, and whether answers to visitors come back.
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shared::api::diagnosis::{Hop, HopKind, ProbeRequest, Verdict};
use shared::config::common::SourceIp;
use shared::plan::flow::{ANYBODY4, ANYBODY6};
use shared_os::udp::connected;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::hop::{failed, ok, shown_as, skipped, timed};
use super::{Scene, web};

/// How long a connection may take. That nobody has the address is known after three requests of a second each
/// (`net.ipv4.neigh.*.mcast_solicit`, `retrans_time_ms`).
const PATIENCE: Duration = Duration::from_millis(3500);

/// How long an answer may take to come back when the service has answered this host already.
const REPLY_PATIENCE: Duration = Duration::from_millis(1300);

/// One port.
#[derive(Debug)]
pub(super) struct Target {
    /// `ingress 10.17.5.30:443`.
    pub(super) of: String,
    pub(super) address: SocketAddr,
    pub(super) source_ip: SourceIp,
}

pub(super) async fn hops(scene: &Scene, target: &Target, request: &ProbeRequest) -> Vec<Hop> {
    let began = Instant::now();
    let connected = match timeout(PATIENCE, TcpStream::connect(target.address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => return vec![timed(no_connection(scene, target, &error), began.elapsed())],
    };
    let evidence = "it takes connections";
    let connection = ok(HopKind::Connection, &target.of, evidence);
    let mut hops = vec![timed(connection, began.elapsed())];
    let (reply, of_web) = tokio::join!(reply(scene, target), web::hops(target, stream, request));
    hops.extend(reply);
    hops.extend(of_web);
    hops
}

fn no_connection(scene: &Scene, target: &Target, error: &io::Error) -> Hop {
    let Target { of, address, .. } = target;
    let vip = address.ip();
    let lan = || {
        let mut far_ends = scene.expected.far_ends.iter();
        let behind = far_ends.find(|far_end| {
            let mut networks = far_end.networks.iter();
            networks.any(|network| network.contains(vip))
        });
        let name = behind.map_or("the LAN host", |far_end| &far_end.name);
        scene.at_the_other_end(name)
    };
    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
    let is_unreachable = matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    );
    let (evidence, remedy) = if is_refused {
        (
            format!("{address} refuses connections: nobody listens there, or a firewall says so"),
            format!(
                "start the service, or publish the port that it has (`ss -lnt` where {vip} is)"
            ),
        )
    } else if is_unreachable && scene.is_gateway() {
        let evidence = format!("behind the tunnel {vip} can't be reached: {error}");
        (evidence, lan())
    } else if is_unreachable {
        (
            format!("no host answers for {vip}: {error}"),
            "does the host run that has the VIP, and does it hold it (`ip addr`, keepalived)?"
                .to_owned(),
        )
    } else if error.kind() == io::ErrorKind::TimedOut {
        let evidence = format!(
            "no answer from {address} within {} s",
            PATIENCE.as_secs_f32()
        );
        let remedy = if scene.is_gateway() {
            lan()
        } else {
            format!("look at the firewall of the host that has {vip}, and at its route to this one")
        };
        (evidence, remedy)
    } else {
        (
            format!("no connection to {address}: {error}"),
            "look at routes and firewall of this host".to_owned(),
        )
    };
    let hop = failed(HopKind::Connection, of, evidence, remedy);
    if is_refused {
        shown_as(hop, Some(521))
    } else {
        hop
    }
}

/// At the LAN end: where the service sends its answers to those who are not in its network. It has answered this host already, with
/// an address that lies next to it; now it is called by another address of this host, which it reaches as it reaches visitors, and
/// only what comes by its own link counts.
async fn reply(scene: &Scene, target: &Target) -> Option<Hop> {
    if scene.is_gateway() || target.source_ip != SourceIp::Preserve {
        return None;
    }
    let vip = target.address.ip();
    let of = &target.of;
    let link = scene.host.link_to(vip)?;
    let anybody: IpAddr = if vip.is_ipv4() {
        ANYBODY4.into()
    } else {
        ANYBODY6.into()
    };
    let uplink = scene.host.link_to(anybody);
    let source = connected(SocketAddr::new(anybody, 9), 0).and_then(|socket| socket.local_addr());
    let (Some(uplink), Ok(source)) = (uplink, source) else {
        let why = "this host has no address but those next to the VIP to call from";
        return Some(skipped(HopKind::Reply, of, why));
    };
    if uplink == link {
        let why = format!("VIP and internet are both behind {link}: only a visitor can tell");
        return Some(skipped(HopKind::Reply, of, why));
    }
    let began = Instant::now();
    let answered = timeout(REPLY_PATIENCE, call_from(source.ip(), link, target.address)).await;
    let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let hop = match answered {
        Ok(()) => {
            let evidence = format!("its answers to {} come back by {link}", source.ip());
            ok(HopKind::Reply, of, evidence)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            skipped(HopKind::Reply, of, error.to_string())
        }
        Err(error) => failed(
            HopKind::Reply,
            of,
            format!(
                "it answers its neighbours, but its answers to {} do not come back by {link} ({error}): those to visitors, whose \
                 addresses are preserved, will not either",
                source.ip()
            ),
            format!(
                "on the host that has {vip}: a default route by this host's address on {link}, or one for what comes from \
                 {vip} (docs/operations.md); or `source_ip = \"masquerade\"` on both ends, which hides visitors"
            ),
        ),
    };
    Some(if hop.verdict == Verdict::Skipped {
        hop
    } else {
        timed(hop, began.elapsed())
    })
}

async fn call_from(source: IpAddr, link: &str, target: SocketAddr) -> io::Result<()> {
    let socket = if source.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind_device(Some(link.as_bytes()))?;
    socket.bind(SocketAddr::new(source, 0))?;
    match socket.connect(target).await {
        Ok(_closed_at_once) => Ok(()),
        // It has come back: a service may take one caller at a time.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
