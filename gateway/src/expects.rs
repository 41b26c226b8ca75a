//! What has to pass the firewalls of others on this host: one connection of each kind that the configuration asks for.
use std::net::IpAddr;

use shared::config::common::{
    AddressSet, Endpoint, PortMap, PortRange, Protocol, Service, SourceIp,
};
use shared::config::gateway::{Gateway, Publish, Role};
use shared::plan::flow::{host_of, one_of};
use shared::plan::ruleset::Family;
use shared::plan::{Flow, FlowKind};
use shared_daemon::model::Environment;
use shared_daemon::policy;
use shared_daemon::product::{Expected, FarEnd};

/// Ports of a service that are looked at.
const PORTS: usize = 4;

/// All of it.
pub(crate) fn expected(config: &Gateway, environment: &Environment) -> Expected {
    let sets = policy::sets_now(&config.sets, environment);
    let of_publishes = config.publishes.iter();
    let of_publishes = of_publishes.flat_map(|publish| published(publish, &sets));
    let of_roles = config.roles.iter().filter_map(|role| reached(config, role));
    let mut flows = vec![datagrams(config)];
    flows.extend(of_publishes);
    flows.extend(of_roles);
    flows.extend(admin(config));
    let far_ends = config.lan_servers.iter().map(|lan| FarEnd {
        name: lan.name.clone(),
        addresses: lan.addresses.clone(),
        endpoint: None,
        networks: lan.networks.clone(),
    });
    Expected {
        flows,
        endpoints: vec![config.wan.endpoint.clone()],
        far_ends: far_ends.collect(),
    }
}

fn datagrams(config: &Gateway) -> Flow {
    let family = match config.wan.endpoint {
        Endpoint::Address(address) => Family::of(address.ip()),
        Endpoint::Name { .. } => Family::Ipv4,
    };
    Flow {
        name: "the tunnel's own datagrams".to_owned(),
        kind: FlowKind::Datagrams,
        protocol: Protocol::Udp,
        source: None,
        destination: None,
        port: Some(config.tunnel.listen_port),
        source_ip: SourceIp::Preserve,
        family,
    }
}

/// The first ports of a service; of a range, its first one.
fn published(publish: &Publish, sets: &[AddressSet]) -> Vec<Flow> {
    let family = Family::of(publish.vip);
    let Some(source) = one_of(&publish.allow, sets, family) else {
        return Vec::new();
    };
    let ports = publish.ports.iter().take(PORTS);
    let flow = |ports: &PortMap| Flow {
        name: format!("visitors of {}", publish.name),
        kind: FlowKind::Published {
            called_port: ports.listen.first,
        },
        protocol: publish.protocol,
        source: Some(source),
        destination: Some(publish.vip),
        port: Some(ports.target.first),
        source_ip: publish.source_ip,
        family,
    };
    ports.map(flow).collect()
}

/// The first service of a role, called by somebody in the tunnel.
fn reached(config: &Gateway, role: &Role) -> Option<Flow> {
    let service = role.allow.first()?;
    let family = Family::of_network(service.network);
    let peers = config.peers.iter();
    let of_role = peers.filter(|peer| peer.role.as_deref() == Some(&role.name));
    let lan_servers = config.lan_servers.iter().flat_map(|lan| &lan.addresses);
    let mut callers = of_role.flat_map(|peer| &peer.addresses).chain(lan_servers);
    let caller = callers.find(|address| Family::of(**address) == family)?;
    Some(from_tunnel(
        format!("peers with the role {}", role.name),
        *caller,
        service,
    ))
}

fn admin(config: &Gateway) -> Option<Flow> {
    let listen = config.admin.listen?;
    let family = Family::of(listen.ip());
    let lan_servers = config.lan_servers.iter().flat_map(|lan| &lan.addresses);
    let mut callers = lan_servers.filter(|address| Family::of(**address) == family);
    let service = Service {
        network: listen.ip().into(),
        ports: PortRange {
            first: listen.port(),
            last: listen.port(),
        },
        protocol: Protocol::Tcp,
    };
    let name = "callers of the admin API".to_owned();
    Some(from_tunnel(name, *callers.next()?, &service))
}

fn from_tunnel(name: String, source: IpAddr, service: &Service) -> Flow {
    Flow {
        name,
        kind: FlowKind::FromTunnel,
        protocol: service.protocol,
        source: Some(source),
        destination: Some(host_of(service.network)),
        port: Some(service.ports.first),
        source_ip: SourceIp::Preserve,
        family: Family::of_network(service.network),
    }
}
