//! What tables of others do with packets of ours: read from the kernel, and never written.
//!
//! In nftables an `accept` ends a packet's way through one base chain, a `drop` in any of them ends the packet. So each base
//! chain of each table is asked by itself what it does with each packet that has to pass.
//!
//! | module | what |
//! |---|---|
//! | `read` | the tables as the kernel holds them |
//! | `instruction`, `xtables`, `set` | rules, matches of iptables and elements, as far as they can be followed |
//! | `path` | a packet on its way through the hooks: what is known of it where |
//! | `bits` | values of which only a part is known |
//! | `evaluate`, `machine` | every way on which a base chain can end a packet's way, instruction by instruction |
//! | `text` | a rule as `nft` lists it, about |
//! | `remedy` | the one line that lets a packet pass |
//!
//! What is not known (a mark, a limit, a match that we can't read) leaves both ways open. So *certain* is what happens
//! whatever it may be, and nothing is said of a rule whose own conditions can't be decided: it is written for some packets,
//! and most likely not for ours.
//!
//! Not seen: rules of `iptables-legacy`, which are no nftables, and the families `netdev`, `bridge` and `arp`.
mod bits;
mod evaluate;
mod instruction;
mod machine;
mod path;
mod read;
mod remedy;
mod set;
mod text;
mod xtables;

#[cfg(test)]
mod tests;

use std::fmt;

use shared::plan::ruleset::Hook;

use crate::error::Error;
use crate::netlink::Netlink;
use evaluate::{End, EndKind, Place};
use instruction::Translation;
use read::{ForeignChain, ForeignTable};

pub use path::{Link, Path, Tracking, Way};
pub use read::TableFamily;
pub use remedy::Purpose;

/// The tables of others.
#[derive(Debug, Clone)]
pub struct Foreign {
    tables: Vec<ForeignTable>,
}

/// A base chain that does something to a packet of ours that it should not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Family of the table.
    pub family: TableFamily,
    /// Table.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// Its hook.
    pub hook: Hook,
    /// Its priority.
    pub priority: i32,
    /// What in it does it.
    pub at: At,
    /// What is done.
    pub action: Action,
    /// Whether it happens in any case, or depends on something that is not known.
    pub certain: bool,
    /// The one line that lets the packet pass.
    pub remedy: String,
}

/// Where in a base chain, or in those that it jumps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The policy.
    Policy,
    /// A rule.
    Rule {
        /// Its chain.
        chain: String,
        /// The kernel's number of it (`nft -a list`).
        handle: u64,
        /// About as `nft` lists it.
        text: String,
    },
}

/// What is done to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Dropped without a word.
    Drop,
    /// Dropped, and the sender told.
    Reject,
    /// It gets another source.
    TranslateSource,
}

impl Foreign {
    pub(crate) fn read(netlink: &mut Netlink, ours: &str) -> Result<Self, Error> {
        Ok(Self {
            tables: read::read(netlink, ours)?,
        })
    }

    /// The base chains that end the way of this packet.
    pub fn obstacles(&self, path: &Path) -> Vec<Obstacle> {
        let mut found = Vec::new();
        for hook in path.hooks() {
            self.each_chain(path, *hook, |table, base, chain, priority| {
                let ends = evaluate::ends(table, base, &path.at(*hook, priority));
                let is_drop = |end: &&End| matches!(end.kind, EndKind::Dropped | EndKind::Rejected);
                let certain = ends.iter().all(|end| is_drop(&end));
                let mut drops = ends.iter().filter(is_drop);
                let first = drops.clone().find(|end| end.is_sure);
                let told = first.or_else(|| drops.next().filter(|_| certain));
                if let Some(end) = told {
                    found.push(obstacle(
                        table,
                        chain,
                        path,
                        (*hook, priority),
                        end,
                        certain,
                    ));
                }
            });
        }
        found
    }

    /// The base chains that give this packet, the first of a connection, another source.
    pub fn translations(&self, path: &Path) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if path.tracking != Tracking::New {
            return found;
        }
        let hook = Hook::Postrouting;
        self.each_chain(path, hook, |table, base, chain, priority| {
            let ends = evaluate::ends(table, base, &path.at(hook, priority));
            let is_source = |end: &&End| end.kind == EndKind::Translated(Translation::Source);
            let certain = ends.iter().all(|end| is_source(&end));
            if let Some(end) = ends.iter().filter(is_source).find(|end| end.is_sure) {
                found.push(obstacle(table, chain, path, (hook, priority), end, certain));
            }
        });
        found
    }

    /// Calls `each` for every base chain at this hook that sees the packet, with its position and priority.
    fn each_chain<'a>(
        &'a self,
        path: &Path,
        hook: Hook,
        mut each: impl FnMut(&'a ForeignTable, usize, &'a ForeignChain, i32),
    ) {
        const NAT: &str = "nat";
        for table in self
            .tables
            .iter()
            .filter(|table| table.family.sees(path.family))
        {
            for (position, chain) in table.chains.iter().enumerate() {
                let Some(of) = &chain.hook else { continue };
                // Chains for NAT see the first packet of a connection.
                let sees = of.kind != NAT || path.tracking == Tracking::New;
                if sees && of.place() == Some(hook) {
                    each(table, position, chain, of.priority);
                }
            }
        }
    }
}

fn obstacle(
    table: &ForeignTable,
    chain: &ForeignChain,
    path: &Path,
    (hook, priority): (Hook, i32),
    end: &End,
    certain: bool,
) -> Obstacle {
    let at = match end.place {
        Place::Policy => At::Policy,
        Place::Rule { chain, rule } => {
            let chain = table.chain(chain);
            let rule = chain.and_then(|chain| chain.rules.get(rule));
            At::Rule {
                chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
                handle: rule.map(|rule| rule.handle).unwrap_or_default(),
                text: rule.map(text::text).unwrap_or_default(),
            }
        }
    };
    let action = match end.kind {
        EndKind::Rejected => Action::Reject,
        EndKind::Translated(_) => Action::TranslateSource,
        EndKind::Dropped | EndKind::Accepted => Action::Drop,
    };
    Obstacle {
        remedy: remedy::remedy(table, &chain.name, hook, &at, action, path),
        family: table.family,
        table: table.name.clone(),
        chain: chain.name.clone(),
        hook,
        priority,
        at,
        action,
        certain,
    }
}

impl fmt::Display for Obstacle {
    /// `the policy of chain forward of table inet filter drops them`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table) = (self.family.name(), &self.table);
        let chain = match &self.at {
            At::Policy => {
                f.write_str("the policy")?;
                &self.chain
            }
            At::Rule {
                handle,
                text,
                chain,
            } => {
                write!(f, "the rule `{text}` (handle {handle})")?;
                chain
            }
        };
        let does = match self.action {
            Action::Drop => "drops them",
            Action::Reject => "rejects them",
            Action::TranslateSource => "gives them another source",
        };
        write!(f, " of chain {chain} of table {family} {table} {does}")
    }
}
