//! A kubeconfig for the Kubernetes API behind the tunnel.
//!
//! The gateway knows where the API is, not who may do what in it: CA and credentials come from the cluster's own kubeconfig
//! (`--kubeconfig-from`, of k3s `/etc/rancher/k3s/k3s.yaml`), in which only the server is replaced.
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, ValueHint};
use serde_yaml_ng::{Mapping, Value};
use shared::api::Page;
use shared::api::peer::Peer;
use shared::api::policy::Role;
use shared_daemon::admin::client::Client;
use shared_daemon::cli::output::{note, print};
use shared_daemon::error::Failure;

use super::certificate::{self, Verdict};
use super::files;

/// Port of the Kubernetes API.
const API_PORT: u16 = 6443;
const HINT: &str = "name the API with --api-server HOST:PORT";

/// Where what the gateway does not know comes from.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// The Kubernetes API as the peer reaches it [default: port 6443 of what its role allows]
    #[arg(long, value_name = "HOST:PORT")]
    api_server: Option<String>,
    /// Certificate of the authority that signed the API's certificate (PEM)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    api_ca: Option<PathBuf>,
    /// Take CA and credentials from this kubeconfig
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    kubeconfig_from: Option<PathBuf>,
}

impl Options {
    /// Whether it can be known where the API is.
    pub(super) fn check(&self, has_role: bool) -> Result<(), Failure> {
        if has_role || self.api_server.is_some() {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "a peer without a role reaches no Kubernetes API; {HINT}"
        )))
    }
}

/// Make the kubeconfig of `peer` and tell what will not work with it.
pub(super) async fn write(
    client: &Client,
    peer: &Peer,
    options: &Options,
    output: &Path,
    force: bool,
) -> Result<(), Failure> {
    let (host, port) = match &options.api_server {
        Some(text) => split(text)?,
        None => of_role(client, peer).await?,
    };
    let mut known = match &options.kubeconfig_from {
        Some(path) => Known::read(path)?,
        None => Known::default(),
    };
    if let Some(path) = &options.api_ca {
        known.ca = Some(BASE64.encode(files::read_secret(path)?.as_bytes()));
    }
    let text = text(&peer.name, &host, port, &known)?;
    if output == Path::new("-") {
        print(&text)?;
    } else {
        files::write_private(output, &text, force)?;
    }
    if known.ca.is_none() {
        note(
            "warning: without the CA of the API kubectl will not trust it; --kubeconfig-from or --api-ca brings it",
        );
    }
    if known.user.is_none() {
        note(
            "the kubeconfig holds no credentials; --kubeconfig-from brings them, or `kubectl config set-credentials`",
        );
    }
    let looked_at = host.clone();
    let verdict = tokio::task::spawn_blocking(move || certificate::look(&looked_at, port)).await;
    let verdict = verdict.map_err(|error| Failure::other(&error))?;
    if let Some(warning) = warning(&host, port, &verdict) {
        note(&warning);
    }
    Ok(())
}

fn warning(host: &str, port: u16, verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Covers => None,
        Verdict::Lacks(names) => Some(format!(
            "warning: the certificate of {host}:{port} lacks {host} in its SAN (it is for {}), and kubectl will refuse it;\n\
             add it (k3s: `tls-san: [{host}]` in /etc/rancher/k3s/config.yaml, kubeadm: certSANs) and restart the API server",
            if names.is_empty() {
                "no DNS name".to_owned()
            } else {
                names.join(", ")
            }
        )),
        Verdict::Unknown(why) => Some(format!(
            "note: the certificate of {host}:{port} could not be looked at from here ({why})"
        )),
    }
}

/// `HOST:PORT`, `[IPV6]:PORT`, or `HOST`.
fn split(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || Failure::Other(format!("--api-server {text}: not HOST:PORT"));
    let is_bare = text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_bare => (host, port.parse().map_err(|_| wrong())?),
        Some(_) | None => (text, API_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

async fn of_role(client: &Client, peer: &Peer) -> Result<(String, u16), Failure> {
    let Some(name) = &peer.role else {
        return Err(Failure::Other(format!(
            "{} has no role and reaches no Kubernetes API; {HINT}",
            peer.name
        )));
    };
    let roles: Page<Role> = client.get("/v1/roles").await?.json()?;
    let allowed = roles.items.iter().filter(|role| role.name == *name);
    let mut apis = allowed.flat_map(|role| &role.allow).filter_map(|service| {
        let (host, port) = service.strip_suffix("/tcp")?.rsplit_once(':')?;
        // A network is no host.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (port == API_PORT.to_string() && !host.contains('/')).then(|| host.to_owned())
    });
    let host = apis.next().ok_or_else(|| {
        Failure::Other(format!(
            "role {name} allows no host with port {API_PORT}/tcp; {HINT}"
        ))
    })?;
    Ok((host, API_PORT))
}

/// What of a cluster the gateway does not know.
#[derive(Debug, Default, PartialEq)]
struct Known {
    /// In base64.
    ca: Option<String>,
    user: Option<Value>,
}

impl Known {
    /// Of the current context of a kubeconfig.
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = files::read_secret(path)?;
        let wrong = |what: &str| Failure::Other(format!("{}: {what}", path.display()));
        let config: Value = serde_yaml_ng::from_str(&text)
            .map_err(|error| wrong(&format!("no kubeconfig: {error}")))?;
        let current = config.get("current-context").and_then(Value::as_str);
        let current = current.ok_or_else(|| wrong("it has no current-context"))?;
        let context = named(&config, "contexts", current, "context");
        let context = context.ok_or_else(|| wrong("its current-context is not there"))?;
        let part = |list: &str, kind: &str| {
            let name = context.get(kind).and_then(Value::as_str)?;
            named(&config, list, name, kind).cloned()
        };
        let cluster =
            part("clusters", "cluster").ok_or_else(|| wrong("its cluster is not there"))?;
        let ca = match cluster
            .get("certificate-authority-data")
            .and_then(Value::as_str)
        {
            Some(data) => Some(data.to_owned()),
            None => match cluster.get("certificate-authority").and_then(Value::as_str) {
                Some(file) => {
                    let file = path.parent().unwrap_or(Path::new(".")).join(file);
                    Some(BASE64.encode(files::read_secret(&file)?.as_bytes()))
                }
                None => None,
            },
        };
        Ok(Self {
            ca,
            user: part("users", "user"),
        })
    }
}

/// `config[list][?name == name][kind]`.
fn named<'a>(config: &'a Value, list: &str, name: &str, kind: &str) -> Option<&'a Value> {
    let entries = config.get(list)?.as_sequence()?;
    let entry = entries
        .iter()
        .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))?;
    entry.get(kind)
}

fn text(name: &str, host: &str, port: u16, known: &Known) -> Result<String, Failure> {
    let host = match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    let mut cluster = mapping([("server", format!("https://{host}:{port}").into())]);
    if let Some(ca) = &known.ca {
        cluster.insert("certificate-authority-data".into(), ca.clone().into());
    }
    let context = mapping([("cluster", name.into()), ("user", name.into())]);
    let user = known.user.clone().unwrap_or_else(|| Mapping::new().into());
    let entry = |kind: &str, value: Value| {
        Value::from(vec![Value::from(mapping([
            ("name", name.into()),
            (kind, value),
        ]))])
    };
    let config = mapping([
        ("apiVersion", "v1".into()),
        ("kind", "Config".into()),
        ("clusters", entry("cluster", cluster.into())),
        ("contexts", entry("context", context.into())),
        ("current-context", name.into()),
        ("users", entry("user", user)),
    ]);
    serde_yaml_ng::to_string(&config).map_err(|error| Failure::other(&error))
}

fn mapping<const N: usize>(pairs: [(&str, Value); N]) -> Mapping {
    pairs
        .into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const K3S: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: admin
  name: default
current-context: default
kind: Config
users:
- name: admin
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

    #[test]
    fn of_a_cluster_only_the_server_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k3s.yaml");
        std::fs::write(&path, K3S).unwrap();
        let known = Known::read(&path).unwrap();
        let made = text("alice", "10.17.5.10", 6443, &known).unwrap();
        let config: Value = serde_yaml_ng::from_str(&made).unwrap();
        let cluster = named(&config, "clusters", "alice", "cluster").unwrap();
        assert_eq!(cluster["server"], "https://10.17.5.10:6443");
        assert_eq!(cluster["certificate-authority-data"], "Q0E=");
        let user = named(&config, "users", "alice", "user").unwrap();
        assert_eq!(user["client-key-data"], "S0VZ");
        assert_eq!(config["current-context"], "alice");
    }

    #[test]
    fn a_kubeconfig_that_makes_no_sense_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k3s.yaml");
        for (wrong, why) in [("a: [", "no kubeconfig"), ("a: 1", "current-context")] {
            std::fs::write(&path, wrong).unwrap();
            let refused = Known::read(&path).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn servers_have_hosts_and_ports() {
        let parts = |text: &str| split(text).ok();
        assert_eq!(
            parts("10.17.5.10:443"),
            Some(("10.17.5.10".to_owned(), 443))
        );
        assert_eq!(parts("[fd17::1]:443"), Some(("fd17::1".to_owned(), 443)));
        assert_eq!(parts("fd17::1"), Some(("fd17::1".to_owned(), 6443)));
        assert_eq!(parts("api.lan"), Some(("api.lan".to_owned(), 6443)));
        assert_eq!(parts("api.lan:x"), None);
        assert_eq!(parts(":6443"), None);
        assert!(
            text("a", "fd17::1", 6443, &Known::default())
                .unwrap()
                .contains("https://[fd17::1]:6443")
        );
    }

    #[test]
    fn a_certificate_that_lacks_the_vip_is_told_with_what_to_do() {
        let names = vec!["kubernetes".to_owned()];
        let text = warning("10.17.5.10", 6443, &Verdict::Lacks(names)).unwrap();
        for part in [
            "lacks 10.17.5.10 in its SAN",
            "it is for kubernetes",
            "tls-san: [10.17.5.10]",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(warning("10.17.5.10", 6443, &Verdict::Covers), None);
    }
}
