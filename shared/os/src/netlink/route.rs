//! Routes.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use shared::model::InterfaceName;
use shared::plan::actual::{MAIN_TABLE, UNICAST};
use shared::plan::{LiveRoute, Route};

use super::RequestError;
use super::connection::Connection;
use super::link::Names;

/// All routes of both families, cached ones excepted.
pub(super) async fn all(
    connection: &mut Connection,
    names: &Names,
) -> Result<Vec<LiveRoute>, RequestError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let messages = super::read::dump(connection, Message::GetRoute(request)).await?;
        let parsed = messages
            .iter()
            .filter_map(|message| parse(message, family, names));
        routes.extend(parsed);
    }
    Ok(routes)
}

/// The link of the default route with the lowest metric, IPv4 first.
pub(super) fn default_link(routes: &[LiveRoute]) -> Option<InterfaceName> {
    let best = |ipv4: bool| {
        routes
            .iter()
            .filter(|route| route.destination.is_ipv4() == ipv4 && route.destination.prefix() == 0)
            .filter(|route| route.table == MAIN_TABLE && route.route_type == UNICAST)
            .min_by_key(|route| route.metric)
    };
    let link = |route: &LiveRoute| route.link.as_ref()?.parse().ok();
    best(true)
        .and_then(link)
        .or_else(|| best(false).and_then(link))
}

/// The message that adds a route.
pub(super) fn message(route: &Route, index: u32, protocol: u8) -> RouteMessage {
    let mut message = header(route.destination, route.table, protocol);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.destination {
        IpNetwork::V4(_) => RouteScope::Link, // no next hop
        IpNetwork::V6(_) => RouteScope::Universe,
    };
    message.attributes.push(RouteAttribute::Oif(index));
    let source = route
        .source
        .map(|source| RouteAttribute::PrefSource(source.into()));
    message.attributes.extend(source);
    message
}

/// The message that removes exactly this route. `index` is that of its link.
pub(super) fn live_message(route: &LiveRoute, index: Option<u32>) -> RouteMessage {
    let mut message = header(route.destination, route.table, route.protocol);
    message.header.kind = RouteType::from(route.route_type);
    message.header.scope = RouteScope::NoWhere; // whichever it has
    message.header.tos = route.tos;
    let attributes = &mut message.attributes;
    attributes.extend(index.map(RouteAttribute::Oif));
    attributes.extend(
        route
            .gateway
            .map(|gateway| RouteAttribute::Gateway(gateway.into())),
    );
    attributes.extend(
        route
            .source
            .map(|source| RouteAttribute::PrefSource(source.into())),
    );
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn header(destination: IpNetwork, table: u32, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match destination {
        IpNetwork::V4(_) => AddressFamily::Inet,
        IpNetwork::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = destination.prefix();
    message.header.protocol = RouteProtocol::from(protocol);
    // The attribute wins over the header, whose field has only 8 bits.
    message.attributes.push(RouteAttribute::Table(table));
    if destination.prefix() > 0 {
        let network = destination.network();
        message
            .attributes
            .push(RouteAttribute::Destination(network.into()));
    }
    message
}

/// A kernel without IPv6 answers with what it has: the family is checked.
fn parse(message: &Message, family: AddressFamily, names: &Names) -> Option<LiveRoute> {
    let Message::NewRoute(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.address_family != family || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut destination = unspecified(family)?;
    let mut route = LiveRoute {
        destination: IpNetwork::new(destination, 0).ok()?,
        table: u32::from(header.table),
        link: None,
        gateway: None,
        source: None,
        metric: 0,
        tos: header.tos,
        protocol: header.protocol.into(),
        route_type: header.kind.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(index) => route.link = names.get(index).cloned(),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    route.destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(route)
}

const fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
