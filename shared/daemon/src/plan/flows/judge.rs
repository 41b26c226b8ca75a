//! Which connections are cut.
use std::collections::BTreeMap;

use shared::model::PublicKey;
use shared::plan::Host;
use shared::simulate::{self, Cause, Connection, Fate, Packet, Peer, Transition, TunnelEnd};
use shared_os::netlink::conntrack::{Entry, Tuple, status};

use crate::model::{Model, PeerKind, PublishModel};

/// Kinds of connections whose fate is remembered. Visitors of one service from one address are one kind.
const REMEMBERED: usize = 16_384;
/// Connections of a group that are named.
pub(super) const NAMED: usize = 3;

/// Whose connections they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Of visitors of a published service.
    Publish(String),
    /// From a peer, or from this host to it.
    Peer(String),
}

/// Connections that are cut alike.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) count: u64,
    /// The first few.
    pub(super) first: Vec<Entry>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) cut: BTreeMap<(Subject, Cause), Group>,
    /// Open connections for which there was no time.
    pub(super) not_judged: u64,
}

/// Looks at connections one by one and keeps none but the first few of each group.
#[derive(Debug)]
pub(super) struct Judge {
    transition: Transition,
    publishes: Vec<PublishModel>,
    /// Names of peers by key.
    names: BTreeMap<String, String>,
    remembered: BTreeMap<Connection, Fate>,
    found: Found,
}

impl Judge {
    pub(super) fn new(now: &Model, planned: &Model, host: &Host) -> Self {
        let names = now.peers.iter();
        let names = names.map(|peer| (identity(peer.public_key), peer.name.clone()));
        Self {
            transition: Transition::new(end(now, host), end(planned, host)),
            publishes: now.publishes.clone(),
            names: names.collect(),
            remembered: BTreeMap::new(),
            found: Found::default(),
        }
    }

    /// `is_time` is asked before what costs time.
    pub(super) fn look_at(&mut self, entry: &Entry, is_time: impl FnOnce() -> bool) {
        if !entry.is_open() {
            return;
        }
        let kind = self.transition.representative(&connection(entry));
        let known = self.remembered.get(&kind).cloned();
        let fate = match known {
            Some(fate) => fate,
            None if is_time() => {
                let fate = self.transition.fate(&kind);
                if self.remembered.len() >= REMEMBERED {
                    self.remembered.clear();
                }
                self.remembered.insert(kind, fate.clone());
                fate
            }
            None => {
                self.found.not_judged += 1;
                return;
            }
        };
        match fate {
            Fate::NotOurs | Fate::Stays => {}
            Fate::Cut {
                cause,
                caller,
                callee,
            } => {
                let subject = self.subject(entry, caller.or(callee));
                let group = self.found.cut.entry((subject, cause)).or_default();
                group.count += 1;
                if group.first.len() < NAMED {
                    group.first.push(*entry);
                }
            }
        }
    }

    pub(super) fn into_found(self) -> Found {
        self.found
    }

    /// The service that is called, if it is a published one, else the peer.
    fn subject(&self, entry: &Entry, peer: Option<String>) -> Subject {
        let callee = entry.reply.source;
        let mut publishes = self.publishes.iter();
        let published = publishes.find(|publish| {
            let mut targets = publish.ports.iter().map(|map| map.target);
            publish.vip == callee.ip()
                && publish.protocol == entry.protocol
                && targets.any(|range| (range.first..=range.last).contains(&callee.port()))
        });
        if let Some(publish) = published {
            return Subject::Publish(publish.name.clone());
        }
        let key = peer.unwrap_or_default();
        Subject::Peer(self.names.get(&key).cloned().unwrap_or(key))
    }
}

/// This host with a model in place.
fn end(model: &Model, host: &Host) -> TunnelEnd {
    let peers = model.peers.iter().map(|peer| Peer {
        name: identity(peer.public_key),
        is_lan_server: peer.kind == PeerKind::LanServer,
        networks: peer.allowed_ips.clone(),
    });
    let host = host.clone().with(&model.desired);
    TunnelEnd {
        host: simulate::Host::among(model.desired.clone(), &host),
        tunnel: model.interface.clone(),
        peers: peers.collect(),
    }
}

/// A peer is who has its key: with another name it is the same one, with another key its packets are refused.
fn identity(key: PublicKey) -> String {
    key.to_string()
}

fn connection(entry: &Entry) -> Connection {
    let packet = |tuple: Tuple| {
        let end = |address: std::net::SocketAddr| (address.ip(), address.port());
        Packet::later(entry.protocol, end(tuple.source), end(tuple.destination))
    };
    Connection {
        original: packet(entry.original),
        answer: packet(entry.reply),
        mark: entry.mark,
        has_dnat: entry.status & status::DST_NAT != 0,
    }
}
