//! A [`Ruleset`] in the kernel's terms, as plain data.
use nftnl_sys::libc;
use shared::plan::Ruleset;
use shared::plan::ruleset::{BaseChain, Chain, Hook, MAX_NAME_LEN, Rule, is_valid_name};

use crate::expr::{Expr, SetReference};
use crate::matches::{Builder, Contradiction};
use crate::set::SetState;
use crate::sys::ChainHook;

/// `NFTNL_UDATA_COMMENT_MAXLEN`.
const MAX_COMMENT_LEN: usize = 128;

/// Why a [`Ruleset`] can't be given to any kernel. It comes from this program, not from the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRuleset {
    /// A name that nftables can't hold.
    #[error(
        "`{name}` is no name for nftables: it must have 1 to {MAX_NAME_LEN} bytes and no zero byte"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Two objects of the same kind and name.
    #[error("the ruleset has two {kind}s of the name `{name}`")]
    Duplicate {
        /// `chain` or `set`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A jump to a chain, or a match against a set, that the ruleset doesn't have.
    #[error(
        "rule {number} of chain {chain} (`{rule}`) names the {kind} `{name}`, which the ruleset doesn't have"
    )]
    Unknown {
        /// Chain that the rule is in.
        chain: String,
        /// Place of the rule, from 1.
        number: usize,
        /// The rule in nft's syntax.
        rule: String,
        /// `chain` or `set`.
        kind: &'static str,
        /// What is missing.
        name: String,
    },
    /// A map leads to a chain that the ruleset doesn't have.
    #[error("the map {map} jumps to the chain `{chain}`, which the ruleset doesn't have")]
    MapTarget {
        /// The map.
        map: String,
        /// What is missing.
        chain: String,
    },
    /// An element of another family than its set or map.
    #[error("`{name}` has elements of another IP version than its own")]
    ElementFamily {
        /// Set or map.
        name: String,
    },
    /// A rule that could never match.
    #[error("rule {number} of chain {chain} (`{rule}`) is impossible")]
    Rule {
        /// Chain that the rule is in.
        chain: String,
        /// Place of the rule, from 1.
        number: usize,
        /// The rule in nft's syntax.
        rule: String,
        /// Why.
        #[source]
        source: Contradiction,
    },
    /// A comment that nft can't list.
    #[error(
        "the comment of rule {number} of chain {chain} has more than {MAX_COMMENT_LEN} bytes, a quote or a zero byte"
    )]
    Comment {
        /// Chain that the rule is in.
        chain: String,
        /// Place of the rule, from 1.
        number: usize,
    },
}

/// A table in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) table: String,
    /// Names of named counters.
    pub(crate) counters: Vec<String>,
    /// Named sets and maps.
    pub(crate) sets: Vec<SetState>,
    pub(crate) chains: Vec<CompiledChain>,
}

/// A chain in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompiledChain {
    pub(crate) name: String,
    pub(crate) hook: Option<ChainHook>,
    pub(crate) rules: Vec<CompiledRule>,
}

/// A rule in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompiledRule {
    /// In nft's syntax, for messages.
    pub(crate) text: String,
    pub(crate) expressions: Vec<Expr>,
    pub(crate) comment: Option<String>,
}

/// Translates and checks a ruleset.
pub(crate) fn compile(ruleset: &Ruleset) -> Result<Program, InvalidRuleset> {
    check_name(&ruleset.table)?;
    let sets = compile_sets(ruleset)?;
    let counters: Vec<String> = ruleset
        .counters()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    counters.iter().try_for_each(|name| check_name(name))?;
    let chains = ruleset
        .chains
        .iter()
        .map(compile_chain)
        .collect::<Result<Vec<_>, _>>()?;
    let program = Program {
        table: ruleset.table.clone(),
        counters,
        sets,
        chains,
    };
    let set_names: Vec<&str> = program.sets.iter().map(|s| s.name.as_str()).collect();
    let chain_names: Vec<&str> = program.chains.iter().map(|c| c.name.as_str()).collect();
    check_unique("set", &set_names)?;
    check_unique("chain", &chain_names)?;
    check_references(&program)?;
    Ok(program)
}

fn compile_sets(ruleset: &Ruleset) -> Result<Vec<SetState>, InvalidRuleset> {
    let sets = ruleset.sets.iter().map(SetState::of_addresses);
    let maps = ruleset.maps.iter().map(SetState::of_verdicts);
    let sets: Vec<SetState> = sets.chain(maps).collect();
    for set in &sets {
        check_name(&set.name)?;
        if set
            .elements
            .iter()
            .any(|e| e.key.len() != set.key.len() as usize)
        {
            return Err(InvalidRuleset::ElementFamily {
                name: set.name.clone(),
            });
        }
    }
    Ok(sets)
}

fn compile_chain(chain: &Chain) -> Result<CompiledChain, InvalidRuleset> {
    check_name(&chain.name)?;
    let rules = chain
        .rules
        .iter()
        .enumerate()
        .map(|(index, rule)| compile_rule(&chain.name, index + 1, rule));
    Ok(CompiledChain {
        name: chain.name.clone(),
        hook: chain.base.map(hook),
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn compile_rule(chain: &str, number: usize, rule: &Rule) -> Result<CompiledRule, InvalidRuleset> {
    let mut builder = Builder::default();
    for part in rule.essential_parts() {
        builder.part(part).map_err(|source| InvalidRuleset::Rule {
            chain: chain.to_owned(),
            number,
            rule: rule.to_string(),
            source,
        })?;
    }
    let bad =
        |comment: &String| comment.len() > MAX_COMMENT_LEN || comment.contains(['"', '\0', '\n']);
    if rule.comment.as_ref().is_some_and(bad) {
        return Err(InvalidRuleset::Comment {
            chain: chain.to_owned(),
            number,
        });
    }
    Ok(CompiledRule {
        text: rule.to_string(),
        expressions: builder.finish(),
        comment: rule.comment.clone(),
    })
}

/// Our base chains accept by default: packets of others are not our business.
fn hook(base: BaseChain) -> ChainHook {
    let hook = match base.hook {
        Hook::Prerouting => libc::NF_INET_PRE_ROUTING,
        Hook::Input => libc::NF_INET_LOCAL_IN,
        Hook::Forward => libc::NF_INET_FORWARD,
        Hook::Output => libc::NF_INET_LOCAL_OUT,
        Hook::Postrouting => libc::NF_INET_POST_ROUTING,
    };
    ChainHook {
        kind: base.kind.name().to_owned(),
        hook: hook.unsigned_abs(),
        priority: base.priority,
        policy: libc::NF_ACCEPT.unsigned_abs(),
    }
}

fn check_name(name: &str) -> Result<(), InvalidRuleset> {
    if !is_valid_name(name) {
        return Err(InvalidRuleset::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_unique(kind: &'static str, names: &[&str]) -> Result<(), InvalidRuleset> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(*name) {
            return Err(InvalidRuleset::Duplicate {
                kind,
                name: (*name).to_owned(),
            });
        }
    }
    Ok(())
}

/// The kernel would refuse these, too, but only with `No such file or directory`.
fn check_references(program: &Program) -> Result<(), InvalidRuleset> {
    let has_chain = |name: &str| program.chains.iter().any(|c| c.name == name);
    let has_set = |name: &str| program.sets.iter().any(|s| s.name == name);
    for set in &program.sets {
        let targets = set
            .elements
            .iter()
            .filter_map(|e| e.target.as_ref()?.chain.as_ref());
        if let Some(missing) = targets.into_iter().find(|chain| !has_chain(chain)) {
            return Err(InvalidRuleset::MapTarget {
                map: set.name.clone(),
                chain: missing.clone(),
            });
        }
    }
    for chain in &program.chains {
        for (index, rule) in chain.rules.iter().enumerate() {
            let (chains, sets) = rule.references();
            let chain_missing = chains
                .into_iter()
                .find(|name| !has_chain(name))
                .map(|name| ("chain", name));
            let set_missing = sets
                .into_iter()
                .find(|name| !has_set(name))
                .map(|name| ("set", name));
            if let Some((kind, name)) = chain_missing.or(set_missing) {
                return Err(InvalidRuleset::Unknown {
                    chain: chain.name.clone(),
                    number: index + 1,
                    rule: rule.text.clone(),
                    kind,
                    name: name.to_owned(),
                });
            }
        }
    }
    Ok(())
}

impl CompiledRule {
    /// Names of the chains that it jumps to and of the sets that it looks into.
    fn references(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut chains, mut sets) = (Vec::new(), Vec::new());
        for expr in &self.expressions {
            if let Expr::Verdict {
                chain: Some(name), ..
            } = expr
            {
                chains.push(name.as_str());
            }
            if let Expr::Lookup {
                set: SetReference::Named(name),
                ..
            } = expr
            {
                sets.push(name.as_str());
            }
        }
        (chains, sets)
    }
}

#[cfg(test)]
mod tests {
    use shared::config::common::Protocol;
    use shared::plan::ruleset::{Family, Part, Set, Side, VerdictMap};

    use super::*;

    fn ruleset(rules: Vec<Rule>) -> Ruleset {
        Ruleset {
            table: "t".to_owned(),
            sets: vec![Set {
                name: "s".to_owned(),
                family: Family::Ipv4,
                elements: Vec::new(),
            }],
            maps: Vec::new(),
            chains: vec![Chain {
                name: "c".to_owned(),
                base: None,
                rules,
            }],
        }
    }

    fn rule(parts: &[Part]) -> Rule {
        Rule {
            parts: parts.to_vec(),
            comment: None,
        }
    }

    /// The error of a ruleset whose second rule is this one, with its causes.
    fn error(parts: &[Part]) -> String {
        let error = compile(&ruleset(vec![rule(&[Part::Accept]), rule(parts)])).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    }

    fn address(text: &str) -> Part {
        Part::Address {
            side: Side::Source,
            network: text.parse().unwrap(),
            negated: false,
        }
    }

    #[test]
    fn a_rule_that_can_never_match_is_an_error_with_its_place_and_text() {
        assert_eq!(
            error(&[address("10.0.0.1/32"), address("fd00::1/128")]),
            "rule 2 of chain c (`ip saddr 10.0.0.1 ip6 saddr fd00::1`) is impossible: it asks for IPv4 and for IPv6"
        );
        assert_eq!(
            error(&[
                Part::TransportProtocol(Protocol::Udp),
                Part::Counter,
                Part::ClampMss
            ]),
            "rule 2 of chain c (`meta l4proto udp counter tcp flags syn tcp option maxseg size set rt mtu`) is \
             impossible: it asks for two different transport protocols"
        );
        let dnat = Part::Dnat {
            address: "10.0.0.1".parse().unwrap(),
            port: Some(443),
        };
        assert_eq!(
            error(&[dnat]),
            "rule 2 of chain c (`dnat ip to 10.0.0.1:443`) is impossible: it changes a port without matching TCP or \
             UDP first"
        );
        assert_eq!(
            error(&[Part::Ports {
                protocol: Protocol::Tcp,
                side: Side::Source,
                ports: Vec::new()
            }]),
            "rule 2 of chain c (`tcp sport {  }`) is impossible: it lists no ports"
        );
    }

    #[test]
    fn what_a_rule_names_must_be_there() {
        assert_eq!(
            error(&[Part::Jump("nowhere".to_owned())]),
            "rule 2 of chain c (`jump nowhere`) names the chain `nowhere`, which the ruleset doesn't have"
        );
        let set = Part::AddressInSet {
            side: Side::Source,
            family: Family::Ipv4,
            set: "none".to_owned(),
            negated: true,
        };
        assert_eq!(
            error(&[set]),
            "rule 2 of chain c (`ip saddr != @none`) names the set `none`, which the ruleset doesn't have"
        );
        let mut with_map = ruleset(Vec::new());
        with_map.maps.push(VerdictMap {
            name: "m".to_owned(),
            family: Family::Ipv4,
            elements: vec![("10.0.0.1".parse().unwrap(), "nowhere".into())],
        });
        let error = compile(&with_map).unwrap_err().to_string();
        assert_eq!(
            error,
            "the map m jumps to the chain `nowhere`, which the ruleset doesn't have"
        );
    }

    #[test]
    fn names_are_valid_and_unique() {
        let mut twice = ruleset(Vec::new());
        twice.chains.push(Chain {
            name: "c".to_owned(),
            base: None,
            rules: Vec::new(),
        });
        assert_eq!(
            compile(&twice).unwrap_err().to_string(),
            "the ruleset has two chains of the name `c`"
        );
        let mut word = ruleset(Vec::new());
        word.table = "drop".to_owned();
        assert_eq!(
            compile(&word),
            Err(InvalidRuleset::Name {
                name: "drop".to_owned()
            })
        );
    }

    #[test]
    fn elements_have_the_family_of_their_set() {
        let mut mixed = ruleset(Vec::new());
        mixed.sets[0].elements.push("fd00::/8".parse().unwrap());
        assert_eq!(
            compile(&mixed),
            Err(InvalidRuleset::ElementFamily {
                name: "s".to_owned()
            })
        );
    }
}
