//! Values of requests: text → what it stands for, every wrong field named at once. Pure.
use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};
use shared::api::problem::FieldError;
use shared::model::{PresharedKey, PrivateKey, PublicKey};

/// Longest name of a peer, a token or a label.
const MAX_NAME_LEN: usize = 64;
/// Most labels of a peer.
const MAX_LABELS: usize = 32;
/// Longest value of a label, in characters.
const MAX_LABEL_LEN: usize = 256;
/// Most networks behind a peer.
const MAX_NETWORKS: usize = 64;
/// Longest time until something expires: a century.
const MAX_EXPIRY_SECS: u64 = 3_155_760_000;

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Check {
    /// What was found so far.
    pub errors: Vec<FieldError>,
}

/// The keys of a client, as asked for.
#[expect(clippy::struct_field_names, reason = "three kinds of keys")]
#[derive(Debug)]
pub struct Keys {
    /// Its key.
    pub public_key: PublicKey,
    /// Its private key, when it is made here.
    pub private_key: Option<PrivateKey>,
    /// Its preshared key.
    pub preshared_key: Option<PresharedKey>,
}

impl Check {
    /// Something is wrong at this place.
    pub fn refuse(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        });
    }

    /// 1 to 64 letters, digits, `.`, `_`, `@`, `-`, the first a letter or digit: safe in a shell, a URL, a file name, an nft
    /// comment and a log line.
    pub fn name(&mut self, pointer: &str, name: &str) {
        if !is_name(name) {
            self.refuse(
                pointer,
                format!(
                    "not a name: 1 to {MAX_NAME_LEN} letters, digits, `.`, `_`, `@`, `-` are wanted, the first a letter or \
                     digit"
                ),
            );
        }
    }

    /// Exactly one of a key and the wish for one, and the preshared key.
    pub fn keys(
        &mut self,
        public_key: Option<&str>,
        generate: bool,
        preshared_key: Option<&str>,
        random: &mut dyn FnMut() -> [u8; 32],
    ) -> Option<Keys> {
        let private_key = generate.then(|| PrivateKey::from_bytes(random()));
        let given = match (public_key, &private_key) {
            (Some(_), Some(_)) => {
                self.refuse("/generate_key", "excludes `public_key`");
                None
            }
            (None, None) => {
                self.refuse(
                    "/public_key",
                    "is missing; give the client's key, or ask for one with `generate_key`",
                );
                None
            }
            (Some(text), None) => self.public_key("/public_key", text),
            (None, Some(private_key)) => Some(private_key.public_key()),
        };
        let preshared_key = match preshared_key {
            None | Some("generate") => Ok(Some(PresharedKey::from_bytes(random()))),
            Some("none") => Ok(None),
            Some(text) => match text.parse::<PresharedKey>() {
                Ok(key) if !key.is_zero() => Ok(Some(key)),
                Ok(_) | Err(_) => Err(()),
            },
        };
        let Ok(preshared_key) = preshared_key else {
            self.refuse(
                "/preshared_key",
                "neither `generate`, nor `none`, nor 32 bytes as 44 characters of base64",
            );
            return None;
        };
        Some(Keys {
            public_key: given?,
            private_key,
            preshared_key,
        })
    }

    fn public_key(&mut self, pointer: &str, text: &str) -> Option<PublicKey> {
        // As `wg genkey | wg pubkey` prints it: one way to write a key, so that it can be compared as text.
        let key = text.parse::<PublicKey>().ok();
        let key = key.filter(|key| STANDARD.encode(key.as_bytes()) == text);
        match key {
            Some(key) if key.as_bytes().iter().any(|&byte| byte != 0) => Some(key),
            Some(_) => {
                self.refuse(pointer, "the key of all zeros is nobody's");
                None
            }
            None => {
                self.refuse(
                    pointer,
                    "not a WireGuard key: 32 bytes as 44 characters of base64 are wanted",
                );
                None
            }
        }
    }

    /// At least one address, one per family at most.
    pub fn addresses(&mut self, pointer: &str, texts: &[String]) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        if texts.is_empty() {
            self.refuse(pointer, "at least one address is wanted");
        }
        if texts.len() > 2 {
            self.refuse(pointer, "one address per family at most");
            return addresses;
        }
        for (place, text) in texts.iter().enumerate() {
            let pointer = format!("{pointer}/{place}");
            match text.parse::<IpAddr>() {
                Ok(address) if addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4()) => {
                    self.refuse(pointer, "one address per family at most");
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.refuse(pointer, "not an IP address, as `10.17.0.20` is one"),
            }
        }
        addresses
    }

    /// Networks that don't overlap with each other, sorted.
    pub fn networks(&mut self, pointer: &str, texts: &[String]) -> Vec<IpNetwork> {
        let mut networks: Vec<IpNetwork> = Vec::new();
        if texts.len() > MAX_NETWORKS {
            self.refuse(pointer, format!("at most {MAX_NETWORKS} networks"));
            return networks;
        }
        for (place, text) in texts.iter().enumerate() {
            let pointer = format!("{pointer}/{place}");
            let parsed = text.contains('/').then(|| text.parse::<IpNetwork>());
            let Some(Ok(network)) = parsed else {
                self.refuse(pointer, "not a network, as `192.168.50.0/24` is one");
                continue;
            };
            if network.ip() != network.network() {
                let right = format!("{}/{}", network.network(), network.prefix());
                self.refuse(pointer, format!("has host bits; the network is {right}"));
            } else if let Some(other) = networks
                .iter()
                .find(|other| crate::claims::overlap(**other, network))
            {
                self.refuse(pointer, format!("overlaps with {other}"));
            } else {
                networks.push(network);
            }
        }
        networks.sort();
        networks
    }

    /// A time that lies ahead, or a span until then.
    pub fn expiry(
        &mut self,
        at: Option<&str>,
        in_seconds: Option<u64>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        match (at, in_seconds) {
            (Some(_), Some(_)) => {
                self.refuse("/expires_in_seconds", "excludes `expires_at`");
                None
            }
            (Some(text), None) => self.time("/expires_at", text, now),
            (None, Some(seconds)) => {
                let span = i64::try_from(seconds)
                    .ok()
                    .filter(|_| (1..=MAX_EXPIRY_SECS).contains(&seconds));
                let at =
                    span.and_then(|span| now.checked_add(SignedDuration::from_secs(span)).ok());
                if at.is_none() {
                    self.refuse(
                        "/expires_in_seconds",
                        format!("1 to {MAX_EXPIRY_SECS} seconds are wanted"),
                    );
                }
                at
            }
            (None, None) => None,
        }
    }

    /// An RFC 3339 time that lies ahead.
    pub fn time(&mut self, pointer: &str, text: &str, now: Timestamp) -> Option<Timestamp> {
        match text.parse::<Timestamp>() {
            Ok(at) if at > now => Some(at),
            Ok(at) => {
                self.refuse(pointer, format!("{at} has passed; it is {now} now"));
                None
            }
            Err(_) => {
                self.refuse(
                    pointer,
                    "not a time of RFC 3339, as `2027-01-31T12:00:00Z` is one",
                );
                None
            }
        }
    }

    /// More than nothing, and what a 64-bit integer of the store holds.
    pub fn quota(&mut self, pointer: &str, quota: Option<u64>) -> Option<u64> {
        if quota.is_some_and(|quota| quota == 0 || i64::try_from(quota).is_err()) {
            self.refuse(pointer, format!("1 to {} bytes are wanted", i64::MAX));
        }
        quota
    }

    /// Few labels, with keys like names and short values.
    pub fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.refuse("/labels", format!("at most {MAX_LABELS} labels"));
        }
        for (key, value) in labels {
            let pointer = format!("/labels/{}", escape(key));
            if !is_name(key) {
                self.refuse(&pointer, "the key of a label is like a name");
            }
            if value.chars().count() > MAX_LABEL_LEN || value.chars().any(char::is_control) {
                self.refuse(
                    pointer,
                    format!("at most {MAX_LABEL_LEN} characters, and no control characters"),
                );
            }
        }
    }
}

/// Whether this is a name.
pub fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    name.len() <= MAX_NAME_LEN
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(is_inner)
}

/// One reference token of a JSON pointer (RFC 6901 §3).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(check: impl FnOnce(&mut Check)) -> Vec<String> {
        let mut found = Check::default();
        check(&mut found);
        found
            .errors
            .into_iter()
            .map(|error| error.pointer)
            .collect()
    }

    #[test]
    fn names_can_be_put_anywhere() {
        for name in ["a", "alice@laptop", "10.kiosk_7-b"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in [
            "",
            "-a",
            ".a",
            "a b",
            "a\n",
            "a\"b",
            "a;b",
            "$(id)",
            "ä",
            "../a",
            "a/b",
            "%0a",
            "<b>",
            "'; drop table peers; --",
            "\u{202e}a",
            &long,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_key_has_one_spelling_and_a_holder() {
        let mut random = || [9; 32];
        let mut keys = |key: Option<&str>, generate, psk| {
            errors(|check| drop(check.keys(key, generate, psk, &mut random)))
        };
        let key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(keys(Some(key), false, None), [""; 0]);
        assert_eq!(keys(None, true, Some("none")), [""; 0]);
        assert_eq!(keys(Some(key), true, None), ["/generate_key"]);
        assert_eq!(keys(None, false, None), ["/public_key"]);
        let zeros = STANDARD.encode([0; 32]);
        for wrong in ["", "abc", &key[1..], &format!(" {key}"), &zeros] {
            assert_eq!(keys(Some(wrong), false, None), ["/public_key"], "{wrong:?}");
        }
        for wrong in ["", "Generate", &zeros] {
            let found = keys(Some(key), false, Some(wrong));
            assert_eq!(found, ["/preshared_key"], "{wrong:?}");
        }
    }

    #[test]
    fn every_wrong_address_and_network_is_named_by_its_place() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let addresses = |list: &[&str]| errors(|c| drop(c.addresses("/addresses", &texts(list))));
        assert_eq!(addresses(&["10.17.0.9", "fd17::9"]), [""; 0]);
        assert_eq!(addresses(&[]), ["/addresses"]);
        assert_eq!(addresses(&["10.17.0.9", "10.17.0.8"]), ["/addresses/1"]);
        assert_eq!(
            addresses(&["x", "10.17.0.9/32"]),
            ["/addresses/0", "/addresses/1"]
        );
        let networks = |list: &[&str]| errors(|c| drop(c.networks("/networks", &texts(list))));
        assert_eq!(networks(&["192.168.50.0/24", "fd50::/48"]), [""; 0]);
        assert_eq!(
            networks(&[
                "192.168.50.1/24",
                "10.0.0.0",
                "a",
                "fd50::/48",
                "fd50:0:0:1::/64"
            ]),
            ["/networks/0", "/networks/1", "/networks/2", "/networks/4"]
        );
    }

    #[test]
    fn what_expires_expires_in_the_future() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let expiry = |at: Option<&str>, seconds| {
            errors(|check| {
                check.expiry(at, seconds, now);
            })
        };
        assert_eq!(expiry(Some("2026-11-23T14:00:00+01:00"), None), [""; 0]);
        assert_eq!(
            expiry(Some("2026-11-23T13:00:00+01:00"), None),
            ["/expires_at"]
        );
        assert_eq!(expiry(Some("tomorrow"), None), ["/expires_at"]);
        assert_eq!(expiry(None, Some(0)), ["/expires_in_seconds"]);
        assert_eq!(expiry(None, Some(u64::MAX)), ["/expires_in_seconds"]);
        let both = expiry(Some("2027-11-23T13:00:00Z"), Some(1));
        assert_eq!(both, ["/expires_in_seconds"]);
    }
}
