//! `gateway invite`.
use hyper::Method;
use shared::api::invite::{CreateInvite, CreatedInvite};
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::{note, print, print_json};
use shared_daemon::error::Failure;

pub(super) async fn run(client: &Client, lan_server: String, json: bool) -> Result<(), Failure> {
    let created = create(client, lan_server).await?;
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
