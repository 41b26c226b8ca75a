//! Addresses.
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use shared::plan::Address;

use super::RequestError;
use super::connection::Connection;
use super::link::Names;

/// An address of this host, on a link of any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    /// Name of the link.
    pub link: String,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_len: u8,
}

impl LocalAddress {
    /// The same, if we accept the name of the link.
    pub(super) fn into_plan(self) -> Option<Address> {
        Some(Address {
            link: self.link.parse().ok()?,
            address: self.address,
            prefix_len: self.prefix_len,
        })
    }
}

/// All addresses of links in `names`.
pub(super) async fn all(
    connection: &mut Connection,
    names: &Names,
) -> Result<Vec<LocalAddress>, RequestError> {
    let messages = connection
        .dump(Message::GetAddress(AddressMessage::default()))
        .await?;
    Ok(messages
        .iter()
        .filter_map(|message| parse(message, names))
        .collect())
}

fn parse(message: &Message, names: &Names) -> Option<LocalAddress> {
    let Message::NewAddress(message) = message else {
        return None;
    };
    let mut local = None;
    let mut other = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the far end's.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    Some(LocalAddress {
        link: names.get(&message.header.index)?.clone(),
        address: local.or(other)?,
        prefix_len: message.header.prefix_len,
    })
}

/// The message that adds or removes an address.
pub(super) fn message(address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(address.address),
        AddressAttribute::Address(address.address),
    ];
    message.header.family = match address.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => {
            // Nobody on a tunnel answers duplicate address detection (RFC 4862 §5.4), and a tentative address can't be
            // the source of a route.
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
            AddressFamily::Inet6
        }
    };
    message
}
