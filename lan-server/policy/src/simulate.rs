//! The LAN end for a simulation: its policy, and what it takes for granted of its host.
use ipnetwork::IpNetwork;
use shared::config::lan_server::LanServer;
use shared::model::InterfaceName;
use shared::plan::ruleset::Family;
use shared::simulate::LanEnd;
use shared_daemon::model::Environment;
use shared_daemon::simulation::tunnel_end;

/// The end that `config` makes, with the name that the gateway has for it. What is published or may be reached is taken to be
/// on a link into the LAN, and so are `networks` and all that is not in the tunnel.
pub fn lan_end(
    config: &LanServer,
    environment: &Environment,
    name: Option<&str>,
    networks: &[IpNetwork],
) -> LanEnd {
    let mut end = tunnel_end(super::model(config, environment));
    let links = [InterfaceName::into_lan(), InterfaceName::of_default_route()];
    // No tunnel can have the name of the second one.
    let [lan, other] = links;
    let lan = if lan == end.tunnel { other } else { lan };
    let vips = config
        .publishes
        .iter()
        .map(|publish| IpNetwork::from(publish.vip));
    let services = config.access.iter().flat_map(|access| &access.to);
    let everything = [Family::Ipv4, Family::Ipv6].map(Family::everything);
    let behind = vips
        .chain(services.map(|service| service.network))
        .chain(networks.iter().copied())
        .chain(everything);
    end.host = behind.fold(end.host.with_anonymous_link(&lan), |host, network| {
        host.with_route(network, &lan)
    });
    LanEnd {
        name: name.map(str::to_owned),
        end,
    }
}
