//! nftables: one table of family `inet`, written as one transaction, read back, and owned while the process lives.
//!
//! [`shared::plan::Ruleset`] says what the table shall be; [`Nftables::replace`] makes the kernel hold exactly that.
//!
//! | module | what |
//! |---|---|
//! | `compile`, `matches` | ruleset → instructions of the kernel, which `nft list` prints as the ruleset's text |
//! | `expr`, `set` | instructions and sets as plain data, written to libnftnl objects and read from them |
//! | `live` | the table as the kernel holds it, with the values of its counters |
//! | `compare` | what differs between the two, in words |
//! | `change` | the steps from one to the other |
//! | `transaction` | steps → one batch → the kernel's verdict on each step |
//! | [`foreign`] | what tables of others do with packets of ours |
//! | `netlink` | the socket, requests and answers |
//! | `sys` | every call of libnftnl; all `unsafe` is there |
//!
//! Needs libnftnl 1.2.4 (Debian 12) or newer, and the capability `CAP_NET_ADMIN` in the network namespace.
#![warn(missing_docs)]

mod change;
mod compare;
mod compile;
mod error;
mod expr;
pub mod foreign;
mod live;
mod matches;
mod netlink;
mod set;
mod sys;
mod transaction;

use shared::plan::Ruleset;

use change::Change;
use foreign::Foreign;
use live::{OWNER, PERSIST};
use netlink::Netlink;
use transaction::{Mode, Transaction, knows_table_flags};

pub use change::Applied;
pub use compare::{Difference, matches, rules_of};
pub use compile::InvalidRuleset;
pub use error::Error;
pub use expr::Count;
pub use live::{Live, LiveChain, LiveRule, NamedCounter};
pub use matches::Contradiction;

/// Whether tables are protected from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Tables carry `flags owner,persist` (Linux 6.9): only this [`Nftables`] can change them, a foreign `nft flush
    /// ruleset` skips them, and they outlive the process for the next one to take over.
    OwnerPersist,
    /// The kernel doesn't know these flags: others can change and delete the table, so it has to be watched.
    None,
}

/// A connection to nftables.
///
/// The kernel knows the owner of a table by the netlink socket, so keep this value for as long as the table shall be
/// protected. Dropping it leaves the table in place, without an owner.
#[derive(Debug)]
pub struct Nftables {
    netlink: Netlink,
    ownership: Ownership,
}

/// The daemon moves it between threads.
const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Nftables>();
};

impl Nftables {
    /// Opens the socket in the network namespace of the calling thread, and asks the kernel for its table flags without
    /// changing anything.
    pub fn open() -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        // Never OWNER alone: the table would vanish with its owner.
        let ownership = if knows_table_flags(&mut netlink, OWNER | PERSIST)? {
            Ownership::OwnerPersist
        } else {
            tracing::warn!(
                "this kernel can't protect a table of nftables from others (Linux 6.9 can)"
            );
            Ownership::None
        };
        Ok(Self { netlink, ownership })
    }

    /// Whether the kernel protects our tables.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Go on as on a kernel that can't protect tables: for tests on one that can.
    #[doc(hidden)]
    pub fn assume_unprotected(&mut self) {
        self.ownership = Ownership::None;
    }

    /// Makes the kernel hold exactly this table, in one transaction or none, and reads it back.
    ///
    /// Nothing is sent when the table is as wanted. After an error the old table is still there, except after
    /// [`Error::NotAsWritten`] (the read-back found something else than what was accepted), [`Error::Exchange`] and
    /// [`Error::NoAnswer`] (what the kernel did is not known): then call it again.
    pub fn replace(&mut self, wanted: &Ruleset) -> Result<Applied, Error> {
        let program = compile::compile(wanted)?;
        let live = self.read(&program.table)?;
        self.refuse_foreign(live.as_ref())?;
        let change = Change::between(&program, live.as_ref(), self.flags());
        if change.transaction.is_empty() {
            return Ok(Applied::Unchanged);
        }
        change.transaction.send(&mut self.netlink, Mode::Commit)?;
        let written = self.read(&program.table)?;
        let differences = match &written {
            Some(live) => compare::differences(&program, live),
            None => vec![Difference::Missing {
                kind: "table",
                name: program.table.clone(),
            }],
        };
        if differences.is_empty() {
            Ok(change.applied)
        } else {
            Err(Error::NotAsWritten {
                table: program.table,
                differences,
            })
        }
    }

    /// Changes the elements of named sets and maps from those of `from` to those of `to`, in one transaction or none, when
    /// nothing else differs between the two; `false` when something else does, or when the table does not have the
    /// elements of `from`: then [`replace`](Self::replace) does it.
    ///
    /// Sends what differs and reads nothing, so its price is that of the change and not that of the table.
    pub fn change_elements(&mut self, from: &Ruleset, to: &Ruleset) -> Result<bool, Error> {
        let Some(transaction) = change::between_elements(from, to) else {
            return Ok(false);
        };
        match transaction.send(&mut self.netlink, Mode::Commit) {
            Ok(()) => Ok(true),
            // The table is not as it was left: an element is missing, or one is in the way.
            Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the kernel whether it would take this table, without changing anything.
    pub fn check(&mut self, wanted: &Ruleset) -> Result<(), Error> {
        let program = compile::compile(wanted)?;
        let live = self.read(&program.table)?;
        self.refuse_foreign(live.as_ref())?;
        let change = Change::between(&program, live.as_ref(), self.flags());
        change.transaction.send(&mut self.netlink, Mode::Check)
    }

    /// The table as it is now; `None` if there is none of this name.
    pub fn read(&mut self, table: &str) -> Result<Option<Live>, Error> {
        live::read(&mut self.netlink, table)
    }

    /// The named counters of a table; none if there is no such table.
    pub fn counters(&mut self, table: &str) -> Result<Vec<NamedCounter>, Error> {
        live::read_counters(&mut self.netlink, table)
    }

    /// The number of the last change to any table of this network namespace; the same number, the same tables.
    pub fn generation(&mut self) -> Result<u32, Error> {
        live::generation(&mut self.netlink)
    }

    /// The tables of others, as far as our packets pass through them; all but the one of this name.
    pub fn foreign(&mut self, ours: &str) -> Result<Foreign, Error> {
        Foreign::read(&mut self.netlink, ours)
    }

    /// Deletes a table with everything in it; `false` if there was none.
    pub fn remove(&mut self, table: &str) -> Result<bool, Error> {
        let live = self.read(table)?;
        self.refuse_foreign(live.as_ref())?;
        if live.is_none() {
            return Ok(false);
        }
        let mut transaction = Transaction::new(table);
        transaction.delete_table();
        transaction.send(&mut self.netlink, Mode::Commit)?;
        Ok(true)
    }

    fn flags(&self) -> u32 {
        match self.ownership {
            Ownership::OwnerPersist => OWNER | PERSIST,
            Ownership::None => 0,
        }
    }

    fn refuse_foreign(&self, live: Option<&Live>) -> Result<(), Error> {
        match live {
            Some(live) if live.has_owner() && live.owner != self.netlink.port() => {
                Err(Error::OwnedByOther {
                    table: live.table.clone(),
                    owner: live.owner,
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}
