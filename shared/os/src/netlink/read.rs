//! The whole state, link by link and table by table.
use netlink_packet_route::RouteNetlinkMessage as Message;
use shared::plan::Actual;

use super::address::LocalAddress;
use super::connection::Connection;
use super::{ReadError, RequestError, address, link, route, rule};

/// Everything but sysctls, whoever it belongs to.
pub(super) async fn everything(connection: &mut Connection) -> Result<Actual, ReadError> {
    let (links, names) = link::all(connection)
        .await
        .map_err(ReadError::of("links"))?;
    let addresses = address::all(connection, &names)
        .await
        .map_err(ReadError::of("addresses"))?;
    let routes = route::all(connection, &names)
        .await
        .map_err(ReadError::of("routes"))?;
    let rules = rule::all(connection)
        .await
        .map_err(ReadError::of("rules"))?;
    Ok(Actual {
        links,
        addresses: addresses
            .into_iter()
            .filter_map(LocalAddress::into_plan)
            .collect(),
        routes,
        rules,
        sysctls: Vec::new(),
    })
}

/// A list that is empty where the kernel lacks the address family.
pub(super) async fn dump(
    connection: &mut Connection,
    request: Message,
) -> Result<Vec<Message>, RequestError> {
    match connection.dump(request).await {
        Err(error) if matches!(error.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        other => other,
    }
}
