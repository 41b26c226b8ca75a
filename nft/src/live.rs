//! The table as the kernel holds it.
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use nftnl_sys::libc;
use shared::plan::ruleset::AddressRange;

use crate::error::Error;
use crate::expr::{Count, LiveExpr, decode, decode_count};
use crate::netlink::Netlink;
use crate::set::{ANONYMOUS, SetState};
use crate::sys::{Chain, ChainHook, NoPayload, Object, Rule, Set, SetElements, Table, Verb};

/// A foreign transaction between two dumps would mix two states: then everything is read again.
pub(crate) const ATTEMPTS: u32 = 10;

/// `NFT_TABLE_F_DORMANT`, `…_OWNER`, `…_PERSIST` of `linux/netfilter/nf_tables.h`.
pub(crate) const DORMANT: u32 = 0x1;
pub(crate) const OWNER: u32 = 0x2;
pub(crate) const PERSIST: u32 = 0x4;

/// A table of family `inet` as it was at one moment.
#[derive(Debug, Clone)]
pub struct Live {
    /// Name.
    pub table: String,
    /// Chains in the kernel's order.
    pub chains: Vec<LiveChain>,
    /// Named counters.
    pub counters: Vec<NamedCounter>,
    /// Stateful objects that are no counters: never ours.
    pub(crate) other_objects: Vec<String>,
    /// Named sets and maps.
    pub(crate) sets: Vec<SetState>,
    /// `NFT_TABLE_F_*`.
    pub(crate) flags: u32,
    /// Netlink port of the owner; 0 without one.
    pub(crate) owner: u32,
}

/// A chain of the table.
#[derive(Debug, Clone)]
pub struct LiveChain {
    /// Name.
    pub name: String,
    /// The kernel's number of it.
    pub handle: u64,
    /// Rules in order.
    pub rules: Vec<LiveRule>,
    pub(crate) hook: Option<ChainHook>,
}

/// A rule of a chain.
#[derive(Debug, Clone)]
pub struct LiveRule {
    /// The kernel's number of it (`nft -a list`).
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// Values of its anonymous counters, in order.
    pub counts: Vec<Count>,
    pub(crate) expressions: Vec<LiveExpr>,
}

/// A named counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCounter {
    /// Name.
    pub name: String,
    /// Its value.
    pub count: Count,
}

impl Live {
    /// The chain of this name.
    pub fn chain(&self, name: &str) -> Option<&LiveChain> {
        self.chains.iter().find(|c| c.name == name)
    }

    /// The value of the named counter.
    pub fn counter(&self, name: &str) -> Option<Count> {
        self.counters
            .iter()
            .find(|c| c.name == name)
            .map(|c| c.count)
    }

    /// Names of its sets and maps in the kernel's order.
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|s| s.name.as_str())
    }

    /// The elements of an interval set of addresses; `None` if there is no such set.
    pub fn set(&self, name: &str) -> Option<Vec<AddressRange>> {
        self.sets.iter().find(|s| s.name == name)?.ranges()
    }

    /// The elements of a verdict map, address → chain; `None` if there is no such map.
    pub fn map(&self, name: &str) -> Option<Vec<(IpAddr, String)>> {
        self.sets.iter().find(|s| s.name == name)?.jumps()
    }

    /// Whether a process that is alive owns the table.
    pub fn has_owner(&self) -> bool {
        self.flags & OWNER != 0
    }

    /// Whether the table survives the death of its owner.
    pub fn persists(&self) -> bool {
        self.flags & PERSIST != 0
    }
}

/// Reads a table; `None` if there is none of this name.
pub(crate) fn read(netlink: &mut Netlink, table: &str) -> Result<Option<Live>, Error> {
    for _ in 0..ATTEMPTS {
        let before = generation(netlink)?;
        match read_once(netlink, table) {
            Err(Error::Exchange { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(live) if generation(netlink)? == before => return Ok(live),
            Ok(_) => {}
        }
    }
    Err(Error::Unsteady { attempts: ATTEMPTS })
}

/// Reads the named counters of a table; none if there is no such table.
pub(crate) fn read_counters(
    netlink: &mut Netlink,
    table: &str,
) -> Result<Vec<NamedCounter>, Error> {
    for _ in 0..ATTEMPTS {
        match read_objects(netlink, table) {
            Err(Error::Exchange { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|(counters, _)| counters),
        }
    }
    Err(Error::Unsteady { attempts: ATTEMPTS })
}

fn read_once(netlink: &mut Netlink, table: &str) -> Result<Option<Live>, Error> {
    let Some((flags, owner)) = read_table(netlink, table)? else {
        return Ok(None);
    };
    let sets = read_sets(netlink, table)?;
    let mut chains = read_chains(netlink, table)?;
    read_rules(netlink, table, &sets, &mut chains)?;
    let (counters, other_objects) = read_objects(netlink, table)?;
    let sets = sets
        .into_iter()
        .map(|(_, set)| set)
        .filter(|set| set.flags & ANONYMOUS == 0)
        .collect();
    Ok(Some(Live {
        table: table.to_owned(),
        chains,
        counters,
        other_objects,
        sets,
        flags,
        owner,
    }))
}

/// The number of the last transaction of anybody in this network namespace.
pub(crate) fn generation(netlink: &mut Netlink) -> Result<u32, Error> {
    let mut generation = None;
    let verb = Verb {
        message: libc::NFT_MSG_GETGEN,
        flags: libc::NLM_F_ACK,
    };
    netlink.request(
        "reading the generation of the ruleset",
        verb,
        &NoPayload,
        |message| {
            generation = Some(message.first_number()?);
            Some(())
        },
    )?;
    generation.ok_or(Error::NoAnswer {
        what: "reading the generation of the ruleset",
    })
}

/// Flags and owner.
fn read_table(netlink: &mut Netlink, name: &str) -> Result<Option<(u32, u32)>, Error> {
    let mut found = None;
    let verb = Verb {
        message: libc::NFT_MSG_GETTABLE,
        flags: libc::NLM_F_ACK,
    };
    netlink.request(
        "looking for the table",
        verb,
        &Table::new(name, None),
        |message| {
            let table = Table::parse(message)?;
            found = (table.name()? == name).then(|| (table.flags(), table.owner()));
            Some(())
        },
    )?;
    Ok(found)
}

/// Sets by the kernel's names, in the kernel's order.
fn read_sets(netlink: &mut Netlink, table: &str) -> Result<Vec<(String, SetState)>, Error> {
    let mut headers = Vec::new();
    netlink.request(
        "reading the sets",
        dump(libc::NFT_MSG_GETSET),
        &Set::all(table),
        |message| {
            headers.push(Set::parse(message)?);
            Some(())
        },
    )?;
    let mut sets = Vec::with_capacity(headers.len());
    for header in headers {
        let mut elements = Vec::new();
        netlink.request(
            "reading the elements of a set",
            dump(libc::NFT_MSG_GETSETELEM),
            &SetElements::all(table, &header.name),
            |message| {
                elements.extend(SetElements::parse(message)?);
                Some(())
            },
        )?;
        let state = SetState::from_dump(&header, elements);
        sets.push((header.name, state));
    }
    Ok(sets)
}

fn read_chains(netlink: &mut Netlink, table: &str) -> Result<Vec<LiveChain>, Error> {
    let mut chains = Vec::new();
    // The kernel dumps the chains of all tables of the family.
    netlink.request(
        "reading the chains",
        dump(libc::NFT_MSG_GETCHAIN),
        &NoPayload,
        |message| {
            let chain = Chain::parse(message)?;
            if chain.table()? == table {
                chains.push(LiveChain {
                    name: chain.name()?,
                    handle: chain.handle(),
                    rules: Vec::new(),
                    hook: chain.hook(),
                });
            }
            Some(())
        },
    )?;
    Ok(chains)
}

fn read_rules(
    netlink: &mut Netlink,
    table: &str,
    sets: &[(String, SetState)],
    chains: &mut [LiveChain],
) -> Result<(), Error> {
    let sets: BTreeMap<&str, &SetState> = sets
        .iter()
        .map(|(name, set)| (name.as_str(), set))
        .collect();
    netlink.request(
        "reading the rules",
        dump(libc::NFT_MSG_GETRULE),
        &Rule::all(table, None),
        |message| {
            let mut expressions = Vec::new();
            let mut counts = Vec::new();
            let rule = Rule::parse(message, |raw| {
                counts.extend(decode_count(raw));
                expressions.extend(decode(raw, &sets));
            })?;
            if let Some(chain) = chains.iter_mut().find(|c| c.name == rule.chain) {
                chain.rules.push(LiveRule {
                    handle: rule.handle,
                    comment: comment(&rule.userdata),
                    counts,
                    expressions,
                });
            }
            Some(())
        },
    )?;
    Ok(())
}

/// Named counters, and the names of other objects.
fn read_objects(
    netlink: &mut Netlink,
    table: &str,
) -> Result<(Vec<NamedCounter>, Vec<String>), Error> {
    let mut counters = Vec::new();
    let mut others = Vec::new();
    netlink.request(
        "reading the named counters",
        dump(libc::NFT_MSG_GETOBJ),
        &Object::all(table),
        |message| {
            let object = Object::parse(message)?;
            match object.as_counter() {
                Some(counter) => counters.push(NamedCounter {
                    name: counter.name,
                    count: Count {
                        packets: counter.packets,
                        bytes: counter.bytes,
                    },
                }),
                None => others.push(object.name()?),
            }
            Some(())
        },
    )?;
    Ok((counters, others))
}

pub(crate) const fn dump(message: i32) -> Verb {
    Verb {
        message,
        flags: libc::NLM_F_DUMP,
    }
}

/// The comment among nft's records: type 0, length, text with a final zero.
fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, len, after @ ..] = rest {
        let (value, next) = after.split_at_checked(usize::from(*len))?;
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_comment_is_found_among_other_records() {
        assert_eq!(comment(b"\x05\x02ab\x00\x03hi\x00").as_deref(), Some("hi"));
        assert_eq!(comment(b"\x05\x02ab"), None);
        assert_eq!(comment(b"\x00\x09cut"), None);
    }

    proptest! {
        #[test]
        fn any_userdata_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = comment(&bytes);
        }
    }
}
