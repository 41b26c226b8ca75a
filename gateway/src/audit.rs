//! The audit log's chain: each entry is sealed with the hash of the one before, so that none can be changed, taken out, put in
//! or moved without all that follow. Pure.
//!
//! The hash is SHA-256 over the entry as JSON without its `hash`, keys sorted and no white space, in UTF-8. With the output
//! of `GET /v1/audit` anyone can check an entry: `jq -cS 'del(.hash)' | tr -d '\n' | sha256sum`.
//!
//! What it can't tell: that the newest entries were cut off, or that somebody wrote the whole log anew. Whoever keeps the
//! [`Head`] elsewhere (`gateway audit verify` prints it, and takes it back with `--expect`) can tell both.
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use shared::api::audit::{AuditEntry, AuditRequest};

use crate::store::{PeerRecord, TokenRecord};

/// What the first entry has in the place of a hash before it.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An entry before it is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// On what.
    pub resource: String,
    /// By which request.
    pub request: Option<AuditRequest>,
    /// What changed.
    pub difference: Map<String, Value>,
}

/// How far a log goes: with this, nothing before it can be changed unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the last entry; 0 for an empty log.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: NO_HASH.to_owned(),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// Not a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not SEQUENCE:HASH as `audit verify` prints it")]
pub struct HeadError;

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (sequence, hash) = text.split_once(':').ok_or(HeadError)?;
        let is_hash = hash.len() == NO_HASH.len() && hash.chars().all(|c| c.is_ascii_hexdigit());
        let sequence = sequence.parse().map_err(|_| HeadError)?;
        is_hash
            .then(|| Self {
                sequence,
                hash: hash.to_ascii_lowercase(),
            })
            .ok_or(HeadError)
    }
}

/// Where a log stops to be what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {sequence}: {what}")]
pub struct Broken {
    /// Number of the first entry that can't be believed.
    pub sequence: u64,
    /// Why.
    pub what: &'static str,
}

/// The entry that follows `previous`.
pub fn seal(previous: Option<&AuditEntry>, draft: Draft) -> AuditEntry {
    let mut entry = AuditEntry {
        sequence: previous.map_or(1, |previous| previous.sequence + 1),
        at: draft.at,
        actor: draft.actor,
        action: draft.action,
        resource: draft.resource,
        request: draft.request,
        difference: draft.difference,
        previous_hash: previous.map_or_else(|| NO_HASH.to_owned(), |p| p.hash.clone()),
        hash: String::new(),
    };
    entry.hash = hash(&entry);
    entry
}

/// Go on from `head` over entries in their order.
///
/// # Errors
/// The first entry that does not follow, or is not what was sealed.
pub fn verify(head: Head, entries: &[AuditEntry]) -> Result<Head, Broken> {
    entries.iter().try_fold(head, |head, entry| {
        let broken = |what| Broken {
            sequence: head.sequence + 1,
            what,
        };
        if entry.sequence != head.sequence + 1 {
            return Err(broken("is missing or out of order"));
        }
        if entry.previous_hash != head.hash {
            return Err(broken("does not follow the one before"));
        }
        if entry.hash != hash(entry) {
            return Err(broken("is not what was written"));
        }
        Ok(Head {
            sequence: entry.sequence,
            hash: entry.hash.clone(),
        })
    })
}

fn hash(entry: &AuditEntry) -> String {
    // Objects of `serde_json` are sorted maps (its feature `preserve_order` is off), at every depth.
    let mut value = serde_json::to_value(entry).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("hash");
    }
    sha256(&value.to_string())
}

/// As `sha256sum` prints it.
pub fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    let bytes = digest.iter();
    bytes
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// What differs between two states of a peer: field → from, to. Of secrets only that they changed.
pub fn difference(before: Option<&PeerRecord>, after: Option<&PeerRecord>) -> Map<String, Value> {
    let fields = |peer: &PeerRecord| {
        let rotation = peer.rotation.as_ref();
        json!({
            "name": peer.name,
            "public_key": peer.public_key.to_string(),
            "addresses": peer.addresses,
            "networks": texts(&peer.networks),
            "role": peer.role,
            "enabled": peer.enabled,
            "expires_at": peer.expires_at,
            "quota_bytes": peer.quota_bytes,
            "labels": peer.labels,
            "next_public_key": rotation.map(|next| next.public_key.to_string()),
            "rotation_until": rotation.map(|next| next.until),
        })
    };
    let mut difference = differing(before.map(fields), after.map(fields));
    let key = |peer: Option<&PeerRecord>| peer.and_then(|peer| peer.preshared_key.clone());
    if key(before) != key(after) {
        let word = |peer| if key(peer).is_some() { "set" } else { "none" };
        let entry = json!({"from": word(before), "to": word(after)});
        difference.insert("preshared_key".to_owned(), entry);
    }
    difference
}

/// The same for tokens; their hash is left out.
pub fn token_difference(
    before: Option<&TokenRecord>,
    after: Option<&TokenRecord>,
) -> Map<String, Value> {
    let fields = |token: &TokenRecord| {
        json!({
            "name": token.name,
            "scopes": token.scopes,
            "expires_at": token.expires_at,
        })
    };
    differing(before.map(fields), after.map(fields))
}

/// One more field, if it differs.
pub fn note(
    difference: &mut Map<String, Value>,
    field: &str,
    from: impl Serialize,
    to: impl Serialize,
) {
    let (from, to) = (json!(from), json!(to));
    if from != to {
        difference.insert(field.to_owned(), json!({"from": from, "to": to}));
    }
}

fn differing(before: Option<Value>, after: Option<Value>) -> Map<String, Value> {
    let object = |value: Option<Value>| match value {
        Some(Value::Object(fields)) => fields,
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        )
        | None => Map::new(),
    };
    let (before, after) = (object(before), object(after));
    let names = before
        .keys()
        .chain(after.keys().filter(|name| !before.contains_key(*name)));
    names
        .filter_map(|name| {
            let from = before.get(name).unwrap_or(&Value::Null);
            let to = after.get(name).unwrap_or(&Value::Null);
            (from != to).then(|| (name.clone(), json!({"from": from, "to": to})))
        })
        .collect()
}

fn texts<T: ToString>(values: &[T]) -> impl Serialize {
    values.iter().map(T::to_string).collect::<Vec<_>>()
}

#[cfg(test)]
mod tests;
