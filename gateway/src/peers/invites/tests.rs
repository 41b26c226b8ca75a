//! Facts about invitations.
use std::net::IpAddr;

use jiff::Timestamp;
use shared::config::gateway::Gateway;

use super::*;
use crate::claims::Claims;
use crate::peers::state::State;
use crate::store::Snapshot;

const FILE: &str = r#"
[wan]
interface = "eth0"
endpoint  = "vps.example.org:51820"
[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]
[[lan_server]]
name     = "home"
address  = "10.17.0.2"
networks = ["10.17.5.0/24"]
[[lan_server]]
name     = "office"
address  = "10.17.0.3"
networks = ["10.17.6.0/24"]
[[lan_server]]
name       = "fixed"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address    = "10.17.0.4"
networks   = ["10.17.7.0/24"]
"#;

const OWN_KEY: PublicKey = PublicKey::from_bytes([99; 32]);

struct World {
    config: Gateway,
    state: State,
    now: Timestamp,
    random: u8,
}

impl World {
    fn new() -> Self {
        Self {
            config: Gateway::parse(FILE, "gateway.toml").unwrap().config,
            state: State::of(Snapshot::default()),
            now: Timestamp::from_second(1_000_000).unwrap(),
            random: 0,
        }
    }

    /// Do it and keep it; the code of the refusal otherwise.
    fn with<T>(
        &mut self,
        ask: impl FnOnce(&Context<'_>, Random<'_>) -> Result<(T, Vec<Change>), RequestError>,
    ) -> Result<T, String> {
        let claims = Claims::of(&self.config, self.state.lan_servers());
        let context = Context {
            state: &self.state,
            config: &self.config,
            claims: &claims,
            own_key: Some(OWN_KEY),
            last_allocated: &[None, None],
            now: self.now,
        };
        let random = &mut self.random;
        let mut random = || {
            *random += 1;
            [*random; 32]
        };
        let (made, changes) = ask(&context, &mut random).map_err(|error| match error {
            RequestError::Invalid(errors) => errors[0].pointer.clone(),
            RequestError::Conflict { code, .. } => code.to_owned(),
            RequestError::NotFound(_)
            | RequestError::Stale { .. }
            | RequestError::KeyReused
            | RequestError::Full(_)
            | RequestError::NotApplied(_)
            | RequestError::Ending => error.to_string(),
        })?;
        for change in &changes {
            self.state.apply(change);
        }
        Ok(made)
    }

    fn invite(&mut self, lan_server: &str) -> Result<(Token, InviteRecord), String> {
        self.with(|context, random| {
            let invited = context.invite(Uuid::now_v7(), lan_server, "unix:uid=0", random)?;
            Ok(((invited.token, invited.invite), invited.changes))
        })
    }

    fn join(&mut self, invite: Uuid, key: u8) -> Result<LanServerRecord, String> {
        let invite = self.state.invites().get(&invite).cloned();
        let invite = invite.ok_or("over")?;
        let key = PublicKey::from_bytes([key; 32]);
        self.with(|context, random| context.join(&invite, key, random))
    }
}

#[test]
fn a_token_says_how_to_call_and_its_private_key_is_kept_nowhere() {
    let mut world = World::new();
    let (token, invite) = world.invite("home").unwrap();
    assert_eq!(token.gateway_key, OWN_KEY);
    assert_eq!(token.endpoint, world.config.wan.endpoint);
    assert_eq!(
        token.gateway_address,
        "10.17.0.1".parse::<IpAddr>().unwrap()
    );
    assert_eq!(token.address, invite.address);
    assert_eq!(token.expires_at, invite.expires_at);
    let life = invite.expires_at.duration_since(world.now).as_secs();
    assert_eq!(life, 15 * 60);
    assert_eq!(invite.public_key, token.private_key.public_key());
    assert_eq!(invite.preshared_key, token.preshared_key());
    let key = *token.private_key.as_bytes();
    assert_ne!(invite.public_key.as_bytes(), &key);
    assert_ne!(invite.preshared_key.as_bytes(), &key);
    // Nobody else gets its address or key.
    assert_eq!(
        world.state.by_address(invite.address, None),
        Some(invite.id)
    );
    assert_eq!(world.state.by_key(&invite.public_key), Some(invite.id));
}

#[test]
fn only_a_lan_server_without_a_key_in_the_file_can_be_joined() {
    let mut world = World::new();
    assert_eq!(world.invite("nobody").unwrap_err(), "/lan_server");
    assert_eq!(world.invite("fixed").unwrap_err(), "key_of_file");
}

#[test]
fn a_token_works_once() {
    let mut world = World::new();
    let (_, invite) = world.invite("home").unwrap();
    let joined = world.join(invite.id, 5).unwrap();
    assert_eq!(joined.public_key, PublicKey::from_bytes([5; 32]));
    assert_eq!(world.state.lan_servers()["home"], joined);
    assert_eq!(world.join(invite.id, 6).unwrap_err(), "invite_used");
    assert_eq!(world.join(invite.id, 5).unwrap_err(), "invite_used");
    assert_eq!(world.state.lan_servers()["home"], joined);
}

#[test]
fn a_token_ends_with_its_time_to_the_second() {
    let mut world = World::new();
    let (_, invite) = world.invite("home").unwrap();
    world.now = invite.expires_at;
    assert_eq!(world.join(invite.id, 5).unwrap_err(), "invite_expired");
    world.now -= SignedDuration::from_millis(1);
    world.join(invite.id, 5).unwrap();
}

#[test]
fn a_new_token_ends_the_one_before_and_no_other() {
    let mut world = World::new();
    let (_, first) = world.invite("home").unwrap();
    let (_, other) = world.invite("office").unwrap();
    let (_, second) = world.invite("home").unwrap();
    assert_ne!(first.address, second.address, "it rests");
    assert_eq!(world.join(first.id, 5).unwrap_err(), "over");
    assert_eq!(world.state.by_key(&first.public_key), None);
    world.join(other.id, 5).unwrap();
    world.join(second.id, 6).unwrap();
}

#[test]
fn another_host_takes_the_place_of_the_first_and_the_first_may_come_back() {
    let mut world = World::new();
    for key in [5, 6, 5, 5] {
        let (_, invite) = world.invite("home").unwrap();
        world.join(invite.id, key).unwrap();
        let joined = &world.state.lan_servers()["home"];
        assert_eq!(joined.public_key, PublicKey::from_bytes([key; 32]));
    }
}

#[test]
fn a_key_belongs_to_one() {
    let mut world = World::new();
    let (_, home) = world.invite("home").unwrap();
    world.join(home.id, 5).unwrap();
    let (token, office) = world.invite("office").unwrap();
    let fixed = world.config.lan_servers[2].public_key.unwrap();
    let invited = token.private_key.public_key();
    let zeros = PublicKey::from_bytes([0; 32]);
    let home = PublicKey::from_bytes([5; 32]);
    for key in [zeros, OWN_KEY, fixed, invited, home] {
        let refused = world.with(|context, random| context.join(&office, key, random));
        assert_eq!(refused.unwrap_err(), "public_key_taken", "{key}");
    }
    // Nor can a peer of the API have it.
    let claims = Claims::of(&world.config, world.state.lan_servers());
    assert!(claims.has_key(&home) && claims.has_key(&fixed));
}

#[test]
fn a_lan_server_that_the_file_has_given_a_key_since_joins_no_more() {
    let mut world = World::new();
    let (_, invite) = world.invite("home").unwrap();
    let key = world.config.lan_servers[2].public_key.take();
    world.config.lan_servers[0].public_key = key;
    assert_eq!(world.join(invite.id, 5).unwrap_err(), "key_of_file");
    world.config.lan_servers.remove(0);
    assert_eq!(world.join(invite.id, 5).unwrap_err(), "/lan_server");
}
