//! Facts about what requests come to.
use std::collections::BTreeMap;

use super::*;
use crate::members::LanServers;
use crate::store::Snapshot;

const FILE: &str = r#"
[wan]
interface = "eth0"
endpoint  = "203.0.113.10:51820"
[tunnel]
address = ["10.17.0.1/29", "fd17::1/64"]
[[lan_server]]
name       = "home"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address    = ["10.17.0.2", "fd17::2"]
networks   = ["10.18.5.0/24"]
[[role]]
name  = "kube-admin"
allow = ["10.18.5.10:6443/tcp"]
[[peer]]
name       = "alice"
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
address    = "10.17.0.4"
"#;

struct World {
    config: Gateway,
    claims: Claims,
    state: State,
    now: Timestamp,
    random: u8,
    last: [Option<IpAddr>; 2],
}

impl World {
    fn new() -> Self {
        let config = Gateway::parse(FILE, "gateway.toml").unwrap().config;
        Self {
            claims: Claims::of(&config, &LanServers::new()),
            config,
            state: State::of(Snapshot::default()),
            now: Timestamp::from_second(1_000_000).unwrap(),
            random: 0,
            last: [None, None],
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            state: &self.state,
            config: &self.config,
            claims: &self.claims,
            own_key: Some(PublicKey::from_bytes([99; 32])),
            last_allocated: &self.last,
            now: self.now,
        }
    }

    fn make(&mut self, made: Result<Made, RequestError>) -> Result<Arc<PeerRecord>, String> {
        let made = made.map_err(|error| match error {
            RequestError::Invalid(errors) => {
                let places: Vec<&str> = errors.iter().map(|e| e.pointer.as_str()).collect();
                places.join(" ")
            }
            RequestError::Conflict { code, .. } => code.to_owned(),
            other @ (RequestError::NotFound(_)
            | RequestError::Stale { .. }
            | RequestError::KeyReused
            | RequestError::Full(_)
            | RequestError::NotApplied(_)
            | RequestError::Ending) => other.to_string(),
        })?;
        for change in &made.changes {
            self.state.apply(change);
        }
        Ok(made.peer)
    }

    fn create(&mut self, request: &CreatePeer) -> Result<Arc<PeerRecord>, String> {
        self.random += 1;
        let number = self.random;
        let id = Uuid::from_u128(u128::from(number));
        let made = self.context().create(id, request, &mut || [number; 32]);
        self.make(made)
    }

    fn patch(&mut self, peer: &PeerRecord, patch: &str) -> Result<Arc<PeerRecord>, String> {
        let patch = serde_json::from_str(patch).map_err(|error| error.to_string())?;
        let made = self.context().patch(peer, &patch);
        self.make(made)
    }

    fn delete(&mut self, peer: &PeerRecord) {
        for change in self.context().delete(peer) {
            self.state.apply(&change);
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }
}

fn named(name: &str) -> CreatePeer {
    CreatePeer {
        name: name.to_owned(),
        generate_key: true,
        ..CreatePeer::default()
    }
}

/// What a case alters in a request that is good.
type Alter = fn(&mut CreatePeer);

fn addresses(peer: &PeerRecord) -> Vec<String> {
    peer.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn addresses_are_given_out_once_and_rest_when_they_come_back() {
    let mut world = World::new();
    let names = ["a", "b", "c"];
    let peers: Vec<_> = names.map(|name| world.create(&named(name)).unwrap()).into();
    // Not the network, the gateway, the LAN server, alice, the broadcast address.
    assert_eq!(addresses(&peers[0]), ["10.17.0.3", "fd17::3"]);
    assert_eq!(addresses(&peers[1]), ["10.17.0.5", "fd17::4"]);
    assert_eq!(addresses(&peers[2]), ["10.17.0.6", "fd17::5"]);
    assert_eq!(
        world.create(&named("d")),
        Err("addresses_exhausted".to_owned())
    );
    world.delete(&peers[1]);
    world.pass(119);
    assert_eq!(
        world.create(&named("d")),
        Err("addresses_exhausted".to_owned())
    );
    // Who asks for it by name knows what it does.
    let mut wish = named("e");
    wish.addresses = Some(vec!["10.17.0.5".to_owned()]);
    let e = world.create(&wish).unwrap();
    world.delete(&e);
    world.pass(121);
    assert_eq!(
        addresses(&world.create(&named("d")).unwrap())[0],
        "10.17.0.5"
    );
}

#[test]
fn nobody_gets_what_another_has() {
    let mut world = World::new();
    let mut first = named("bob");
    first.networks = vec!["192.168.50.0/24".to_owned()];
    let bob = world.create(&first).unwrap();
    let cases: [(&str, Alter); 12] = [
        ("name_taken", |r| {
            r.name = "bob".to_owned();
        }),
        ("name_taken", |r| {
            r.name = "alice".to_owned();
        }),
        ("address_taken", |r| {
            r.addresses = Some(vec!["10.17.0.3".to_owned()]);
        }),
        ("address_taken", |r| {
            r.addresses = Some(vec!["10.17.0.1".to_owned()]);
        }),
        ("address_taken", |r| {
            r.addresses = Some(vec!["fd17::2".to_owned()]);
        }),
        ("/addresses/0", |r| {
            r.addresses = Some(vec!["10.18.5.10".to_owned()]);
        }),
        ("/addresses/0", |r| {
            r.addresses = Some(vec!["192.0.2.1".to_owned()]);
        }),
        ("network_taken", |r| {
            r.networks = vec!["192.168.50.128/25".to_owned()];
        }),
        ("network_taken", |r| {
            r.networks = vec!["10.18.5.10/32".to_owned()];
        }),
        ("/networks/0", |r| {
            r.networks = vec!["0.0.0.0/0".to_owned()];
        }),
        ("/networks/0", |r| {
            r.networks = vec!["203.0.113.0/24".to_owned()];
        }),
        ("/role", |r| {
            r.role = Some("root".to_owned());
        }),
    ];
    for (expected, change) in cases {
        let mut request = named("eve");
        change(&mut request);
        assert_eq!(
            world.create(&request),
            Err(expected.to_owned()),
            "{request:?}"
        );
    }
    let keys = [bob.public_key, PublicKey::from_bytes([99; 32])];
    for key in keys {
        let mut request = named("eve");
        request.generate_key = false;
        request.public_key = Some(key.to_string());
        assert_eq!(world.create(&request), Err("public_key_taken".to_owned()));
    }
    assert_eq!(world.state.peers().len(), 1);
}

#[test]
fn a_patch_changes_what_it_names_and_null_removes() {
    let mut world = World::new();
    let mut request = named("bob");
    request.role = Some("kube-admin".to_owned());
    request.quota_bytes = Some(1000);
    request.expires_in_seconds = Some(60);
    request.labels = BTreeMap::from([
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "2".to_owned()),
    ]);
    let bob = world.create(&request).unwrap();
    let same = world.patch(&bob, "{}").unwrap();
    assert_eq!((same.revision, &same.labels), (2, &bob.labels));
    let patch = r#"{"role": null, "quota_bytes": null, "expires_at": null, "enabled": false,
        "labels": {"a": null, "c": "3"}, "name": "robert"}"#;
    let changed = world.patch(&same, patch).unwrap();
    assert_eq!(
        (&changed.role, changed.quota_bytes, changed.expires_at),
        (&None, None, None)
    );
    assert_eq!((changed.enabled, changed.name.as_str()), (false, "robert"));
    let labels: Vec<&str> = changed.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["b", "c"]);
    assert_eq!(world.state.by_name("bob"), None);
    for null in [
        r#"{"name": null}"#,
        r#"{"enabled": null}"#,
        r#"{"addresses": null}"#,
    ] {
        assert!(serde_json::from_str::<PatchPeer>(null).is_err(), "{null}");
    }
}

#[test]
fn an_address_that_changes_is_given_back() {
    let mut world = World::new();
    let bob = world.create(&named("bob")).unwrap();
    let moved = world
        .patch(&bob, r#"{"addresses": ["10.17.0.6", "fd17::3"]}"#)
        .unwrap();
    assert_eq!(addresses(&moved), ["10.17.0.6", "fd17::3"]);
    assert!(
        world
            .state
            .is_released_since("10.17.0.3".parse().unwrap(), Timestamp::UNIX_EPOCH)
    );
    assert!(
        !world
            .state
            .is_released_since("fd17::3".parse().unwrap(), Timestamp::UNIX_EPOCH)
    );
}

#[test]
fn what_the_file_claims_later_stays_changeable() {
    let mut world = World::new();
    let bob = world.create(&named("bob")).unwrap();
    world.claims = Claims::of(
        &Gateway::parse(&FILE.replace("10.17.0.4", "10.17.0.3"), "gateway.toml")
            .unwrap()
            .config,
        &LanServers::new(),
    );
    assert!(world.patch(&bob, r#"{"enabled": false}"#).is_ok());
    let moved = world.patch(&bob, r#"{"addresses": ["10.17.0.5"]}"#);
    assert_eq!(addresses(&moved.unwrap()), ["10.17.0.5"]);
}

#[test]
fn a_rotation_has_two_keys_until_it_is_finished() {
    let mut world = World::new();
    let bob = world.create(&named("bob")).unwrap();
    let new = PublicKey::from_bytes([77; 32]);
    let request = RotatePeer {
        public_key: Some(new.to_string()),
        ..RotatePeer::default()
    };
    let made = world.context().rotate(&bob, &request, &mut || [5; 32]);
    let rotating = world.make(made).unwrap();
    assert_eq!(rotating.public_key, bob.public_key);
    assert_eq!(world.state.by_key(&bob.public_key), Some(bob.id));
    assert_eq!(world.state.by_key(&new), Some(bob.id));
    let made = world.context().finish_rotation(&rotating).unwrap();
    let rotated = world.make(Ok(made)).unwrap();
    assert_eq!(
        (rotated.public_key, rotated.rotation.is_none()),
        (new, true)
    );
    assert_eq!(world.state.by_key(&bob.public_key), None);
    let again = world.context().rotate(&rotated, &request, &mut || [5; 32]);
    assert_eq!(world.make(again), Err("/public_key".to_owned()));
    let at_once = RotatePeer {
        generate_key: true,
        overlap_seconds: Some(0),
        ..RotatePeer::default()
    };
    let made = world.context().rotate(&rotated, &at_once, &mut || [6; 32]);
    let done = world.make(made).unwrap();
    assert!(done.rotation.is_none() && done.public_key != new);
}

#[test]
fn what_a_peer_has_already_hides_nothing_of_the_others() {
    let mut world = World::new();
    let request = |name: &str, network: &str| -> CreatePeer {
        let wish =
            format!(r#"{{"name": "{name}", "generate_key": true, "networks": ["{network}"]}}"#);
        serde_json::from_str(&wish).unwrap()
    };
    let first = world.create(&request("first", "10.50.0.0/24")).unwrap();
    world.create(&request("second", "10.50.1.0/24")).unwrap();
    for (networks, expected) in [
        (r#"["10.50.0.0/16"]"#, Some("network_taken")),
        (r#"["10.50.0.0/23"]"#, Some("network_taken")),
        (r#"["10.50.0.0/25", "10.50.0.128/25"]"#, None),
    ] {
        let patched = world.patch(&first, &format!(r#"{{"networks": {networks}}}"#));
        assert_eq!(patched.err().as_deref(), expected, "{networks}");
    }
}
