//! `lan-server join`: from a token to a configuration. What is said to the gateway is in [`shared::pairing`].
mod configuration;
mod conversation;
mod report;

use std::io;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use shared::config::lan_server as config;
use shared::model::{PresharedKey, PrivateKey};
use shared::pairing::{Offer, Reply, Request, Token};
use shared_daemon::cli::output::{note, print};
use shared_daemon::cli::service::{Service, how_to_start};
use shared_daemon::cli::{Context, config_file};
use shared_daemon::error::Failure;
use shared_daemon::product::Product as _;
use shared_daemon::{app, logging};
use shared_os::{atomic_file, key_file, process};
use zeroize::Zeroizing;

use crate::LanServer;
use crate::cli::Join;
use configuration::{Dirs, GATEWAY_KEY_FILE, Written};
use conversation::Conversation;

/// Part of the name under which an older configuration is kept.
const COMMAND: &str = "join";
/// Longest line that is read as a token.
const MAX_TOKEN: u64 = 4096;

pub(crate) async fn run(arguments: Join, context: &Context<LanServer>) -> Result<(), Failure> {
    let token = read_token(&arguments.token)?;
    check_time(&token)?;
    let path = &context.config_path;
    let before = Before::read(path)?;
    let dirs = before.dirs(&arguments);
    let key_path = dirs.private_key_file();
    let key = existing_key(&key_path)?;

    let mut conversation = Conversation::open(&token).await?;
    let public_key = key.as_ref().map(|key| key.public_key().to_string());
    let reply = conversation.ask(&Request::Offer { public_key }).await?;
    let offer = match reply {
        Reply::Offer(offer) => offer,
        Reply::Refused { detail } => return Err(refused(&detail)),
        Reply::Joined { .. } => return Err(nonsense()),
    };
    let written = configuration::write(&offer, &token, &dirs, path)?;
    note(&configuration::summary(&offer, &token));
    for warning in &written.warnings {
        note(warning);
    }
    if arguments.dry_run {
        note(&format!("{} would hold:", path.display()));
        return print(&written.text);
    }
    before.may_become(&written, path, arguments.replace)?;
    if !arguments.yes {
        config_file::confirm(
            "Let the gateway reach this?",
            "nothing was changed, and the token is not used",
        )?;
    }

    let reply = join(&mut conversation, &key_path, key).await?;
    let preshared_key: PresharedKey = reply.parse().map_err(|_| nonsense())?;
    let changed = put_in_place(&dirs, &preshared_key, &written, path, &before)?;
    note(&format!("joined {} as {}", token.endpoint, offer.name));
    bring_up(&arguments, &dirs, changed, context).await
}

/// The path, by the service of the package or by this process, and how it went.
async fn bring_up(
    arguments: &Join,
    dirs: &Dirs,
    changed: bool,
    context: &Context<LanServer>,
) -> Result<(), Failure> {
    let path = &context.config_path;
    let running = process::running(&dirs.runtime, LanServer::NAME);
    if let (Some(pid), false) = (running, changed) {
        note(&format!(
            "nothing has changed; the daemon (pid {pid}) runs on"
        ));
        return Ok(());
    }
    let service = Service::installed(LanServer::NAME, path);
    let service = service.filter(|_| !arguments.run && !arguments.no_start);
    let begin = Instant::now();
    match (service, running) {
        (Some(service), running) if running.is_none() || service.is_active() => {
            service.start()?;
            note(&format!(
                "{} runs, now and after every boot",
                service.unit()
            ));
            report::when_up(context.client()?, begin).await;
            Ok(())
        }
        (_, Some(pid)) => {
            note(&format!(
                "the daemon (pid {pid}) runs with what it had: restart it"
            ));
            Ok(())
        }
        (_, None) if arguments.run => {
            logging::init();
            let report = tokio::spawn(report::when_up(context.client()?, begin));
            let ran = app::run::<LanServer>(path).await;
            report.abort();
            ran
        }
        (_, None) => {
            note(&format!(
                "start it: {}",
                how_to_start(LanServer::NAME, path)
            ));
            Ok(())
        }
    }
}

fn read_token(text: &str) -> Result<Token, Failure> {
    let read = if text == "-" {
        let mut line = Zeroizing::new(String::new());
        let mut stdin = io::Read::take(io::stdin().lock(), MAX_TOKEN);
        io::BufRead::read_line(&mut io::BufReader::new(&mut stdin), &mut line)
            .map_err(|error| Failure::other(&error))?;
        line.parse()
    } else {
        text.parse()
    };
    read.map_err(|error: shared::pairing::TokenError| Failure::Other(error.to_string()))
}

/// The gateway would not answer: say why at once.
fn check_time(token: &Token) -> Result<(), Failure> {
    let now = Timestamp::now();
    if token.expires_at > now {
        return Ok(());
    }
    Err(Failure::Other(format!(
        "the token expired at {}, and this host's clock says {now:.0}; ask for a new one: `gateway invite NAME`",
        token.expires_at
    )))
}

fn refused(detail: &str) -> Failure {
    Failure::Other(format!("the gateway refuses: {detail}"))
}

fn nonsense() -> Failure {
    Failure::Other(
        "the gateway's answer makes no sense to this version of lan-server; use the same version on both ends"
            .to_owned(),
    )
}

/// The configuration that is there, if one is.
struct Before {
    text: Option<String>,
    config: Option<config::LanServer>,
}

impl Before {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = config_file::read(path)?;
        // One that is wrong is not used, and replaced only when that is asked for.
        let config = text.as_ref().and_then(|text| {
            let parsed = config::LanServer::parse(text, &path.display().to_string()).ok()?;
            Some(parsed.config)
        });
        Ok(Self { text, config })
    }

    /// As the arguments say, or else as before.
    fn dirs(&self, arguments: &Join) -> Dirs {
        let state = self.config.as_ref().map(|config| config.state_dir.clone());
        let runtime = self.config.as_ref().map(|c| c.runtime_dir.clone());
        let default = Dirs::default();
        Dirs {
            state: arguments
                .state_dir
                .clone()
                .or(state)
                .unwrap_or(default.state),
            runtime: arguments
                .runtime_dir
                .clone()
                .or(runtime)
                .unwrap_or(default.runtime),
        }
    }

    /// Whether what is there may be replaced, before the token is used.
    fn may_become(&self, written: &Written, path: &Path, replace: bool) -> Result<(), Failure> {
        match &self.text {
            Some(text) if *text != written.text && !replace => Err(Failure::Other(format!(
                "{} exists and says something else; `--dry-run` shows what would be written, `--replace` puts it in \
                 place and keeps the old one as {}. The token is not used yet",
                path.display(),
                config_file::kept(path, COMMAND).display()
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

fn existing_key(path: &Path) -> Result<Option<PrivateKey>, Failure> {
    match key_file::read(path) {
        Ok(key) => Ok(Some(key)),
        Err(key_file::KeyFileError::Read { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::environment(&error)),
    }
}

/// The key is on the disk before the gateway knows it: a crash in between leaves nothing that can't be done again.
async fn join(
    conversation: &mut Conversation,
    path: &Path,
    key: Option<PrivateKey>,
) -> Result<Zeroizing<String>, Failure> {
    let is_new = key.is_none();
    let key = match key {
        Some(key) => key,
        None => {
            key_file::read_or_create(path)
                .map_err(|error| Failure::environment(&error))?
                .0
        }
    };
    let public_key = key.public_key().to_string();
    let answer = conversation.ask(&Request::Join { public_key }).await;
    match answer {
        Ok(Reply::Joined { preshared_key }) => Ok(Zeroizing::new(preshared_key)),
        Ok(Reply::Refused { detail }) => {
            if is_new {
                // Nobody knows it.
                let _left_is_harmless = std::fs::remove_file(path);
            }
            Err(refused(&detail))
        }
        Ok(Reply::Offer(Offer { .. })) => Err(nonsense()),
        // The gateway may have taken it: the key stays for the next attempt.
        Err(failure) => Err(failure),
    }
}

/// Returns whether anything is not as it was.
fn put_in_place(
    dirs: &Dirs,
    preshared_key: &PresharedKey,
    written: &Written,
    path: &Path,
    before: &Before,
) -> Result<bool, Failure> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| {
            Failure::Environment(format!(
                "{what}: can't be written: {error}; run the same command again within the token's time"
            ))
        }
    };
    let key_file = dirs.state.join(GATEWAY_KEY_FILE);
    // A file that can't be read as a key is replaced.
    let is_known =
        key_file::read(&key_file).is_ok_and(|known: PresharedKey| known == *preshared_key);
    let is_same = before.text.as_ref() == Some(&written.text);
    if is_known && is_same {
        return Ok(false);
    }
    let mut line = preshared_key.to_base64();
    line.push('\n');
    atomic_file::write(&key_file, line.as_bytes(), 0o600).map_err(failed(&key_file))?;
    if is_same {
        return Ok(true);
    }
    config_file::replace(path, before.text.as_deref(), &written.text, COMMAND)?;
    Ok(true)
}
