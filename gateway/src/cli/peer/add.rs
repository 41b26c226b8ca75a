//! `gateway peer add`, `rotate`, `config`: what ends in a configuration for a client.
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use hyper::Method;
use hyper::header::HeaderName;
use jiff::Timestamp;
use shared::api::peer::{ClientConfig, ConfigSecrets, CreatePeer, PeerWithSecrets, RotatePeer};
use shared_daemon::admin::client::{Call, Client};
use shared_daemon::cli::output::{is_coloured, note, print, print_json};
use shared_daemon::error::Failure;
use uuid::Uuid;

use super::super::values::{self, Expiry, Preshared};
use super::super::{files, kubeconfig, qr};
use super::find;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where the configuration goes.
#[derive(Debug, Default, Args)]
pub struct Destination {
    /// Print the configuration as a QR code too, which the WireGuard app scans
    #[arg(long)]
    qr: bool,
    /// Write the configuration into this file, for its owner only, instead of standard output
    #[arg(long, short, value_name = "PATH", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print the whole answer as JSON instead of the configuration
    #[arg(long, conflicts_with = "qr")]
    json: bool,
}

impl Destination {
    /// Whether all can be written that is to be written.
    fn check(&self) -> Result<(), Failure> {
        match &self.output {
            Some(path) => files::check_free(path, self.force),
            None => Ok(()),
        }
    }

    fn write(&self, config: &str) -> Result<(), Failure> {
        // Whatever goes wrong now, the only copy of a secret must not be lost: the code comes last.
        match &self.output {
            Some(path) => files::write_private(path, config, self.force).or_else(|failure| {
                note(&format!("{failure}; here it is instead"));
                print(config)
            })?,
            None if self.json => {}
            None => print(config)?,
        }
        if self.qr {
            print(&qr::render(config, is_coloured())?)?;
        }
        Ok(())
    }
}

/// Arguments of `peer add`.
#[derive(Debug, Args)]
pub struct Add {
    /// Unique name: letters, digits, `.`, `_`, `@`, `-`
    name: String,
    /// The client's public key (`wg pubkey`) [default: make a key pair]
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
    /// What it may reach: a role of the configuration file [default: nothing]
    #[arg(long)]
    role: Option<String>,
    /// Tunnel address, once per family [default: free ones]
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Network behind the peer; may be given more than once
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// When it stops to work: 30d, or 2027-01-31T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// Most bytes that it may move: 50GB, 20GiB [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    quota: Option<u64>,
    /// Anything to note; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Do not let it connect yet
    #[arg(long)]
    disabled: bool,
    /// Preshared key: generate, none, or @FILE
    #[arg(long, value_name = "WHICH", default_value = "generate")]
    preshared_key: Preshared,
    /// Write a kubeconfig for the Kubernetes API that the role reaches
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    kubeconfig_options: kubeconfig::Options,
    #[command(flatten)]
    to: Destination,
}

/// Arguments of `peer rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Name or identifier
    peer: String,
    /// The client's new public key [default: make a key pair]
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
    /// Preshared key that goes with the new key: generate, none, or @FILE
    #[arg(long, value_name = "WHICH", default_value = "generate")]
    preshared_key: Preshared,
    /// How long the old key works if the new one is not used; 0s changes over at once
    #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = values::seconds)]
    overlap: u64,
    #[command(flatten)]
    to: Destination,
}

pub(super) async fn add(arguments: &Add, client: &Client) -> Result<(), Failure> {
    arguments.to.check()?;
    if let Some(path) = &arguments.kubeconfig {
        files::check_free(path, arguments.to.force)?;
        // Before the peer is made: half a success is hard to repeat.
        arguments
            .kubeconfig_options
            .check(arguments.role.is_some())?;
    }
    let body = CreatePeer {
        name: arguments.name.clone(),
        public_key: arguments.public_key.clone(),
        generate_key: arguments.public_key.is_none(),
        preshared_key: preshared(&arguments.preshared_key)?,
        addresses: (!arguments.addresses.is_empty()).then(|| arguments.addresses.clone()),
        networks: arguments.networks.clone(),
        role: arguments.role.clone(),
        enabled: Some(!arguments.disabled),
        expires_at: arguments.expires.map(|end| end.rfc3339(Timestamp::now())),
        expires_in_seconds: None,
        quota_bytes: arguments.quota,
        labels: arguments.labels.iter().cloned().collect(),
    };
    let made = told_once(client, "/v1/peers", &body, &arguments.to).await?;
    if let Some(path) = &arguments.kubeconfig {
        let options = &arguments.kubeconfig_options;
        kubeconfig::write(client, &made.peer, options, path, arguments.to.force).await?;
    }
    Ok(())
}

pub(super) async fn rotate(arguments: &Rotate, client: &Client) -> Result<(), Failure> {
    arguments.to.check()?;
    let (peer, _) = find(client, &arguments.peer).await?;
    let body = RotatePeer {
        public_key: arguments.public_key.clone(),
        generate_key: arguments.public_key.is_none(),
        preshared_key: preshared(&arguments.preshared_key)?,
        overlap_seconds: Some(arguments.overlap),
    };
    let path = format!("/v1/peers/{}/rotate", peer.id);
    let made = told_once(client, &path, &body, &arguments.to).await?;
    if let Some(rotation) = &made.peer.rotation {
        note(&format!(
            "the old key works until the new one is used, or until {}",
            rotation.until
        ));
    }
    Ok(())
}

/// Send what makes secrets, and put them where they belong.
async fn told_once(
    client: &Client,
    path: &str,
    body: &impl serde::Serialize,
    to: &Destination,
) -> Result<PeerWithSecrets, Failure> {
    let call = Call::new(Method::POST, path)
        .header(IDEMPOTENCY_KEY, Uuid::now_v7().to_string())
        .json(body)?;
    let made: PeerWithSecrets = client.send(call).await?.json()?;
    if to.json {
        print_json(&made)?;
    }
    to.write(&made.config)?;
    if made.config.contains("= REPLACE-") && to.output.is_none() && !to.json {
        note("fill in the private key where it says REPLACE");
    }
    for problem in &made.peer.problems {
        note(&format!("warning: {problem}"));
    }
    if made.peer.role.is_none() {
        note(&format!(
            "{} has no role and reaches nothing yet: `gateway peer set {} --role ROLE`",
            made.peer.name, made.peer.name
        ));
    }
    Ok(made)
}

pub(super) async fn config(
    client: &Client,
    wanted: &str,
    [private_key, preshared_key]: [Option<&Path>; 2],
    to: &Destination,
) -> Result<(), Failure> {
    to.check()?;
    let (peer, _) = find(client, wanted).await?;
    let read = |path: Option<&Path>| {
        let text = path.map(files::read_secret).transpose();
        text.map(|text| text.map(|text| text.to_string()))
    };
    let body = ConfigSecrets {
        private_key: read(private_key)?,
        preshared_key: read(preshared_key)?,
    };
    let call = Call::new(Method::POST, format!("/v1/peers/{}/config", peer.id)).json(&body)?;
    let answer: ClientConfig = client.send(call).await?.json()?;
    if to.json {
        print_json(&answer)?;
    }
    to.write(&answer.config)
}

fn preshared(key: &Preshared) -> Result<Option<String>, Failure> {
    Ok(Some(match key {
        Preshared::Generate => "generate".to_owned(),
        Preshared::None => "none".to_owned(),
        Preshared::File(path) => files::read_secret(path)?.to_string(),
    }))
}
