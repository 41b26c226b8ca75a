//! Tests: what is formatted and parsed again is the same.
use std::net::{SocketAddr, SocketAddrV6};
use std::time::{Duration, SystemTime};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::format::Out;
use super::{Decoder, Request, format_status, value};
use crate::model::{PresharedKey, PrivateKey, PublicKey};
use crate::wg::{AllowedIpChange, DeviceChange, DeviceStatus, PeerChange, PeerStatus};

/// The moment of every `get`.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

/// A change as the lines of a `set`, each value in its shortest form.
fn format_set(change: &DeviceChange) -> String {
    let mut out = Out(Zeroizing::new("set=1\n".to_owned()));
    if let Some(key) = &change.private_key {
        let none = [0; 32];
        out.key(
            "private_key",
            key.as_ref().map_or(&none, |key| key.as_bytes()),
        );
    }
    if let Some(port) = change.listen_port {
        out.line(format_args!("listen_port={port}"));
    }
    if let Some(mark) = change.fwmark {
        out.line(format_args!("fwmark={mark}"));
    }
    for peer in &change.peers {
        out.key("public_key", peer.public_key.as_bytes());
        if peer.remove {
            out.line(format_args!("remove=true"));
        }
        if peer.update_only {
            out.line(format_args!("update_only=true"));
        }
        if let Some(key) = &peer.preshared_key {
            out.key("preshared_key", key.as_bytes());
        }
        if let Some(endpoint) = peer.endpoint {
            out.line(format_args!("endpoint={endpoint}"));
        }
        if let Some(secs) = peer.persistent_keepalive_secs {
            out.line(format_args!("persistent_keepalive_interval={secs}"));
        }
        if peer.replace_allowed_ips {
            out.line(format_args!("replace_allowed_ips=true"));
        }
        for change in &peer.allowed_ips {
            let sign = if change.remove { "-" } else { "" };
            out.line(format_args!("allowed_ip={sign}{}", change.network));
        }
    }
    out.0.push('\n');
    out.0.to_string()
}

fn parse_set(text: &str) -> DeviceChange {
    match Decoder::new(|_| None).handle_input(&mut text.as_bytes()) {
        Some(Ok(Request::Set(change))) => change,
        other => panic!("{other:?} of {text}"),
    }
}

fn any_network() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32u8)
            .prop_map(|(ip, prefix)| Ipv4Network::new(ip.into(), prefix).unwrap().into()),
        (any::<[u8; 16]>(), 0..=128u8)
            .prop_map(|(ip, prefix)| Ipv6Network::new(ip.into(), prefix).unwrap().into()),
    ]
}

fn any_endpoint() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16, u32)>().prop_map(|(ip, port, scope)| SocketAddrV6::new(
            ip.into(),
            port,
            0,
            scope
        )
        .into()),
    ]
}

fn any_private_key() -> impl Strategy<Value = PrivateKey> {
    any::<[u8; 32]>().prop_map(|mut bytes| {
        value::clamp(&mut bytes);
        PrivateKey::from_bytes(bytes)
    })
}

prop_compose! {
    fn any_peer_change()(
        public_key in any::<[u8; 32]>().prop_map(PublicKey::from_bytes),
        [remove, update_only, replace_allowed_ips] in any::<[bool; 3]>(),
        preshared_key in prop::option::of(any::<[u8; 32]>().prop_map(PresharedKey::from_bytes)),
        endpoint in prop::option::of(any_endpoint()),
        persistent_keepalive_secs: Option<u16>,
        networks in prop::collection::vec((any_network(), any::<bool>()), 0..5),
    ) -> PeerChange {
        let allowed_ips = networks
            .into_iter()
            .map(|(network, remove)| AllowedIpChange { network, remove })
            .collect();
        PeerChange {
            public_key, remove, update_only, preshared_key, endpoint,
            persistent_keepalive_secs, replace_allowed_ips, allowed_ips,
            initiate_handshake: false, succeeds: None,
        }
    }
}

prop_compose! {
    fn any_change()(
        private_key in prop::option::of(prop::option::of(any_private_key())),
        listen_port: Option<u16>,
        fwmark: Option<u32>,
        peers in prop::collection::vec(any_peer_change(), 0..5),
    ) -> DeviceChange {
        DeviceChange { private_key, listen_port, fwmark, replace_peers: false, peers }
    }
}

prop_compose! {
    fn any_peer_status()(
        change in any_peer_change(),
        latest_handshake in prop::option::of((0..1_000_000u64).prop_map(Duration::from_millis)),
        [rx_bytes, tx_bytes]: [u64; 2],
    ) -> PeerStatus {
        PeerStatus {
            public_key: change.public_key,
            preshared_key: change.preshared_key,
            endpoint: change.endpoint,
            persistent_keepalive_secs: change.persistent_keepalive_secs,
            allowed_ips: change.allowed_ips.iter().map(|change| change.network).collect(),
            latest_handshake,
            rx_bytes,
            tx_bytes,
        }
    }
}

proptest! {
    #[test]
    fn a_change_survives_text(change in any_change()) {
        let text = format_set(&change);
        prop_assert_eq!(format_set(&parse_set(&text)), text);
    }

    /// What `get` says, `set` understands: the lines that are configuration rebuild the device.
    #[test]
    fn a_status_is_a_change_that_makes_it(
        private_key in prop::option::of(any_private_key()),
        listen_port: u16,
        fwmark: u32,
        peers in prop::collection::vec(any_peer_status(), 0..5),
    ) {
        let status = DeviceStatus { private_key, listen_port, fwmark, peers };
        let text = format_status(&status, now());
        let observed = ["last_handshake_time_", "rx_bytes=", "tx_bytes=", "errno="];
        let lines = text.lines().filter(|line| !observed.iter().any(|o| line.starts_with(o)));
        let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
        let change = parse_set(&format!("set=1\n{lines}"));

        let rebuilt = DeviceStatus {
            private_key: change.private_key.flatten(),
            listen_port: change.listen_port.unwrap_or(0),
            fwmark: change.fwmark.unwrap_or(0),
            peers: change.peers.into_iter().zip(&status.peers).map(|(peer, was)| PeerStatus {
                public_key: peer.public_key,
                preshared_key: peer.preshared_key,
                endpoint: peer.endpoint,
                persistent_keepalive_secs: peer.persistent_keepalive_secs,
                allowed_ips: peer.allowed_ips.iter().map(|change| change.network).collect(),
                ..was.clone()
            }).collect(),
        };
        prop_assert_eq!(format_status(&rebuilt, now()), text);
    }
}
