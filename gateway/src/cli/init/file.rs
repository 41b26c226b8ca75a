//! Choices → `gateway.toml`, and how a person is told of them. Pure.
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use shared::config::common::{Endpoint, InterfaceAddress};
use shared::config::toml_text::{joined, list, one_or_more, quoted};
use shared::model::InterfaceName;

/// Where keys and the database are, unless the file says so.
pub(super) const STATE_DIR: &str = "/var/lib/wg-edge";
/// Where sockets are, unless the file says so.
pub(super) const RUNTIME_DIR: &str = "/run/wg-edge";

/// A value, and how it came about.
#[derive(Debug)]
pub(super) struct Chosen<T> {
    pub(super) value: T,
    pub(super) why: String,
}

impl<T> Chosen<T> {
    pub(super) fn new(value: T, why: &str) -> Self {
        Self {
            value,
            why: why.to_owned(),
        }
    }
}

/// Everything that the file says.
#[derive(Debug)]
pub(super) struct Choices {
    pub(super) endpoint: Chosen<Endpoint>,
    pub(super) wan: Chosen<InterfaceName>,
    pub(super) listen_port: u16,
    pub(super) tunnel: Vec<InterfaceAddress>,
    pub(super) lan_server: String,
    pub(super) lan_addresses: Vec<IpAddr>,
    pub(super) networks: Vec<IpNetwork>,
    pub(super) ingress: Option<String>,
    pub(super) api: Option<String>,
    pub(super) state_dir: PathBuf,
    pub(super) runtime_dir: PathBuf,
}

impl Choices {
    /// What was chosen and why, a line each.
    pub(super) fn summary(&self) -> String {
        let mut lines = Vec::new();
        let mut line = |what: &str, value: String, why: &str| {
            lines.push(
                format!("  {what:<16} {value:<28} {why}")
                    .trim_end()
                    .to_owned(),
            );
        };
        line(
            "peers dial",
            self.endpoint.value.to_string(),
            &self.endpoint.why,
        );
        line("internet", self.wan.value.to_string(), &self.wan.why);
        line("tunnel", joined(self.tunnel_texts()), "");
        line(
            "LAN server",
            format!("{} {}", self.lan_server, joined(self.lan_addresses.iter())),
            "joins by the token",
        );
        line("networks there", joined(self.networks.iter()), "");
        let ingress = self.ingress.as_deref();
        let why = ingress.map_or("", |_| "ports 80 and 443, from Cloudflare only");
        line("published", ingress.unwrap_or("nothing").to_owned(), why);
        let api = self.api.as_deref();
        let why = api.map_or("", |_| "for peers with the role kube-admin");
        line("API", api.unwrap_or("nothing").to_owned(), why);
        lines.join("\n")
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let mut file = File(
            "# Written by `gateway init`. Yours to change: `gateway check` looks at it, a running daemon takes it on SIGHUP.\n\
             # docs/configuration.md explains every key.\n\n"
                .to_owned(),
        );
        let mut dirs = false;
        for (key, dir, default) in [
            ("state_dir", &self.state_dir, STATE_DIR),
            ("runtime_dir", &self.runtime_dir, RUNTIME_DIR),
        ] {
            if dir != Path::new(default) {
                file.entry(key, &quoted(dir.display()));
                dirs = true;
            }
        }
        if dirs {
            file.0.push('\n');
        }
        file.0.push_str("[wan]\n");
        file.entry("interface", &quoted(&self.wan.value));
        file.entry("endpoint", &quoted(&self.endpoint.value));
        file.0.push_str("\n[tunnel]\n");
        file.entry("address", &one_or_more(self.tunnel_texts()));
        file.entry("listen_port", &self.listen_port.to_string());
        file.0.push_str(
            "\n[[lan_server]]             # its key comes by `lan-server join`; `gateway invite` makes another token\n",
        );
        file.entry("name", &quoted(&self.lan_server));
        file.entry("address", &one_or_more(self.lan_addresses.iter()));
        file.entry("networks", &list(self.networks.iter()));
        if let Some(vip) = &self.ingress {
            file.0
                .push_str("\n[[publish]]                # internet -> VIP\n");
            file.entry("name", &quoted("ingress"));
            file.entry("vip", &quoted(vip));
            file.entry("protocol", &quoted("tcp"));
            file.entry("ports", "[80, 443]");
            file.entry("allow", &list(["cloudflare"].iter()));
        }
        if let Some(api) = &self.api {
            file.0.push_str(
                "\n[[role]]                   # what tunnel peers with this role may reach\n",
            );
            file.entry("name", &quoted("kube-admin"));
            file.entry("allow", &list([format!("{api}/tcp")].iter()));
        }
        file.0
    }

    fn tunnel_texts(&self) -> impl Iterator<Item = String> {
        let tunnel = self.tunnel.iter();
        tunnel.map(|own| format!("{}/{}", own.address, own.prefix_len))
    }
}

/// Text of the file so far.
struct File(String);

impl File {
    fn entry(&mut self, key: &str, value: &str) {
        // Writing to a string does not fail.
        let _infallible = writeln!(self.0, "{key} = {value}");
    }
}

#[cfg(test)]
mod tests {
    use shared::config::gateway::Gateway;

    use super::*;

    fn choices() -> Choices {
        Choices {
            endpoint: Chosen::new("203.0.113.10:443".parse().unwrap(), "the address of eth0"),
            wan: Chosen::new("eth0".parse().unwrap(), "the link of the default route"),
            listen_port: 443,
            tunnel: vec![
                "10.17.0.1/16".parse().unwrap(),
                "fd17::1/64".parse().unwrap(),
            ],
            lan_server: "home".to_owned(),
            lan_addresses: vec!["10.17.0.2".parse().unwrap(), "fd17::2".parse().unwrap()],
            networks: vec!["10.17.5.0/24".parse().unwrap()],
            ingress: Some("10.17.5.30".to_owned()),
            api: Some("10.17.5.10:6443".to_owned()),
            state_dir: STATE_DIR.into(),
            runtime_dir: "/srv/run".into(),
        }
    }

    fn read(choices: &Choices) -> Gateway {
        match Gateway::parse(&choices.text(), "gateway.toml") {
            Ok(parsed) => {
                assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
                parsed.config
            }
            Err(errors) => panic!("{errors}\n{}", choices.text()),
        }
    }

    #[test]
    fn what_was_chosen_is_what_is_configured() {
        let config = read(&choices());
        assert_eq!(config.wan.endpoint, choices().endpoint.value);
        assert_eq!(config.wan.interface, Some(choices().wan.value));
        assert_eq!(config.tunnel.listen_port, 443);
        assert_eq!(config.tunnel.addresses, choices().tunnel);
        assert_eq!(config.state_dir, Path::new(STATE_DIR));
        assert_eq!(config.runtime_dir, Path::new("/srv/run"));
        let lan = &config.lan_servers[0];
        assert_eq!(lan.public_key, None, "it joins");
        assert_eq!(lan.addresses, choices().lan_addresses);
        assert_eq!(config.publishes[0].ports.len(), 2);
        assert_eq!(config.roles[0].allow[0].to_string(), "10.17.5.10:6443/tcp");
    }

    #[test]
    fn nothing_needs_to_be_published() {
        let nothing = Choices {
            ingress: None,
            api: None,
            ..choices()
        };
        let config = read(&nothing);
        assert!(config.publishes.is_empty() && config.roles.is_empty());
        assert_eq!(nothing.summary().matches("nothing").count(), 2);
    }

    #[test]
    fn each_choice_is_told_with_its_reason() {
        let text = choices().summary();
        for part in [
            "203.0.113.10:443",
            "the address of eth0",
            "the link of the default route",
            "home 10.17.0.2, fd17::2",
            "from Cloudflare only",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
