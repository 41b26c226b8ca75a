//! Who may call: `allow` and `from`, and the sets that they name.
use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

use super::cloudflare;
use super::common::{AddressSet, Sources};
use super::document::{Table, Value, nearest};
use super::report::{Field, List, Located, Report, Reported};
use super::value::{Quoted, parse_name, parse_network};

/// `allow` or `from` as written: sets are not looked up yet.
#[derive(Debug)]
pub(super) struct SourcesDraft {
    pub(super) at: usize,
    pub(super) any: bool,
    pub(super) sets: Vec<Located<String>>,
    pub(super) networks: Vec<Located<IpNetwork>>,
    pub(super) complete: Result<(), Reported>,
}

enum Source {
    Any,
    Set(Located<String>),
    Network(Located<IpNetwork>),
}

pub(super) fn sources(table: &Table<'_>, key: &'static str) -> Result<SourcesDraft, Reported> {
    const EXAMPLE: &str = "[\"cloudflare\"]";
    let value = table.require(key, EXAMPLE)?;
    let entries = value.elements(&format!("an array such as {EXAMPLE} or [\"any\"]"), source);
    let mut draft = SourcesDraft {
        at: value.at(),
        any: false,
        sets: Vec::new(),
        networks: Vec::new(),
        complete: entries.complete,
    };
    for entry in entries.items {
        match entry {
            Source::Any => draft.any = true,
            Source::Set(name) => draft.sets.push(name),
            Source::Network(network) => draft.networks.push(network),
        }
    }
    if draft.any && !(draft.sets.is_empty() && draft.networks.is_empty()) {
        let message = format!(
            "\"any\" makes the other entries of `{key}` meaningless; write either \"any\" or the others"
        );
        draft.complete = Err(value.error(message));
    }
    Ok(draft)
}

fn source(value: Value<'_>) -> Result<Source, Reported> {
    let text = value.text()?;
    if text.value == "any" {
        Ok(Source::Any)
    } else if text.value.contains(['.', ':', '/']) {
        allowed_network(&value).map(Source::Network)
    } else {
        value.parse_with(parse_name).map(Source::Set)
    }
}

fn allowed_network(value: &Value<'_>) -> Field<IpNetwork> {
    let network = value.parse_with(parse_network)?;
    if network.value.prefix() == 0 {
        let message = format!(
            "{} is everybody; if that is meant, write \"any\" as the only entry",
            network.value
        );
        return Err(value.error(message));
    }
    Ok(network)
}

impl SourcesDraft {
    /// Whether this set is the only entry.
    pub(super) fn is_only(&self, set: &str) -> bool {
        let alone = !self.any && self.networks.is_empty() && self.complete.is_ok();
        alone && !self.sets.is_empty() && self.sets.iter().all(|named| named.value == set)
    }

    /// The checked form; names of sets must have been looked up before.
    pub(super) fn build(self) -> Result<Sources, Reported> {
        self.complete?;
        if self.any {
            return Ok(Sources::Any);
        }
        let mut networks: Vec<_> = self.networks.into_iter().map(|n| n.value).collect();
        networks.sort_unstable();
        Ok(Sources::Listed {
            sets: self.sets.into_iter().map(|set| set.value).collect(),
            networks,
        })
    }
}

/// `[sets]` and the built-in set.
#[derive(Debug)]
pub(super) struct Sets {
    lists: BTreeMap<String, List<Located<IpNetwork>>>,
    /// Whether these are all.
    complete: Result<(), Reported>,
}

pub(super) fn sets(root: &Table<'_>) -> Sets {
    let mut sets = Sets {
        lists: BTreeMap::new(),
        complete: Ok(()),
    };
    match root.table_or_empty("sets") {
        Ok(table) => {
            for (key, value) in table.entries() {
                match set_name(&table, key) {
                    Ok(name) => {
                        let networks =
                            value.elements("an array of networks", |v| allowed_network(&v));
                        sets.lists.insert(name, networks);
                    }
                    Err(reported) => sets.complete = Err(reported),
                }
            }
        }
        Err(reported) => sets.complete = Err(reported),
    }
    sets
}

fn set_name(table: &Table<'_>, key: Located<&str>) -> Result<String, Reported> {
    if key.value == "any" {
        let message = "`any` is everybody and can't be the name of a set; take another name";
        return Err(table.error(key.at, message));
    }
    parse_name(key.value).map_err(|error| table.error(key.at, error))
}

impl Sets {
    /// The sets of the file.
    pub(super) fn defined(&self) -> impl Iterator<Item = (&String, &List<Located<IpNetwork>>)> {
        self.lists.iter()
    }

    /// Whether the file has a set of this name.
    pub(super) fn defines(&self, name: &str) -> bool {
        self.lists.contains_key(name)
    }

    /// The networks of a set as far as they are known.
    pub(super) fn networks(&self, name: &str) -> Option<Vec<IpNetwork>> {
        match self.lists.get(name) {
            Some(list) => Some(list.items.iter().map(|network| network.value).collect()),
            None => (name == cloudflare::SET_NAME).then(cloudflare::networks),
        }
    }

    /// Whether all networks of a set are known.
    pub(super) fn is_known(&self, name: &str) -> bool {
        match self.lists.get(name) {
            Some(list) => list.complete.is_ok(),
            None => self.complete.is_ok() && name == cloudflare::SET_NAME,
        }
    }

    /// Refuses names of `sources` that are no set, and names that stand there twice.
    pub(super) fn look_up(&self, report: &Report<'_>, label: &str, sources: &SourcesDraft) {
        let mut seen = BTreeSet::new();
        for set in &sources.sets {
            let shown = Quoted::text(&set.value);
            if !seen.insert(&set.value) {
                let message = format!("{label}: the set {shown} is named twice; once is enough");
                report.error(set.at, message);
            } else if self.complete.is_ok() && self.networks(&set.value).is_none() {
                let remedy = self.remedy(&set.value);
                report.error(
                    set.at,
                    format!("{label}: there is no set {shown}; {remedy}"),
                );
            }
        }
    }

    fn remedy(&self, unknown: &str) -> String {
        let names = || (self.lists.keys().map(String::as_str)).chain([cloudflare::SET_NAME, "any"]);
        nearest(unknown, names()).map_or_else(
            || {
                let names = names().collect::<Vec<_>>().join(", ");
                format!("add it to [sets], or write one of: {names}")
            },
            |near| format!("did you mean \"{near}\"?"),
        )
    }

    /// The named sets in order of their names, and `cloudflare` if it is defined or named.
    pub(super) fn build(&self, named: &[&Sources]) -> Result<Vec<AddressSet>, Reported> {
        let mut names: Vec<&str> = Vec::new();
        for sources in named {
            match sources {
                Sources::Any => {}
                Sources::Listed { sets, .. } => names.extend(sets.iter().map(String::as_str)),
            }
        }
        if self.defines(cloudflare::SET_NAME) {
            names.push(cloudflare::SET_NAME);
        }
        names.sort_unstable();
        names.dedup();
        self.complete?;
        for list in self.lists.values() {
            list.complete?;
        }
        Ok(names
            .into_iter()
            .map(|name| {
                let mut networks = self.networks(name).unwrap_or_default();
                networks.sort_unstable();
                AddressSet {
                    name: name.to_owned(),
                    networks,
                }
            })
            .collect())
    }
}
