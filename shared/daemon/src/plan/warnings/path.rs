//! What the configuration expects, as packets on this host: by which link each comes in and goes out.
use nft::foreign::{Link, Path, Purpose, Tracking, Way};
use shared::config::common::SourceIp;
use shared::plan::host::WayTo;
use shared::plan::{Flow, FlowKind, Host};

use super::Asked;

/// A packet, and what it is to the operator.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// `visitors of ingress`, `answers to visitors of ingress`.
    pub(crate) name: String,
    pub(crate) path: Path,
    /// Whether its source must stay as it is.
    pub(crate) is_preserved: bool,
}

/// Each flow, and the answers to it.
pub(crate) fn all(asked: &Asked<'_>, host: &Host) -> Vec<Named> {
    let mut paths = Vec::new();
    for flow in &asked.expected.flows {
        let path = Paths { asked, host }.of(flow);
        let answer = (path.way == Way::Forwarded).then(|| Named {
            name: format!("answers to {}", flow.name),
            path: answer(&path, asked, host),
            is_preserved: false,
        });
        paths.push(Named {
            name: flow.name.clone(),
            is_preserved: path.way == Way::Forwarded && flow.source_ip == SourceIp::Preserve,
            path,
        });
        paths.extend(answer);
    }
    paths
}

struct Paths<'a> {
    asked: &'a Asked<'a>,
    host: &'a Host,
}

impl Paths<'_> {
    fn of(&self, flow: &Flow) -> Path {
        let tunnel = self.asked.settings.interface.clone();
        let wan = self.asked.environment.wan.clone();
        let input = match flow.kind {
            FlowKind::Published { .. } | FlowKind::Datagrams => self.link(wan.as_str()),
            FlowKind::FromTunnel => self.link(tunnel.as_str()),
            FlowKind::DatagramAnswers => {
                let source = flow.source.and_then(|source| self.host.link_to(source));
                source.and_then(|name| self.link(name))
            }
        };
        let way_to = flow.destination.map(|address| self.host.way_to(address));
        let (way, output) = match (flow.kind, way_to) {
            (FlowKind::Published { .. }, _) => (Way::Forwarded, self.link(tunnel.as_str())),
            (FlowKind::FromTunnel, Some(WayTo::By(route))) => {
                let name = route.link.as_deref();
                (Way::Forwarded, name.and_then(|name| self.link(name)))
            }
            (FlowKind::FromTunnel, Some(WayTo::Nowhere)) => (Way::Forwarded, None),
            (FlowKind::FromTunnel, Some(WayTo::Here) | None)
            | (FlowKind::Datagrams | FlowKind::DatagramAnswers, _) => (Way::Received, None),
        };
        Path {
            purpose: match flow.kind {
                FlowKind::Published { .. } => Purpose::Published { wan, tunnel },
                FlowKind::FromTunnel => Purpose::FromTunnel(tunnel),
                FlowKind::Datagrams => Purpose::Datagrams(flow.port.unwrap_or_default()),
                FlowKind::DatagramAnswers => Purpose::DatagramAnswers,
            },
            way,
            input,
            output,
            family: flow.family,
            protocol: flow.protocol,
            source: flow.source,
            source_port: None,
            destination: flow.destination,
            destination_port: flow.port,
            tracking: match flow.kind {
                FlowKind::Published { .. } | FlowKind::FromTunnel => Tracking::New,
                FlowKind::Datagrams => Tracking::Untracked,
                FlowKind::DatagramAnswers => Tracking::Answer,
            },
            called_port: match flow.kind {
                FlowKind::Published { called_port } => Some(called_port),
                FlowKind::FromTunnel | FlowKind::Datagrams | FlowKind::DatagramAnswers => None,
            },
            masqueraded: flow.source_ip != SourceIp::Preserve,
            way_back: flow.source.and_then(|source| way_back(self.host, source)),
        }
    }

    fn link(&self, name: &str) -> Option<Link> {
        link(self.host, name)
    }
}

/// The same connection from the other side.
fn answer(path: &Path, asked: &Asked<'_>, host: &Host) -> Path {
    let tunnel = asked.settings.interface.clone();
    let comes_from_tunnel = path.output.as_ref().is_some_and(|link| link.name == tunnel);
    Path {
        purpose: if comes_from_tunnel {
            Purpose::FromTunnel(tunnel)
        } else {
            Purpose::ToTunnel(tunnel)
        },
        input: path.output.clone(),
        output: path.input.clone(),
        source: path.destination,
        source_port: path.destination_port,
        destination: path.source,
        destination_port: path.source_port,
        tracking: Tracking::Answer,
        way_back: path.destination.and_then(|source| way_back(host, source)),
        ..path.clone()
    }
}

/// `None` for a name that no link can have.
fn link(host: &Host, name: &str) -> Option<Link> {
    Some(Link {
        name: name.parse().ok()?,
        index: host.links.get(name).copied(),
    })
}

fn way_back(host: &Host, source: std::net::IpAddr) -> Option<u32> {
    host.links.get(host.link_to(source)?).copied()
}
