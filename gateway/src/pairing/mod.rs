//! The pairing service: what an invited LAN host asks inside of the tunnel, and what it is answered. See [`shared::pairing`].
//!
//! It listens at the tunnel addresses alone. Who calls is known by the source address: cryptokey routing lets an invited peer
//! send from its own only, and the chain `pairing` lets nobody else get here.
mod offer;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shared::api::audit::AuditRequest;
use shared::config::gateway::Gateway;
use shared::model::PublicKey;
use shared::pairing::frame::{self, Frame};
use shared::pairing::{PORT, Reply, Request};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::peers::Handle;
use crate::peers::error::RequestError;
use crate::peers::request::{Command, Outcome};
use crate::store::{InviteRecord, Store};

/// Longest datagram that is read; a request fits in far less.
const DATAGRAM_LEN: usize = 2048;
/// After an error of the socket, before it is read again.
const REST: Duration = Duration::from_secs(1);

/// The service at work; ended when dropped.
#[derive(Debug)]
pub struct Serving(Vec<JoinHandle<()>>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Begin to answer at the tunnel addresses, which are there already.
pub async fn serve<S: Store>(handle: &Handle<S>, config: &Gateway) -> Serving {
    let mut tasks = Vec::new();
    for own in &config.tunnel.addresses {
        let address = SocketAddr::new(own.address, PORT);
        match UdpSocket::bind(address).await {
            Ok(socket) => tasks.push(tokio::spawn(answer_all(socket, handle.clone()))),
            // The gateway works without it.
            Err(error) => warn!(%address, %error, "can't listen: no LAN host can join"),
        }
    }
    Serving(tasks)
}

async fn answer_all<S: Store>(socket: UdpSocket, handle: Handle<S>) {
    let mut buffer = vec![0; DATAGRAM_LEN];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                warn!(%error, "can't receive what invited LAN hosts ask");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        let Some((question, request)) = read(datagram) else {
            continue;
        };
        let Some(reply) = answer(&handle, from, &request).await else {
            continue;
        };
        let reply = serde_json::to_vec(&reply).unwrap_or_default();
        for datagram in frame::split(question, &reply) {
            // Who gets no answer asks again.
            if let Err(error) = socket.send_to(&datagram, from).await {
                warn!(%from, %error, "can't answer an invited LAN host");
            }
        }
    }
}

fn read(datagram: &[u8]) -> Option<(u32, Request)> {
    let frame = Frame::parse(datagram)?;
    let request = serde_json::from_slice(frame.whole()?).ok()?;
    Some((frame.question, request))
}

/// `None` for who is not invited.
async fn answer<S: Store>(
    handle: &Handle<S>,
    from: SocketAddr,
    request: &Request,
) -> Option<Reply> {
    let invite = invited(handle, from.ip())?;
    let answered = match request {
        Request::Offer { public_key } => offered(handle, &invite, public_key.as_deref()),
        Request::Join { public_key } => joined(handle, &invite, from, public_key).await,
    };
    Some(answered.unwrap_or_else(|detail| {
        info!(
            lan_server = invite.lan_server,
            detail, "a LAN host can't join"
        );
        Reply::Refused { detail }
    }))
}

fn invited<S: Store>(handle: &Handle<S>, address: IpAddr) -> Option<InviteRecord> {
    let view = handle.shared.view();
    let mut invites = view.invites.values();
    let invite = invites.find(|invite| invite.address == address)?;
    Some(InviteRecord::clone(invite))
}

fn offered<S: Store>(
    handle: &Handle<S>,
    invite: &InviteRecord,
    public_key: Option<&str>,
) -> Result<Reply, String> {
    let key = public_key.map(key).transpose()?;
    if invite.used_by.is_some() && invite.used_by != key {
        return Err("another host has used the token already".to_owned());
    }
    let view = handle.shared.view();
    let lans = &view.config.lan_servers;
    let lan = lans.iter().find(|lan| lan.name == invite.lan_server);
    let lan = lan.ok_or_else(|| {
        let name = &invite.lan_server;
        format!("the gateway's configuration has no [[lan_server]] {name} any more")
    })?;
    Ok(Reply::Offer(offer::offer(&view.config, lan)))
}

async fn joined<S: Store>(
    handle: &Handle<S>,
    invite: &InviteRecord,
    from: SocketAddr,
    public_key: &str,
) -> Result<Reply, String> {
    let key = key(public_key)?;
    if invite.used_by == Some(key) {
        // Its answer was lost, or somebody runs the command again.
        let view = handle.shared.view();
        let known = view.lan_servers.get(&invite.lan_server);
        let known = known.filter(|known| known.public_key == key);
        let known = known.ok_or_else(|| {
            let name = &invite.lan_server;
            format!("another host has joined as {name} since; ask for a new token")
        })?;
        return Ok(Reply::Joined {
            preshared_key: known.preshared_key.to_base64().as_str().to_owned(),
        });
    }
    let origin = AuditRequest {
        id: Uuid::now_v7().simple().to_string(),
        method: "JOIN".to_owned(),
        path: format!("/v1/invites/{}", invite.id),
        remote: Some(from.to_string()),
    };
    let actor = format!("invite:{}", invite.id);
    let command = Command::Join(invite.id, key);
    match handle.ask(actor, origin, None, command).await {
        Ok(Outcome::Joined(lan_server)) => {
            info!(lan_server = lan_server.name, public_key = %key, "a LAN host has joined");
            Ok(Reply::Joined {
                preshared_key: lan_server.preshared_key.to_base64().as_str().to_owned(),
            })
        }
        Ok(outcome) => {
            tracing::error!(?outcome, "not an answer to this request");
            Err("the gateway has made a mistake; its log says more".to_owned())
        }
        Err(RequestError::Conflict { detail, hint, .. }) => Err(match hint {
            Some(hint) => format!("{detail}; {hint}"),
            None => detail,
        }),
        Err(RequestError::Invalid(errors)) => {
            let details = errors.into_iter().map(|error| error.detail);
            Err(details.collect::<Vec<_>>().join("; "))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn key(text: &str) -> Result<PublicKey, String> {
    text.parse()
        .map_err(|error| format!("public_key is {error}"))
}
