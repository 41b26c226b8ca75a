//! Tables of others as the kernel holds them.
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nftnl_sys::libc;
use shared::plan::ruleset::{Family, Hook};

use super::instruction::{Instruction, decode};
use super::set::ForeignSet;
use crate::error::Error;
use crate::live::{ATTEMPTS, DORMANT, dump, generation};
use crate::netlink::Netlink;
use crate::sys::{
    Chain, ChainHook, NoPayload, OfFamily, Rule, Set, SetElements, Table, parse_entries,
};

/// Any family, in a dump (`NFPROTO_UNSPEC`).
const ANY: u8 = 0;

/// Family of a table, of those that see our packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// `ip`.
    Ip,
    /// `ip6`.
    Ip6,
    /// `inet`: both.
    Inet,
}

impl TableFamily {
    /// `None` for `arp`, `bridge` and `netdev`, which stand elsewhere.
    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ip),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// As `nft` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }

    /// Whether its chains see packets of this family.
    pub(crate) const fn sees(self, family: Family) -> bool {
        matches!(
            (self, family),
            (Self::Inet, _) | (Self::Ip, Family::Ipv4) | (Self::Ip6, Family::Ipv6)
        )
    }
}

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct ForeignTable {
    pub(crate) family: TableFamily,
    pub(crate) name: String,
    pub(crate) chains: Vec<ForeignChain>,
    /// By the kernel's names; one that could not be read is not among them.
    pub(crate) sets: BTreeMap<String, ForeignSet>,
}

/// A chain.
#[derive(Debug, Clone)]
pub(crate) struct ForeignChain {
    pub(crate) name: String,
    pub(crate) hook: Option<ChainHook>,
    pub(crate) rules: Vec<ForeignRule>,
}

/// A rule.
#[derive(Debug, Clone)]
pub(crate) struct ForeignRule {
    pub(crate) handle: u64,
    pub(crate) instructions: Vec<Instruction>,
}

impl ForeignTable {
    pub(crate) fn chain(&self, at: usize) -> Option<&ForeignChain> {
        self.chains.get(at)
    }

    pub(crate) fn position(&self, chain: &str) -> Option<usize> {
        self.chains.iter().position(|other| other.name == chain)
    }

    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.position(name).is_some()
    }
}

impl ForeignChain {
    pub(crate) fn drops_by_policy(&self) -> bool {
        let hook = self.hook.as_ref();
        hook.is_some_and(|hook| hook.policy == libc::NF_DROP.unsigned_abs())
    }
}

impl ChainHook {
    /// `NF_INET_*`; `None` for hooks before these.
    pub(crate) const fn place(&self) -> Option<Hook> {
        match self.hook {
            0 => Some(Hook::Prerouting),
            1 => Some(Hook::Input),
            2 => Some(Hook::Forward),
            3 => Some(Hook::Output),
            4 => Some(Hook::Postrouting),
            _ => None,
        }
    }
}

/// Reads every table but the one of this name and the family `inet`.
pub(super) fn read(netlink: &mut Netlink, ours: &str) -> Result<Vec<ForeignTable>, Error> {
    for _ in 0..ATTEMPTS {
        let before = generation(netlink)?;
        match read_once(netlink, ours) {
            Err(Error::Exchange { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(tables) if generation(netlink)? == before => return Ok(tables),
            Ok(_) => {}
        }
    }
    Err(Error::Unsteady { attempts: ATTEMPTS })
}

fn read_once(netlink: &mut Netlink, ours: &str) -> Result<Vec<ForeignTable>, Error> {
    let mut tables = read_tables(netlink, ours)?;
    if tables.is_empty() {
        return Ok(tables);
    }
    read_chains(netlink, &mut tables)?;
    // What has no base chain sees no packet.
    tables.retain(|table| table.chains.iter().any(|chain| chain.hook.is_some()));
    for table in &mut tables {
        read_rules(netlink, table)?;
        read_sets(netlink, table)?;
    }
    Ok(tables)
}

fn read_tables(netlink: &mut Netlink, ours: &str) -> Result<Vec<ForeignTable>, Error> {
    let mut tables = Vec::new();
    let all = OfFamily(ANY, &NoPayload);
    netlink.request(
        "listing the tables of others",
        dump(libc::NFT_MSG_GETTABLE),
        &all,
        |message| {
            let table = Table::parse(message)?;
            let (family, name) = (message.family(), table.name()?);
            let is_asleep = table.flags() & DORMANT != 0;
            if let Some(family) = TableFamily::of(family) {
                let is_ours = family == TableFamily::Inet && name == ours;
                if !is_ours && !is_asleep {
                    tables.push(ForeignTable {
                        family,
                        name,
                        chains: Vec::new(),
                        sets: BTreeMap::new(),
                    });
                }
            }
            Some(())
        },
    )?;
    Ok(tables)
}

fn read_chains(netlink: &mut Netlink, tables: &mut [ForeignTable]) -> Result<(), Error> {
    let all = OfFamily(ANY, &NoPayload);
    netlink.request(
        "reading the chains of others",
        dump(libc::NFT_MSG_GETCHAIN),
        &all,
        |message| {
            let family = TableFamily::of(message.family());
            let chain = Chain::parse(message)?;
            let of = chain.table()?;
            let mut tables = tables.iter_mut();
            let table = tables.find(|table| Some(table.family) == family && table.name == of);
            if let Some(table) = table {
                table.chains.push(ForeignChain {
                    name: chain.name()?,
                    hook: chain.hook(),
                    rules: Vec::new(),
                });
            }
            Some(())
        },
    )?;
    Ok(())
}

fn read_rules(netlink: &mut Netlink, table: &mut ForeignTable) -> Result<(), Error> {
    let all = Rule::all(&table.name, None);
    let chains = &mut table.chains;
    let mut all_read = true;
    netlink.request(
        "reading the rules of others",
        dump(libc::NFT_MSG_GETRULE),
        &OfFamily(table.family.number(), &all),
        |message| {
            let mut instructions = Vec::new();
            // An instruction that is newer than this libnftnl.
            let Some(rule) = Rule::parse(message, |raw| instructions.push(decode(raw))) else {
                all_read = false;
                return Some(());
            };
            if let Some(chain) = chains.iter_mut().find(|c| c.name == rule.chain) {
                chain.rules.push(ForeignRule {
                    handle: rule.handle,
                    instructions,
                });
            }
            Some(())
        },
    )?;
    if !all_read {
        // It stands somewhere, and may accept what the others drop.
        for chain in chains {
            let instructions = vec![Instruction::Unknown("rule".to_owned())];
            let rule = ForeignRule {
                handle: 0,
                instructions,
            };
            chain.rules.insert(0, rule);
        }
    }
    Ok(())
}

/// The sets that rules look into; others may be large, and decide nothing.
fn read_sets(netlink: &mut Netlink, table: &mut ForeignTable) -> Result<(), Error> {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    let instructions = rules.flat_map(|rule| &rule.instructions);
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for instruction in instructions {
        if let Instruction::Lookup { set, .. } = instruction {
            needed.insert(set.clone());
        }
    }
    if needed.is_empty() {
        return Ok(());
    }
    let family = table.family.number();
    let mut headers = Vec::new();
    netlink.request(
        "reading the sets of others",
        dump(libc::NFT_MSG_GETSET),
        &OfFamily(family, &Set::all(&table.name)),
        |message| {
            // One that libnftnl can't read is one that is not known.
            headers.extend(Set::parse(message));
            Some(())
        },
    )?;
    headers.retain(|header| needed.contains(&header.name));
    for header in headers {
        let mut entries = Some(Vec::new());
        netlink.request(
            "reading the elements of a set of others",
            dump(libc::NFT_MSG_GETSETELEM),
            &OfFamily(family, &SetElements::all(&table.name, &header.name)),
            |message| {
                match (parse_entries(message), &mut entries) {
                    (Some(more), Some(entries)) => entries.extend(more),
                    _ => entries = None,
                }
                Some(())
            },
        )?;
        if let Some(entries) = entries {
            let set = ForeignSet::new(&header, entries);
            table.sets.insert(header.name, set);
        }
    }
    Ok(())
}
