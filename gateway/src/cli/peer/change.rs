//! `gateway peer set` and `reset-usage`.
use clap::Args;
use hyper::Method;
use jiff::Timestamp;
use shared::api::peer::{self, ClientConfig, PatchPeer};
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::{note, print_json};
use shared_daemon::error::Failure;

use super::super::values::{self, Expiry};
use super::{find, show};

/// Arguments of `peer set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Name or identifier
    peer: String,
    #[command(flatten)]
    pub(super) changes: Changes,
    /// Print the peer as JSON
    #[arg(long)]
    json: bool,
}

/// What is to be changed: at least one thing.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// Another role; holds at once, for open connections too. What has to be changed on the client is told
    #[arg(long)]
    role: Option<String>,
    /// No role: reaches nothing
    #[arg(long, conflicts_with = "role")]
    no_role: bool,
    /// Other tunnel addresses, once per family; the client needs its configuration anew
    #[arg(long = "address", id = "addresses", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// The networks behind the peer, all of them
    #[arg(long = "network", id = "networks", value_name = "CIDR")]
    networks: Vec<String>,
    /// No networks behind the peer
    #[arg(long, conflicts_with = "networks")]
    no_networks: bool,
    /// Let it connect
    #[arg(long)]
    enable: bool,
    /// Cut it off
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// When it stops to work: 30d, or 2027-01-31T00:00:00Z
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// It never stops to work
    #[arg(long, conflicts_with = "expires")]
    no_expiry: bool,
    /// Most bytes that it may move: 50GB, 20GiB
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    quota: Option<u64>,
    /// It may move as much as it likes
    #[arg(long, conflicts_with = "quota")]
    no_quota: bool,
    /// Set a label (KEY=VALUE) or remove it (KEY-); may be given more than once
    #[arg(long = "label", id = "labels", value_name = "CHANGE", value_parser = values::label_change)]
    labels: Vec<(String, Option<String>)>,
}

impl Changes {
    pub(super) fn patch(&self, now: Timestamp) -> PatchPeer {
        PatchPeer {
            name: self.name.clone(),
            addresses: (!self.addresses.is_empty()).then(|| self.addresses.clone()),
            networks: if self.no_networks {
                Some(None)
            } else {
                (!self.networks.is_empty()).then(|| Some(self.networks.clone()))
            },
            role: changed(self.no_role, self.role.clone()),
            enabled: (self.enable || self.disable).then_some(self.enable),
            expires_at: changed(self.no_expiry, self.expires.map(|end| end.rfc3339(now))),
            quota_bytes: changed(self.no_quota, self.quota),
            labels: (!self.labels.is_empty()).then(|| Some(self.labels.iter().cloned().collect())),
        }
    }
}

/// `null` removes, a value sets, neither leaves it.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things"
)]
fn changed<T>(remove: bool, set: Option<T>) -> Option<Option<T>> {
    if remove { Some(None) } else { set.map(Some) }
}

pub(super) async fn set(arguments: &Set, client: &Client) -> Result<(), Failure> {
    let (found, etag) = find(client, &arguments.peer).await?;
    let patch = arguments.changes.patch(Timestamp::now());
    let reaches_client = patch.role.is_some() || patch.addresses.is_some();
    let config_before = if reaches_client {
        Some(config(client, &found).await?)
    } else {
        None
    };
    let call = Call::new(Method::PATCH, format!("/v1/peers/{}", found.id))
        .if_match(etag)
        .json(&patch)?;
    let after: peer::Peer = client.send(call).await?.json()?;
    if let Some(before) = config_before {
        if let Some(told) = client_changes(&before, &config(client, &after).await?) {
            note(&told);
        }
    }
    if arguments.json {
        return print_json(&after);
    }
    show::print_peer(&after)
}

async fn config(client: &Client, peer: &peer::Peer) -> Result<String, Failure> {
    let answer = client.get(&format!("/v1/peers/{}/config", peer.id)).await?;
    Ok(answer.json::<ClientConfig>()?.config)
}

/// What has to be changed on the client too, when anything has: its addresses, and its `AllowedIPs`, which come from the
/// role.
pub(super) fn client_changes(before: &str, after: &str) -> Option<String> {
    let line = |config: &str, name: &str| {
        let line = config.lines().find(|line| line.starts_with(name));
        line.map(str::to_owned)
    };
    let changed = ["Address = ", "AllowedIPs = "]
        .into_iter()
        .filter(|name| line(before, name) != line(after, name))
        .filter_map(|name| line(after, name));
    let changed: Vec<String> = changed.map(|line| format!("  {line}")).collect();
    (!changed.is_empty()).then(|| {
        format!(
            "change the client's configuration too (`gateway peer config` prints all of it):\n{}",
            changed.join("\n")
        )
    })
}

pub(super) async fn reset_usage(client: &Client, wanted: &str) -> Result<(), Failure> {
    let (found, etag) = find(client, wanted).await?;
    let path = format!("/v1/peers/{}/reset-usage", found.id);
    client
        .send(Call::new(Method::POST, path).if_match(etag))
        .await?;
    note(&format!("{} counts for its quota from now on", found.name));
    Ok(())
}
