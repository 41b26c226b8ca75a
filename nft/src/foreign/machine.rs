//! One instruction after the other: what it does to the registers, and whether the rule goes on.
use std::cmp::Ordering;

use super::bits::{Bits, Truth};
use super::evaluate::EndKind;
use super::instruction::{Gives, Instruction, Register};
use super::path::{Packet, Tracking};
use super::read::ForeignTable;
use super::set::is_between;
use super::xtables::{Match, Side, States, TargetEnd};

/// All registers together.
const REGISTERS_LEN: usize = 64;
/// The most that one register is asked for.
const LONGEST_VALUE: usize = 64;

/// Instructions that end a rule or don't, and give no verdict of their own.
const ONLY_MATCH: &[&str] = &[
    "bitwise",
    "byteorder",
    "connlimit",
    "dynset",
    "exthdr",
    "hash",
    "inner",
    "limit",
    "numgen",
    "objref",
    "osf",
    "payload",
    "quota",
    "socket",
    "tunnel",
    "xfrm",
    "flow_offload",
];

/// What an instruction does to the rule.
pub(super) enum Step {
    /// It goes on when this is so.
    On(Truth),
    /// The rule is over, the next one follows.
    Next,
    /// It goes on or not, and may accept the packet.
    Unknown { may_accept: bool },
    /// One of these, when it matches.
    Ends { ends: Vec<RuleEnd>, matches: Truth },
}

/// What ends a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuleEnd {
    Verdict { code: i32, chain: Option<String> },
    Kind(EndKind),
}

/// What runs the instructions of one rule.
pub(super) struct Machine<'a> {
    table: &'a ForeignTable,
    packet: &'a Packet<'a>,
    registers: Bits,
}

impl<'a> Machine<'a> {
    /// Nothing is known of the registers when a rule begins.
    pub(super) fn new(table: &'a ForeignTable, packet: &'a Packet<'a>) -> Self {
        Self {
            table,
            packet,
            registers: Bits::unknown(REGISTERS_LEN),
        }
    }

    pub(super) fn step(&mut self, instruction: &Instruction) -> Step {
        let kind = |kind| Step::Ends {
            ends: vec![RuleEnd::Kind(kind)],
            matches: Truth::Yes,
        };
        match instruction {
            Instruction::Load { source, to } => match self.packet.load(source) {
                Ok(value) => {
                    store(&mut self.registers, *to, &value);
                    Step::On(Truth::Yes)
                }
                Err(_) => Step::Next,
            },
            Instruction::Compare { from, op, data } => Step::On(compare(
                &value(&self.registers, *from, data.len()),
                *op,
                data,
            )),
            Instruction::Range {
                from,
                inverted,
                first,
                last,
            } => {
                let value = value(&self.registers, *from, first.len());
                Step::On(is_between(&value, first, last).not_if(*inverted))
            }
            Instruction::Mask {
                from,
                to,
                mask,
                xor,
            } => {
                let masked = value(&self.registers, *from, mask.len()).masked(mask, xor);
                store(&mut self.registers, *to, &masked);
                Step::On(Truth::Yes)
            }
            Instruction::Turn {
                from,
                to,
                len,
                size,
            } => {
                let turned = value(&self.registers, *from, (*len).min(LONGEST_VALUE)).turned(*size);
                store(&mut self.registers, *to, &turned);
                Step::On(Truth::Yes)
            }
            Instruction::Lookup {
                from,
                set,
                inverted,
                gives,
            } => self.lookup(*from, set, *inverted, *gives),
            Instruction::Put { to, data } => {
                store(&mut self.registers, *to, &Bits::known(data));
                Step::On(Truth::Yes)
            }
            Instruction::Verdict { code, chain } => Step::Ends {
                ends: vec![RuleEnd::Verdict {
                    code: *code,
                    chain: chain.clone(),
                }],
                matches: Truth::Yes,
            },
            Instruction::Reject => kind(EndKind::Rejected),
            Instruction::Translate(translation) => kind(EndKind::Translated(*translation)),
            Instruction::Match(wanted) => Step::On(self.matches(wanted)),
            Instruction::Target { end, .. } => match end {
                TargetEnd::Continues => Step::Next,
                TargetEnd::Rejects => kind(EndKind::Rejected),
                TargetEnd::Translates(translation) => kind(EndKind::Translated(*translation)),
                TargetEnd::Unknown => Step::Unknown { may_accept: true },
            },
            Instruction::Done(_) => Step::On(Truth::Yes),
            Instruction::Unknown(name) => {
                self.registers = Bits::unknown(REGISTERS_LEN);
                Step::Unknown {
                    may_accept: !ONLY_MATCH.contains(&name.as_str()),
                }
            }
        }
    }

    fn lookup(&mut self, from: Register, set: &str, inverted: bool, gives: Gives) -> Step {
        let set = self.table.sets.get(set);
        let Some(set) = set else {
            self.registers = Bits::unknown(REGISTERS_LEN);
            return Step::Unknown {
                may_accept: gives == Gives::Verdict,
            };
        };
        let key = value(&self.registers, from, set.key_len().unwrap_or_default());
        let found = set.find(&key);
        match gives {
            Gives::Nothing => Step::On(found.truth.not_if(inverted)),
            Gives::Value(to) => {
                store(&mut self.registers, to, &Bits::unknown(LONGEST_VALUE));
                Step::On(found.truth)
            }
            Gives::Verdict if found.truth == Truth::No => Step::On(Truth::No),
            Gives::Verdict => {
                let target = |target: &&crate::sys::ElementTarget| RuleEnd::Verdict {
                    code: i32::from_ne_bytes(target.verdict.to_ne_bytes()),
                    chain: target.chain.clone(),
                };
                Step::Ends {
                    ends: found.targets.iter().map(target).collect(),
                    matches: found.truth,
                }
            }
        }
    }

    fn matches(&self, wanted: &Match) -> Truth {
        match wanted {
            Match::Comment => Truth::Yes,
            Match::Unknown(_) => Truth::Maybe,
            Match::All(all) => all
                .iter()
                .fold(Truth::Yes, |so_far, one| so_far.and(self.matches(one))),
            Match::State { mask, inverted } => self.is_in_state(*mask).not_if(*inverted),
            Match::AddressType {
                source,
                destination,
                inverted,
            } => {
                let types = self.packet.address_types();
                let masks = [*source, *destination].into_iter();
                let sides = masks.zip(types).zip(*inverted);
                sides.fold(Truth::Yes, |so_far, ((mask, kind), inverted)| {
                    if mask == 0 {
                        return so_far;
                    }
                    let is_one = kind.map_or(Truth::Maybe, |kind| {
                        Truth::of(mask & 1_u16.checked_shl(kind.into()).unwrap_or_default() != 0)
                    });
                    so_far.and(is_one.not_if(inverted))
                })
            }
            Match::Ports {
                side,
                ranges,
                inverted,
            } => {
                let is_in = |port: Option<u16>| {
                    port.map_or(Truth::Maybe, |port| {
                        Truth::of(ranges.iter().any(|range| range.contains(&port)))
                    })
                };
                let [source, destination] = self.packet.ports().map(is_in);
                let is_one = match side {
                    Side::Source => source,
                    Side::Destination => destination,
                    Side::Either => source.not().and(destination.not()).not(),
                };
                is_one.not_if(*inverted)
            }
        }
    }

    /// `conntrack_mt` of the kernel's `net/netfilter/xt_conntrack.c`.
    fn is_in_state(&self, mask: States) -> Truth {
        let Some(tracking) = self.packet.tracking else {
            return Truth::Maybe;
        };
        let by_state = match tracking {
            Tracking::New => mask.new,
            Tracking::Answer => mask.established,
            Tracking::Untracked => mask.untracked,
        };
        if by_state {
            return Truth::Yes;
        }
        if tracking == Tracking::Untracked {
            return Truth::No;
        }
        let by_destination = match self.packet.is_translated {
            Some(is_translated) => Truth::of(mask.destination_nat && is_translated),
            None if mask.destination_nat => Truth::Maybe,
            None => Truth::No,
        };
        // Whether the source is translated is decided after all of these.
        let by_source = if mask.source_nat {
            Truth::Maybe
        } else {
            Truth::No
        };
        by_destination.not().and(by_source.not()).not()
    }
}

fn value(registers: &Bits, from: Register, len: usize) -> Bits {
    match from {
        Some(start) => registers.part(start, len),
        None => Bits::unknown(len),
    }
}

/// A value fills whole words; the kernel puts zeros behind it.
fn store(registers: &mut Bits, to: Register, value: &Bits) {
    if let Some(start) = to {
        let len = value.len();
        registers.put(start, value);
        let rest = len.next_multiple_of(4) - len;
        registers.put(start + len, &Bits::known(&vec![0; rest]));
    } else {
        *registers = Bits::unknown(REGISTERS_LEN);
    }
}

/// `NFT_CMP_*`.
fn compare(value: &Bits, op: u32, data: &[u8]) -> Truth {
    let ordering = |holds: fn(Ordering) -> bool| {
        value
            .compare(data)
            .map_or(Truth::Maybe, |ordering| Truth::of(holds(ordering)))
    };
    match op {
        0 => value.equals(data),
        1 => value.equals(data).not(),
        2 => ordering(Ordering::is_lt),
        3 => ordering(Ordering::is_le),
        4 => ordering(Ordering::is_gt),
        5 => ordering(Ordering::is_ge),
        _ => Truth::Maybe,
    }
}
