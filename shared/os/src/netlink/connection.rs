//! One netlink socket: a request and all of its answer.
use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use rtnetlink::sys::AsyncSocket as _;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The kernel answers from the system call that asks; only a lost answer takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a list is asked for again when the kernel says that it changed while it was read.
const DUMP_ATTEMPTS: usize = 5;
/// `NLMSGERR_ATTR_MSG` of `include/uapi/linux/netlink.h`.
const ERROR_TEXT: u16 = 1;
/// Length of the request's header (`struct nlmsghdr`), which stands before the attributes of an error.
const REQUEST_HEADER_LEN: usize = 16;

/// Why the kernel gave no answer, or refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No socket.
    #[error("can't open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel's error, with the reason it gives in words where it gives one.
    #[error("{error}{}", .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// Its error number.
        #[source]
        error: io::Error,
        /// Its own explanation (extended acknowledgement).
        detail: Option<String>,
    },
    /// The socket broke in the middle of an answer.
    #[error("the netlink socket was closed before the answer was complete")]
    Closed,
    /// No answer.
    #[error("the kernel did not answer a netlink request within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// An answer that is none.
    #[error("the kernel's answer can't be read")]
    Malformed,
    /// A list that changes faster than it can be read.
    #[error("the list changed while it was read, {DUMP_ATTEMPTS} times in a row")]
    Inconsistent,
}

impl RequestError {
    /// The kernel's error number, if it was the kernel who refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } => error.raw_os_error(),
            Self::Open(_) | Self::Closed | Self::Timeout | Self::Malformed | Self::Inconsistent => {
                None
            }
        }
    }

    pub(super) fn refused(errno: i32, detail: Option<String>) -> Self {
        let error = io::Error::from_raw_os_error(errno);
        Self::Refused { error, detail }
    }
}

/// A socket with the task that serves it. Reopened by itself after it broke.
#[derive(Debug)]
pub(super) struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(super) fn open() -> Result<Self, RequestError> {
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(RequestError::Open)?;
        // An answer counts as complete only when its last message has arrived.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        // Explanations are a nicety: kernels before 4.12 don't have them.
        let _ = socket
            .set_cap_ack(true)
            .and_then(|()| socket.set_ext_ack(true));
        let task = tokio::spawn(connection);
        Ok(Self { handle, task })
    }

    /// All objects of a kind.
    pub(super) async fn dump(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        for _ in 0..DUMP_ATTEMPTS {
            let (messages, consistent) = self.ask(request.clone(), NLM_F_DUMP).await?;
            if consistent {
                return Ok(messages);
            }
        }
        Err(RequestError::Inconsistent)
    }

    /// One object.
    pub(super) async fn one(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, RequestError> {
        let (messages, _) = self.ask(request, NLM_F_ACK).await?;
        Ok(messages.into_iter().next())
    }

    /// A change; `flags` are `NLM_F_CREATE` and the like.
    pub(super) async fn change(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RequestError> {
        self.ask(request, NLM_F_ACK | flags).await.map(drop)
    }

    async fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), RequestError> {
        if self.task.is_finished() {
            *self = Self::open()?;
        }
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        let result = timeout(ANSWER_TIMEOUT, collect(&mut self.handle, message)).await;
        let result = result.unwrap_or(Err(RequestError::Timeout));
        if matches!(result, Err(RequestError::Timeout | RequestError::Closed)) {
            self.task.abort();
        }
        result
    }
}

/// The messages of an answer, and whether they fit together.
async fn collect(
    handle: &mut Handle,
    request: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<(Vec<RouteNetlinkMessage>, bool), RequestError> {
    let mut answer = handle.request(request).map_err(|_| RequestError::Closed)?;
    let mut messages = Vec::new();
    let mut consistent = true;
    while let Some(message) = answer.next().await {
        consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => messages.push(inner),
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok((messages, consistent)),
                    Some(code) => Err(RequestError::refused(code.get().abs(), explanation(&error))),
                };
            }
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(RequestError::refused(done.code.abs(), None));
            }
            NetlinkPayload::Done(_) => return Ok((messages, consistent)),
            NetlinkPayload::Overrun(_) => consistent = false,
            _ => {}
        }
    }
    Err(RequestError::Closed)
}

/// The kernel's words in an error message (`struct nlmsgerr` and its attributes).
fn explanation(error: &ErrorMessage) -> Option<String> {
    let attributes = error.header.get(REQUEST_HEADER_LEN..)?;
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == ERROR_TEXT)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches('\0').to_owned()
        })
}
