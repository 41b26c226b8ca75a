//! The line of text that a LAN host joins with.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::{Blake2s256, Digest as _};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::config::common::Endpoint;
use crate::model::{PresharedKey, PrivateKey, PublicKey};

/// What every token begins with, before the version of its contents.
const PREFIX: &str = "edgejoin";
/// Version of the contents.
const VERSION: &str = "1";
/// Bytes that tell a token with a mistake from a whole one.
const CHECKSUM_LEN: usize = 4;
/// Makes the preshared key another secret than the private key that it is made from.
const PRESHARED_KEY_CONTEXT: &[u8] = b"wg-edge pairing 1: preshared key";

/// An invitation, with all that it takes to call the gateway that gave it. It is a secret until it is used.
///
/// As text: `edgejoin1_` and base64url over the invitation's private key, the gateway's public key, the two tunnel addresses
/// (each with a byte 4 or 6 before it), the end of its time (seconds since 1970), the endpoint, and four bytes of BLAKE2s
/// over all of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Key of the invited peer.
    pub private_key: PrivateKey,
    /// Key of the gateway.
    pub gateway_key: PublicKey,
    /// Tunnel address of the invited peer.
    pub address: IpAddr,
    /// Tunnel address of the gateway; of the same family.
    pub gateway_address: IpAddr,
    /// When it stops to work, to the second.
    pub expires_at: Timestamp,
    /// Where the gateway listens.
    pub endpoint: Endpoint,
}

/// Why a text is no token. Never contains the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one at all.
    #[error(
        "this is not a token; it is the line beginning with edgejoin that `gateway invite` prints"
    )]
    NotAToken,
    /// It is one of a later version.
    #[error("this token was made by a newer version of the gateway; update lan-server")]
    OtherVersion,
    /// A part is missing or was changed.
    #[error("the token is incomplete or was changed on its way here; copy the whole line again")]
    Damaged,
}

impl Token {
    /// The preshared key of the invited peer. Both ends make it from the private key.
    pub fn preshared_key(&self) -> PresharedKey {
        let hash = Blake2s256::new()
            .chain_update(PRESHARED_KEY_CONTEXT)
            .chain_update(self.private_key.as_bytes());
        PresharedKey::from_bytes(hash.finalize().into())
    }

    /// The line of text; erased when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(192));
        bytes.extend(self.private_key.as_bytes());
        bytes.extend(self.gateway_key.as_bytes());
        for address in [self.address, self.gateway_address] {
            match address {
                IpAddr::V4(v4) => {
                    bytes.push(4);
                    bytes.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    bytes.push(6);
                    bytes.extend(v6.octets());
                }
            }
        }
        bytes.extend(self.expires_at.as_second().to_be_bytes());
        bytes.extend(self.endpoint.to_string().as_bytes());
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        Zeroizing::new(format!("{PREFIX}{VERSION}_{}", encoded.as_str()))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX);
        let (version, encoded) = rest
            .and_then(|rest| rest.split_once('_'))
            .ok_or(TokenError::NotAToken)?;
        if version != VERSION {
            let is_number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
            return Err(if is_number {
                TokenError::OtherVersion
            } else {
                TokenError::NotAToken
            });
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| TokenError::Damaged)?;
        whole(&bytes).and_then(read).ok_or(TokenError::Damaged)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash: [u8; 32] = Blake2s256::digest(bytes).into();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The bytes before the checksum, if that is right.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
    (checksum(body) == *sum).then_some(body)
}

fn read(mut bytes: &[u8]) -> Option<Token> {
    let bytes = &mut bytes;
    Some(Token {
        private_key: PrivateKey::from_bytes(take(bytes)?),
        gateway_key: PublicKey::from_bytes(take(bytes)?),
        address: take_address(bytes)?,
        gateway_address: take_address(bytes)?,
        expires_at: Timestamp::from_second(i64::from_be_bytes(take(bytes)?)).ok()?,
        endpoint: std::str::from_utf8(bytes).ok()?.parse().ok()?,
    })
    .filter(|token| token.address.is_ipv4() == token.gateway_address.is_ipv4())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn take_address(bytes: &mut &[u8]) -> Option<IpAddr> {
    match take(bytes)? {
        [4] => take::<4>(bytes).map(Ipv4Addr::from).map(IpAddr::from),
        [6] => take::<16>(bytes).map(Ipv6Addr::from).map(IpAddr::from),
        [_] => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(endpoint: &str, v6: bool) -> Token {
        let [address, gateway_address] = if v6 {
            ["fd17::9", "fd17::1"]
        } else {
            ["10.17.0.9", "10.17.0.1"]
        };
        Token {
            private_key: PrivateKey::from_bytes([7; 32]),
            gateway_key: PublicKey::from_bytes([8; 32]),
            address: address.parse().unwrap(),
            gateway_address: gateway_address.parse().unwrap(),
            expires_at: Timestamp::from_second(1_800_000_000).unwrap(),
            endpoint: endpoint.parse().unwrap(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for (endpoint, v6) in [
            ("203.0.113.10:51820", false),
            ("[2001:db8::1]:51820", true),
            ("vps.example.org:443", false),
        ] {
            let token = token(endpoint, v6);
            let text = token.to_text();
            assert!(text.starts_with("edgejoin1_"), "{}", text.as_str());
            assert!(text.len() < 200, "{} characters", text.len());
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(format!("  {}\n", text.as_str()).parse(), Ok(token));
        }
    }

    #[test]
    fn what_is_no_token_is_told_from_one_that_was_damaged() {
        let text = token("203.0.113.10:51820", false).to_text();
        let as_version = |version: &str| text.replacen("edgejoin1", version, 1);
        for (text, error) in [
            (String::new(), TokenError::NotAToken),
            ("edge_0123_secret".to_owned(), TokenError::NotAToken),
            (as_version("edgejoin"), TokenError::NotAToken),
            (as_version("edgejoin2"), TokenError::OtherVersion),
            (text[..text.len() - 1].to_owned(), TokenError::Damaged),
            (format!("{}A", text.as_str()), TokenError::Damaged),
            ("edgejoin1_".to_owned(), TokenError::Damaged),
        ] {
            assert_eq!(text.parse::<Token>(), Err(error), "{text}");
            assert!(!error.to_string().contains(&text) || text.is_empty());
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let token = token("203.0.113.10:51820", false);
        assert!(format!("{token:?}").contains("PrivateKey(…)"));
        assert_ne!(
            token.preshared_key().as_bytes(),
            token.private_key.as_bytes()
        );
    }

    proptest! {
        /// One changed character is noticed, wherever it is.
        #[test]
        fn a_mistake_of_one_character_is_noticed(place in 0usize..140, to in "[A-Za-z0-9_-]") {
            let right = token("203.0.113.10:51820", false).to_text();
            let mut text = right.as_str().to_owned();
            let place = place % text.len();
            text.replace_range(place..=place, &to);
            prop_assume!(text != right.as_str());
            prop_assert!(text.parse::<Token>().is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in "(edgejoin1_)?[ -~]{0,300}") {
            let _refused = text.parse::<Token>();
        }
    }
}
