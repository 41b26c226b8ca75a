//! `gateway init`: from an empty VPS to a configuration and a token for the LAN host.
mod detect;
mod file;

use std::path::PathBuf;

use clap::{Args, ValueHint};
use jiff::Timestamp;
use shared::api::Page;
use shared::api::policy::LanServer;
use shared::config::gateway::Gateway as Config;
use shared::model::InterfaceName;
use shared_daemon::admin::client::Client;
use shared_daemon::cli::output::{note, print};
use shared_daemon::cli::service::{Service, how_to_start};
use shared_daemon::cli::{Context, config_file};
use shared_daemon::error::Failure;
use shared_daemon::product::Product as _;
use shared_daemon::{admin, app, logging};
use shared_os::key_file;
use shared_os::process::{self, Instance};
use zeroize::Zeroizing;

use crate::Gateway;
use crate::peers::offline;
use crate::store::sqlite::SqliteStore;

/// Part of the name under which an older configuration is kept.
const COMMAND: &str = "init";

/// `gateway init`.
#[derive(Debug, Args)]
pub struct Init {
    /// What peers dial [default: the public address of the link to the internet, port 51820]
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// The link to the internet [default: that of the default route]
    #[arg(long, value_name = "LINK")]
    wan: Option<InterfaceName>,
    /// Tunnel address of this host, with the length of the tunnel network; once per family
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "10.17.0.1/16")]
    tunnel: Vec<String>,
    /// Name of the LAN host
    #[arg(long, value_name = "NAME", default_value = "home")]
    lan_server: String,
    /// Networks behind the LAN host; once for each
    #[arg(long = "network", value_name = "CIDR", default_values = ["10.17.3.0/24", "10.17.4.0/24", "10.17.5.0/24"])]
    networks: Vec<String>,
    /// VIP that web traffic from Cloudflare goes to, ports 80 and 443; `none` publishes nothing
    #[arg(long, value_name = "VIP", default_value = "10.17.5.30")]
    ingress: String,
    /// Where the Kubernetes API is, for peers with the role kube-admin; `none` makes no role
    #[arg(long, value_name = "VIP:PORT", default_value = "10.17.5.10:6443")]
    api: String,
    /// Show what would be written, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Put the new configuration in the place of one that differs, which is kept as PATH.before-init
    #[arg(long)]
    replace: bool,
    /// Run the daemon in the foreground afterwards, in place of the installed service
    #[arg(long, conflicts_with = "no_start")]
    run: bool,
    /// Don't start the installed service
    #[arg(long)]
    no_start: bool,
    /// Where keys and the database are kept
    #[arg(long, value_name = "PATH", default_value = file::STATE_DIR, value_hint = ValueHint::DirPath)]
    state_dir: PathBuf,
    /// Where sockets are made
    #[arg(long, value_name = "PATH", default_value = file::RUNTIME_DIR, value_hint = ValueHint::DirPath)]
    runtime_dir: PathBuf,
}

pub(super) async fn run(arguments: Init, context: &Context<Gateway>) -> Result<(), Failure> {
    let path = &context.config_path;
    let choices = detect::choose(&arguments).await?;
    let text = choices.text();
    let parsed = Config::parse(&text, &path.display().to_string()).map_err(|errors| {
        Failure::Configuration(format!(
            "these arguments give no valid configuration. Of the file that would be written:\n{errors}"
        ))
    })?;
    note(&choices.summary());
    for warning in &parsed.warnings {
        note(&warning.to_string());
    }
    if arguments.dry_run {
        note(&format!("{} would hold:", path.display()));
        return print(&text);
    }
    let before = config_file::read(path)?;
    let is_there = before.as_ref() == Some(&text);
    if before.is_some() && !is_there && !arguments.replace {
        return Err(Failure::Other(format!(
            "{} exists and says something else; nothing was changed. `gateway invite NAME` makes a token for what it says, \
             `--replace` puts the new one in place and keeps the old one as {}",
            path.display(),
            config_file::kept(path, COMMAND).display()
        )));
    }
    if !is_there {
        if !arguments.yes {
            let question = format!("Write {}?", path.display());
            config_file::confirm(&question, "nothing was changed")?;
        }
        config_file::replace(path, before.as_deref(), &text, COMMAND)?;
        note(&format!("wrote {}", path.display()));
    }
    let token = invite(&parsed.config, &choices.lan_server).await?;
    let is_running = process::running(&arguments.runtime_dir, Gateway::NAME).is_some();
    let service = Service::installed(Gateway::NAME, path);
    let service = service.filter(|_| !is_running && !arguments.run && !arguments.no_start);
    if let Some(service) = &service {
        // Before the token is shown: it is of use with a gateway that runs.
        service.start()?;
        note(&format!(
            "{} runs, now and after every boot",
            service.unit()
        ));
    }
    if let Some(token) = token {
        note("On the LAN host, within 15 minutes:");
        print(&format!("lan-server join {}\n", token.as_str()))?;
    }
    if is_running || service.is_some() {
        return Ok(());
    }
    if arguments.run {
        logging::init();
        return app::run::<Gateway>(path).await;
    }
    note(&format!("start it: {}", how_to_start(Gateway::NAME, path)));
    Ok(())
}

/// A token, unless the LAN host has joined already. By the daemon if it runs, and otherwise in its place: it then finds the
/// invitation when it starts.
async fn invite(config: &Config, lan_server: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let settings = Gateway::settings(config);
    if process::running(&settings.runtime_dir, Gateway::NAME).is_some() {
        let socket = admin::socket_path(&settings.runtime_dir, Gateway::NAME);
        let client = Client::new(socket);
        let known: Page<LanServer> = client.get("/v1/lan-servers").await?.json()?;
        let known = known.items.into_iter().find(|lan| lan.name == lan_server);
        let Some(known) = known else {
            return Err(Failure::Other(format!(
                "the daemon that runs knows no LAN server {lan_server}: have it take the new configuration (SIGHUP), and run \
                 this again"
            )));
        };
        if let Some(key) = known.public_key {
            say_joined(lan_server, &key);
            return Ok(None);
        }
        let created = super::invite::create(&client, lan_server.to_owned()).await?;
        return Ok(created.token.map(Zeroizing::new));
    }
    key_file::create_dir(&settings.state_dir).map_err(|error| {
        Failure::Environment(format!(
            "can't make the directory {}: {error}",
            settings.state_dir.display()
        ))
    })?;
    // Held to the end: no daemon starts meanwhile.
    let _instance = Instance::acquire(&settings.runtime_dir, Gateway::NAME)
        .map_err(|error| Failure::environment(&error))?;
    let (key, _) = key_file::read_or_create(&settings.private_key_file)
        .map_err(|error| Failure::environment(&error))?;
    let store = SqliteStore::open(&settings.state_dir);
    let store = store.map_err(|error| Failure::environment(&error))?;
    let invited = offline::invite(
        &store,
        config,
        key.public_key(),
        lan_server,
        Timestamp::now(),
    );
    match invited.await? {
        offline::Invited::Token(token) => Ok(Some(token.to_text())),
        offline::Invited::Joined(key) => {
            say_joined(lan_server, &key.to_string());
            Ok(None)
        }
    }
}

fn say_joined(lan_server: &str, key: &str) {
    note(&format!(
        "{lan_server} has joined already (key {key}); `gateway invite {lan_server}` lets another host take its place"
    ));
}
