//! Sockets of others where ours have to be, or whose callers will be sent elsewhere.
use std::net::{IpAddr, SocketAddr};

use shared::api::plan::PlanWarning;
use shared::config::common::Protocol;
use shared::plan::desired::protocol;
use shared_os::sockets::Listener;

use super::Asked;
use crate::model::PublishModel;

/// Those that somebody else listens on. `owner` names the process of a socket.
pub(super) fn taken(
    asked: &Asked<'_>,
    listeners: &[Listener],
    owner: impl Fn(u64) -> Option<String>,
) -> Vec<PlanWarning> {
    let of = |listener: &Listener| {
        let owner = owner(listener.inode);
        owner.unwrap_or_else(|| "another process".to_owned())
    };
    let warning = |protocol: Protocol, port: u16, text: String| PlanWarning {
        name: "port_taken".to_owned(),
        subject: format!("{protocol} {port}"),
        text,
        remedy: None,
    };
    let mut found: Vec<PlanWarning> = Vec::new();
    if let Some(listener) = on_listen_port(asked, listeners) {
        let port = listener.address.port();
        let text = format!(
            "{} has UDP port {port}, which the tunnel is to listen on: stop it, or choose another listen_port",
            of(listener)
        );
        found.push(warning(Protocol::Udp, port, text));
    }
    if let Some(listener) = on_admin_listen(asked, listeners) {
        let text = format!(
            "{} listens on {}, where the admin API is to: stop it, or choose another [admin] listen",
            of(listener),
            listener.address
        );
        found.push(warning(Protocol::Tcp, listener.address.port(), text));
    }
    for (publish, listener) in under_publishes(asked, listeners) {
        let text = format!(
            "{} listens on {} {}: whoever calls it from the internet comes to {} instead",
            of(listener),
            listener.protocol,
            listener.address,
            publish.name
        );
        let warning = warning(listener.protocol, listener.address.port(), text);
        // Both families of one server are told once.
        if !found.iter().any(|other| other.subject == warning.subject) {
            found.push(warning);
        }
    }
    found
}

/// Those on published ports of a gateway.
fn under_publishes<'a>(
    asked: &'a Asked<'_>,
    listeners: &'a [Listener],
) -> impl Iterator<Item = (&'a PublishModel, &'a Listener)> {
    let publishes = asked.publishes.iter();
    let publishes = publishes.filter(|_| asked.desired.protocol == protocol::GATEWAY);
    publishes.flat_map(move |publish| {
        let listeners = listeners.iter();
        let under = listeners.filter(move |listener| {
            let port = listener.address.port();
            let mut ports = publish.ports.iter().map(|map| map.listen);
            listener.protocol == publish.protocol
                && takes(listener.address.ip(), publish.vip)
                && ports.any(|ports| (ports.first..=ports.last).contains(&port))
                && is_public(asked, listener.address.ip())
        });
        under.map(move |listener| (publish, listener))
    })
}

/// Whether a socket at this address takes callers of the service's family: one for all of IPv6 mostly takes both.
fn takes(address: IpAddr, vip: IpAddr) -> bool {
    address.is_ipv4() == vip.is_ipv4() || (address.is_ipv6() && address.is_unspecified())
}

/// Unless our own device has it.
fn on_listen_port<'a>(asked: &Asked<'_>, listeners: &'a [Listener]) -> Option<&'a Listener> {
    let port = asked.settings.listen_port;
    let device = asked.running.device;
    if port == 0 || device.is_some_and(|device| device.listen_port == port) {
        return None;
    }
    let mut listeners = listeners.iter();
    listeners.find(|of| of.protocol == Protocol::Udp && of.address.port() == port)
}

/// Unless our own daemon listens there.
fn on_admin_listen<'a>(asked: &Asked<'_>, listeners: &'a [Listener]) -> Option<&'a Listener> {
    let wanted: SocketAddr = asked.settings.admin_listen?;
    let now = asked.running.settings.and_then(|now| now.admin_listen);
    if now == Some(wanted) {
        return None;
    }
    let mut listeners = listeners.iter();
    listeners.find(|of| {
        of.protocol == Protocol::Tcp
            && of.address.port() == wanted.port()
            && (of.address.ip() == wanted.ip() || of.address.ip().is_unspecified())
    })
}

/// Whether callers from the internet reach it: not where it listens inside of the tunnel or for this host alone.
fn is_public(asked: &Asked<'_>, address: IpAddr) -> bool {
    let mut addresses = asked.desired.addresses.iter();
    !address.is_loopback() && !addresses.any(|ours| ours.address == address)
}
