//! Instructions of rules that are not ours: every register, and what we don't know by its name.
//!
//! [`crate::expr`] reads what we write ourselves, which is less, and compares it; here it is followed.
use nftnl_sys::libc;

use super::xtables::{self, TargetEnd};
use crate::sys::{Attribute, BorrowedExpression, attribute as attr};

/// Where a value begins among the 64 bytes of all registers; `None` for a register that there is not.
pub(crate) type Register = Option<usize>;

/// One instruction. Numbers are those of `linux/netfilter/nf_tables.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Something of the packet or its connection into a register.
    Load { source: Source, to: Register },
    /// The rule ends unless the register compares (`NFT_CMP_*`).
    Compare {
        from: Register,
        op: u32,
        data: Vec<u8>,
    },
    /// The rule ends unless the register lies in the range, or outside of it.
    Range {
        from: Register,
        inverted: bool,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    /// A register masked.
    Mask {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Numbers of `size` bytes turned around.
    Turn {
        from: Register,
        to: Register,
        len: usize,
        size: usize,
    },
    /// The rule ends unless the set has the register's value (or has it not, if inverted).
    Lookup {
        from: Register,
        set: String,
        inverted: bool,
        gives: Gives,
    },
    /// Bytes into a register.
    Put { to: Register, data: Vec<u8> },
    /// A verdict, with the chain to jump to.
    Verdict { code: i32, chain: Option<String> },
    /// `reject`: the packet is dropped and its sender told.
    Reject,
    /// Addresses are translated, which ends the chain.
    Translate(Translation),
    /// A match of iptables.
    Match(xtables::Match),
    /// A target of iptables.
    Target { name: String, end: TargetEnd },
    /// Something that is done, and the rule goes on: counting, logging, marking.
    Done(String),
    /// One that we don't know: whether the rule goes on after it, can't be said.
    Unknown(String),
}

/// What a lookup gives beside yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    Nothing,
    Verdict,
    Value(Register),
}

/// Which side of a connection is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translation {
    Source,
    Destination,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Payload { base: u32, offset: u32, len: u32 },
    Meta(u32),
    Ct { key: u32, of_original: Option<bool> },
    Fib { result: u32, flags: u32 },
    Other(String),
}

/// `NFT_REG_1` to `NFT_REG_4` have 16 bytes each, `NFT_REG32_00` to `NFT_REG32_15` are the same bytes in words.
const fn register(number: u32) -> Register {
    match number {
        1..=4 => Some((number as usize - 1) * 16),
        8..=23 => Some((number as usize - 8) * 4),
        _ => None,
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_BITWISE_BOOL` (0) is mask and xor; others shift.
const BITWISE_MASK: u32 = 0;
/// `NFT_RANGE_NEQ`.
const RANGE_NOT: u32 = 1;
/// `NFT_OBJECT_COUNTER` and `NFT_OBJECT_SECMARK`, `NFT_OBJECT_CT_TIMEOUT`, `NFT_OBJECT_CT_HELPER`: the rule goes on after
/// these. Quotas and limits may end it.
const OBJECTS_THAT_GO_ON: [u32; 4] = [1, 3, 7, 8];
/// `NFT_NAT_SNAT`.
const SNAT: u32 = 0;

/// Reads an instruction.
pub(crate) fn decode(raw: &BorrowedExpression<'_>) -> Instruction {
    let name = raw.name();
    decode_known(&name, raw).unwrap_or(Instruction::Unknown(name))
}

/// `None` for one that we can't follow.
fn decode_known(name: &str, raw: &BorrowedExpression<'_>) -> Option<Instruction> {
    let number = |attribute: &Attribute<u32>| raw.get(attribute);
    let at = |attribute: &Attribute<u32>| number(attribute).map(register);
    let done = || Instruction::Done(name.to_owned());
    Some(match name {
        // Without a register it changes the packet, and what follows would have to look at the changed one.
        "payload" => Instruction::Load {
            source: Source::Payload {
                base: number(&attr::payload::BASE)?,
                offset: number(&attr::payload::OFFSET)?,
                len: number(&attr::payload::LEN)?,
            },
            to: at(&attr::payload::DREG)?,
        },
        "meta" => match at(&attr::meta::DREG) {
            Some(to) => Instruction::Load {
                source: Source::Meta(number(&attr::meta::KEY)?),
                to,
            },
            None => done(),
        },
        "ct" => match at(&attr::ct::DREG) {
            Some(to) => Instruction::Load {
                source: Source::Ct {
                    key: number(&attr::ct::KEY)?,
                    of_original: raw.get(&attr::ct::DIR).map(|direction| direction == 0),
                },
                to,
            },
            None => done(),
        },
        "fib" => Instruction::Load {
            source: Source::Fib {
                result: number(&attr::fib::RESULT)?,
                flags: number(&attr::fib::FLAGS)?,
            },
            to: at(&attr::fib::DREG)?,
        },
        "rt" => Instruction::Load {
            source: Source::Other("rt".to_owned()),
            to: at(&attr::rt::DREG)?,
        },
        // Without a register it sets a field; with one it may end the rule when the header is not there.
        "exthdr" if number(&attr::exthdr::SREG).is_some() => done(),
        "cmp" => Instruction::Compare {
            from: at(&attr::cmp::SREG)?,
            op: number(&attr::cmp::OP)?,
            data: raw.get(&attr::cmp::DATA)?,
        },
        "range" => Instruction::Range {
            from: at(&attr::range::SREG)?,
            inverted: number(&attr::range::OP)? == RANGE_NOT,
            first: raw.get(&attr::range::FROM)?,
            last: raw.get(&attr::range::TO)?,
        },
        "bitwise" if number(&attr::bitwise::OP).unwrap_or(BITWISE_MASK) == BITWISE_MASK => {
            Instruction::Mask {
                from: at(&attr::bitwise::SREG)?,
                to: at(&attr::bitwise::DREG)?,
                mask: raw.get(&attr::bitwise::MASK)?,
                xor: raw.get(&attr::bitwise::XOR)?,
            }
        }
        // From one byte order to the other: the bytes are turned around either way.
        "byteorder" if cfg!(target_endian = "little") => Instruction::Turn {
            from: at(&attr::byteorder::SREG)?,
            to: at(&attr::byteorder::DREG)?,
            len: usize::try_from(number(&attr::byteorder::LEN)?).ok()?,
            size: usize::try_from(number(&attr::byteorder::SIZE)?).ok()?,
        },
        "lookup" => Instruction::Lookup {
            from: at(&attr::lookup::SREG)?,
            set: raw.get(&attr::lookup::SET)?,
            inverted: number(&attr::lookup::FLAGS).unwrap_or_default() != 0,
            gives: match number(&attr::lookup::DREG) {
                None => Gives::Nothing,
                Some(VERDICT) => Gives::Verdict,
                Some(to) => Gives::Value(register(to)),
            },
        },
        "immediate" => match number(&attr::immediate::DREG)? {
            VERDICT => Instruction::Verdict {
                code: i32::from_ne_bytes(number(&attr::immediate::VERDICT)?.to_ne_bytes()),
                chain: raw.get(&attr::immediate::CHAIN),
            },
            to => Instruction::Put {
                to: register(to),
                data: raw.get(&attr::immediate::DATA)?,
            },
        },
        "reject" => Instruction::Reject,
        "masq" => Instruction::Translate(Translation::Source),
        "redir" => Instruction::Translate(Translation::Destination),
        "nat" if number(&attr::nat::TYPE)? == SNAT => Instruction::Translate(Translation::Source),
        "nat" => Instruction::Translate(Translation::Destination),
        "match" => Instruction::Match(xtables::decode(
            &raw.get(&attr::xt_match::MATCH)?,
            number(&attr::xt_match::REVISION).unwrap_or_default(),
            &raw.get(&attr::xt_match::INFO).unwrap_or_default(),
        )),
        "target" => {
            let name: String = raw.get(&attr::xt_target::TARGET)?;
            Instruction::Target {
                end: xtables::end_of(&name),
                name,
            }
        }
        "objref" => match number(&attr::objref::TYPE) {
            Some(kind) if OBJECTS_THAT_GO_ON.contains(&kind) => done(),
            Some(_) | None => return None,
        },
        "counter" | "log" | "notrack" | "dup" | "last" => done(),
        _ => return None,
    })
}

/// Whether a code of a verdict leads to another chain.
pub(crate) const fn leads_on(code: i32) -> bool {
    matches!(code, libc::NFT_JUMP | libc::NFT_GOTO)
}
