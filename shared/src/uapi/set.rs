//! Lines of a `set` → [`DeviceChange`].
use std::collections::BTreeSet;

use super::{RequestError, ZoneIndex, value};
use crate::model::{PresharedKey, PrivateKey, PublicKey};
use crate::wg::{DeviceChange, PeerChange};

const A_KEY: &str = "64 hexadecimal digits";
const A_PORT: &str = "a decimal number from 0 to 65535";
const TRUE: &str = "\"true\"";

/// What the lines of a `set` have said so far.
#[derive(Debug, Default)]
pub(super) struct SetParser {
    change: DeviceChange,
}

impl SetParser {
    /// Take the next line; `line` is its number for errors.
    pub(super) fn handle_line(
        &mut self,
        text: &[u8],
        line: usize,
        zone_index: ZoneIndex,
    ) -> Result<(), RequestError> {
        let (key, value) = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.split_once('='))
            .ok_or(RequestError::NotKeyValue { line })?;
        let outcome = if key == "public_key" {
            self.begin_peer(value)
        } else if let Some(peer) = self.change.peers.last_mut() {
            peer_line(peer, key, value, zone_index)
        } else {
            device_line(&mut self.change, key, value)
        };
        outcome.map_err(|wrong| wrong.at(line, key))
    }

    fn begin_peer(&mut self, value: &str) -> Result<(), Wrong> {
        let key = value::key(value).ok_or(Wrong::Value("public_key", A_KEY))?;
        let public_key = PublicKey::from_bytes(*key);
        self.change.peers.push(PeerChange::new(public_key));
        Ok(())
    }

    /// The change, after the last line.
    pub(super) fn finish(mut self) -> DeviceChange {
        if self.change.replace_peers {
            start_afresh(&mut self.change.peers);
        }
        self.change
    }
}

/// What is wrong with a line.
enum Wrong {
    Key(&'static str),
    Value(&'static str, &'static str),
}

impl Wrong {
    fn at(self, line: usize, key: &str) -> RequestError {
        match self {
            Self::Key(section) => RequestError::UnknownKey {
                line,
                section,
                key: key.chars().take(40).flat_map(char::escape_debug).collect(),
            },
            Self::Value(key, expected) => RequestError::Value {
                line,
                key,
                expected,
            },
        }
    }
}

fn device_line(device: &mut DeviceChange, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        "private_key" => {
            let mut bytes = value::key(value).ok_or(Wrong::Value("private_key", A_KEY))?;
            let removed = bytes.iter().all(|&byte| byte == 0);
            value::clamp(&mut bytes);
            device.private_key = Some((!removed).then(|| PrivateKey::from_bytes(*bytes)));
        }
        "listen_port" => {
            let port = value::number(value).ok_or(Wrong::Value("listen_port", A_PORT))?;
            device.listen_port = Some(port);
        }
        "fwmark" => {
            let expected = "a decimal number from 0 to 4294967295";
            device.fwmark = Some(value::number(value).ok_or(Wrong::Value("fwmark", expected))?);
        }
        "replace_peers" => {
            device.replace_peers =
                value::switch(value).ok_or(Wrong::Value("replace_peers", TRUE))?;
        }
        _ => return Err(Wrong::Key("device")),
    }
    Ok(())
}

fn peer_line(
    peer: &mut PeerChange,
    key: &str,
    value: &str,
    zone_index: ZoneIndex,
) -> Result<(), Wrong> {
    match key {
        "remove" => peer.remove = value::switch(value).ok_or(Wrong::Value("remove", TRUE))?,
        "update_only" => {
            peer.update_only = value::switch(value).ok_or(Wrong::Value("update_only", TRUE))?;
        }
        "preshared_key" => {
            let bytes = value::key(value).ok_or(Wrong::Value("preshared_key", A_KEY))?;
            peer.preshared_key = Some(PresharedKey::from_bytes(*bytes));
        }
        "endpoint" => {
            let expected = "address:port or [address]:port, a zone the name or index of a link";
            let endpoint = value::endpoint(value, zone_index);
            peer.endpoint = Some(endpoint.ok_or(Wrong::Value("endpoint", expected))?);
        }
        "persistent_keepalive_interval" => {
            let secs = value::number(value)
                .ok_or(Wrong::Value("persistent_keepalive_interval", A_PORT))?;
            peer.persistent_keepalive_secs = Some(secs);
        }
        "replace_allowed_ips" => {
            peer.replace_allowed_ips =
                value::switch(value).ok_or(Wrong::Value("replace_allowed_ips", TRUE))?;
            peer.allowed_ips.clear(); // those of the lines above are replaced, too
        }
        "allowed_ip" => {
            let expected = "a network with its prefix length, \"-\" in front to remove it";
            let change = value::allowed_ip(value).ok_or(Wrong::Value("allowed_ip", expected))?;
            peer.allowed_ips.push(change);
        }
        "protocol_version" => {
            if value != "1" {
                return Err(Wrong::Value("protocol_version", "1"));
            }
        }
        _ => return Err(Wrong::Key("peer")),
    }
    Ok(())
}

/// Make each peer's first mention say everything that a new peer would have: [`DeviceChange::replace_peers`] alone
/// leaves a peer that is named again as it is, while the protocol replaces it.
fn start_afresh(peers: &mut [PeerChange]) {
    let mut seen = BTreeSet::new();
    for peer in peers {
        if !seen.insert(peer.public_key) {
            continue;
        }
        peer.remove |= peer.update_only; // nobody is left that could be updated
        peer.replace_allowed_ips = true;
        peer.persistent_keepalive_secs.get_or_insert(0);
        let none = || PresharedKey::from_bytes([0; 32]);
        peer.preshared_key.get_or_insert_with(none);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Errno;
    use super::*;

    const ALICE: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    const BOB: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";

    fn parse(text: &str) -> Result<DeviceChange, RequestError> {
        let mut parser = SetParser::default();
        for (index, line) in text.lines().enumerate() {
            parser.handle_line(line.as_bytes(), index + 2, |zone| {
                (zone == "eth0").then_some(7)
            })?;
        }
        Ok(parser.finish())
    }

    fn peers(text: &str) -> Vec<PeerChange> {
        parse(text).unwrap().peers
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let change = parse("").unwrap();
        assert_eq!(change.private_key, None);
        assert_eq!((change.listen_port, change.fwmark), (None, None));
        assert!(!change.replace_peers && change.peers.is_empty());

        let [peer] = &peers(&format!("public_key={ALICE}"))[..] else {
            panic!("one peer")
        };
        assert!(!peer.remove && !peer.update_only && !peer.replace_allowed_ips);
        assert_eq!((&peer.preshared_key, peer.endpoint), (&None, None));
        assert_eq!(peer.persistent_keepalive_secs, None);
    }

    #[test]
    fn the_example_of_the_specification_is_understood() {
        // https://www.wireguard.com/xplatform/#example-dialog
        let change = parse(
            "private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a\n\
             fwmark=0\n\
             listen_port=12912\n\
             replace_peers=true\n\
             public_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33\n\
             preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\n\
             replace_allowed_ips=true\n\
             allowed_ip=192.168.4.4/32\n\
             endpoint=[abcd:23::33%2]:51820\n\
             public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376\n\
             replace_allowed_ips=true\n\
             allowed_ip=192.168.4.6/32\n\
             persistent_keepalive_interval=111\n\
             endpoint=182.122.22.19:3233\n\
             public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58\n\
             endpoint=5.152.198.39:51820\n\
             replace_allowed_ips=true\n\
             allowed_ip=192.168.4.10/32\n\
             allowed_ip=192.168.4.11/32\n\
             public_key=e818b58db5274087fcc1be5dc728cf53d3b5726b4cef6b9bab8f8f8c2452c25c\n\
             remove=true",
        )
        .unwrap();
        assert_eq!((change.listen_port, change.fwmark), (Some(12_912), Some(0)));
        assert!(matches!(change.private_key, Some(Some(_))) && change.replace_peers);
        let [one, two, three, four] = &change.peers[..] else {
            panic!("four peers")
        };
        assert_eq!(one.endpoint.unwrap().to_string(), "[abcd:23::33%2]:51820");
        assert_eq!(two.persistent_keepalive_secs, Some(111));
        assert_eq!(three.allowed_ips.len(), 2);
        assert!(four.remove && !three.remove);
    }

    #[test]
    fn private_keys_are_clamped_and_zero_removes() {
        let key = |text: &str| parse(text).unwrap().private_key;
        let zeros = "0".repeat(64);
        let ones = "F".repeat(64);
        assert_eq!(key(&format!("private_key={zeros}")), Some(None));
        let clamped = key(&format!("private_key={ones}")).unwrap().unwrap();
        let mut expected = [0xff; 32];
        expected[0] = 0xf8;
        expected[31] = 0x7f;
        assert_eq!(clamped.as_bytes(), &expected);
    }

    #[test]
    fn a_minus_removes_an_allowed_ip() {
        let text = format!("public_key={ALICE}\nallowed_ip=10.0.0.0/8\nallowed_ip=-2001:db8::/32");
        let allowed_ips = &peers(&text)[0].allowed_ips;
        let shown: Vec<_> = allowed_ips
            .iter()
            .map(|change| (change.network.to_string(), change.remove))
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.0/8".to_owned(), false),
                ("2001:db8::/32".to_owned(), true)
            ]
        );
    }

    #[test]
    fn replace_allowed_ips_replaces_those_above_it() {
        let text = format!(
            "public_key={ALICE}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\n\
             allowed_ip=10.1.0.0/16"
        );
        let [peer] = &peers(&text)[..] else {
            panic!("one peer")
        };
        assert!(peer.replace_allowed_ips);
        assert_eq!(peer.allowed_ips.len(), 1);
    }

    #[test]
    fn replaced_peers_start_with_what_a_new_peer_has() {
        let text = format!(
            "replace_peers=true\n\
             public_key={ALICE}\n\
             public_key={BOB}\nupdate_only=true\n\
             public_key={ALICE}\nallowed_ip=10.0.0.0/8"
        );
        let [first, bob, second] = &peers(&text)[..] else {
            panic!("three mentions")
        };
        assert!(first.replace_allowed_ips);
        assert_eq!(first.persistent_keepalive_secs, Some(0));
        assert!(first.preshared_key.as_ref().unwrap().is_zero());
        assert!(bob.remove);
        assert!(!second.replace_allowed_ips);
        assert_eq!(second.preshared_key, None);
    }

    #[test]
    fn zones_are_names_or_indices_of_links() {
        let endpoint = |text: &str| {
            parse(&format!("public_key={ALICE}\nendpoint={text}"))
                .map(|change| change.peers[0].endpoint.unwrap().to_string())
        };
        assert_eq!(endpoint("[fe80::1%eth0]:1").unwrap(), "[fe80::1%7]:1");
        assert_eq!(endpoint("[fe80::1%3]:1").unwrap(), "[fe80::1%3]:1");
        assert_eq!(endpoint("[::1]:65535").unwrap(), "[::1]:65535");
        assert!(endpoint("[fe80::1%eth1]:1").is_err());
    }

    #[test]
    fn wrong_values_are_invalid_arguments() {
        for line in [
            "private_key=",
            "private_key=00",
            &format!("private_key={}", "g".repeat(64)),
            &format!("private_key={}", "é".repeat(32)),
            "listen_port=65536",
            "listen_port=-1",
            "listen_port=+1",
            "listen_port= 1",
            "fwmark=4294967296",
            "fwmark=0x1",
            "replace_peers=false",
            "replace_peers=1",
            "public_key=zz",
            "endpoint=192.0.2.1:1", // a peer's key
            "allowed_ip=10.0.0.0/8",
            "protocol_version=1",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.errno(), Errno::Invalid, "{line}: {error}");
        }
        for line in [
            "preshared_key=00",
            "endpoint=192.0.2.1",
            "endpoint=192.0.2.1:",
            "endpoint=192.0.2.1:65536",
            "endpoint=2001:db8::1:51820",
            "endpoint=host.example:51820",
            "endpoint=[192.0.2.1]:51820",
            "endpoint=[fe80::1%]:51820",
            "endpoint=[fe80::1%1:51820",
            "persistent_keepalive_interval=off",
            "persistent_keepalive_interval=65536",
            "replace_allowed_ips=false",
            "allowed_ip=10.0.0.0",
            "allowed_ip=10.0.0.0/33",
            "allowed_ip=10.0.0.0/255.0.0.0",
            "allowed_ip=2001:db8::/129",
            "allowed_ip=--10.0.0.0/8",
            "allowed_ip=+10.0.0.0/8",
            "allowed_ip=",
            "remove=false",
            "update_only=yes",
            "protocol_version=2",
            "listen_port=1", // a device's key
            "last_handshake_time_sec=0",
            "nonsense=1",
        ] {
            let error = parse(&format!("public_key={ALICE}\n{line}")).unwrap_err();
            assert_eq!(error.errno(), Errno::Invalid, "{line}: {error}");
        }
    }

    #[test]
    fn a_line_without_equals_sign_is_a_protocol_error() {
        let error = parse("listen_port").unwrap_err();
        assert_eq!(error, RequestError::NotKeyValue { line: 2 });
        assert_eq!(error.errno(), Errno::Protocol);
    }

    #[test]
    fn errors_name_line_and_key_and_never_the_value() {
        let secret = "secret".repeat(10);
        let shown = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            shown(&format!("listen_port=1\nprivate_key={secret}")),
            "line 3: private_key must be 64 hexadecimal digits"
        );
        assert_eq!(
            shown(&format!("privat_key={secret}")),
            "line 2: a device has no key \"privat_key\""
        );
        assert!(!shown(&secret).contains("secret"));
    }
}
