//! The one line that lets a packet of ours pass, in the words of whoever made the table: `docs/neighbours.md` has them all.
use std::fmt::Write as _;

use shared::model::InterfaceName;
use shared::plan::ruleset::{Family, Hook};

use super::path::Path;
use super::read::{ForeignTable, TableFamily};
use super::{Action, At};

/// What a packet is to us, which decides how a rule for its like is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// From the internet to a published service.
    Published {
        /// Link to the internet.
        wan: InterfaceName,
        /// The tunnel's link.
        tunnel: InterfaceName,
    },
    /// Whatever comes out of the tunnel.
    FromTunnel(InterfaceName),
    /// Answers that go into the tunnel.
    ToTunnel(InterfaceName),
    /// The tunnel's own datagrams, to a port of ours.
    Datagrams(u16),
    /// The tunnel's own datagrams, as answers to ours.
    DatagramAnswers,
}

const FIREWALLD: &str = "firewalld";
const LIBVIRT: &str = "libvirt_network";
const LIBVIRT_IN: &str = "LIBVIRT_FWI";
const DOCKER_USER: &str = "DOCKER-USER";
const UFW: &[&str] = &["ufw-user-input", "ufw6-user-input"];
/// Base chains of iptables.
const OF_IPTABLES: &[&str] = &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// The line for this packet at this chain.
pub(super) fn remedy(
    table: &ForeignTable,
    chain: &str,
    hook: Hook,
    at: &At,
    action: Action,
    path: &Path,
) -> String {
    let is_iptables = table.family != TableFamily::Inet && OF_IPTABLES.contains(&chain);
    let rule_chain = match at {
        At::Rule { chain, .. } => Some(chain.as_str()),
        At::Policy => None,
    };
    if action == Action::TranslateSource {
        return if is_iptables {
            let destination = destination(path, "-d ");
            format!(
                "{} -t {} -I {chain} {destination}-j ACCEPT",
                iptables(table.family),
                table.name
            )
        } else {
            insert(table, chain, &destination_in_nft(path))
        };
    }
    if table.name == FIREWALLD && table.family == TableFamily::Inet {
        return firewalld(&path.purpose);
    }
    if !is_iptables {
        // libvirt makes its base chain anew, and the rules of its networks by themselves.
        let chain = rule_chain
            .filter(|_| table.name == LIBVIRT)
            .unwrap_or(chain);
        return insert(table, chain, &in_nft(path, hook));
    }
    if UFW.iter().any(|name| table.has_chain(name)) {
        return ufw(&path.purpose, hook);
    }
    let chain = match rule_chain {
        Some(LIBVIRT_IN) => LIBVIRT_IN,
        _ if hook == Hook::Forward && table.has_chain(DOCKER_USER) => DOCKER_USER,
        _ => chain,
    };
    let name = match table.name.as_str() {
        "filter" => String::new(),
        other => format!(" -t {other}"),
    };
    format!(
        "{}{name} -I {chain} {}-j ACCEPT",
        iptables(table.family),
        in_iptables(path, hook)
    )
}

fn insert(table: &ForeignTable, chain: &str, matches: &str) -> String {
    let family = table.family.name();
    format!(
        "nft insert rule {family} {} {chain} {matches}accept",
        table.name
    )
}

const fn iptables(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Ip6 => "ip6tables",
        TableFamily::Ip | TableFamily::Inet => "iptables",
    }
}

fn in_nft(path: &Path, hook: Hook) -> String {
    match (&path.purpose, hook) {
        (Purpose::Published { wan, .. }, Hook::Prerouting) => {
            let mut text = format!("iifname \"{wan}\" ");
            if let Some(port) = path.called_port {
                let _ = write!(text, "{} dport {port} ", path.protocol);
            }
            text
        }
        (Purpose::Published { tunnel, .. }, Hook::Postrouting) => {
            format!("oifname \"{tunnel}\" ct status dnat ")
        }
        (Purpose::Published { wan, tunnel }, _) => {
            format!("iifname \"{wan}\" oifname \"{tunnel}\" ct status dnat ")
        }
        // On the last hook a packet may no longer say where it came in.
        (Purpose::FromTunnel(_), Hook::Postrouting) => destination_in_nft(path),
        (Purpose::FromTunnel(tunnel), _) => format!("iifname \"{tunnel}\" "),
        (Purpose::ToTunnel(_), Hook::Prerouting) | (Purpose::DatagramAnswers, _) => {
            "ct state established,related ".to_owned()
        }
        (Purpose::ToTunnel(tunnel), _) => {
            format!("oifname \"{tunnel}\" ct state established,related ")
        }
        (Purpose::Datagrams(port), _) => format!("udp dport {port} "),
    }
}

fn in_iptables(path: &Path, hook: Hook) -> String {
    const ANSWERS: &str = "-m conntrack --ctstate ESTABLISHED,RELATED ";
    match (&path.purpose, hook) {
        (Purpose::Published { wan, .. }, Hook::Prerouting) => {
            let mut text = format!("-i {wan} ");
            if let Some(port) = path.called_port {
                let _ = write!(text, "-p {} --dport {port} ", path.protocol);
            }
            text
        }
        (Purpose::Published { tunnel, .. }, Hook::Postrouting) => {
            format!("-o {tunnel} -m conntrack --ctstate DNAT ")
        }
        (Purpose::Published { wan, tunnel }, _) => {
            format!("-i {wan} -o {tunnel} -m conntrack --ctstate DNAT ")
        }
        (Purpose::FromTunnel(_), Hook::Postrouting) => destination(path, "-d "),
        (Purpose::FromTunnel(tunnel), _) => format!("-i {tunnel} "),
        (Purpose::ToTunnel(_), Hook::Prerouting) | (Purpose::DatagramAnswers, _) => {
            ANSWERS.to_owned()
        }
        (Purpose::ToTunnel(tunnel), _) => format!("-o {tunnel} {ANSWERS}"),
        (Purpose::Datagrams(port), _) => format!("-p udp --dport {port} "),
    }
}

fn destination(path: &Path, word: &str) -> String {
    let address = path.destination;
    address.map_or_else(String::new, |address| format!("{word}{address} "))
}

fn destination_in_nft(path: &Path) -> String {
    match path.family {
        Family::Ipv4 => destination(path, "ip daddr "),
        Family::Ipv6 => destination(path, "ip6 daddr "),
    }
}

fn firewalld(purpose: &Purpose) -> String {
    let what = match purpose {
        Purpose::Datagrams(port) => format!("--add-port={port}/udp"),
        Purpose::Published { tunnel, .. }
        | Purpose::FromTunnel(tunnel)
        | Purpose::ToTunnel(tunnel) => format!("--zone=trusted --add-interface={tunnel}"),
        Purpose::DatagramAnswers => return "firewall-cmd --reload".to_owned(),
    };
    format!("firewall-cmd --permanent {what} && firewall-cmd --reload")
}

fn ufw(purpose: &Purpose, hook: Hook) -> String {
    match purpose {
        Purpose::Published { wan, tunnel } => {
            format!("ufw route allow in on {wan} out on {tunnel}")
        }
        Purpose::FromTunnel(tunnel) if hook == Hook::Input => format!("ufw allow in on {tunnel}"),
        Purpose::FromTunnel(tunnel) | Purpose::ToTunnel(tunnel) => {
            format!("ufw route allow in on {tunnel}")
        }
        Purpose::Datagrams(port) => format!("ufw allow {port}/udp"),
        Purpose::DatagramAnswers => "ufw reload".to_owned(),
    }
}
