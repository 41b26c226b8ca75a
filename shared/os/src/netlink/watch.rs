//! Notifications: that something changed. What, the next read tells.
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
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

/// That something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Of what kind it is.
    pub noun: Noun,
    /// The netlink port of who changed it: the number of the process, if that is the first socket of its kind there; 0 when
    /// it was the kernel.
    pub port: u32,
}

/// Of what kind the thing is that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noun {
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
        let events = messages.filter_map(|(message, _)| async move {
            let noun = noun(&message.payload)?;
            let port = message.header.port_number;
            Some(Event { noun, port })
        });
        Ok(Self {
            events: events.boxed(),
            task: tokio::spawn(connection),
        })
    }

    /// The next event; `None` when the socket broke: open another and read everything. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.next().await
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.next().now_or_never().flatten()
    }
}

fn noun(payload: &NetlinkPayload<Message>) -> Option<Noun> {
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) => Some(Noun::Link),
            Message::NewAddress(_) | Message::DelAddress(_) => Some(Noun::Address),
            Message::NewRoute(_) | Message::DelRoute(_) => Some(Noun::Route),
            Message::NewRule(_) | Message::DelRule(_) => Some(Noun::Rule),
            _ => None,
        },
        NetlinkPayload::Overrun(_) => Some(Noun::Lost),
        _ => None,
    }
}
