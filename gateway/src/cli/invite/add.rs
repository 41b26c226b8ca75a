//! Another LAN server for the configuration file, which the daemon then takes. What was in the file stays as it is written.
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use shared::api::Page;
use shared::api::peer::Peer;
use shared::api::policy::LanServer;
use shared::config::gateway::Gateway as Config;
use shared::config::toml_text::{list, one_or_more, quoted};
use shared_daemon::admin::client::Client;
use shared_daemon::cli::Context;
use shared_daemon::cli::output::note;
use shared_daemon::error::Failure;
use shared_daemon::product::Product as _;
use shared_os::{atomic_file, process};

use crate::Gateway;
use crate::peers::allocate::next_free;

/// A daemon that takes a configuration has done so well before.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(50);

/// Add it, unless it is there with these networks already.
///
/// # Errors
/// The file or the daemon does not take it: the file is as it was.
pub(super) async fn lan_server(
    name: &str,
    mut networks: Vec<IpNetwork>,
    context: &Context<Gateway>,
    client: &Client,
) -> Result<(), Failure> {
    let path = &context.config_path;
    let text = std::fs::read_to_string(path).map_err(failed(path, "read"))?;
    let config = parse(&text, path)?;
    networks.sort_unstable();
    if let Some(known) = config.lan_servers.iter().find(|lan| lan.name == name) {
        if known.networks == networks {
            return Ok(());
        }
        return Err(Failure::Other(format!(
            "{} has the LAN server {name} with other networks; change them there, or leave --network out",
            path.display()
        )));
    }
    let taken = taken(client).await?;
    let addresses = addresses(&config, &networks, &taken)?;
    let more = with(&text, name, &addresses, &networks);
    parse(&more, path)?;
    let settings = Gateway::settings(&config);
    let Some(pid) = process::running(&settings.runtime_dir, Gateway::NAME) else {
        return Err(Failure::NotRunning(
            "the daemon does not run; start it first: gateway run".to_owned(),
        ));
    };
    write(path, &more)?;
    let is_taken = async {
        process::hang_up(pid).map_err(|error| Failure::other(&error))?;
        wait_for(name, client).await
    };
    if let Err(failure) = is_taken.await {
        write(path, &text)?;
        // It has taken nothing of the other one, or is about to take this one.
        let _ended = process::hang_up(pid);
        return Err(failure);
    }
    note(&format!(
        "added the LAN server {name} to {}",
        path.display()
    ));
    Ok(())
}

fn parse(text: &str, path: &Path) -> Result<Config, Failure> {
    let parsed = Config::parse(text, &path.display().to_string());
    let parsed = parsed.map_err(|errors| Failure::Configuration(errors.to_string()))?;
    Ok(parsed.config)
}

fn failed(path: &Path, what: &'static str) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::Environment(format!("{path}: can't be {what}: {error}"))
}

/// Who may read the file stays the same.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mode = std::fs::metadata(path).map_or(0o644, |metadata| metadata.permissions().mode());
    atomic_file::write(path, text.as_bytes(), mode & 0o777).map_err(failed(path, "written"))
}

/// What peers of the API have.
async fn taken(client: &Client) -> Result<Vec<IpNetwork>, Failure> {
    let mut taken = Vec::new();
    let mut path = "/v1/peers?limit=1000".to_owned();
    loop {
        let page: Page<Peer> = client.get(&path).await?.json()?;
        for peer in page.items {
            taken.extend(
                peer.addresses
                    .iter()
                    .map(|&address| IpNetwork::from(address)),
            );
            let networks = peer.networks.iter();
            taken.extend(networks.filter_map(|text| text.parse::<IpNetwork>().ok()));
        }
        match page.next_cursor {
            Some(cursor) => path = format!("/v1/peers?limit=1000&cursor={cursor}"),
            None => return Ok(taken),
        }
    }
}

/// One free address of each family of the tunnel, the first behind the gateway's own.
fn addresses(
    config: &Config,
    networks: &[IpNetwork],
    taken: &[IpNetwork],
) -> Result<Vec<IpAddr>, Failure> {
    let lans = config.lan_servers.iter();
    let lans = lans.flat_map(|lan| hosts(&lan.addresses).chain(lan.networks.iter().copied()));
    let peers = config.peers.iter().flat_map(|peer| hosts(&peer.addresses));
    let all: Vec<IpNetwork> = lans
        .chain(peers)
        .chain(networks.iter().chain(taken).copied())
        .collect();
    let tunnels = config.tunnel.addresses.iter();
    tunnels
        .map(|own| {
            let tunnel = own.network();
            let taken_until = |address: IpAddr| {
                let around = all.iter().find(|network| network.contains(address));
                let is_edge = address == own.address
                    || address == tunnel.network()
                    || (tunnel.is_ipv4() && address == tunnel.broadcast());
                around
                    .map(IpNetwork::broadcast)
                    .or_else(|| is_edge.then_some(address))
            };
            next_free(tunnel, Some(own.address), taken_until).ok_or_else(|| {
                Failure::Other(format!("no address of {tunnel} is free for the LAN host"))
            })
        })
        .collect()
}

fn hosts(addresses: &[IpAddr]) -> impl Iterator<Item = IpNetwork> {
    addresses.iter().map(|&address| IpNetwork::from(address))
}

/// The file with one more table at its end, where every table may stand.
fn with(text: &str, name: &str, addresses: &[IpAddr], networks: &[IpNetwork]) -> String {
    let name = quoted(name);
    let addresses = one_or_more(addresses.iter());
    let networks = list(networks.iter());
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!(
        "{text}{end}\n[[lan_server]]             # added by `gateway invite`\nname = {name}\naddress = {addresses}\n\
         networks = {networks}\n"
    )
}

/// Until the daemon knows it.
async fn wait_for(name: &str, client: &Client) -> Result<(), Failure> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let page: Page<LanServer> = client.get("/v1/lan-servers").await?.json()?;
        if page.items.iter().any(|lan| lan.name == name) {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Err(Failure::Other(
        "the daemon has not taken the new configuration; its log says why. The file is as it was"
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# Mine.
[wan]
endpoint = "203.0.113.10:51820"
[tunnel]
address = ["10.17.0.1/16", "fd17::1/64"]
[[lan_server]]
name = "home"
address = ["10.17.0.2", "fd17::2"]
networks = ["10.17.5.0/24"]
[[peer]]
name = "alice"
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
address = "10.17.0.4""#;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_written_stays_and_the_new_one_is_read_back() {
        let config = parse(FILE, Path::new("gateway.toml")).unwrap();
        let networks = [network("10.17.6.0/24"), network("192.168.7.0/24")];
        let free = addresses(&config, &networks, &[network("10.17.0.3/32")]).unwrap();
        let texts: Vec<String> = free.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["10.17.0.5", "fd17::3"],
            "2 and 4 are of the file, 3 of the API"
        );
        let more = with(FILE, "office", &free, &networks);
        assert!(more.starts_with(FILE));
        let config = parse(&more, Path::new("gateway.toml")).unwrap();
        let office = &config.lan_servers[1];
        assert_eq!((office.name.as_str(), office.public_key), ("office", None));
        assert_eq!(office.addresses, free);
        assert_eq!(office.networks, networks);
    }

    #[test]
    fn a_network_that_covers_the_rest_of_the_tunnel_leaves_no_address() {
        let text = FILE.replace("10.17.0.1/16", "10.17.0.1/29");
        let text = text.replace("10.17.5.0/24", "10.18.5.0/24");
        let config = parse(&text, Path::new("gateway.toml")).unwrap();
        let taken = [
            network("10.17.0.3/32"),
            network("10.17.0.5/32"),
            network("10.17.0.6/32"),
        ];
        assert!(addresses(&config, &[], &taken).is_err());
        assert!(addresses(&config, &[], &taken[..2]).is_ok());
    }
}
