//! From the table that is there to the table that is wanted, in one transaction that disturbs as little as possible.
//!
//! | what differs | what the transaction does |
//! |---|---|
//! | elements of sets and maps | deletes and adds just these |
//! | rules of some chains | flushes and refills these chains; the others keep their anonymous counters |
//! | chains at the end, sets, named counters | adds and deletes these |
//! | hook of a chain, type of a set, order of chains | empties the table and fills it again |
//! | flags that can't be set on a table that exists | deletes the table and creates it |
//!
//! Named counters keep their values in every case. Conntrack entries are never touched. The new generation becomes
//! visible to packets at once: there is no moment without rules (`nf_tables_commit` in the kernel).
use std::net::IpAddr;
use std::sync::Arc;

use shared::plan::Ruleset;
use shared::plan::ruleset::VerdictMap;

use crate::compare::same_rule;
use crate::compile::{CompiledChain, Program};
use crate::live::{Live, LiveChain, OWNER, PERSIST};
use crate::set::SetState;
use crate::sys::{CounterObject, Element};
use crate::transaction::Transaction;

/// What [`crate::Nftables::replace`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: the table already was as wanted.
    Unchanged,
    /// It became the owner of a table that already had the wanted content.
    TakenOver,
    /// It changed only elements of sets and maps.
    Elements {
        /// Elements added.
        added: usize,
        /// Elements deleted.
        removed: usize,
    },
    /// It changed chains, rules, sets or counters.
    Replaced,
}

/// The transaction, and what it will have done.
pub(crate) struct Change {
    pub(crate) transaction: Transaction,
    pub(crate) applied: Applied,
}

/// How the table is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It is there with the right flags.
    There,
    /// It is there, and its flags can be set.
    Take,
    /// It is not there.
    Create,
    /// It is there, but the kernel refuses the flags for it.
    Recreate,
}

impl Change {
    /// Compares and plans. `flags` are those that the table shall have.
    pub(crate) fn between(program: &Program, live: Option<&Live>, flags: u32) -> Self {
        let mut transaction = Transaction::new(&program.table);
        let start = start(live, flags);
        if start == Start::Recreate {
            transaction.delete_table();
        }
        if start != Start::There {
            transaction.add_table(flags);
        }
        let applied = match (start, live) {
            (Start::There, Some(live)) => update(&mut transaction, program, live),
            (Start::Take, Some(live)) => match update(&mut transaction, program, live) {
                Applied::Unchanged => Applied::TakenOver,
                applied @ (Applied::TakenOver | Applied::Elements { .. } | Applied::Replaced) => {
                    applied
                }
            },
            (Start::There | Start::Take | Start::Create | Start::Recreate, live) => {
                for name in &program.counters {
                    transaction.add_counter(&continued_counter(name, live));
                }
                fill(&mut transaction, program);
                Applied::Replaced
            }
        };
        Self {
            transaction,
            applied,
        }
    }
}

/// The transaction that turns the elements of `from` into those of `to`; `None` when more than elements differs.
pub(crate) fn between_elements(from: &Ruleset, to: &Ruleset) -> Option<Transaction> {
    let same_frame = from.table == to.table
        && from.chains == to.chains
        && from.sets.len() == to.sets.len()
        && from.maps.len() == to.maps.len();
    if !same_frame {
        return None;
    }
    let sets = from.sets.iter().zip(&to.sets).filter(|(a, b)| a != b);
    let maps = from.maps.iter().zip(&to.maps).filter(|(a, b)| a != b);
    let states: Vec<(SetState, SetState)> = sets
        .map(|(a, b)| (SetState::of_addresses(a), SetState::of_addresses(b)))
        .chain(maps.map(|(a, b)| {
            // A map may have thousands of elements, and one of them changes.
            let (a, b) = (without(a, b), without(b, a));
            (SetState::of_verdicts(&a), SetState::of_verdicts(&b))
        }))
        .collect();
    if states.iter().any(|(from, to)| !from.same_kind(to)) {
        return None;
    }
    let mut transaction = Transaction::new(&to.table);
    for (from, to) in &states {
        if let Some((set, added, removed)) = element_changes(to, from) {
            transaction.delete_elements(set, &removed);
            transaction.add_elements(set, &added);
        }
    }
    Some(transaction)
}

/// The elements of a map that another does not have; both are sorted.
fn without(map: &VerdictMap, other: &VerdictMap) -> VerdictMap {
    let mut others = other.elements.iter().peekable();
    let is_missing = |(address, chain): &&(IpAddr, Arc<str>)| {
        while others.next_if(|(theirs, _)| theirs < address).is_some() {}
        others
            .peek()
            .is_none_or(|(theirs, to)| theirs != address || to != chain)
    };
    VerdictMap {
        name: map.name.clone(),
        family: map.family,
        elements: map.elements.iter().filter(is_missing).cloned().collect(),
    }
}

/// Changes a table that stays.
fn update(transaction: &mut Transaction, program: &Program, live: &Live) -> Applied {
    let delta = Delta::between(program, live);
    if frame_fits(program, live) {
        delta.write(transaction, live);
        return delta.applied();
    }
    empty(transaction, live);
    delta
        .new_counters
        .iter()
        .for_each(|name| transaction.add_counter(&fresh_counter(name)));
    delta
        .old_counters
        .iter()
        .for_each(|name| transaction.delete_counter(name));
    fill(transaction, program);
    Applied::Replaced
}

/// `nf_tables_updtable` in the kernel lets a process take a table that persists and has no owner; it sets neither flag
/// on a table that has none, and takes neither away.
fn start(live: Option<&Live>, flags: u32) -> Start {
    let Some(live) = live else {
        return Start::Create;
    };
    // With objects that we can't describe, emptying the table would fail.
    if !live.other_objects.is_empty() {
        return Start::Recreate;
    }
    match (
        live.flags == flags,
        live.flags & (OWNER | PERSIST),
        flags & (OWNER | PERSIST),
    ) {
        (true, ..) => Start::There,
        (false, is, wanted) if is == wanted => Start::Take,
        (false, PERSIST, wanted) if wanted == OWNER | PERSIST => Start::Take,
        _ => Start::Recreate,
    }
}

/// Fills a table that has no chains and sets.
fn fill(transaction: &mut Transaction, program: &Program) {
    program
        .chains
        .iter()
        .for_each(|chain| transaction.add_chain(chain));
    for set in &program.sets {
        transaction.add_set(set, &format!("the set {}", set.name));
    }
    program
        .chains
        .iter()
        .for_each(|chain| add_rules(transaction, chain));
}

fn add_rules(transaction: &mut Transaction, chain: &CompiledChain) {
    for (index, rule) in chain.rules.iter().enumerate() {
        transaction.add_rule(&chain.name, index + 1, rule);
    }
}

/// Takes everything out of a table but its named counters. Rules go first, since they hold on to sets and chains; sets
/// before chains, since maps hold on to chains.
fn empty(transaction: &mut Transaction, live: &Live) {
    transaction.flush(None);
    live.sets
        .iter()
        .for_each(|set| transaction.delete_set(&set.name));
    live.chains
        .iter()
        .for_each(|chain| transaction.delete_chain(&chain.name));
}

/// Whether chains and sets that stay may stay as they are: same hook, same type, and the chains in the wanted order when
/// new ones are appended.
fn frame_fits(program: &Program, live: &Live) -> bool {
    let hooks_fit = program
        .chains
        .iter()
        .all(|c| live.chain(&c.name).is_none_or(|l| l.hook == c.hook));
    let sets_fit = program
        .sets
        .iter()
        .all(|s| find_set(&live.sets, &s.name).is_none_or(|l| l.same_kind(s)));
    let wanted = |name: &str| program.chains.iter().any(|c| c.name == name);
    let staying = live
        .chains
        .iter()
        .map(|c| c.name.as_str())
        .filter(|name| wanted(name));
    let new = program
        .chains
        .iter()
        .map(|c| c.name.as_str())
        .filter(|name| live.chain(name).is_none());
    hooks_fit
        && sets_fit
        && staying
            .chain(new)
            .eq(program.chains.iter().map(|c| c.name.as_str()))
}

/// What to add and delete in a table whose frame fits.
struct Delta<'a> {
    new_counters: Vec<&'a str>,
    old_counters: Vec<&'a str>,
    new_sets: Vec<&'a SetState>,
    old_sets: Vec<&'a str>,
    /// Chains that are new or whose rules differ.
    chains: Vec<&'a CompiledChain>,
    old_chains: Vec<&'a str>,
    /// Set, elements to add, elements to delete.
    elements: Vec<(&'a str, Vec<&'a Element>, Vec<&'a Element>)>,
}

impl<'a> Delta<'a> {
    fn between(program: &'a Program, live: &'a Live) -> Self {
        let has_counter = |name: &str| live.counters.iter().any(|c| c.name == name);
        let wants_counter = |name: &str| program.counters.iter().any(|c| c == name);
        let staying = program
            .sets
            .iter()
            .filter_map(|set| Some((set, find_set(&live.sets, &set.name)?)));
        let as_wanted = |c: &CompiledChain| live.chain(&c.name).is_some_and(|l| has_rules(l, c));
        Self {
            new_counters: program
                .counters
                .iter()
                .map(String::as_str)
                .filter(|n| !has_counter(n))
                .collect(),
            old_counters: live
                .counters
                .iter()
                .map(|c| c.name.as_str())
                .filter(|n| !wants_counter(n))
                .collect(),
            new_sets: program
                .sets
                .iter()
                .filter(|s| find_set(&live.sets, &s.name).is_none())
                .collect(),
            old_sets: live
                .sets
                .iter()
                .map(|s| s.name.as_str())
                .filter(|n| find_set(&program.sets, n).is_none())
                .collect(),
            chains: program.chains.iter().filter(|c| !as_wanted(c)).collect(),
            old_chains: live
                .chains
                .iter()
                .map(|c| c.name.as_str())
                .filter(|name| !program.chains.iter().any(|c| c.name == *name))
                .collect(),
            elements: staying
                .filter_map(|(set, live)| element_changes(set, live))
                .collect(),
        }
    }

    fn applied(&self) -> Applied {
        let structure = self.new_counters.len()
            + self.old_counters.len()
            + self.new_sets.len()
            + self.old_sets.len();
        if structure + self.chains.len() + self.old_chains.len() > 0 {
            return Applied::Replaced;
        }
        let count = |elements: &[&Element]| elements.iter().filter(|e| e.starts).count();
        let added = self.elements.iter().map(|(_, added, _)| count(added)).sum();
        let removed = self
            .elements
            .iter()
            .map(|(_, _, removed)| count(removed))
            .sum();
        if self.elements.is_empty() {
            Applied::Unchanged
        } else {
            Applied::Elements { added, removed }
        }
    }

    /// Nothing is used before it is added or deleted while it is used.
    fn write(&self, transaction: &mut Transaction, live: &Live) {
        self.new_counters
            .iter()
            .for_each(|name| transaction.add_counter(&fresh_counter(name)));
        for chain in &self.chains {
            match live.chain(&chain.name) {
                None => transaction.add_chain(chain),
                Some(live) if live.rules.is_empty() => {}
                Some(_) => transaction.flush(Some(&chain.name)),
            }
        }
        self.old_chains
            .iter()
            .for_each(|name| transaction.flush(Some(name)));
        self.old_sets
            .iter()
            .for_each(|name| transaction.delete_set(name));
        for (set, added, removed) in &self.elements {
            transaction.delete_elements(set, removed);
            transaction.add_elements(set, added);
        }
        for set in &self.new_sets {
            transaction.add_set(set, &format!("the set {}", set.name));
        }
        self.chains
            .iter()
            .for_each(|chain| add_rules(transaction, chain));
        self.old_chains
            .iter()
            .for_each(|name| transaction.delete_chain(name));
        self.old_counters
            .iter()
            .for_each(|name| transaction.delete_counter(name));
    }
}

fn find_set<'a>(sets: &'a [SetState], name: &str) -> Option<&'a SetState> {
    sets.iter().find(|s| s.name == name)
}

fn has_rules(live: &LiveChain, wanted: &CompiledChain) -> bool {
    let pairs = wanted.rules.iter().zip(&live.rules);
    wanted.rules.len() == live.rules.len() && pairs.into_iter().all(|(w, l)| same_rule(w, l))
}

/// `None` if the elements mean the same.
fn element_changes<'a>(
    wanted: &'a SetState,
    live: &'a SetState,
) -> Option<(&'a str, Vec<&'a Element>, Vec<&'a Element>)> {
    if wanted.meaning().eq(live.meaning()) {
        return None;
    }
    let [wanted_groups, live_groups] = [wanted.groups(), live.groups()];
    let added = wanted_groups
        .difference(&live_groups)
        .flatten()
        .copied()
        .collect();
    let removed = live_groups
        .difference(&wanted_groups)
        .flatten()
        .copied()
        .collect();
    Some((&wanted.name, added, removed))
}

fn fresh_counter(name: &str) -> CounterObject {
    CounterObject {
        name: name.to_owned(),
        packets: 0,
        bytes: 0,
    }
}

/// A counter that goes on from the value that it had in the table that is deleted, if there was one.
fn continued_counter(name: &str, live: Option<&Live>) -> CounterObject {
    let count = live.and_then(|live| live.counter(name)).unwrap_or_default();
    CounterObject {
        name: name.to_owned(),
        packets: count.packets,
        bytes: count.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::DORMANT;

    fn map(elements: &[(u8, &str)]) -> VerdictMap {
        let element = |&(host, chain): &(u8, &str)| ([10, 0, 0, host].into(), chain.into());
        VerdictMap {
            name: "m".to_owned(),
            family: shared::plan::ruleset::Family::Ipv4,
            elements: elements.iter().map(element).collect(),
        }
    }

    #[test]
    fn elements_that_another_map_lacks_are_found_in_one_pass() {
        let left = map(&[(1, "a"), (2, "a"), (4, "a"), (9, "b")]);
        let right = map(&[(0, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "a")]);
        assert_eq!(without(&left, &right), map(&[(1, "a"), (4, "a"), (9, "b")]));
        assert_eq!(
            without(&right, &left),
            map(&[(0, "a"), (3, "a"), (4, "b"), (5, "a")])
        );
        assert_eq!(without(&left, &left), map(&[]));
        assert_eq!(without(&left, &map(&[])), left);
    }

    fn table(flags: u32) -> Live {
        Live {
            table: "t".to_owned(),
            chains: Vec::new(),
            counters: Vec::new(),
            other_objects: Vec::new(),
            sets: Vec::new(),
            flags,
            owner: 0,
        }
    }

    #[test]
    fn a_table_is_reached_by_its_flags() {
        let both = OWNER | PERSIST;
        let cases = [
            (None, both, Start::Create),
            (Some(both), both, Start::There),
            (Some(both | DORMANT), both, Start::Take),
            (Some(PERSIST), both, Start::Take),
            (Some(0), both, Start::Recreate),
            (Some(OWNER), both, Start::Recreate),
            // A kernel without these flags.
            (Some(0), 0, Start::There),
            (Some(DORMANT), 0, Start::Take),
        ];
        for (live, wanted, expected) in cases {
            assert_eq!(
                start(live.map(table).as_ref(), wanted),
                expected,
                "{live:?} {wanted}"
            );
        }
    }

    #[test]
    fn a_table_with_objects_that_we_cannot_describe_is_created_again() {
        let mut live = table(OWNER | PERSIST);
        live.other_objects.push("quota".to_owned());
        assert_eq!(start(Some(&live), OWNER | PERSIST), Start::Recreate);
    }
}
