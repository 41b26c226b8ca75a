//! The instructions of nftables rules as plain data, and their way into libnftnl and back.
//!
//! A rule that is wanted and a rule that was read meet as `Vec<Expr>`: comparing them is comparing values. `Display`
//! gives the notation of `nft --debug=netlink`.
use std::collections::BTreeMap;
use std::fmt;

use nftnl_sys::libc;

use crate::set::SetState;
use crate::sys::{Attribute, BorrowedExpression, Expression, attribute as attr};

/// A register: 1 for nearly everything, 2 beside it, 0 for the verdict.
pub(crate) const REG_1: u32 = libc::NFT_REG_1.unsigned_abs();
pub(crate) const REG_2: u32 = libc::NFT_REG_2.unsigned_abs();
const REG_VERDICT: u32 = libc::NFT_REG_VERDICT.unsigned_abs();

/// `NFT_EXTHDR_OP_TCPOPT`.
const TCP_OPTION: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED` of `linux/netfilter/nf_nat.h`: the kernel sets them by the
/// registers that are given, and nft gives the second one itself.
const NAT_IMPLIED_FLAGS: u32 = 1 | NAT_PORT_GIVEN;
const NAT_PORT_GIVEN: u32 = 2;

/// One instruction. Numbers are those of `linux/netfilter/nf_tables.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    /// Bytes of the packet into register 1.
    Payload { base: u32, offset: u32, len: u32 },
    /// `NFT_META_*` into register 1.
    Meta { key: u32 },
    /// Register 1 into `NFT_META_*`.
    MetaSet { key: u32 },
    /// `NFT_CT_*` into register 1.
    Ct { key: u32 },
    /// Register 1 into `NFT_CT_*`.
    CtSet { key: u32 },
    /// `NFT_RT_*` into register 1.
    Rt { key: u32 },
    /// `NFT_FIB_RESULT_*` for the flags `NFTA_FIB_F_*` into register 1.
    Fib { result: u32, flags: u32 },
    /// The rule ends unless register 1 compares (`NFT_CMP_*`).
    Cmp { op: u32, data: Vec<u8> },
    /// Register 1 = (register 1 & mask) ^ xor.
    Bitwise { mask: Vec<u8>, xor: Vec<u8> },
    /// Register 1 from host to network byte order, in numbers of `size` bytes.
    ToNetworkOrder { len: u32, size: u32 },
    /// The rule ends unless register 1 is in the set (or is not, if inverted); a map gives the verdict.
    Lookup {
        set: SetReference,
        inverted: bool,
        verdict: bool,
    },
    /// Bytes into a register.
    Immediate { register: u32, data: Vec<u8> },
    /// A verdict, with the chain to jump to.
    Verdict { code: i32, chain: Option<String> },
    /// An anonymous counter. Its value is not part of what the rule is: see [`decode_count`].
    Counter,
    /// A named object of the kind `NFT_OBJECT_*`.
    ObjectReference { kind: u32, name: String },
    /// Register 1 into bytes of a TCP option.
    TcpOptionSet { option: u8, offset: u32, len: u32 },
    /// Address from register 1, the last one of a range and the port from others; `flags` beyond those that follow from that.
    Nat {
        kind: u32,
        family: u32,
        last: Option<u32>,
        port: Option<u32>,
        flags: u32,
    },
    /// `masquerade`.
    Masquerade { flags: u32 },
    /// `notrack`.
    Notrack,
}

/// Which set a lookup uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetReference {
    Named(String),
    /// An anonymous set belongs to its rule, so its content is part of the rule.
    Anonymous(Box<SetState>),
}

impl Expr {
    /// For libnftnl. `anonymous` gives the transaction's id of the anonymous set of a lookup.
    pub(crate) fn encode(&self, anonymous: u32) -> Expression {
        match self {
            Self::Payload { base, offset, len } => Expression::new(attr::payload::NAME)
                .with(&attr::payload::DREG, &REG_1)
                .with(&attr::payload::BASE, base)
                .with(&attr::payload::OFFSET, offset)
                .with(&attr::payload::LEN, len),
            Self::Meta { key } => Expression::new(attr::meta::NAME)
                .with(&attr::meta::KEY, key)
                .with(&attr::meta::DREG, &REG_1),
            Self::MetaSet { key } => Expression::new(attr::meta::NAME)
                .with(&attr::meta::KEY, key)
                .with(&attr::meta::SREG, &REG_1),
            Self::Ct { key } => Expression::new(attr::ct::NAME)
                .with(&attr::ct::KEY, key)
                .with(&attr::ct::DREG, &REG_1),
            Self::CtSet { key } => Expression::new(attr::ct::NAME)
                .with(&attr::ct::KEY, key)
                .with(&attr::ct::SREG, &REG_1),
            Self::Rt { key } => Expression::new(attr::rt::NAME)
                .with(&attr::rt::KEY, key)
                .with(&attr::rt::DREG, &REG_1),
            Self::Fib { result, flags } => Expression::new(attr::fib::NAME)
                .with(&attr::fib::RESULT, result)
                .with(&attr::fib::FLAGS, flags)
                .with(&attr::fib::DREG, &REG_1),
            Self::Cmp { op, data } => Expression::new(attr::cmp::NAME)
                .with(&attr::cmp::SREG, &REG_1)
                .with(&attr::cmp::OP, op)
                .with(&attr::cmp::DATA, data),
            Self::Bitwise { mask, xor } => Expression::new(attr::bitwise::NAME)
                .with(&attr::bitwise::SREG, &REG_1)
                .with(&attr::bitwise::DREG, &REG_1)
                .with(&attr::bitwise::LEN, &length(mask))
                .with(&attr::bitwise::MASK, mask)
                .with(&attr::bitwise::XOR, xor),
            Self::ToNetworkOrder { len, size } => Expression::new(attr::byteorder::NAME)
                .with(&attr::byteorder::SREG, &REG_1)
                .with(&attr::byteorder::DREG, &REG_1)
                .with(
                    &attr::byteorder::OP,
                    &libc::NFT_BYTEORDER_HTON.unsigned_abs(),
                )
                .with(&attr::byteorder::LEN, len)
                .with(&attr::byteorder::SIZE, size),
            Self::Lookup {
                set,
                inverted,
                verdict,
            } => encode_lookup(set, *inverted, *verdict, anonymous),
            Self::Immediate { register, data } => Expression::new(attr::immediate::NAME)
                .with(&attr::immediate::DREG, register)
                .with(&attr::immediate::DATA, data),
            Self::Verdict { code, chain } => {
                let verdict = Expression::new(attr::immediate::NAME)
                    .with(&attr::immediate::DREG, &REG_VERDICT)
                    .with(&attr::immediate::VERDICT, &verdict_bits(*code));
                match chain {
                    Some(chain) => verdict.with(&attr::immediate::CHAIN, chain),
                    None => verdict,
                }
            }
            Self::Counter => Expression::new(attr::counter::NAME)
                .with(&attr::counter::PACKETS, &0)
                .with(&attr::counter::BYTES, &0),
            Self::ObjectReference { kind, name } => Expression::new(attr::objref::NAME)
                .with(&attr::objref::TYPE, kind)
                .with(&attr::objref::OBJECT, name),
            Self::TcpOptionSet {
                option,
                offset,
                len,
            } => Expression::new(attr::exthdr::NAME)
                .with(&attr::exthdr::SREG, &REG_1)
                .with(&attr::exthdr::TYPE, option)
                .with(&attr::exthdr::OFFSET, offset)
                .with(&attr::exthdr::LEN, len)
                .with(&attr::exthdr::OP, &TCP_OPTION),
            Self::Nat {
                kind,
                family,
                last,
                port,
                flags,
            } => encode_nat(*kind, *family, *last, *port, *flags),
            Self::Masquerade { flags: 0 } => Expression::new(attr::masq::NAME),
            Self::Masquerade { flags } => {
                Expression::new(attr::masq::NAME).with(&attr::masq::FLAGS, flags)
            }
            Self::Notrack => Expression::new(attr::notrack::NAME),
        }
    }

    /// The anonymous set that must be created before the rule.
    pub(crate) fn anonymous_set(&self) -> Option<&SetState> {
        if let Self::Lookup {
            set: SetReference::Anonymous(set),
            ..
        } = self
        {
            return Some(set);
        }
        None
    }

    /// The kernel module that brings this instruction, for the text of an error.
    pub(crate) fn kernel_module(&self) -> Option<&'static str> {
        match self {
            Self::Fib { .. } => Some("nft_fib_inet"),
            Self::Ct { .. } | Self::CtSet { .. } | Self::Notrack => Some("nft_ct"),
            Self::Nat { .. } => Some("nft_nat"),
            Self::Masquerade { .. } => Some("nft_masq"),
            // Part of the module `nf_tables` itself.
            Self::Payload { .. }
            | Self::Meta { .. }
            | Self::MetaSet { .. }
            | Self::Rt { .. }
            | Self::Cmp { .. }
            | Self::Bitwise { .. }
            | Self::ToNetworkOrder { .. }
            | Self::Lookup { .. }
            | Self::Immediate { .. }
            | Self::Verdict { .. }
            | Self::Counter
            | Self::ObjectReference { .. }
            | Self::TcpOptionSet { .. } => None,
        }
    }
}

fn encode_lookup(set: &SetReference, inverted: bool, verdict: bool, anonymous: u32) -> Expression {
    let lookup = Expression::new(attr::lookup::NAME).with(&attr::lookup::SREG, &REG_1);
    let lookup = match set {
        SetReference::Named(name) => lookup.with(&attr::lookup::SET, name),
        SetReference::Anonymous(set) => lookup
            .with(&attr::lookup::SET, &set.name)
            .with(&attr::lookup::SET_ID, &anonymous),
    };
    match (inverted, verdict) {
        (true, _) => lookup.with(&attr::lookup::FLAGS, &libc::NFT_LOOKUP_F_INV.unsigned_abs()),
        (false, true) => lookup.with(&attr::lookup::DREG, &REG_VERDICT),
        (false, false) => lookup,
    }
}

fn encode_nat(
    kind: u32,
    family: u32,
    last: Option<u32>,
    port: Option<u32>,
    flags: u32,
) -> Expression {
    let nat = Expression::new(attr::nat::NAME)
        .with(&attr::nat::TYPE, &kind)
        .with(&attr::nat::FAMILY, &family)
        .with(&attr::nat::ADDRESS, &REG_1);
    let nat = match last {
        Some(register) => nat.with(&attr::nat::LAST_ADDRESS, &register),
        None => nat,
    };
    match port {
        Some(register) => nat
            .with(&attr::nat::PORT, &register)
            .with(&attr::nat::FLAGS, &(flags | NAT_PORT_GIVEN)),
        None => nat,
    }
}

/// A verdict as libnftnl takes it: `NFT_JUMP` and its like are negative, the attribute is unsigned.
pub(crate) const fn verdict_bits(code: i32) -> u32 {
    u32::from_ne_bytes(code.to_ne_bytes())
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

/// Packets and bytes that a counter has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

/// An instruction that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LiveExpr {
    /// One that we could have written.
    Known(Expr),
    /// The name of one, or of a form of one, that we never write.
    Foreign(String),
}

impl PartialEq<Expr> for LiveExpr {
    fn eq(&self, wanted: &Expr) -> bool {
        matches!(self, Self::Known(live) if live == wanted)
    }
}

impl fmt::Display for LiveExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(expr) => write!(f, "{expr}"),
            Self::Foreign(name) => write!(f, "[ {name} … ]"),
        }
    }
}

/// Reads an instruction; `sets` resolves the names that the kernel gave to anonymous sets. It can be two: for a range of values
/// nft 1.1 writes `range` where 1.0 wrote two comparisons, as we do.
pub(crate) fn decode(
    raw: &BorrowedExpression<'_>,
    sets: &BTreeMap<&str, &SetState>,
) -> Vec<LiveExpr> {
    if let Some(both) = decode_range(raw) {
        return both.map(LiveExpr::Known).into();
    }
    let name = raw.name();
    vec![match decode_known(&name, raw, sets) {
        Some(expr) => LiveExpr::Known(expr),
        None => LiveExpr::Foreign(name),
    }]
}

/// `[ range eq reg 1 FIRST LAST ]`
fn decode_range(raw: &BorrowedExpression<'_>) -> Option<[Expr; 2]> {
    let is_ours = raw.get(&attr::range::SREG)? == REG_1
        && raw.get(&attr::range::OP)? == libc::NFT_RANGE_EQ.unsigned_abs();
    let compare = |op: i32, data| Expr::Cmp {
        op: op.unsigned_abs(),
        data,
    };
    let (first, last) = (raw.get(&attr::range::FROM)?, raw.get(&attr::range::TO)?);
    is_ours.then(|| {
        [
            compare(libc::NFT_CMP_GTE, first),
            compare(libc::NFT_CMP_LTE, last),
        ]
    })
}

/// The value of an anonymous counter; `None` for every other instruction.
pub(crate) fn decode_count(raw: &BorrowedExpression<'_>) -> Option<Count> {
    Some(Count {
        packets: raw.get(&attr::counter::PACKETS)?,
        bytes: raw.get(&attr::counter::BYTES)?,
    })
}

/// `None` for every name, register or attribute that [`Expr::encode`] never gives.
fn decode_known(
    name: &str,
    raw: &BorrowedExpression<'_>,
    sets: &BTreeMap<&str, &SetState>,
) -> Option<Expr> {
    let number = |attribute: &Attribute<u32>| raw.get(attribute);
    let in_reg_1 = |attribute: &Attribute<u32>| (number(attribute)? == REG_1).then_some(());
    Some(match name {
        "payload" => {
            in_reg_1(&attr::payload::DREG)?;
            Expr::Payload {
                base: number(&attr::payload::BASE)?,
                offset: number(&attr::payload::OFFSET)?,
                len: number(&attr::payload::LEN)?,
            }
        }
        "meta" => {
            let key = number(&attr::meta::KEY)?;
            match in_reg_1(&attr::meta::DREG) {
                Some(()) => Expr::Meta { key },
                None => in_reg_1(&attr::meta::SREG).map(|()| Expr::MetaSet { key })?,
            }
        }
        "ct" => {
            let key = number(&attr::ct::KEY)?;
            match in_reg_1(&attr::ct::DREG) {
                Some(()) => Expr::Ct { key },
                None => in_reg_1(&attr::ct::SREG).map(|()| Expr::CtSet { key })?,
            }
        }
        "rt" => {
            in_reg_1(&attr::rt::DREG)?;
            Expr::Rt {
                key: number(&attr::rt::KEY)?,
            }
        }
        "fib" => {
            in_reg_1(&attr::fib::DREG)?;
            Expr::Fib {
                result: number(&attr::fib::RESULT)?,
                flags: number(&attr::fib::FLAGS)?,
            }
        }
        "cmp" => {
            in_reg_1(&attr::cmp::SREG)?;
            Expr::Cmp {
                op: number(&attr::cmp::OP)?,
                data: raw.get(&attr::cmp::DATA)?,
            }
        }
        "bitwise" => {
            in_reg_1(&attr::bitwise::SREG)?;
            in_reg_1(&attr::bitwise::DREG)?;
            Expr::Bitwise {
                mask: raw.get(&attr::bitwise::MASK)?,
                xor: raw.get(&attr::bitwise::XOR)?,
            }
        }
        "byteorder" => {
            in_reg_1(&attr::byteorder::SREG)?;
            in_reg_1(&attr::byteorder::DREG)?;
            (number(&attr::byteorder::OP)? == libc::NFT_BYTEORDER_HTON.unsigned_abs())
                .then_some(())?;
            Expr::ToNetworkOrder {
                len: number(&attr::byteorder::LEN)?,
                size: number(&attr::byteorder::SIZE)?,
            }
        }
        "lookup" => {
            in_reg_1(&attr::lookup::SREG)?;
            let name: String = raw.get(&attr::lookup::SET)?;
            let anonymous = sets
                .get(name.as_str())
                .filter(|set| set.flags & crate::set::ANONYMOUS != 0);
            Expr::Lookup {
                set: match anonymous {
                    Some(set) => SetReference::Anonymous(Box::new((*set).clone())),
                    None => SetReference::Named(name),
                },
                inverted: number(&attr::lookup::FLAGS).unwrap_or_default() != 0,
                verdict: number(&attr::lookup::DREG).is_some(),
            }
        }
        "immediate" => match number(&attr::immediate::DREG)? {
            REG_VERDICT => Expr::Verdict {
                code: i32::from_ne_bytes(number(&attr::immediate::VERDICT)?.to_ne_bytes()),
                chain: raw.get(&attr::immediate::CHAIN),
            },
            register => Expr::Immediate {
                register,
                data: raw.get(&attr::immediate::DATA)?,
            },
        },
        "counter" => Expr::Counter,
        "objref" => Expr::ObjectReference {
            kind: number(&attr::objref::TYPE)?,
            name: raw.get(&attr::objref::OBJECT)?,
        },
        "exthdr" => {
            in_reg_1(&attr::exthdr::SREG)?;
            (number(&attr::exthdr::OP)? == TCP_OPTION).then_some(())?;
            Expr::TcpOptionSet {
                option: raw.get(&attr::exthdr::TYPE)?,
                offset: number(&attr::exthdr::OFFSET)?,
                len: number(&attr::exthdr::LEN)?,
            }
        }
        "nat" => {
            in_reg_1(&attr::nat::ADDRESS)?;
            Expr::Nat {
                kind: number(&attr::nat::TYPE)?,
                family: number(&attr::nat::FAMILY)?,
                // The kernel tells the one register twice where there is no range (`nft_nat_dump`).
                last: number(&attr::nat::LAST_ADDRESS).filter(|&register| register != REG_1),
                port: number(&attr::nat::PORT),
                flags: number(&attr::nat::FLAGS).unwrap_or_default() & !NAT_IMPLIED_FLAGS,
            }
        }
        "masq" if number(&attr::masq::PORT).is_none() => Expr::Masquerade {
            flags: number(&attr::masq::FLAGS).unwrap_or_default(),
        },
        "notrack" => Expr::Notrack,
        _ => return None,
    })
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { base, offset, len } => {
                let base = name(&["link layer", "network", "transport"], *base);
                write!(
                    f,
                    "[ payload load {len}b @ {base} header + {offset} => reg 1 ]"
                )
            }
            Self::Meta { key } => write!(f, "[ meta load {} => reg 1 ]", name(META_KEYS, *key)),
            Self::MetaSet { key } => write!(f, "[ meta set {} with reg 1 ]", name(META_KEYS, *key)),
            Self::Ct { key } => write!(f, "[ ct load {} => reg 1 ]", name(CT_KEYS, *key)),
            Self::CtSet { key } => write!(f, "[ ct set {} with reg 1 ]", name(CT_KEYS, *key)),
            Self::Rt { key } => write!(f, "[ rt load {} => reg 1 ]", name(RT_KEYS, *key)),
            Self::Fib { result, flags } => {
                write!(
                    f,
                    "[ fib {flags:#x} {} => reg 1 ]",
                    name(FIB_RESULTS, *result)
                )
            }
            Self::Cmp { op, data } => {
                let op = name(&["eq", "neq", "lt", "lte", "gt", "gte"], *op);
                write!(f, "[ cmp {op} reg 1 {} ]", Hex(data))
            }
            Self::Bitwise { mask, xor } => {
                write!(
                    f,
                    "[ bitwise reg 1 = ( reg 1 & {} ) ^ {} ]",
                    Hex(mask),
                    Hex(xor)
                )
            }
            Self::ToNetworkOrder { len, size } => {
                write!(f, "[ byteorder reg 1 = hton(reg 1, {size}, {len}) ]")
            }
            Self::Lookup { set, inverted, .. } => {
                let name = match set {
                    SetReference::Named(name) => name,
                    SetReference::Anonymous(set) => &set.name,
                };
                write!(
                    f,
                    "[ lookup reg 1 {}set {name} ]",
                    if *inverted { "not in " } else { "" }
                )
            }
            Self::Immediate { register, data } => {
                write!(f, "[ immediate reg {register} {} ]", Hex(data))
            }
            Self::Verdict { code, chain } => {
                write!(f, "[ immediate reg 0 {}", verdict_name(*code))?;
                match chain {
                    Some(chain) => write!(f, " -> {chain} ]"),
                    None => f.write_str(" ]"),
                }
            }
            Self::Counter => f.write_str("[ counter ]"),
            Self::ObjectReference { kind, name } => write!(f, "[ objref type {kind} name {name} ]"),
            Self::TcpOptionSet {
                option,
                offset,
                len,
            } => {
                write!(
                    f,
                    "[ exthdr write tcpopt reg 1 => {len}b @ {option} + {offset} ]"
                )
            }
            Self::Nat {
                kind,
                family,
                last,
                port,
                ..
            } => {
                write!(f, "[ nat type {kind} family {family} addr reg 1")?;
                if let Some(register) = last {
                    write!(f, "-{register}")?;
                }
                match port {
                    Some(register) => write!(f, " port reg {register} ]"),
                    None => f.write_str(" ]"),
                }
            }
            Self::Masquerade { .. } => f.write_str("[ masq ]"),
            Self::Notrack => f.write_str("[ notrack ]"),
        }
    }
}

const META_KEYS: &[&str] = &[
    "len",
    "protocol",
    "priority",
    "mark",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "secmark",
    "nfproto",
    "l4proto",
];
const CT_KEYS: &[&str] = &["state", "direction", "status", "mark"];
const RT_KEYS: &[&str] = &["classid", "nexthop4", "nexthop6", "tcpmss"];
const FIB_RESULTS: &[&str] = &["?", "oif", "oifname", "type"];

/// The name of a kernel number; "?" for one that we never write.
fn name(names: &[&'static str], number: u32) -> &'static str {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    names.get(index).copied().unwrap_or("?")
}

fn verdict_name(code: i32) -> &'static str {
    match code {
        libc::NF_DROP => "drop",
        libc::NF_ACCEPT => "accept",
        libc::NFT_JUMP => "jump",
        libc::NFT_GOTO => "goto",
        libc::NFT_RETURN => "return",
        libc::NFT_CONTINUE => "continue",
        _ => "verdict",
    }
}

/// Bytes in the order of memory.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
