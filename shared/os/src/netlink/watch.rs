//! Notifications: that something changed. What, the next read tells.
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage as Message;
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use super::RequestError;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Of what kind the thing is that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A link.
    Link,
    /// An address.
    Address,
    /// A route.
    Route,
    /// A rule.
    Rule,
    /// Changes came faster than they were read, and some were lost: anything may have changed.
    Lost,
}

/// A stream of [`Event`]s from everyone on this network namespace, ourselves included.
pub struct Watch {
    events: BoxStream<'static, Event>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub(super) fn open() -> Result<Self, RequestError> {
        let (connection, _handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(RequestError::Open)?;
        let events = messages.filter_map(|(message, _)| async move { event(&message.payload) });
        Ok(Self {
            events: events.boxed(),
            task: tokio::spawn(connection),
        })
    }

    /// The next event; `None` when the socket broke: open another and read everything. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.next().await
    }
}

fn event(payload: &NetlinkPayload<Message>) -> Option<Event> {
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) => Some(Event::Link),
            Message::NewAddress(_) | Message::DelAddress(_) => Some(Event::Address),
            Message::NewRoute(_) | Message::DelRoute(_) => Some(Event::Route),
            Message::NewRule(_) | Message::DelRule(_) => Some(Event::Rule),
            _ => None,
        },
        NetlinkPayload::Overrun(_) => Some(Event::Lost),
        _ => None,
    }
}
