//! Waiting for facts instead of sleeping, and reading the kernel's state as JSON.
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::node::Node;

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Look until it holds; after `within`, fail with the last reason why it did not.
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let error = match look() {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("not within {within:?}: {what}")));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// A fact that is either there or not, as something [`eventually`] can wait for.
pub fn holds(fact: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if fact {
        Ok(())
    } else {
        Err(anyhow!(otherwise()))
    }
}

/// Look for the whole time: the first failure ends it.
pub fn throughout(time: Duration, what: &str, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        look().with_context(|| format!("after {:?}: {what}", start.elapsed()))?;
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// What `ip -j ARGUMENTS` says.
pub fn ip_json(node: &Node, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = vec!["ip", "-j"];
    command.extend(arguments);
    let text = node.run(&command)?;
    if text.trim().is_empty() {
        return Ok(Vec::new()); // iproute2 prints nothing at all for an empty listing of some objects
    }
    serde_json::from_str(&text).with_context(|| format!("{command:?} printed no JSON list: {text}"))
}

/// The objects of `nft -j list ruleset`.
pub fn nft_json(node: &Node) -> Result<Vec<Value>> {
    let text = node.run(&["nft", "-j", "list", "ruleset"])?;
    let mut listing: Value = serde_json::from_str(&text).context("nft printed no JSON")?;
    match listing.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        other => Err(anyhow!("nft printed no list of objects but {other:?}")),
    }
}

/// The tables of a node, as `family name`.
pub fn nft_tables(node: &Node) -> Result<Vec<String>> {
    let listing = node.run(&["nft", "list", "tables"])?;
    Ok(listing
        .lines()
        .filter_map(|line| line.strip_prefix("table "))
        .map(str::to_owned)
        .collect())
}

/// The text of every table but those named `ours` (as `family name`), without counters and handles: what must never change.
pub fn foreign_ruleset(node: &Node, ours: &[&str]) -> Result<String> {
    let mut text = String::new();
    for table in nft_tables(node)? {
        if ours.contains(&table.as_str()) {
            continue;
        }
        let mut command = vec!["nft", "-s", "list", "table"];
        command.extend(table.split(' '));
        text.push_str(&node.run(&command)?);
    }
    Ok(text)
}

/// [`kernel_state`] by lines and in one order, without the addresses that the kernel makes up for each new link.
pub fn lasting_state(node: &Node) -> Result<Vec<String>> {
    let state = kernel_state(node)?;
    let mut lines: Vec<String> = state
        .lines()
        .map(|line| {
            let words = line.split_whitespace();
            let words: Vec<&str> = words.filter(|word| !word.starts_with("fe80:")).collect();
            words.join(" ")
        })
        .collect();
    lines.sort();
    Ok(lines)
}

/// Lines that only one of two states has.
pub fn differing(before: &[String], after: &[String]) -> String {
    let only = |left: &[String], right: &[String]| -> Vec<String> {
        let lines = left.iter().filter(|line| !right.contains(line));
        lines.cloned().collect()
    };
    format!(
        "missing {:?}, surplus {:?}",
        only(before, after),
        only(after, before)
    )
}

/// Everything of a node's network that a daemon could have changed, as text: links, addresses, routes, rules, rulesets and
/// the switches that the product may touch.
pub fn kernel_state(node: &Node) -> Result<String> {
    let mut state = String::new();
    for command in [
        "ip -br link",
        "ip -br addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "nft -s list ruleset",
        "sysctl -e net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter net.ipv4.conf.all.src_valid_mark net.ipv6.conf.eth0.accept_ra",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        state.extend(["# ", command, "\n", &node.run(&words)?]);
    }
    Ok(state)
}
