//! What has to pass the firewalls of others on this host: one connection of each kind that the configuration asks for.
use std::net::IpAddr;

use shared::config::common::{AddressSet, Endpoint, PortRange, Protocol, SourceIp};
use shared::config::lan_server::{Access, Gateway, LanServer, Publish};
use shared::plan::flow::{host_of, one_of};
use shared::plan::ruleset::Family;
use shared::plan::{Flow, FlowKind};
use shared_daemon::model::Environment;
use shared_daemon::policy;
use shared_daemon::product::{Expected, FarEnd};

/// Ports of a service that are looked at.
const PORTS: usize = 4;

/// All of it.
pub(crate) fn expected(config: &LanServer, environment: &Environment) -> Expected {
    let sets = policy::sets_now(&config.sets, environment);
    let mut flows: Vec<Flow> = config.gateways.iter().filter_map(datagrams).collect();
    let of_publishes = config.publishes.iter();
    flows.extend(of_publishes.flat_map(|publish| published(publish, &sets)));
    let of_access = config.access.iter();
    flows.extend(of_access.filter_map(|access| reached(config, access)));
    let gateways = config.gateways.iter();
    let far_ends = config.gateways.iter().map(|gateway| FarEnd {
        name: gateway.name.clone(),
        addresses: gateway.addresses.clone(),
        endpoint: Some(gateway.endpoint.clone()),
        networks: gateway.networks.clone(),
    });
    Expected {
        flows,
        endpoints: gateways.map(|gateway| gateway.endpoint.clone()).collect(),
        far_ends: far_ends.collect(),
    }
}

/// What a gateway sends us: we have called it. Where it is by name, its address is found out elsewhere.
fn datagrams(gateway: &Gateway) -> Option<Flow> {
    let Endpoint::Address(address) = gateway.endpoint else {
        return None;
    };
    Some(Flow {
        name: "the tunnel's own datagrams".to_owned(),
        kind: FlowKind::DatagramAnswers,
        protocol: Protocol::Udp,
        source: Some(address.ip()),
        destination: None,
        port: None,
        source_ip: SourceIp::Preserve,
        family: Family::of(address.ip()),
    })
}

/// The first ports of a service; of a range, its first one.
fn published(publish: &Publish, sets: &[AddressSet]) -> Vec<Flow> {
    let family = Family::of(publish.vip);
    let Some(source) = one_of(&publish.from, sets, family) else {
        return Vec::new();
    };
    let ports = publish.ports.iter().take(PORTS);
    let flow = |ports: &PortRange| Flow {
        name: format!("visitors of {}", publish.name),
        kind: FlowKind::FromTunnel,
        protocol: publish.protocol,
        source: Some(source),
        destination: Some(publish.vip),
        port: Some(ports.first),
        source_ip: publish.source_ip,
        family,
    };
    ports.map(flow).collect()
}

/// The first service of an entry, called by the gateway's own address.
fn reached(config: &LanServer, access: &Access) -> Option<Flow> {
    let service = access.to.first()?;
    let family = Family::of_network(service.network);
    let mut callers = config
        .gateways
        .iter()
        .flat_map(|gateway| &gateway.addresses);
    let caller: &IpAddr = callers.find(|address| Family::of(**address) == family)?;
    let destination = host_of(service.network);
    Some(Flow {
        name: format!("tunnel peers that call {destination}"),
        kind: FlowKind::FromTunnel,
        protocol: service.protocol,
        source: Some(*caller),
        destination: Some(destination),
        port: Some(service.ports.first),
        source_ip: access.source_ip,
        family,
    })
}
