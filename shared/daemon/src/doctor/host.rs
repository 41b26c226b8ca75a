//! What all paths have in common on this host.
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use nft::foreign::{Obstacle, Purpose};
use shared::api::diagnosis::{Hop, HopKind};
use shared::config::common::Endpoint;
use shared::plan::flow::ANYBODY4;
use shared::plan::host::WayTo;
use shared_os::udp::connected;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::hop::{failed, ok, skipped, warning};
use super::{Scene, daemon};
use crate::plan::warnings::firewall::doubt;
use crate::plan::warnings::path::Named;

/// How long a name may take.
const RESOLVING: Duration = Duration::from_secs(1);

pub(super) async fn hops(scene: &Scene, paths: &[Named]) -> Vec<Hop> {
    vec![
        daemon(scene),
        kernel(scene),
        uplink(scene).await,
        datagrams(scene, paths),
    ]
}

fn kernel(scene: &Scene) -> Hop {
    if scene.deviations.is_empty() && !scene.fought.is_empty() {
        // Seen in a good moment.
        return warning(
            HopKind::Kernel,
            &scene.host_name,
            scene.fought.join("; "),
            "`GET /v1/drift` and the log name suspects",
        );
    }
    if scene.deviations.is_empty() {
        let evidence =
            "links, addresses, routes, rules, sysctls and the firewall table are as configured";
        return ok(HopKind::Kernel, &scene.host_name, evidence);
    }
    failed(
        HopKind::Kernel,
        &scene.host_name,
        scene.deviations.join("; "),
        "the daemon puts it right within 2 s; when it does not stay so, find who changes it: `GET /v1/drift` and the log name \
         suspects",
    )
}

/// The way to the public address of each other end.
async fn uplink(scene: &Scene) -> Hop {
    let wan = scene.host.link_to(ANYBODY4.into());
    let wan = wan.unwrap_or_else(|| {
        if scene.is_gateway() {
            scene.environment.wan.as_str()
        } else {
            // No rule of a LAN host is for a certain link, so that none is known beforehand.
            &scene.host_name
        }
    });
    if is_down(wan) {
        return failed(
            HopKind::Uplink,
            wan,
            format!("the link {wan} is down"),
            format!(
                "ip link set {wan} up, or look at what it is plugged into; then at the default route (`ip route`)"
            ),
        );
    }
    let targets = match targets(scene).await {
        Ok(targets) => targets,
        Err(why) => {
            let remedy = "look at the resolver of this host (`getent ahosts NAME`)";
            return failed(HopKind::Uplink, wan, why, remedy);
        }
    };
    let remedy = "look at the link and the default route of this host (`ip link`, `ip route`)";
    let mut ways = Vec::new();
    for (name, target) in targets {
        let way = connected(target, scene.settings.fwmark).and_then(|socket| socket.local_addr());
        match way {
            Ok(source) => ways.push(format!("to {name} at {target} from {}", source.ip())),
            Err(error) => {
                let evidence = format!("there is no way to {name} at {target}: {error}");
                return failed(HopKind::Uplink, wan, evidence, remedy);
            }
        }
    }
    if !ways.is_empty() {
        return ok(HopKind::Uplink, wan, ways.join(", "));
    }
    // Nobody has called yet, so that it is not known where they are.
    match scene.host.way_to(ANYBODY4.into()) {
        WayTo::By(route) => ok(
            HopKind::Uplink,
            wan,
            format!("`{route}` leads to the internet"),
        ),
        WayTo::Here | WayTo::Nowhere => {
            let evidence = "there is no default route";
            failed(HopKind::Uplink, wan, evidence, remedy)
        }
    }
}

/// Whether it is switched off or has no carrier. Routes by a link without carrier stay, and lead nowhere
/// (Documentation/ABI/testing/sysfs-class-net).
fn is_down(link: &str) -> bool {
    let state = fs::read_to_string(format!("/sys/class/net/{link}/operstate"));
    state.is_ok_and(|state| ["down", "lowerlayerdown"].contains(&state.trim()))
}

/// Where the other ends are, as far as it is known.
async fn targets(scene: &Scene) -> Result<Vec<(String, SocketAddr)>, String> {
    let device = scene.control.status().await.ok();
    let mut targets = Vec::new();
    for far_end in &scene.expected.far_ends {
        let target = match &far_end.endpoint {
            Some(Endpoint::Address(address)) => Some(*address),
            Some(Endpoint::Name { host, port }) => Some(resolved(host, *port).await?),
            None => {
                let key = scene.peer(far_end).map(|peer| peer.public_key);
                let peers = device.iter().flat_map(|device| &device.peers);
                let mut peers = peers.filter(|peer| Some(peer.public_key) == key);
                peers.next().and_then(|peer| peer.endpoint)
            }
        };
        targets.extend(target.map(|target| (far_end.name.clone(), target)));
    }
    Ok(targets)
}

async fn resolved(host: &str, port: u16) -> Result<SocketAddr, String> {
    match timeout(RESOLVING, lookup_host((host, port))).await {
        Ok(Ok(mut found)) => found
            .next()
            .ok_or_else(|| format!("`{host}` has no address")),
        Ok(Err(error)) => Err(format!("`{host}` can't be resolved: {error}")),
        Err(_) => Err(format!("`{host}` is not resolved within a second")),
    }
}

fn datagrams(scene: &Scene, paths: &[Named]) -> Hop {
    let of = &format!("udp {}", scene.settings.listen_port);
    let of = if scene.settings.listen_port == 0 {
        "udp"
    } else {
        of
    };
    let is_ours = |named: &&Named| {
        matches!(
            named.path.purpose,
            Purpose::Datagrams(_) | Purpose::DatagramAnswers
        )
    };
    let ours: Vec<&Named> = paths.iter().filter(is_ours).collect();
    let fine = "no firewall of others on this host drops the tunnel's datagrams";
    past_others(scene, HopKind::Datagrams, of, &ours, fine)
}

/// What chains of others do with these packets.
pub(super) fn past_others(
    scene: &Scene,
    hop: HopKind,
    of: &str,
    paths: &[&Named],
    fine: &str,
) -> Hop {
    let foreign = match &scene.foreign {
        Ok(foreign) => foreign,
        Err(why) => {
            return skipped(
                hop,
                of,
                format!("the tables of others can't be read: {why}"),
            );
        }
    };
    let mut found: Vec<(&str, Obstacle)> = Vec::new();
    for named in paths {
        for obstacle in foreign.obstacles(&named.path) {
            if !found.iter().any(|(_, other)| *other == obstacle) {
                found.push((&named.name, obstacle));
            }
        }
    }
    if found.is_empty() {
        return ok(hop, of, fine);
    }
    let told = found.iter();
    let told = told.map(|(name, obstacle)| format!("{name}: {obstacle}{}", doubt(obstacle)));
    let evidence = told.collect::<Vec<_>>().join("; ");
    let mut remedies: Vec<&str> = Vec::new();
    for (_, obstacle) in &found {
        if !remedies.contains(&obstacle.remedy.as_str()) {
            remedies.push(&obstacle.remedy);
        }
    }
    let remedy = remedies.join("\n");
    if found.iter().any(|(_, obstacle)| obstacle.certain) {
        failed(hop, of, evidence, remedy)
    } else {
        warning(hop, of, evidence, remedy)
    }
}
