//! What the product makes in the kernel, taken down once and given to everybody else: rulesets, routes, rules, addresses,
//! switches and allowed IPs. Whatever carries the packets, they pass the same hooks and the same tables.
use ::tests::edge::{GATEWAY_TABLE, INTERFACE, LAN_TABLE};
use ::tests::node::Node;
use anyhow::{Context as _, Result};

use crate::site::Site;

/// Switches that the product may set, or that would change what it does.
const SWITCHES: [&str; 5] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/edge0/rp_filter",
    "net/ipv4/conf/all/src_valid_mark",
    "net/ipv4/conf/edge0/src_valid_mark",
];
/// Rules that every namespace has.
const KERNEL_RULES: [&str; 3] = ["0:", "32766:", "32767:"];

/// Of both ends.
#[derive(Debug, Clone)]
pub(crate) struct Likeness {
    pub(crate) gateway: End,
    pub(crate) lan_server: End,
}

/// Of one end.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// The table as a script for `nft`.
    ruleset: String,
    /// `ip -batch` lines.
    addresses: Vec<String>,
    routes: Vec<String>,
    rules: Vec<String>,
    /// Name and value.
    switches: Vec<(&'static str, String)>,
    /// Allowed IPs of the other end, as `wg` takes them.
    pub(crate) allowed_ips: String,
}

impl Likeness {
    /// Take it down from a world in which both of our daemons run.
    pub(crate) fn of(site: &Site, other_keys: [&str; 2]) -> Result<Self> {
        let [lan_server, gateway] = other_keys;
        Ok(Self {
            gateway: End::of(&site.gw, GATEWAY_TABLE, lan_server)?,
            lan_server: End::of(&site.lan, LAN_TABLE, gateway)?,
        })
    }
}

impl End {
    fn of(node: &Node, table: &str, other_key: &str) -> Result<Self> {
        let mut command = vec!["nft", "-s", "list", "table"];
        command.extend(table.split(' '));
        // Owned tables can be made by no program that ends, as nft does.
        let ruleset = without_flags(&node.run(&command)?);
        let addresses = node.run(&["ip", "-4", "-o", "addr", "show", "dev", INTERFACE])?;
        let addresses = addresses.lines().filter_map(|line| {
            let address = line.split_whitespace().nth(3)?;
            Some(format!("addr add {address} dev {INTERFACE}"))
        });
        let routes = node.run(&["ip", "-4", "route", "show", "table", "all"])?;
        let ours = format!("dev {INTERFACE} ");
        // The kernel makes the rest by itself, with the addresses.
        let routes = routes.lines().filter(|line| {
            line.contains(&ours) && !line.contains("proto kernel") && !line.contains("table local")
        });
        let rules = node.run(&["ip", "-4", "rule", "show"])?;
        let rules = rules.lines().filter_map(|line| {
            let (priority, rule) = line.split_once(':')?;
            let of_kernel = KERNEL_RULES.iter().any(|known| line.starts_with(known));
            (!of_kernel).then(|| format!("rule add pref {priority} {}", rule.trim()))
        });
        let switches = SWITCHES
            .iter()
            .filter_map(|&name| node.sysctl(name).ok().map(|value| (name, value)));
        let allowed = node.run(&["wg", "show", INTERFACE, "allowed-ips"])?;
        let allowed_ips = allowed
            .lines()
            .find_map(|line| line.strip_prefix(other_key))
            .with_context(|| format!("{} has no such peer: {allowed}", node.name()))?;
        Ok(Self {
            ruleset,
            addresses: addresses.collect(),
            routes: routes.map(|line| format!("route replace {line}")).collect(),
            rules: rules.collect(),
            switches: switches.collect(),
            allowed_ips: allowed_ips.split_whitespace().collect::<Vec<_>>().join(","),
        })
    }

    /// Make the same in a node whose tunnel has the product's name; its link exists. A daemon that configures itself has
    /// brought its address.
    pub(crate) fn install(&self, node: &Node, with_addresses: bool) -> Result<()> {
        let mut lines: Vec<&str> = Vec::new();
        if with_addresses {
            lines.extend(self.addresses.iter().map(String::as_str));
        }
        let up = format!("link set {INTERFACE} up");
        lines.push(&up);
        lines.extend(self.routes.iter().map(String::as_str));
        lines.extend(self.rules.iter().map(String::as_str));
        node.ip(&lines.join("\n"))?;
        for (name, value) in &self.switches {
            node.set_sysctl(name, value)?;
        }
        node.nft(&self.ruleset)
    }

    /// The same where a cable stands in for the tunnel: other link, next hop instead of none.
    pub(crate) fn install_over_cable(
        &self,
        node: &Node,
        cable: &str,
        next_hop: &str,
    ) -> Result<()> {
        let moved = |line: &String| {
            line.replace(
                &format!("dev {INTERFACE}"),
                &format!("via {next_hop} dev {cable}"),
            )
        };
        // What is reached without a next hop in the tunnel is behind the other end here.
        let routes = self.routes.iter().map(moved);
        let routes = routes.map(|line| line.replace("scope link", ""));
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|line| line.replace(INTERFACE, cable));
        let lines: Vec<String> = addresses
            .chain(routes)
            .chain(self.rules.iter().cloned())
            .collect();
        node.ip(&lines.join("\n"))?;
        for (name, value) in &self.switches {
            node.set_sysctl(&name.replace(INTERFACE, cable), value)?;
        }
        let quoted = |name: &str| format!("\"{name}\"");
        node.nft(&self.ruleset.replace(&quoted(INTERFACE), &quoted(cable)))
    }
}

/// The listing without the line of the table's flags.
fn without_flags(listing: &str) -> String {
    let kept = listing
        .lines()
        .filter(|line| !(line.starts_with("\tflags ") && line.contains("owner")));
    kept.filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_once(" # progname")
                .map_or(line, |(table, _)| table)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::without_flags;

    #[test]
    fn only_what_concerns_the_owner_is_left_out() {
        let owned = "table inet wg_edge { # progname gateway\n\tflags owner,persist\n\n\tset cf4 {\n\t\tflags interval\n\t}\n}";
        let open = "table inet wg_edge {\n\n\tset cf4 {\n\t\tflags interval\n\t}\n}";
        assert_eq!(without_flags(owned), open);
        assert_eq!(without_flags(open), open);
    }
}
