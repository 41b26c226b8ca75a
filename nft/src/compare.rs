//! What differs between a table that is wanted and one that was read.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shared::plan::Ruleset;

use crate::compile::{CompiledChain, CompiledRule, InvalidRuleset, Program, compile};
use crate::live::{DORMANT, Live, LiveChain, LiveRule};
use crate::set::SetState;
use crate::sys::{ChainHook, Element};

/// One way in which the kernel's table is not the wanted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Somebody switched the table off (`add table … { flags dormant; }`).
    Dormant,
    /// An object is missing.
    Missing {
        /// `chain`, `set`, `map` or `counter`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object is there that is not wanted.
    Surplus {
        /// `chain`, `set`, `map`, `counter` or `object`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A chain has another hook, type, priority or policy.
    Hook {
        /// The chain.
        chain: String,
        /// How it is hooked in.
        live: String,
        /// How it should be.
        wanted: String,
    },
    /// The chains stand in another order, so that those of one hook and priority run in another order.
    ChainOrder,
    /// A rule is missing from a chain, or something else stands in its place.
    MissingRule {
        /// The chain.
        chain: String,
        /// Its place, from 1.
        number: usize,
        /// The rule in nft's syntax.
        rule: String,
    },
    /// A chain has a rule that is not wanted there.
    SurplusRule {
        /// The chain.
        chain: String,
        /// The kernel's number of the rule (`nft -a list`).
        handle: u64,
        /// What it does, in the notation of `nft --debug=netlink`.
        rule: String,
    },
    /// A set has another type.
    SetType {
        /// The set.
        set: String,
    },
    /// A set lacks elements, or has some that are not wanted.
    Elements {
        /// The set.
        set: String,
        /// Elements that it lacks.
        missing: Vec<String>,
        /// Elements that it should not have.
        surplus: Vec<String>,
    },
    /// The wanted table can't exist.
    Invalid(InvalidRuleset),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dormant => f.write_str("the table is switched off (flags dormant)"),
            Self::Missing { kind, name } => write!(f, "the {kind} {name} is missing"),
            Self::Surplus { kind, name } => write!(f, "the {kind} {name} is not ours"),
            Self::Hook {
                chain,
                live,
                wanted,
            } => write!(f, "chain {chain} is {live} instead of {wanted}"),
            Self::ChainOrder => f.write_str("the chains are in another order"),
            Self::MissingRule {
                chain,
                number,
                rule,
            } => {
                write!(f, "chain {chain} lacks its rule {number} `{rule}`")
            }
            Self::SurplusRule {
                chain,
                handle,
                rule,
            } => {
                write!(
                    f,
                    "chain {chain} has a rule that is not ours (handle {handle}): {rule}"
                )
            }
            Self::SetType { set } => write!(f, "set {set} has another type"),
            Self::Elements {
                set,
                missing,
                surplus,
            } => {
                write!(f, "set {set}")?;
                write_list(f, " lacks ", missing)?;
                f.write_str(if missing.is_empty() || surplus.is_empty() {
                    ""
                } else {
                    " and"
                })?;
                write_list(f, " has too much: ", surplus)
            }
            Self::Invalid(error) => write!(f, "{error}"),
        }
    }
}

/// The first few: a set may have thousands.
fn write_list(f: &mut fmt::Formatter<'_>, verb: &str, items: &[String]) -> fmt::Result {
    const SHOWN: usize = 5;
    if items.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = items.iter().take(SHOWN).map(String::as_str).collect();
    write!(f, "{verb}{}", shown.join(", "))?;
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

/// Whether the kernel's table is the wanted one, but for the values of counters; if not, what differs.
pub fn matches(wanted: &Ruleset, live: &Live) -> Result<(), Vec<Difference>> {
    let differences = match compile(wanted) {
        Ok(program) => differences(&program, live),
        Err(error) => vec![Difference::Invalid(error)],
    };
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences)
    }
}

/// Rules of the kernel's table that are rules of `ruleset`, as `nft` lists them, by chain and handle.
pub fn rules_of<'a>(ruleset: &Ruleset, live: &'a Live) -> BTreeMap<(&'a str, u64), String> {
    let Ok(program) = compile(ruleset) else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for chain in &live.chains {
        let known = program.chains.iter().find(|c| c.name == chain.name);
        let known = known.map_or(&[][..], |chain| &chain.rules);
        for rule in &chain.rules {
            if let Some(known) = known.iter().find(|known| same_rule(known, rule)) {
                found.insert((chain.name.as_str(), rule.handle), known.text.clone());
            }
        }
    }
    found
}

/// All differences, tables first, elements last.
pub(crate) fn differences(program: &Program, live: &Live) -> Vec<Difference> {
    let mut found = Vec::new();
    if live.flags & DORMANT != 0 {
        found.push(Difference::Dormant);
    }
    let live_counters: Vec<&str> = live.counters.iter().map(|c| c.name.as_str()).collect();
    let wanted_counters: Vec<&str> = program.counters.iter().map(String::as_str).collect();
    compare_names(&mut found, |_| "counter", &wanted_counters, &live_counters);
    found.extend(live.other_objects.iter().map(|name| Difference::Surplus {
        kind: "object",
        name: name.clone(),
    }));

    let wanted_chains: Vec<&str> = program.chains.iter().map(|c| c.name.as_str()).collect();
    let live_chains: Vec<&str> = live.chains.iter().map(|c| c.name.as_str()).collect();
    if compare_names(&mut found, |_| "chain", &wanted_chains, &live_chains)
        && wanted_chains != live_chains
    {
        found.push(Difference::ChainOrder);
    }
    for wanted in &program.chains {
        if let Some(live) = live.chain(&wanted.name) {
            compare_chain(&mut found, wanted, live);
        }
    }

    let wanted_sets: Vec<&str> = program.sets.iter().map(|s| s.name.as_str()).collect();
    let live_sets: Vec<&str> = live.sets.iter().map(|s| s.name.as_str()).collect();
    let kind = |name: &str| {
        program
            .sets
            .iter()
            .chain(&live.sets)
            .find(|s| s.name == name)
            .map_or("set", SetState::word)
    };
    compare_names(&mut found, kind, &wanted_sets, &live_sets);
    for wanted in &program.sets {
        if let Some(live) = live.sets.iter().find(|s| s.name == wanted.name) {
            found.extend(compare_set(wanted, live));
        }
    }
    found
}

/// Whether both have the same names.
fn compare_names(
    found: &mut Vec<Difference>,
    kind: impl Fn(&str) -> &'static str,
    wanted: &[&str],
    live: &[&str],
) -> bool {
    let before = found.len();
    let missing = wanted.iter().filter(|name| !live.contains(name));
    found.extend(missing.map(|name| Difference::Missing {
        kind: kind(name),
        name: (*name).to_owned(),
    }));
    let surplus = live.iter().filter(|name| !wanted.contains(name));
    found.extend(surplus.map(|name| Difference::Surplus {
        kind: kind(name),
        name: (*name).to_owned(),
    }));
    found.len() == before
}

fn compare_chain(found: &mut Vec<Difference>, wanted: &CompiledChain, live: &LiveChain) {
    if wanted.hook != live.hook {
        found.push(Difference::Hook {
            chain: wanted.name.clone(),
            live: hook_text(live.hook.as_ref()),
            wanted: hook_text(wanted.hook.as_ref()),
        });
    }
    // What both have in common at the start and at the end; what lies between differs.
    let pairs = || wanted.rules.iter().zip(&live.rules);
    let start = pairs().take_while(|(w, l)| same_rule(w, l)).count();
    let rest = wanted.rules.len().min(live.rules.len()) - start;
    let pairs_from_the_end = wanted.rules.iter().rev().zip(live.rules.iter().rev());
    let end = pairs_from_the_end
        .take(rest)
        .take_while(|(w, l)| same_rule(w, l))
        .count();
    let middle = |len: usize| start..len - end;
    for (index, rule) in wanted
        .rules
        .iter()
        .enumerate()
        .filter(|(i, _)| middle(wanted.rules.len()).contains(i))
    {
        let chain = wanted.name.clone();
        found.push(Difference::MissingRule {
            chain,
            number: index + 1,
            rule: rule.text.clone(),
        });
    }
    for (_, rule) in live
        .rules
        .iter()
        .enumerate()
        .filter(|(i, _)| middle(live.rules.len()).contains(i))
    {
        let chain = wanted.name.clone();
        found.push(Difference::SurplusRule {
            chain,
            handle: rule.handle,
            rule: rule.to_string(),
        });
    }
}

pub(crate) fn same_rule(wanted: &CompiledRule, live: &LiveRule) -> bool {
    live.expressions == wanted.expressions && wanted.comment == live.comment
}

fn hook_text(hook: Option<&ChainHook>) -> String {
    const HOOKS: [&str; 6] = [
        "prerouting",
        "input",
        "forward",
        "output",
        "postrouting",
        "ingress",
    ];
    let Some(ChainHook {
        kind,
        hook,
        priority,
        policy,
    }) = hook
    else {
        return "a chain without a hook".to_owned();
    };
    let hook = usize::try_from(*hook)
        .ok()
        .and_then(|hook| HOOKS.get(hook))
        .unwrap_or(&"?");
    let policy = if *policy == 0 { "drop" } else { "accept" };
    format!("`type {kind} hook {hook} priority {priority}; policy {policy};`")
}

impl fmt::Display for LiveRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.expressions.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(" "))
    }
}

fn compare_set(wanted: &SetState, live: &SetState) -> Option<Difference> {
    if !wanted.same_kind(live) {
        return Some(Difference::SetType {
            set: wanted.name.clone(),
        });
    }
    if wanted.meaning().eq(live.meaning()) {
        return None;
    }
    let wanted_texts: BTreeSet<String> = wanted.texts().into_iter().collect();
    let live_texts: BTreeSet<String> = live.texts().into_iter().collect();
    Some(Difference::Elements {
        set: wanted.name.clone(),
        missing: wanted_texts.difference(&live_texts).cloned().collect(),
        surplus: live_texts.difference(&wanted_texts).cloned().collect(),
    })
}

impl SetState {
    /// `set` or `map`.
    fn word(&self) -> &'static str {
        if self.flags & crate::set::MAP == 0 {
            "set"
        } else {
            "map"
        }
    }

    /// The elements as nft lists them.
    fn texts(&self) -> Vec<String> {
        if let Some(ranges) = self.ranges() {
            return ranges.iter().map(ToString::to_string).collect();
        }
        match self.jumps() {
            Some(jumps) => jumps
                .iter()
                .map(|(key, chain)| format!("{key} : jump {chain}"))
                .collect(),
            None => self.elements.iter().map(Element::raw_text).collect(),
        }
    }
}

impl Element {
    fn raw_text(&self) -> String {
        let end = if self.starts { "" } else { " (end)" };
        format!("{:02x?}{end}", self.key)
    }
}
