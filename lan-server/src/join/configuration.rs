//! What the gateway offers → `lan-server.toml`, and how a person is asked about it. Pure.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use shared::config::lan_server::LanServer;
use shared::config::toml_text::{joined, list, one_or_more, quoted};
use shared::pairing::{Offer, Token};
use shared_daemon::error::Failure;

/// Name of the gateway in the file.
const GATEWAY: &str = "gateway";
/// File in `state_dir` with the preshared key.
pub(super) const GATEWAY_KEY_FILE: &str = "gateway.psk";

/// Where the daemon keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dirs {
    pub(super) state: PathBuf,
    pub(super) runtime: PathBuf,
}

impl Default for Dirs {
    fn default() -> Self {
        Self {
            state: "/var/lib/wg-edge".into(),
            runtime: "/run/wg-edge".into(),
        }
    }
}

impl Dirs {
    /// The file of this end's key, as the configuration has it by default.
    pub(super) fn private_key_file(&self) -> PathBuf {
        self.state.join("lan-server.key")
    }
}

/// A configuration that is valid.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) warnings: Vec<String>,
}

/// The configuration.
///
/// # Errors
/// The gateway offers what no configuration may say.
pub(super) fn write(
    offer: &Offer,
    token: &Token,
    dirs: &Dirs,
    path: &Path,
) -> Result<Written, Failure> {
    let text = text(offer, token, dirs);
    match LanServer::parse(&text, &path.display().to_string()) {
        Ok(parsed) => Ok(Written {
            text,
            warnings: parsed.warnings.iter().map(ToString::to_string).collect(),
        }),
        Err(errors) => Err(Failure::Other(format!(
            "what the gateway publishes can't be let through here. Correct its configuration, and run this again: the \
             token is not used. These lines would be wrong:\n{errors}"
        ))),
    }
}

/// What is to be agreed to.
pub(super) fn summary(offer: &Offer, token: &Token) -> String {
    let mut text = format!(
        "{} (key {}) invites this host as LAN server {}\n",
        token.endpoint,
        token.gateway_key,
        on_one_line(&offer.name)
    );
    let addresses = offer.addresses.iter().map(ToString::to_string);
    let mut line = |what: &str, value: &str| {
        // Writing to a string does not fail.
        let _infallible = writeln!(text, "  {what:<18} {value}");
    };
    line("tunnel address", &joined(addresses));
    line("tunnel network", &offer.tunnel_networks.join(", "));
    line("networks here", &on_one_line(&offer.networks.join(", ")));
    for publish in &offer.publishes {
        let value = format!(
            "{} {}/{} ({}) from {}",
            publish.vip,
            publish.ports.join(","),
            publish.protocol,
            publish.name,
            publish.from.join(", ")
        );
        line("the internet to", &value);
    }
    for service in &offer.access {
        line("tunnel peers to", service);
    }
    if offer.publishes.is_empty() && offer.access.is_empty() {
        line("may be reached", "nothing yet");
    }
    text.truncate(text.trim_end().len());
    text
}

fn text(offer: &Offer, token: &Token, dirs: &Dirs) -> String {
    let mut file = File(format!(
        "# Written by `lan-server join`: this host is the LAN server {} of {}.\n\
         # Yours to change: `lan-server check` looks at it, a running daemon takes it on SIGHUP.\n\n",
        on_one_line(&offer.name),
        token.endpoint
    ));
    let default = Dirs::default();
    if dirs.state != default.state {
        file.entry("state_dir", &quoted(dirs.state.display()));
    }
    if dirs.runtime != default.runtime {
        file.entry("runtime_dir", &quoted(dirs.runtime.display()));
    }
    if *dirs != default {
        file.0.push('\n');
    }

    file.0.push_str("[tunnel]\n");
    let own = offer.addresses.iter();
    file.entry(
        "address",
        &one_or_more(own.map(|address| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            format!("{address}/{length}")
        })),
    );
    file.entry("mtu", &offer.mtu.to_string());

    file.0.push_str("\n[[gateway]]\n");
    file.entry("name", &quoted(GATEWAY));
    file.entry("endpoint", &quoted(&token.endpoint));
    file.entry("public_key", &quoted(token.gateway_key));
    file.entry("preshared_key_file", &quoted(GATEWAY_KEY_FILE));
    let gateway = offer.gateway_addresses.iter().map(ToString::to_string);
    file.entry("address", &one_or_more(gateway));
    file.entry(
        "network",
        &one_or_more(offer.tunnel_networks.iter().cloned()),
    );

    for publish in &offer.publishes {
        file.0
            .push_str("\n[[publish]]                # what the internet may reach, with callers' own addresses\n");
        file.entry("name", &quoted(&publish.name));
        file.entry("vip", &quoted(publish.vip));
        file.entry("protocol", &quoted(&publish.protocol));
        let ports = publish.ports.iter().map(|port| match port.parse::<u16>() {
            Ok(number) => number.to_string(),
            Err(_) => quoted(port),
        });
        file.entry("ports", &format!("[{}]", joined(ports)));
        file.entry("from", &list(publish.from.iter().cloned()));
    }
    if !offer.access.is_empty() {
        file.0
            .push_str("\n[[access]]                 # what tunnel peers may reach, as the gateway's roles say\n");
        file.entry("to", &list(offer.access.iter().cloned()));
    }
    if !offer.sets.is_empty() {
        file.0.push_str("\n[sets]\n");
        for (name, networks) in &offer.sets {
            file.entry(&quoted(name), &list(networks.iter().cloned()));
        }
    }
    file.0
}

/// Text of the file so far.
struct File(String);

impl File {
    fn entry(&mut self, key: &str, value: &str) {
        // Writing to a string does not fail.
        let _infallible = writeln!(self.0, "{key} = {value}");
    }
}

/// For a comment, which ends with its line.
fn on_one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use shared::config::common::{PortRange, Protocol, SourceIp, Sources};
    use shared::model::{PrivateKey, PublicKey};
    use shared::pairing::Publish;

    use super::*;

    fn token() -> Token {
        Token {
            private_key: PrivateKey::from_bytes([7; 32]),
            gateway_key: PublicKey::from_bytes([8; 32]),
            address: "10.17.0.9".parse().unwrap(),
            gateway_address: "10.17.0.1".parse().unwrap(),
            expires_at: Timestamp::UNIX_EPOCH,
            endpoint: "203.0.113.10:51820".parse().unwrap(),
        }
    }

    fn offer() -> Offer {
        Offer {
            name: "home".to_owned(),
            addresses: vec!["10.17.0.2".parse().unwrap(), "fd17::2".parse().unwrap()],
            gateway_addresses: vec!["10.17.0.1".parse().unwrap(), "fd17::1".parse().unwrap()],
            tunnel_networks: vec!["10.17.0.0/16".to_owned(), "fd17::/64".to_owned()],
            networks: vec!["10.17.5.0/24".to_owned()],
            mtu: 1400,
            publishes: vec![Publish {
                name: "ingress".to_owned(),
                vip: "10.17.5.30".parse().unwrap(),
                protocol: "tcp".to_owned(),
                ports: vec!["80".to_owned(), "8000-8100".to_owned()],
                from: vec!["cloudflare".to_owned(), "office".to_owned()],
            }],
            access: vec!["10.17.5.10:6443/tcp".to_owned()],
            sets: BTreeMap::from([("office".to_owned(), vec!["198.51.100.0/24".to_owned()])]),
        }
    }

    fn read(offer: &Offer, dirs: &Dirs) -> LanServer {
        let written = write(offer, &token(), dirs, Path::new("lan-server.toml")).unwrap();
        LanServer::parse(&written.text, "lan-server.toml")
            .unwrap()
            .config
    }

    #[test]
    fn what_is_offered_is_what_is_configured() {
        let dirs = Dirs {
            state: "/srv/state".into(),
            runtime: "/srv/run".into(),
        };
        let config = read(&offer(), &dirs);
        assert_eq!(config.state_dir, dirs.state);
        assert_eq!(config.runtime_dir, dirs.runtime);
        assert_eq!(config.tunnel.mtu, 1400);
        assert_eq!(config.tunnel.addresses.len(), 2);
        assert_eq!(config.tunnel.private_key_file, dirs.private_key_file());
        let gateway = &config.gateways[0];
        assert_eq!(gateway.public_key, token().gateway_key);
        assert_eq!(gateway.endpoint, token().endpoint);
        assert_eq!(gateway.networks.len(), 2);
        let preshared_key_file = gateway.preshared_key_file.as_ref().unwrap();
        assert_eq!(*preshared_key_file, dirs.state.join(GATEWAY_KEY_FILE));
        let publish = &config.publishes[0];
        assert_eq!(publish.protocol, Protocol::Tcp);
        assert_eq!(publish.source_ip, SourceIp::Preserve);
        assert_eq!(
            publish.ports[1],
            PortRange {
                first: 8000,
                last: 8100
            }
        );
        assert!(matches!(&publish.from, Sources::Listed { sets, .. } if sets.len() == 2));
        assert_eq!(config.access[0].source_ip, SourceIp::Masquerade);
        assert_eq!(config.access[0].to[0].to_string(), "10.17.5.10:6443/tcp");
    }

    #[test]
    fn a_gateway_that_publishes_nothing_is_joined_all_the_same() {
        let offer = Offer {
            publishes: Vec::new(),
            access: Vec::new(),
            sets: BTreeMap::new(),
            ..offer()
        };
        let config = read(&offer, &Dirs::default());
        assert_eq!(config.state_dir, Dirs::default().state);
        assert!(summary(&offer, &token()).contains("nothing yet"));
    }

    #[test]
    fn what_is_asked_names_all_that_may_be_reached() {
        let text = summary(&offer(), &token());
        for part in [
            "203.0.113.10:51820",
            "LAN server home",
            "10.17.5.30 80,8000-8100/tcp (ingress) from cloudflare, office",
            "10.17.5.10:6443/tcp",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_gateway_can_write_nothing_into_the_file_but_what_was_shown() {
        let hostile = [
            "home\"\n[[publish]]\nname = \"more",
            "home\n[[access]]\nto = [\"10.17.5.1:22/tcp\"]",
            "\u{7f}\u{85}\u{2028}",
        ];
        for name in hostile {
            let mut offer = offer();
            offer.name = name.to_owned();
            let config = read(&offer, &Dirs::default());
            assert_eq!(
                (config.publishes.len(), config.access.len()),
                (1, 1),
                "{name:?}"
            );
            for field in 0..4 {
                let mut offer = offer.clone();
                "home".clone_into(&mut offer.name);
                match field {
                    0 => name.clone_into(&mut offer.publishes[0].name),
                    1 => offer.publishes[0].from = vec![name.to_owned()],
                    2 => offer.access = vec![name.to_owned()],
                    _ => offer.sets = BTreeMap::from([(name.to_owned(), Vec::new())]),
                }
                let path = Path::new("lan-server.toml");
                let refused = write(&offer, &token(), &Dirs::default(), path).unwrap_err();
                assert!(
                    refused.to_string().contains("lan-server.toml:"),
                    "{refused}"
                );
            }
        }
    }
}
