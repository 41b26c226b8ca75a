//! A secret is in the one answer that tells it, and nowhere else: no other answer, no log, no file but the one that needs it.
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::pairing::Token;
use tests::api::{Api, secret_of, text};
use tests::edge::Setup;

use crate::support::{SOON, with_edge};

/// A LAN server that has not joined yet.
const WAITING: &str = r#"
[[lan_server]]
name     = "attic"
address  = "10.17.0.90"
networks = ["192.168.90.0/24"]
"#;

/// A secret and the files of `state_dir` that have to hold it.
struct Secret {
    what: &'static str,
    text: String,
    /// What it is in base64, when it is.
    bytes: Vec<u8>,
    may_be_in_database: bool,
}

/// The bytes of a key.
fn decoded(base64: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut held = 0_u32;
    for (number, letter) in base64.trim_end_matches('=').bytes().enumerate() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            .iter()
            .position(|known| *known == letter)
            .context("no base64")?;
        held = (held << 6 | u32::try_from(value)?) & 0x00ff_ffff;
        if number % 4 > 0 {
            let shift = 6 - 2 * (number % 4);
            bytes.push(u8::try_from((held >> shift) & 0xff)?);
        }
    }
    Ok(bytes)
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[test]
fn secrets_are_told_once_and_are_nowhere_else() {
    let mut setup = Setup::new().unwrap();
    setup.more_gateway = WAITING.to_owned();
    with_edge(setup, |world, edge| {
        // As much as there is to be logged.
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        let line = edge.gateway.command_line(&["run"])?;
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let env = [("WG_EDGE_LOG", "trace")];
        let vps = &world.vps;
        edge.gateway.daemon = tests::daemon::Daemon::start_with_env(vps, "traced", &line, &env)?;
        let socket = vps.dir().join("run/wg-edge/gateway.sock");
        let mut api = tests::expect::eventually(SOON, "the API", || Api::unix(&socket))?;

        let mut secrets = Vec::new();
        let mut learn =
            |what: &'static str, value: &Value, may_be_in_database: bool| -> Result<()> {
                let text = value
                    .as_str()
                    .with_context(|| format!("no {what}"))?
                    .to_owned();
                let bytes = decoded(&text).unwrap_or_default();
                secrets.push(Secret {
                    what,
                    text,
                    bytes,
                    may_be_in_database,
                });
                Ok(())
            };
        let made =
            api.create(&json!({"name": "alice", "generate_key": true, "role": "kube-admin"}))?;
        learn("private key", &made["secrets"]["private_key"], false)?;
        learn("preshared key", &made["secrets"]["preshared_key"], true)?;
        let id = text(&made["peer"], "id")?.to_owned();
        let path = format!("/v1/peers/{id}/rotate");
        let rotated = api
            .call("POST", &path, &[], &json!({"generate_key": true}))?
            .expect(200)?;
        learn(
            "next private key",
            &rotated["secrets"]["private_key"],
            false,
        )?;
        learn(
            "next preshared key",
            &rotated["secrets"]["preshared_key"],
            true,
        )?;
        let body = json!({"name": "ci", "scopes": ["read", "admin"]});
        let token = api.call("POST", "/v1/tokens", &[], &body)?.expect(201)?;
        let secret = text(&token, "secret")?;
        learn("token", &Value::from(secret_of(secret)?), false)?;
        let token_id = text(&token["token"], "id")?.to_owned();
        let body = json!({"lan_server": "attic"});
        let invited = api.call("POST", "/v1/invites", &[], &body)?.expect(201)?;
        let invitation = text(&invited, "token")?;
        let keys: Token = invitation.parse()?;
        let private_key = keys.private_key.to_base64().as_str().to_owned();
        let preshared_key = keys.preshared_key().to_base64().as_str().to_owned();
        learn("invitation", &Value::from(invitation), false)?;
        learn("key of the invitation", &Value::from(private_key), false)?;
        learn(
            "preshared key of the invitation",
            &Value::from(preshared_key),
            true,
        )?;
        let invite_id = text(&invited["invite"], "id")?.to_owned();
        let own = edge.setup.gateway.private.to_base64().as_str().to_owned();
        learn("private key of the gateway", &Value::from(own), false)?;
        // Secrets that a caller brings are not kept, nor those of what is refused.
        let filled = json!({"private_key": made["secrets"]["private_key"],
            "preshared_key": made["secrets"]["preshared_key"]});
        for path in [
            format!("/v1/peers/{id}/config"),
            format!("/v1/peers/{id}/qr"),
        ] {
            api.call("POST", &path, &[], &filled)?.expect(200)?;
        }
        let brought = json!({"private_key": secrets_text(&secrets, "next private key")?,
            "preshared_key": secrets_text(&secrets, "preshared key")?});
        let refused = api.call("POST", &format!("/v1/peers/{id}/config"), &[], &brought)?;
        refused.expect_problem(422, "invalid")?;
        let mut answers = vec![("the refusal".to_owned(), refused.body.to_string())];

        let specification = api.get("/openapi.json")?;
        let paths = specification["paths"].as_object().context("no paths")?;
        let mut asked = 0;
        for (path, item) in paths {
            // It does not end.
            if !item["get"].is_object() || path == "/v1/events" {
                continue;
            }
            let of = if path.contains("token") {
                &token_id
            } else if path.contains("invite") {
                &invite_id
            } else {
                &id
            };
            let path = path.replace("{id}", of).replace("{error}", "522");
            let reply = api.call("GET", &path, &[], &Value::Null)?;
            // Nothing was applied.
            let expected = if path == "/v1/apply" { 404 } else { 200 };
            assert_eq!(reply.status, expected, "{path}: {reply:?}");
            answers.push((path, format!("{:?} {}", reply.headers, reply.body)));
            asked += 1;
        }
        assert!(asked >= 12, "{asked}");
        answers.push(("status".to_owned(), edge.gateway.command(&["status"])?));
        api.delete(&id)?;
        edge.gateway.daemon.stop(Signal::SIGTERM, SOON)?;
        answers.push(("the log".to_owned(), edge.gateway.daemon.log()));
        for (place, text) in &answers {
            for secret in &secrets {
                assert!(
                    !text.contains(&secret.text),
                    "the {} is in {place}",
                    secret.what
                );
            }
        }
        let mut found = Vec::new();
        files(vps.dir(), &mut found)?;
        assert!(
            found.iter().any(|path| path.ends_with("state/peers.db")),
            "{found:?}"
        );
        for path in found {
            let content = std::fs::read(&path)?;
            let is_database = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("peers.db"));
            let is_key_file = path.ends_with("state/gateway.key");
            for secret in &secrets {
                let may = is_key_file || (is_database && secret.may_be_in_database);
                let is_there =
                    holds(&content, secret.text.as_bytes()) || holds(&content, &secret.bytes);
                assert!(
                    may || !is_there,
                    "the {} is in {}",
                    secret.what,
                    path.display()
                );
            }
        }
        Ok(())
    });
}

fn secrets_text(secrets: &[Secret], what: &str) -> Result<String> {
    let secret = secrets.iter().find(|secret| secret.what == what);
    Ok(secret.context("not learned")?.text.clone())
}
