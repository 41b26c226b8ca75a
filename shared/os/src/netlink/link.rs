//! Links.
use std::collections::BTreeMap;

use netlink_packet_core::Nla as _;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags,
    LinkInfo as Info, LinkMessage,
};
use shared::model::InterfaceName;
use shared::plan::{LinkKind, LiveLink, Sysctl};

use super::RequestError;
use super::connection::Connection;

/// Names by index.
pub(super) type Names = BTreeMap<u32, String>;

/// `IFLA_TUN_TYPE` of `include/uapi/linux/if_link.h`: one byte, `IFF_TUN` (1) or `IFF_TAP` (2).
const TUN_TYPE: u16 = 3;
const TAP: u8 = 2;

/// A link and its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Number by which the kernel knows it; changes when it is made anew.
    pub index: u32,
    /// The link.
    pub link: LiveLink,
}

/// All links; those with a name that we don't accept are left out.
pub(super) async fn all(
    connection: &mut Connection,
) -> Result<(Vec<LiveLink>, Names), RequestError> {
    let mut links = Vec::new();
    let mut names = Names::new();
    for message in messages(connection).await? {
        if let Some(name) = name(&message) {
            names.insert(message.header.index, name.to_owned());
        }
        links.extend(parse(&message).map(|info| info.link));
    }
    Ok((links, names))
}

pub(super) async fn names(connection: &mut Connection) -> Result<Names, RequestError> {
    let messages = messages(connection).await?;
    let named = |message: &LinkMessage| Some((message.header.index, name(message)?.to_owned()));
    Ok(messages.iter().filter_map(named).collect())
}

pub(super) async fn by_name(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<LinkInfo>, RequestError> {
    Ok(message_by_name(connection, name)
        .await?
        .as_ref()
        .and_then(parse))
}

pub(super) async fn index_of(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<u32>, RequestError> {
    let message = message_by_name(connection, name).await?;
    Ok(message.map(|message| message.header.index))
}

/// The message that sets an attribute of a link, or brings it up when there is none.
pub(super) fn message(name: &InterfaceName, attribute: Option<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    if attribute.is_none() {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_string()));
    message.attributes.extend(attribute);
    message
}

/// `net.ipv4.conf.LINK.rp_filter` of a link of ours as that link's attribute (`inet_set_link_af` of the kernel's
/// `net/ipv4/devinet.c`). `None` for any other switch, and for 0, which the message has no room for.
pub(super) fn reverse_path_filter(sysctl: &Sysctl) -> Option<(InterfaceName, LinkAttribute)> {
    let parts: Vec<&str> = sysctl.path.iter().map(String::as_str).collect();
    let ["net", "ipv4", "conf", name, "rp_filter"] = parts[..] else {
        return None;
    };
    let mut switches = InetDevConf::default();
    switches.rp_filter = sysctl.value.parse().ok().filter(|&value| value != 0)?;
    let of_ipv4 = vec![AfSpecInet::DevConfRequest(switches)];
    let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(of_ipv4)]);
    let name = name.parse().ok().filter(|_| sysctl.of_our_link)?;
    Some((name, attribute))
}

pub(super) fn index_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

async fn messages(connection: &mut Connection) -> Result<Vec<LinkMessage>, RequestError> {
    let messages = connection
        .dump(Message::GetLink(LinkMessage::default()))
        .await?;
    Ok(messages.into_iter().filter_map(link_message).collect())
}

async fn message_by_name(
    connection: &mut Connection,
    name: &str,
) -> Result<Option<LinkMessage>, RequestError> {
    let mut request = LinkMessage::default();
    request
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    match connection.one(Message::GetLink(request)).await {
        Ok(message) => Ok(message.and_then(link_message)),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn link_message(message: Message) -> Option<LinkMessage> {
    match message {
        Message::NewLink(message) => Some(message),
        _ => None,
    }
}

fn name(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

fn parse(message: &LinkMessage) -> Option<LinkInfo> {
    let mut link = LiveLink {
        name: name(message)?.parse().ok()?,
        kind: LinkKind::Other("physical".to_owned()),
        alias: String::new(),
        mtu: 0,
        txqueuelen: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::TxQueueLen(length) => link.txqueuelen = *length,
            LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
            _ => {}
        }
    }
    Some(LinkInfo {
        index: message.header.index,
        link,
    })
}

fn kind(infos: &[Info]) -> LinkKind {
    let named = infos.iter().find_map(|info| match info {
        Info::Kind(kind) => Some(kind),
        _ => None,
    });
    match named {
        Some(InfoKind::Tun) if is_tap(infos) => LinkKind::Other("tap".to_owned()),
        Some(InfoKind::Tun) => LinkKind::Tun,
        Some(kind) => LinkKind::Other(kind.to_string()),
        None => LinkKind::Other("physical".to_owned()),
    }
}

/// TUN and TAP are one kind to the kernel.
fn is_tap(infos: &[Info]) -> bool {
    let is_tap_type =
        |attribute: &InfoTun| attribute.kind() == TUN_TYPE && value(attribute) == [TAP];
    infos.iter().any(|info| match info {
        Info::Data(InfoData::Tun(attributes)) => attributes.iter().any(is_tap_type),
        _ => false,
    })
}

fn value(attribute: &InfoTun) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}
