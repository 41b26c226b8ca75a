//! Endpoints that Cloudflare proxies: the tunnel's datagrams never pass there.
use std::net::IpAddr;
use std::time::Duration;

use shared::api::plan::PlanWarning;
use shared::config::cloudflare;
use shared::config::common::Endpoint;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Asked;

/// A resolver that does not answer holds a plan up for no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Those with an address of Cloudflare's, itself or by its name. What can't be resolved is not told here.
pub(super) async fn proxied(asked: &Asked<'_>) -> Vec<PlanWarning> {
    let mut found = Vec::new();
    for endpoint in &asked.expected.endpoints {
        for address in addresses(endpoint).await {
            if is_cloudflares(address, asked) {
                found.push(warning(endpoint, address));
                break;
            }
        }
    }
    found
}

async fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    match endpoint {
        Endpoint::Address(address) => vec![address.ip()],
        Endpoint::Name { host, port } => {
            let resolved = timeout(PATIENCE, lookup_host((host.as_str(), *port))).await;
            let resolved = resolved.ok().and_then(Result::ok).into_iter().flatten();
            resolved.map(|address| address.ip()).collect()
        }
    }
}

fn is_cloudflares(address: IpAddr, asked: &Asked<'_>) -> bool {
    let mut now = asked.environment.cloudflare.iter();
    now.any(|network| network.contains(address)) || cloudflare::contains(address)
}

fn warning(endpoint: &Endpoint, address: IpAddr) -> PlanWarning {
    PlanWarning {
        name: "endpoint_is_cloudflare".to_owned(),
        subject: endpoint.to_string(),
        text: match endpoint {
            Endpoint::Address(_) => format!(
                "the endpoint {endpoint} belongs to Cloudflare, which never forwards WireGuard's UDP: give the address of \
                 the VPS itself"
            ),
            Endpoint::Name { host, .. } => format!(
                "the endpoint {endpoint} is {address}, which belongs to Cloudflare and never forwards WireGuard's UDP: give \
                 the address of the VPS itself, or have `{host}` resolved without the proxy (a grey cloud)"
            ),
        },
        remedy: None,
    }
}
