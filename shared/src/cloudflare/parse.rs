//! Text → networks: the JSON of `api.cloudflare.com/client/v4/ips`, or one network a line as in `www.cloudflare.com/ips-v4`
//! and `/ips-v6`, of both families in one text.
use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{LONGEST_TEXT, Refusal};
use crate::config::value::parse_network;

#[derive(Deserialize)]
struct Answer {
    success: bool,
    result: Option<Ips>,
}

#[derive(Deserialize)]
struct Ips {
    ipv4_cidrs: Vec<String>,
    ipv6_cidrs: Vec<String>,
}

/// The networks of a list, each once.
pub(super) fn parse(text: &str) -> Result<BTreeSet<IpNetwork>, Refusal> {
    if text.len() > LONGEST_TEXT {
        return Err(Refusal::TooLong);
    }
    let text = text.trim();
    if text.is_empty() {
        Err(Refusal::Empty)
    } else if text.starts_with('<') {
        Err(Refusal::WebPage)
    } else if text.starts_with('{') {
        let answer: Answer =
            serde_json::from_str(text).map_err(|error| Refusal::Json(error.to_string()))?;
        let ips = answer.result.filter(|_| answer.success);
        let ips = ips.ok_or(Refusal::NotSuccessful)?;
        networks(ips.ipv4_cidrs.iter().chain(&ips.ipv6_cidrs))
    } else {
        let lines = text.lines().map(str::trim);
        networks(lines.filter(|line| !line.is_empty()))
    }
}

fn networks(
    entries: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<BTreeSet<IpNetwork>, Refusal> {
    let entries = (1..).zip(entries);
    entries
        .map(|(number, entry)| {
            let entry = entry.as_ref();
            let network = parse_network(entry).map_err(|error| Refusal::Entry { number, error })?;
            if entry.contains('/') {
                Ok(network)
            } else {
                Err(Refusal::NoPrefixLength(number))
            }
        })
        .collect()
}
