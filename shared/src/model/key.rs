//! WireGuard keys. Secret keys are erased when dropped and never printed.
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every WireGuard key in bytes (whitepaper §5.4).
pub const KEY_LEN: usize = 32;

/// Why a text is not a key. Never contains the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: expected 32 bytes as 44 characters of base64")]
pub struct KeyError;

fn decode(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut bytes = Zeroizing::new([0u8; 33]); // the decoder's estimate for 44 characters
    let length = STANDARD
        .decode_slice(text.trim(), bytes.as_mut_slice())
        .map_err(|_| KeyError)?;
    bytes
        .get(..length)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(KeyError)
}

/// A Curve25519 public key: the identity of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes as they stand on the wire.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

/// A Curve25519 private key, clamped when used (RFC 7748 §5).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// The key with these bytes; 32 random bytes make a new key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key that belongs to this key (RFC 7748 §5: scalar multiplication of the base point).
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// Base64 as in key files; erased when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

/// A symmetric key mixed into the handshake (whitepaper §5.2); all zeros means none.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Whether this is the all-zero key, which the protocol treats as "no preshared key".
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Base64 as in key files; erased when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `wg pubkey` of wireguard-tools on this private key gives this public key (RFC 7748 §6.1, Alice).
    const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn public_key_of_private_key_is_that_of_rfc_7748() {
        let private: PrivateKey = ALICE_PRIVATE.parse().unwrap();
        assert_eq!(private.public_key().to_string(), ALICE_PUBLIC);
        assert_eq!(private.to_base64().as_str(), ALICE_PRIVATE);
    }

    #[test]
    fn texts_that_are_not_keys_are_refused() {
        for text in [
            "",
            "abc",
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm=",
            &ALICE_PUBLIC[..43],
            "aGVsbG8=",
            &"A".repeat(44),
            &"A".repeat(4400),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError), "{text:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let private: PrivateKey = ALICE_PRIVATE.parse().unwrap();
        assert_eq!(format!("{private:?}"), "PrivateKey(…)");
        let preshared = PresharedKey::from_bytes([7; KEY_LEN]);
        assert_eq!(format!("{preshared:?}"), "PresharedKey(…)");
    }
}
