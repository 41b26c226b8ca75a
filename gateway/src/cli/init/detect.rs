//! What the arguments leave open, as this host answers it, and why.
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnetwork::IpNetwork;
use shared::config::common::{Endpoint, InterfaceAddress};
use shared::config::{cloudflare, is_private};
use shared::model::InterfaceName;
use shared_daemon::error::Failure;
use shared_daemon::product::Product as _;
use shared_os::netlink::{LocalAddress, Netlink};
use shared_os::process;
use tokio::net::lookup_host;

use super::Init;
use super::file::{Choices, Chosen};
use crate::Gateway;
use crate::peers::allocate::next_free;

/// As the documentation has it.
const DEFAULT_PORT: u16 = 51820;

pub(super) async fn choose(arguments: &Init) -> Result<Choices, Failure> {
    let netlink = Netlink::open().map_err(|error| Failure::other(&error))?;
    let wan = wan(arguments.wan.as_ref(), &netlink).await?;
    let local = netlink.local_addresses().await;
    let local = local.map_err(|error| Failure::other(&error))?;
    let endpoint = match &arguments.endpoint {
        Some(text) => named_endpoint(text, &local).await?,
        None => own_endpoint(&wan.value, &local)?,
    };
    let port = match &endpoint.value {
        Endpoint::Address(address) => address.port(),
        Endpoint::Name { port, .. } => *port,
    };
    if process::running(&arguments.runtime_dir, Gateway::NAME).is_none() {
        require_free(port)?;
    }
    let networks: Vec<IpNetwork> = arguments
        .networks
        .iter()
        .map(|text| parse(text, "--network"))
        .collect::<Result<_, _>>()?;
    let tunnel: Vec<InterfaceAddress> = arguments
        .tunnel
        .iter()
        .map(|text| parse(text, "--tunnel"))
        .collect::<Result<_, _>>()?;
    let lan_addresses = tunnel
        .iter()
        .map(|own| address_beside(own, &networks))
        .collect::<Result<_, _>>()?;
    Ok(Choices {
        endpoint,
        wan,
        listen_port: port,
        tunnel,
        lan_server: arguments.lan_server.clone(),
        lan_addresses,
        networks,
        ingress: unless_none(&arguments.ingress),
        api: unless_none(&arguments.api),
        state_dir: arguments.state_dir.clone(),
        runtime_dir: arguments.runtime_dir.clone(),
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
    argument: &str,
) -> Result<T, Failure> {
    text.parse()
        .map_err(|error| Failure::Other(format!("{argument} {text}: {error}")))
}

fn unless_none(text: &str) -> Option<String> {
    (text != "none").then(|| text.to_owned())
}

async fn wan(
    named: Option<&InterfaceName>,
    netlink: &Netlink,
) -> Result<Chosen<InterfaceName>, Failure> {
    if let Some(name) = named {
        let link = netlink.link(name).await;
        return match link.map_err(|error| Failure::other(&error))? {
            Some(_) => Ok(Chosen::new(name.clone(), "as you say")),
            None => Err(Failure::Environment(format!(
                "there is no link {name}; `ip link` shows those there are"
            ))),
        };
    }
    let link = netlink.default_route_link().await;
    let link = link.map_err(|error| Failure::other(&error))?;
    let link = link.ok_or_else(|| {
        Failure::Environment("there is no default route; name the link with --wan".to_owned())
    })?;
    Ok(Chosen::new(link, "the link of the default route"))
}

/// The first public address of the link, IPv4 before IPv6.
fn own_endpoint(wan: &InterfaceName, local: &[LocalAddress]) -> Result<Chosen<Endpoint>, Failure> {
    let on_link = local.iter().filter(|own| own.link == wan.as_str());
    let mut addresses: Vec<IpAddr> = on_link.map(|own| own.address).collect();
    addresses.sort_by_key(|address| !address.is_ipv4());
    if let Some(public) = addresses.iter().find(|address| is_public(**address)) {
        let endpoint = Endpoint::Address(SocketAddr::new(*public, DEFAULT_PORT));
        return Ok(Chosen::new(endpoint, &format!("the address of {wan}")));
    }
    let has = if addresses.is_empty() {
        "no address".to_owned()
    } else {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("no public address, only {}", addresses.join(", "))
    };
    Err(Failure::Environment(format!(
        "{wan} has {has}: something in front of this host translates addresses. Say what peers dial, --endpoint ADDRESS, and \
         let UDP port {DEFAULT_PORT} through to here"
    )))
}

/// What somebody on the internet can dial, as far as an address tells.
fn is_public(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    !is_local && !is_private(IpNetwork::from(address))
}

/// `HOST`, `HOST:PORT`, `ADDRESS` or `[V6]:PORT`; not one of Cloudflare's, which forwards no UDP.
async fn named_endpoint(text: &str, local: &[LocalAddress]) -> Result<Chosen<Endpoint>, Failure> {
    let endpoint = match text.parse::<IpAddr>() {
        Ok(address) => Endpoint::Address(SocketAddr::new(address, DEFAULT_PORT)),
        Err(_) => match text.parse() {
            Ok(endpoint) => endpoint,
            Err(_) => parse(&format!("{text}:{DEFAULT_PORT}"), "--endpoint")?,
        },
    };
    let addresses: Vec<IpAddr> = match &endpoint {
        Endpoint::Address(address) => vec![address.ip()],
        Endpoint::Name { host, port } => {
            let found = lookup_host((host.as_str(), *port)).await.map_err(|error| {
                Failure::Environment(format!(
                    "--endpoint {host}: the name can't be resolved ({error}), so nobody could dial it; make it first, or give \
                     an address"
                ))
            })?;
            found.map(|address| address.ip()).collect()
        }
    };
    if let Some(proxied) = addresses
        .iter()
        .find(|address| cloudflare::contains(**address))
    {
        return Err(Failure::Other(format!(
            "--endpoint {text}: {proxied} belongs to Cloudflare, which never forwards WireGuard's UDP. Give the address of \
             this host, or a name that is DNS only (the grey cloud)"
        )));
    }
    let is_here = local.iter().any(|own| addresses.contains(&own.address));
    let why = if is_here {
        "as you say; an address of this host"
    } else {
        "as you say; no address of this host: something in front has to translate it"
    };
    Ok(Chosen::new(endpoint, why))
}

/// The daemon could not start: say so before anything is written.
fn require_free(port: u16) -> Result<(), Failure> {
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Failure::Environment(format!(
                "UDP port {port} is taken (`ss -lunp` shows by whom); choose another with --endpoint HOST:PORT"
            )))
        }
        // Whatever else is wrong, the daemon tells better.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The first tunnel address behind ours that lies in no LAN network.
fn address_beside(own: &InterfaceAddress, networks: &[IpNetwork]) -> Result<IpAddr, Failure> {
    let taken_until = |address: IpAddr| {
        let around = networks.iter().find(|network| network.contains(address));
        around
            .map(IpNetwork::broadcast)
            .or_else(|| (address == own.address).then_some(address))
    };
    next_free(own.network(), Some(own.address), taken_until).ok_or_else(|| {
        Failure::Other(format!(
            "--tunnel {}/{}: no address is left beside the networks of the LAN host; take a wider network",
            own.address, own.prefix_len
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(link: &str, address: &str) -> LocalAddress {
        LocalAddress {
            link: link.to_owned(),
            address: address.parse().unwrap(),
            prefix_len: 24,
        }
    }

    fn chosen(addresses: &[LocalAddress]) -> Result<String, String> {
        let wan = "eth0".parse().map_err(|_| "no name")?;
        let chosen = own_endpoint(&wan, addresses);
        chosen
            .map(|c| c.value.to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_public_address_of_the_link_is_chosen_ipv4_first() {
        let addresses = [
            local("eth1", "198.51.100.7"),
            local("eth0", "fe80::1"),
            local("eth0", "2001:db8::10"),
            local("eth0", "10.0.0.5"),
            local("eth0", "203.0.113.10"),
        ];
        assert_eq!(chosen(&addresses).as_deref(), Ok("203.0.113.10:51820"));
        assert_eq!(
            chosen(&addresses[..4]).as_deref(),
            Ok("[2001:db8::10]:51820")
        );
    }

    #[test]
    fn behind_nat_the_operator_has_to_say() {
        for (addresses, word) in [
            (
                vec![local("eth0", "10.0.0.5"), local("eth0", "fe80::1")],
                "only 10.0.0.5, fe80::1",
            ),
            (vec![local("eth0", "100.64.0.5")], "only 100.64.0.5"),
            (vec![local("eth1", "203.0.113.10")], "no address"),
        ] {
            let refused = chosen(&addresses).unwrap_err();
            assert!(
                refused.contains(word) && refused.contains("--endpoint"),
                "{refused}"
            );
        }
    }

    async fn named(text: &str) -> Result<String, String> {
        let local = [local("eth0", "203.0.113.10")];
        let chosen = named_endpoint(text, &local).await;
        chosen
            .map(|chosen| format!("{} {}", chosen.value, chosen.why))
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_endpoint_needs_no_port_and_is_not_cloudflares() {
        let here = named("203.0.113.10").await.unwrap();
        assert!(
            here.starts_with("203.0.113.10:51820 as you say; an address of"),
            "{here}"
        );
        let other = named("198.51.100.1:443").await.unwrap();
        assert!(
            other.starts_with("198.51.100.1:443 as you say; no address of"),
            "{other}"
        );
        assert!(
            named("2001:db8::1")
                .await
                .unwrap()
                .starts_with("[2001:db8::1]:51820")
        );
        assert!(
            named("localhost")
                .await
                .unwrap()
                .starts_with("localhost:51820")
        );
        let proxied = named("104.16.0.1:51820").await.unwrap_err();
        assert!(proxied.contains("belongs to Cloudflare"), "{proxied}");
        let unknown = named("nobody.invalid").await.unwrap_err();
        assert!(unknown.contains("can't be resolved"), "{unknown}");
        assert!(named("not a host").await.is_err());
    }

    #[test]
    fn the_lan_host_gets_the_address_behind_ours_outside_of_its_networks() {
        let beside = |own: &str, networks: &[&str]| {
            let networks: Vec<IpNetwork> = networks.iter().map(|n| n.parse().unwrap()).collect();
            let own: InterfaceAddress = own.parse().unwrap();
            let address = address_beside(&own, &networks);
            address.map(|address| address.to_string()).map_err(drop)
        };
        assert_eq!(
            beside("10.17.0.1/16", &["10.17.5.0/24"]).as_deref(),
            Ok("10.17.0.2")
        );
        assert_eq!(
            beside("10.17.0.1/16", &["10.17.1.0/24", "10.17.0.0/24"]).as_deref(),
            Ok("10.17.2.0")
        );
        assert_eq!(
            beside("fd17::1/64", &["fd17::/112"]).as_deref(),
            Ok("fd17::1:0")
        );
        assert_eq!(beside("10.17.0.1/16", &["10.0.0.0/8"]), Err(()));
    }
}
