//! Bearer tokens: `edge_<id>_<secret>`. Pure but for the random numbers, which the caller brings.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use shared::api::token::{CreateToken, Token};
use subtle::ConstantTimeEq as _;

use super::check::Check;
use super::error::RequestError;
use crate::store::TokenRecord;

/// What tokens begin with.
const PREFIX: &str = "edge";
/// Characters of an identifier.
const ID_LEN: usize = 12;

/// A new token, and its text, which is told once.
pub fn create(
    request: &CreateToken,
    actor: &str,
    now: Timestamp,
    random: &mut dyn FnMut() -> [u8; 32],
) -> Result<(TokenRecord, String), RequestError> {
    let mut check = Check::default();
    check.name("/name", &request.name);
    if request.scopes.is_empty() {
        check.refuse(
            "/scopes",
            "at least one of read, peers:write, admin is wanted",
        );
    }
    let expires_at = check.expiry(
        request.expires_at.as_deref(),
        request.expires_in_seconds,
        now,
    );
    if !check.errors.is_empty() {
        return Err(RequestError::Invalid(check.errors));
    }
    let mut scopes = request.scopes.clone();
    scopes.sort_unstable();
    scopes.dedup();
    let id: String = random()
        .iter()
        .take(ID_LEN)
        .filter_map(|byte| char::from_digit(u32::from(byte % 32), 32))
        .collect();
    let secret = URL_SAFE_NO_PAD.encode(random());
    let text = format!("{PREFIX}_{id}_{secret}");
    let record = TokenRecord {
        id,
        revision: 1,
        name: request.name.clone(),
        secret_hash: hash(&secret),
        scopes,
        created_at: now,
        created_by: actor.to_owned(),
        expires_at,
    };
    Ok((record, text))
}

/// Whether this is the secret of the token, and its time is not up. Takes the same time for every wrong secret.
pub fn accepts(record: &TokenRecord, secret: &str, now: Timestamp) -> bool {
    let matches: bool = record.secret_hash.ct_eq(&hash(secret)).into();
    matches && record.expires_at.is_none_or(|at| at > now)
}

/// A token without its secret.
pub fn view(record: &TokenRecord, last_used_at: Option<Timestamp>) -> Token {
    Token {
        id: record.id.clone(),
        name: record.name.clone(),
        scopes: record.scopes.clone(),
        created_at: record.created_at,
        created_by: record.created_by.clone(),
        expires_at: record.expires_at,
        last_used_at,
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use shared::api::scope::Scope;

    use super::*;

    fn request() -> CreateToken {
        CreateToken {
            name: "ci".to_owned(),
            scopes: vec![Scope::PeersWrite, Scope::Read, Scope::Read],
            expires_in_seconds: Some(60),
            ..CreateToken::default()
        }
    }

    #[test]
    fn a_token_is_its_secret_until_its_time_is_up() {
        let now = Timestamp::from_second(1000).unwrap();
        let mut number = 0;
        let mut random = || {
            number += 1;
            [number; 32]
        };
        let (record, text) = create(&request(), "daemon", now, &mut random).unwrap();
        let mut parts = text.splitn(3, '_');
        assert_eq!(parts.next(), Some("edge"));
        assert_eq!(parts.next(), Some(record.id.as_str()));
        let secret = parts.next().unwrap();
        assert_eq!(secret.len(), 43, "32 random bytes");
        assert_eq!(record.scopes, [Scope::Read, Scope::PeersWrite]);
        assert!(accepts(&record, secret, now));
        assert!(!accepts(&record, &secret[1..], now));
        assert!(!accepts(&record, "", now));
        let later = Timestamp::from_second(1060).unwrap();
        assert!(!accepts(&record, secret, later));
        assert!(!format!("{record:?}").contains(secret));
    }

    #[test]
    fn a_token_without_scope_or_name_is_none() {
        let request = CreateToken::default();
        let made = create(&request, "daemon", Timestamp::UNIX_EPOCH, &mut || [0; 32]);
        let Err(RequestError::Invalid(errors)) = made else {
            panic!("{made:?}");
        };
        let pointers: Vec<&str> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/name", "/scopes"]);
    }
}
