//! `gateway peer show`.
use shared::api::peer::{ManagedBy, Peer};
use shared_daemon::cli::output::{print, size};
use shared_daemon::error::Failure;

use super::list::status;

pub(super) fn print_peer(peer: &Peer) -> Result<(), Failure> {
    print(&shown(peer))
}

pub(super) fn shown(peer: &Peer) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(format!("{name:<14}{value}").trim_end());
        text.push('\n');
    };
    let time = |time: Option<jiff::Timestamp>, none: &str| {
        time.map_or_else(|| none.to_owned(), |t| t.strftime("%F %T UTC").to_string())
    };
    line("name", &peer.name);
    line("id", &peer.id.to_string());
    line("status", status(peer));
    for problem in &peer.problems {
        line("problem", problem);
    }
    line(
        "managed by",
        match peer.managed_by {
            ManagedBy::Api => "the API",
            ManagedBy::File => "the configuration file",
        },
    );
    line(
        "role",
        peer.role.as_deref().unwrap_or("none: reaches nothing"),
    );
    for address in &peer.addresses {
        line("address", &address.to_string());
    }
    for network in &peer.networks {
        line("network", network);
    }
    line("public key", &peer.public_key);
    line(
        "preshared key",
        if peer.has_preshared_key { "yes" } else { "no" },
    );
    if let Some(rotation) = &peer.rotation {
        line("next key", &rotation.public_key);
        line("  at latest", &time(Some(rotation.until), ""));
    }
    line("expires", &time(peer.expires_at, "never"));
    match peer.quota_bytes {
        None => line("quota", "none"),
        Some(quota) => line(
            "quota",
            &format!(
                "{} of {} used",
                size(peer.usage.quota_used_bytes),
                size(quota)
            ),
        ),
    }
    let endpoint = peer.connection.endpoint;
    line(
        "endpoint",
        &endpoint.map_or_else(|| "-".to_owned(), |e| e.to_string()),
    );
    line(
        "handshake",
        &time(peer.connection.latest_handshake_at, "never"),
    );
    line("received", &size(peer.usage.rx_bytes));
    line("sent", &size(peer.usage.tx_bytes));
    for (key, value) in &peer.labels {
        line("label", &format!("{key}={value}"));
    }
    if peer.managed_by == ManagedBy::Api {
        line("created", &time(peer.created_at, "-"));
        line("updated", &time(peer.updated_at, "-"));
    }
    text
}
