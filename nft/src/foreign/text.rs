//! A rule of others as text, in the words of `nft` as far as they are known: it shall be found again in a listing.
use std::net::{Ipv4Addr, Ipv6Addr};

use nftnl_sys::libc;

use super::instruction::{Gives, Instruction, Register, Source, Translation};
use super::read::ForeignRule;
use super::xtables::Match;

/// What a register holds, and how its values are written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    at: usize,
    name: String,
    kind: Kind,
    mask: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Link,
    Protocol,
    State,
    Status,
    Number,
}

/// The rule on one line.
pub(crate) fn text(rule: &ForeignRule) -> String {
    let mut words = Words::default();
    for instruction in &rule.instructions {
        words.add(instruction);
    }
    words.text.join(" ")
}

#[derive(Debug, Default)]
struct Words {
    text: Vec<String>,
    held: Vec<Held>,
    /// `tcp`, once the rule has asked for it.
    protocol: Option<&'static str>,
}

impl Words {
    fn add(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Load { source, to } => self.load(source, *to),
            Instruction::Compare { from, op, data } => self.compare(*from, *op, data),
            Instruction::Range {
                from,
                inverted,
                first,
                last,
            } => {
                let held = self.take(*from);
                let (first, last) = (held.value(first), held.value(last));
                let not = if *inverted { "!= " } else { "" };
                self.text.push(format!("{} {not}{first}-{last}", held.name));
            }
            Instruction::Mask { from, mask, .. } => {
                if let Some(held) = self.held.iter_mut().find(|held| Some(held.at) == *from) {
                    held.mask = Some(mask.clone());
                }
            }
            Instruction::Turn { .. } | Instruction::Put { .. } => {}
            Instruction::Lookup {
                from,
                set,
                inverted,
                gives,
            } => self.lookup(*from, set, *inverted, *gives),
            Instruction::Verdict { code, chain } => self.verdict(*code, chain.as_deref()),
            Instruction::Reject => self.text.push("reject".to_owned()),
            Instruction::Translate(Translation::Source) => self.text.push("snat".to_owned()),
            Instruction::Translate(Translation::Destination) => self.text.push("dnat".to_owned()),
            Instruction::Match(Match::Comment) => {}
            Instruction::Match(wanted) => self.text.push(format!("xt match {}", name_of(wanted))),
            Instruction::Target { name, .. } if name == "REJECT" => {
                self.text.push("reject".to_owned());
            }
            Instruction::Target { name, .. } => self.text.push(format!("xt target {name}")),
            Instruction::Done(name) if name == "counter" => {}
            Instruction::Done(name) | Instruction::Unknown(name) => {
                self.text.push(format!("{name} …"));
            }
        }
    }

    fn load(&mut self, source: &Source, to: Register) {
        let (name, kind) = match source {
            Source::Payload { base, offset, len } => payload(*base, *offset, *len, self.protocol),
            Source::Meta(key) => meta(*key),
            Source::Ct { key, .. } => ct(*key),
            Source::Fib { .. } => ("fib …".to_owned(), Kind::Number),
            Source::Other(name) => (name.clone(), Kind::Number),
        };
        if let Some(at) = to {
            self.held.retain(|held| held.at != at);
            self.held.push(Held {
                at,
                name,
                kind,
                mask: None,
            });
        }
    }

    /// What the register holds; a concatenation holds the rest as well.
    fn take(&self, from: Register) -> Held {
        let found = self.held.iter().find(|held| Some(held.at) == from);
        found.cloned().unwrap_or(Held {
            at: 0,
            name: "…".to_owned(),
            kind: Kind::Number,
            mask: None,
        })
    }

    fn compare(&mut self, from: Register, op: u32, data: &[u8]) {
        const SIGNS: [&str; 6] = ["", "!= ", "< ", "<= ", "> ", ">= "];
        let held = self.take(from);
        let mut sign = usize::try_from(op)
            .ok()
            .and_then(|op| SIGNS.get(op))
            .copied();
        let is_dependency = held.name == "meta nfproto" && op == 0;
        if is_dependency {
            return;
        }
        if held.kind == Kind::Protocol && op == 0 {
            self.protocol = data.first().copied().and_then(protocol);
        }
        // `ct state established`: bits of which one has to be set.
        let bits = matches!(held.kind, Kind::State | Kind::Status);
        let value = match &held.mask {
            Some(mask) if bits && data.iter().all(|byte| *byte == 0) => {
                sign = Some(if op == 0 { "!= " } else { "" });
                held.value(mask)
            }
            Some(mask) if held.kind == Kind::Address => {
                let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                format!("{}/{ones}", held.value(data))
            }
            Some(mask) => {
                self.text.push(format!(
                    "{} & {} {}{}",
                    held.name,
                    hex(mask),
                    sign.unwrap_or("? "),
                    hex(data)
                ));
                return;
            }
            None => held.value(data),
        };
        self.text
            .push(format!("{} {}{value}", held.name, sign.unwrap_or("? ")));
    }

    fn lookup(&mut self, from: Register, set: &str, inverted: bool, gives: Gives) {
        let held = self.take(from);
        let not = if inverted { "!= " } else { "" };
        let set = if set.starts_with("__") {
            "{ … }".to_owned()
        } else {
            format!("@{set}")
        };
        self.text.push(match gives {
            Gives::Nothing => format!("{} {not}{set}", held.name),
            Gives::Verdict => format!("{} vmap {set}", held.name),
            Gives::Value(_) => format!("{} map {set}", held.name),
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        let chain = chain.unwrap_or("?");
        self.text.push(match code {
            libc::NF_DROP => "drop".to_owned(),
            libc::NF_ACCEPT => "accept".to_owned(),
            libc::NFT_RETURN => "return".to_owned(),
            libc::NFT_CONTINUE => "continue".to_owned(),
            libc::NFT_JUMP => format!("jump {chain}"),
            libc::NFT_GOTO => format!("goto {chain}"),
            _ => "queue".to_owned(),
        });
    }
}

impl Held {
    fn value(&self, data: &[u8]) -> String {
        match (self.kind, data) {
            (Kind::Address, &[a]) => format!("{a}.0.0.0/8"),
            (Kind::Address, &[a, b]) => format!("{a}.{b}.0.0/16"),
            (Kind::Address, &[a, b, c]) => format!("{a}.{b}.{c}.0/24"),
            (Kind::Address, data) => {
                match (<[u8; 4]>::try_from(data), <[u8; 16]>::try_from(data)) {
                    (Ok(address), _) => Ipv4Addr::from(address).to_string(),
                    (_, Ok(address)) => Ipv6Addr::from(address).to_string(),
                    _ => hex(data),
                }
            }
            (Kind::Link, data) => {
                let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
                let star = if data.contains(&0) { "" } else { "*" };
                format!("\"{}{star}\"", String::from_utf8_lossy(name))
            }
            (Kind::Protocol, &[number]) => {
                protocol(number).map_or_else(|| number.to_string(), str::to_owned)
            }
            (Kind::State, data) => bits(
                data,
                &[
                    "invalid",
                    "established",
                    "related",
                    "new",
                    "",
                    "",
                    "untracked",
                ],
            ),
            (Kind::Status, data) => bits(
                data,
                &[
                    "expected",
                    "seen-reply",
                    "assured",
                    "confirmed",
                    "snat",
                    "dnat",
                ],
            ),
            (Kind::Number, &[high, low]) => u16::from_be_bytes([high, low]).to_string(),
            (Kind::Number, &[number]) => number.to_string(),
            (Kind::Number | Kind::Protocol, data) => hex(data),
        }
    }
}

/// The names of the bits that are set in a number of this machine.
fn bits(data: &[u8], names: &[&str]) -> String {
    let Ok(number) = <[u8; 4]>::try_from(data).map(u32::from_ne_bytes) else {
        return hex(data);
    };
    let set = names.iter().enumerate();
    let set = set.filter(|(bit, _)| number & (1 << bit) != 0);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    set.join(",")
}

fn hex(data: &[u8]) -> String {
    let mut text = "0x".to_owned();
    text.extend(data.iter().map(|byte| format!("{byte:02x}")));
    text
}

const fn protocol(number: u8) -> Option<&'static str> {
    match number {
        1 => Some("icmp"),
        6 => Some("tcp"),
        17 => Some("udp"),
        58 => Some("ipv6-icmp"),
        _ => None,
    }
}

fn payload(base: u32, offset: u32, len: u32, protocol: Option<&str>) -> (String, Kind) {
    let transport = protocol.unwrap_or("th");
    let (name, kind) = match (base, offset, len) {
        (1, 12, ..=4) => ("ip saddr", Kind::Address),
        (1, 16, ..=4) => ("ip daddr", Kind::Address),
        (1, 8, 16) => ("ip6 saddr", Kind::Address),
        (1, 24, 16) => ("ip6 daddr", Kind::Address),
        (1, 9, 1) => ("ip protocol", Kind::Protocol),
        (1, 6, 1) => ("ip6 nexthdr", Kind::Protocol),
        (2, 0, 2) => return (format!("{transport} sport"), Kind::Number),
        (2, 2, 2) => return (format!("{transport} dport"), Kind::Number),
        (2, 13, 1) => ("tcp flags", Kind::Number),
        _ => return (format!("payload {base}+{offset},{len}"), Kind::Number),
    };
    (name.to_owned(), kind)
}

fn meta(key: u32) -> (String, Kind) {
    let (name, kind) = match key {
        3 => ("meta mark", Kind::Number),
        4 => ("iif", Kind::Number),
        5 => ("oif", Kind::Number),
        6 => ("iifname", Kind::Link),
        7 => ("oifname", Kind::Link),
        15 => ("meta nfproto", Kind::Number),
        16 => ("meta l4proto", Kind::Protocol),
        19 => ("meta pkttype", Kind::Number),
        _ => return (format!("meta {key}"), Kind::Number),
    };
    (name.to_owned(), kind)
}

fn ct(key: u32) -> (String, Kind) {
    let (name, kind) = match key {
        0 => ("ct state", Kind::State),
        1 => ("ct direction", Kind::Number),
        2 => ("ct status", Kind::Status),
        3 => ("ct mark", Kind::Number),
        _ => return (format!("ct {key}"), Kind::Number),
    };
    (name.to_owned(), kind)
}

fn name_of(wanted: &Match) -> &str {
    match wanted {
        Match::Comment => "comment",
        Match::State { .. } => "conntrack",
        Match::AddressType { .. } => "addrtype",
        Match::Ports { .. } | Match::All(_) => "multiport",
        Match::Unknown(name) => name,
    }
}
