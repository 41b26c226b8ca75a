//! The list in use: new networks count at once, those that are missing go after a week.
use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::check::{plausible, similar};
use super::parse::parse;
use crate::config::cloudflare;
use crate::config::value::parse_network;

/// How long a network stays in use after the first list without it: a list that lacks one by mistake closes nothing.
pub const ABSENT_BEFORE_REMOVAL_DAYS: i64 = 7;

/// The networks in use, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Since when the lists lack a network; `None` for those that the latest has.
    networks: BTreeMap<IpNetwork, Option<Timestamp>>,
    confirmed_at: Option<Timestamp>,
}

/// What a list changed of what is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Networks that came.
    pub added: Vec<IpNetwork>,
    /// Networks that went.
    pub removed: Vec<IpNetwork>,
}

impl Changes {
    /// Whether the networks in use are the same as before.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl List {
    /// What came with the program.
    pub fn bundled() -> Self {
        let networks = cloudflare::networks().into_iter();
        Self {
            networks: networks.map(|network| (network, None)).collect(),
            confirmed_at: None,
        }
    }

    /// The networks in use, sorted.
    pub fn networks(&self) -> Vec<IpNetwork> {
        self.networks.keys().copied().collect()
    }

    /// Those that the latest list lacks, and since when.
    pub fn leaving(&self) -> impl Iterator<Item = (IpNetwork, Timestamp)> {
        let networks = self.networks.iter();
        networks.filter_map(|(&network, &since)| Some((network, since?)))
    }

    /// As of when the latest list was; `None` as long as there was none.
    pub fn confirmed_at(&self) -> Option<Timestamp> {
        self.confirmed_at
    }

    /// Take the list in `text`, which was like that at `as_of`; `ours` are networks that it may not touch.
    ///
    /// # Errors
    /// Why it is refused; what is in use stays.
    pub fn take(
        &mut self,
        text: &str,
        as_of: Timestamp,
        ours: &[IpNetwork],
        now: Timestamp,
    ) -> Result<Changes, Refusal> {
        let listed = parse(text)?;
        plausible(&listed, ours)?;
        similar(&listed, &self.networks.keys().copied().collect())?;
        let mut changes = Changes::default();
        for &network in &listed {
            if self.networks.insert(network, None).is_none() {
                changes.added.push(network);
            }
        }
        let stays = SignedDuration::from_hours(24 * ABSENT_BEFORE_REMOVAL_DAYS);
        self.networks.retain(|network, absent_since| {
            if listed.contains(network) {
                return true;
            }
            let since = *absent_since.get_or_insert(now);
            let stays = now.duration_since(since) < stays;
            if !stays {
                changes.removed.push(*network);
            }
            stays
        });
        self.confirmed_at = Some(as_of.min(now));
        Ok(changes)
    }

    /// As a file.
    pub fn to_text(&self) -> String {
        let networks = self.networks.iter();
        let stored = Stored {
            confirmed_at: self.confirmed_at,
            networks: networks
                .map(|(network, since)| (network.to_string(), *since))
                .collect(),
        };
        serde_json::to_string_pretty(&stored).unwrap_or_default() + "\n"
    }

    /// From such a file, unless the program came with a newer list. `ours` are networks that it may not touch.
    ///
    /// # Errors
    /// Why this can't be what was written.
    pub fn from_text(text: &str, ours: &[IpNetwork]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let networks: BTreeMap<IpNetwork, Option<Timestamp>> = stored
            .networks
            .into_iter()
            .map(|(network, since)| Ok((parse_network(&network)?, since)))
            .collect::<Result<_, _>>()
            .map_err(|error: crate::config::value::NetworkError| error.to_string())?;
        let in_use: BTreeSet<IpNetwork> = networks.keys().copied().collect();
        plausible(&in_use, ours).map_err(|refusal| refusal.to_string())?;
        let bundled: Option<Timestamp> = format!("{}T00:00:00Z", cloudflare::AS_OF).parse().ok();
        if stored.confirmed_at < bundled {
            return Ok(Self::bundled());
        }
        Ok(Self {
            networks,
            confirmed_at: stored.confirmed_at,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    confirmed_at: Option<Timestamp>,
    networks: BTreeMap<String, Option<Timestamp>>,
}
