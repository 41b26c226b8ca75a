//! `gateway peer list`.
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use shared::api::Page;
use shared::api::peer::{Peer, PeerState};
use shared_daemon::admin::client::Client;
use shared_daemon::cli::output::{
    columns, is_coloured, print, print_json, size, span, table_without,
};
use shared_daemon::error::Failure;

use super::super::values;
use super::encoded;

/// Peers per page: the most that the API gives.
const PAGE: usize = 1000;

/// Arguments of `peer list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this role
    #[arg(long)]
    role: Option<String>,
    /// Only those in this state
    #[arg(long)]
    state: Option<State>,
    /// Only those that are online
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only those that are not online
    #[arg(long)]
    offline: bool,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    label: Option<(String, String)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// [`PeerState`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Active,
    Disabled,
    Expired,
    OverQuota,
    Shadowed,
}

impl State {
    fn parameter(self) -> PeerState {
        match self {
            Self::Active => PeerState::Active,
            Self::Disabled => PeerState::Disabled,
            Self::Expired => PeerState::Expired,
            Self::OverQuota => PeerState::OverQuota,
            Self::Shadowed => PeerState::Shadowed,
        }
    }
}

impl List {
    fn query(&self) -> String {
        let mut query = format!("/v1/peers?limit={PAGE}");
        let mut add = |name: &str, value: &str| {
            query.extend(["&", name, "=", &encoded(value)]);
        };
        if let Some(role) = &self.role {
            add("role", role);
        }
        if let Some(state) = self.state {
            add("state", &state.parameter().to_string());
        }
        if self.online || self.offline {
            add("online", &self.online.to_string());
        }
        if let Some((key, value)) = &self.label {
            add("label", &format!("{key}={value}"));
        }
        query
    }
}

pub(super) async fn list(arguments: &List, client: &Client) -> Result<(), Failure> {
    let peers = all(client, &arguments.query()).await?;
    if arguments.json {
        return print_json(&Page {
            items: peers,
            next_cursor: None,
        });
    }
    print(&listed(&peers, Timestamp::now(), columns(), is_coloured()))
}

/// Every page.
pub(super) async fn all(client: &Client, query: &str) -> Result<Vec<Peer>, Failure> {
    let mut peers = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let path = match &cursor {
            None => query.to_owned(),
            Some(cursor) => format!("{query}&cursor={}", encoded(cursor)),
        };
        let page: Page<Peer> = client.get(&path).await?.json()?;
        peers.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(peers),
        }
    }
}

pub(super) fn listed(peers: &[Peer], now: Timestamp, columns: u16, coloured: bool) -> String {
    if peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let rows = peers.iter().map(|peer| {
        vec![
            peer.name.clone(),
            peer.addresses
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            peer.role.clone().unwrap_or_else(|| "-".to_owned()),
            status(peer).to_owned(),
            seen(peer, now),
            size(peer.usage.rx_bytes),
            size(peer.usage.tx_bytes),
        ]
    });
    let head = [
        "NAME", "ADDRESS", "ROLE", "STATUS", "SEEN", "RECEIVED", "SENT",
    ];
    // `peer show` has the counters too; a whole IPv6 address takes half of a line.
    let optional = [5, 6, 2];
    table_without(&head, &[0, 2], &optional, rows.collect(), columns, coloured)
}

/// A peer that can connect is online or not; of one that can't, why.
pub(super) fn status(peer: &Peer) -> &'static str {
    match (peer.state, peer.connection.online) {
        (PeerState::Active, true) => "online",
        (PeerState::Active, false) => "offline",
        (PeerState::Disabled, _) => "disabled",
        (PeerState::Expired, _) => "expired",
        (PeerState::OverQuota, _) => "over quota",
        (PeerState::Shadowed, _) => "shadowed",
    }
}

/// Age of the latest handshake, in its largest unit.
fn seen(peer: &Peer, now: Timestamp) -> String {
    let Some(at) = peer.connection.latest_handshake_at else {
        return "never".to_owned();
    };
    let seconds = u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0);
    let text = span(seconds);
    text.split(' ').next().unwrap_or_default().to_owned()
}
