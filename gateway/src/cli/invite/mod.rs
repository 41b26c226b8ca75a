//! `gateway invite`.
mod add;

use clap::Args;
use hyper::Method;
use ipnetwork::IpNetwork;
use shared::api::invite::{CreateInvite, CreatedInvite};
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::Context;
use shared_daemon::cli::output::{note, print, print_json};
use shared_daemon::error::Failure;

use crate::Gateway;

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub struct Invite {
    /// Name of a LAN server that has no `public_key` in the configuration
    name: String,
    /// A network behind a LAN host that the configuration does not have yet, which adds it there; once for each
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<IpNetwork>,
    /// Print the whole answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Invite, context: &Context<Gateway>) -> Result<(), Failure> {
    let client = context.client()?;
    let Invite {
        name,
        networks,
        json,
    } = arguments;
    if !networks.is_empty() {
        add::lan_server(&name, networks, context, &client).await?;
    }
    let created = create(&client, name).await?;
    if json {
        return print_json(&created);
    }
    let invite = &created.invite;
    note(&format!(
        "for the LAN host that becomes {}; works once, until {}. There: lan-server join TOKEN",
        invite.lan_server, invite.expires_at
    ));
    print(&format!("{}\n", created.token.unwrap_or_default()))
}

/// Have the daemon make one.
pub(super) async fn create(client: &Client, lan_server: String) -> Result<CreatedInvite, Failure> {
    let body = CreateInvite { lan_server };
    let call = Call::new(Method::POST, "/v1/invites").json(&body)?;
    client.send(call).await?.json()
}
