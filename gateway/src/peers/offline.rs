//! An invitation without the daemon, for `gateway init`: the same decision and the same entry of the audit log, written into the
//! store that the daemon will start from.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Map;
use shared::config::gateway::Gateway;
use shared::model::PublicKey;
use shared::pairing::Token;
use shared_daemon::error::Failure;
use uuid::Uuid;

use super::change::Context;
use super::state::State;
use crate::audit;
use crate::claims::Claims;
use crate::members::joined;
use crate::store::{Change, Store};

/// What there is for the LAN host.
#[derive(Debug)]
pub enum Invited {
    /// What it joins with.
    Token(Token),
    /// It has joined already, with this key.
    Joined(PublicKey),
}

/// Invite the host that becomes `lan_server`, unless one has joined. The caller sees to it that no daemon runs.
///
/// # Errors
/// It has no place in the configuration, or the store can't be written.
pub async fn invite<S: Store>(
    store: &S,
    config: &Gateway,
    own_key: PublicKey,
    lan_server: &str,
    now: Timestamp,
) -> Result<Invited, Failure> {
    let snapshot = store.load().await;
    let snapshot = snapshot.map_err(|error| Failure::environment(&error))?;
    let state = State::of(snapshot);
    let keys: BTreeMap<&str, PublicKey> = joined(config, state.lan_servers())
        .map(|(lan, record)| (lan.name.as_str(), record.public_key))
        .collect();
    if let Some(key) = keys.get(lan_server) {
        return Ok(Invited::Joined(*key));
    }
    let claims = Claims::of(config, state.lan_servers());
    let context = Context {
        state: &state,
        config,
        claims: &claims,
        own_key: Some(own_key),
        last_allocated: &[None, None],
        now,
    };
    let actor = "gateway init";
    let invited = context
        .invite(
            Uuid::now_v7(),
            lan_server,
            actor,
            &mut super::decide::random_bytes,
        )
        .map_err(|error| Failure::other(&error))?;
    let mut difference = Map::new();
    let ends = Some(invited.invite.expires_at);
    audit::note(&mut difference, "expires_at", None::<Timestamp>, ends);
    let entry = audit::seal(
        state.audit_head(),
        audit::Draft {
            at: now,
            actor: actor.to_owned(),
            action: "invite.create".to_owned(),
            resource: format!("invites/{}", invited.invite.id),
            request: None,
            difference,
        },
    );
    let changes = invited.changes.into_iter().chain([Change::Audit(entry)]);
    let committed = store.commit(changes.collect()).await;
    committed.map_err(|error| Failure::environment(&error))?;
    Ok(Invited::Token(invited.token))
}

#[cfg(test)]
mod tests {
    use shared::model::PrivateKey;

    use super::*;
    use crate::store::LanServerRecord;
    use crate::store::memory::MemoryStore;

    const FILE: &str = r#"
[wan]
endpoint = "203.0.113.10:51820"
[tunnel]
address = "10.17.0.1/16"
[[lan_server]]
name     = "home"
address  = "10.17.0.2"
networks = ["10.17.5.0/24"]
"#;

    #[tokio::test]
    async fn what_is_invited_is_in_the_store_until_somebody_has_joined() {
        let config = Gateway::parse(FILE, "gateway.toml").unwrap().config;
        let own_key = PrivateKey::from_bytes([1; 32]).public_key();
        let store = MemoryStore::default();
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let invited = invite(&store, &config, own_key, "home", now).await.unwrap();
            let Invited::Token(token) = invited else {
                panic!("{invited:?}");
            };
            assert_eq!(token.gateway_key, own_key);
            tokens.push(token);
        }
        let held = store.load().await.unwrap();
        assert_eq!(held.invites.len(), 1, "the second one ends the first");
        assert_eq!(held.invites[0].address, tokens[1].address);
        assert_eq!(held.audit_head.unwrap().action, "invite.create");
        let key = PublicKey::from_bytes([5; 32]);
        let lan_server = LanServerRecord {
            name: "home".to_owned(),
            public_key: key,
            preshared_key: tokens[0].preshared_key(),
            joined_at: now,
        };
        let joined = Change::PutLanServer(lan_server);
        store.commit(vec![joined]).await.unwrap();
        let again = invite(&store, &config, own_key, "home", now).await.unwrap();
        assert!(
            matches!(again, Invited::Joined(known) if known == key),
            "{again:?}"
        );
        let nobody = invite(&store, &config, own_key, "nobody", now).await;
        assert!(nobody.is_err());
    }
}
